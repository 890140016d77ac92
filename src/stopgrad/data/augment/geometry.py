"""Augmentations that move pixels: crop, flip, rotation, small affine maps.

Legend: B images, C channels, H W image, S target size.
"""

from math import log
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from stopgrad.data.augment import resample
from stopgrad.data.augment.draws import Draws
from stopgrad.data.augment.op import Op, Params, PositiveRange, Probability, Range, Sometimes, between

_TRIES = 10


class RandomResizedCrop(Op):
    """A rectangle of random area and aspect, resized to ``size``; torchvision's RandomResizedCrop.

    Ten tries of an area (a share of the image, uniform in ``scale``) and an aspect ratio (log-uniform in
    ``ratio``); if no rectangle fits, the largest one in the middle with an allowed ratio.

    ``flip`` mirrors the crop left to right with that probability: the same as a HorizontalFlip after it,
    without a pass over the pixels.
    """

    op: Literal["random_resized_crop"] = "random_resized_crop"
    size: int = Field(gt=0)
    scale: Range = (0.08, 1.0)
    ratio: PositiveRange = (3 / 4, 4 / 3)
    antialias: bool = True
    flip: Probability = 0.0

    def sample(self, draws: Draws, height: int, width: int) -> Params:
        """``box``: int64 (B, 4) of top, left, height, width; ``flip``: bool (B,)."""
        unit = draws.uniform("box", (2 * _TRIES + 3,))
        area = between(unit[:, :_TRIES], self.scale) * (height * width)
        ratio = between(unit[:, _TRIES : 2 * _TRIES], (log(self.ratio[0]), log(self.ratio[1]))).exp_()
        widths = (area * ratio).sqrt_().round_()
        heights = area.div_(ratio).sqrt_().round_()
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        # the first try that fits: argmax gives the first of equal values
        first = fits.to(torch.uint8).argmax(1, keepdim=True)
        found = fits.gather(1, first).squeeze(1)
        fallback = self._fallback(height, width)
        crop_height = torch.where(found, heights.gather(1, first).squeeze(1), fallback[0])
        crop_width = torch.where(found, widths.gather(1, first).squeeze(1), fallback[1])
        place = unit[:, 2 * _TRIES : 2 * _TRIES + 2]
        top = torch.where(found, place[:, 0] * (height - crop_height + 1), (height - fallback[0]) // 2)
        left = torch.where(found, place[:, 1] * (width - crop_width + 1), (width - fallback[1]) // 2)
        # a product with a number below 1 never rounds up to the bound, so the floor stays inside
        box = torch.stack([top, left, crop_height, crop_width], 1).to(torch.int64)
        return {"box": box, "flip": unit[:, -1] < self.flip}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """(B, C, H, W) -> (B, C, S, S)."""
        box = params["box"].to(images.device, torch.float32, non_blocking=True)
        flip = params["flip"].to(images.device, non_blocking=True)
        top, left, tall, wide = box.unbind(1)
        height, width = images.shape[-2:]
        y = resample.centres(top, tall, self.size, torch.zeros_like(flip))
        x = resample.centres(left, wide, self.size, flip)
        # with nothing to average, two pixels a row: four times as fast at 224 x 224 as products of matrices
        if not self.antialias or max(height, width) <= self.size:
            return resample.bilinear(images, y, x, box)
        rows = resample.triangles(y, top, tall, height)
        return resample.separable(images, rows, resample.triangles(x, left, wide, width))

    def crop(self, image: Tensor, params: Params) -> Tensor:
        """One uint8 image (C, H, W) -> uint8 (C, S, S) by the first of ``params``; rounds as torchvision."""
        top, left, height, width = params["box"][0].tolist()
        piece = image[:, top : top + height, left : left + width].unsqueeze(0)
        size = (self.size, self.size)
        piece = interpolate(
            piece, size, mode="bilinear", align_corners=False, antialias=self.antialias
        ).squeeze(0)
        return piece.flip(-1) if bool(params["flip"][0]) else piece

    def _fallback(self, height: int, width: int) -> tuple[int, int]:
        if width / height < self.ratio[0]:
            return round(width / self.ratio[0]), width
        if width / height > self.ratio[1]:
            return height, round(height * self.ratio[1])
        return height, width


class HorizontalFlip(Sometimes):
    """Mirror left to right; torchvision's RandomHorizontalFlip."""

    op: Literal["horizontal_flip"] = "horizontal_flip"
    p: Probability = 0.5

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """None: the choice is all."""
        return {}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Mirror every image."""
        return images.flip(-1)


class Rotation(Sometimes):
    """Turn about the centre by an angle uniform in +-``degrees``, bilinearly; what comes in is black.

    torchvision's ``rotate`` with bilinear interpolation and no fill; positive angles turn counter-clockwise.
    """

    op: Literal["rotation"] = "rotation"
    degrees: float = Field(ge=0, le=180)

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``angle``: (B,), degrees."""
        return {"angle": between(draws.uniform("angle"), (-self.degrees, self.degrees))}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Turn every image."""
        angle = params["angle"].deg2rad()
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        matrix = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
        return resample.affine(images, matrix, padding="zeros")


class Affine(Sometimes):
    """Rotation, zoom, shear and shift in one bilinear resampling; the image's edge is continued outwards.

    The target's pixel x (from the centre) is taken from the source at R(angle) K(shear) x / zoom - shift,
    with K the map x + shear * y. ``rotation`` in radians; ``zoom`` log-uniform, above 1 enlarges; ``shift``
    in shares of the side; ``shear`` a slope. All but ``zoom`` are the largest absolute value.
    """

    op: Literal["affine"] = "affine"
    rotation: float = Field(0.0, ge=0)
    zoom: PositiveRange = (1.0, 1.0)
    shift: float = Field(0.0, ge=0)
    shear: float = Field(0.0, ge=0)

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``matrix``: (B, 2, 3), from the target's pixels to the source's, both from the centre."""
        turn, zoom, shear, shift_x, shift_y = draws.uniform("matrix", (5,)).unbind(1)
        angle = between(turn, (-self.rotation, self.rotation))
        shrink = between(zoom, (log(self.zoom[0]), log(self.zoom[1]))).neg_().exp_()
        slope = between(shear, (-self.shear, self.shear))
        cos, sin = angle.cos() * shrink, angle.sin() * shrink
        right = between(shift_x, (-self.shift * width, self.shift * width))
        down = between(shift_y, (-self.shift * height, self.shift * height))
        rows = [cos, slope * cos - sin, -right, sin, slope * sin + cos, -down]
        return {"matrix": torch.stack(rows, 1).view(-1, 2, 3)}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Move every image."""
        return resample.affine(images, params["matrix"], padding="border")
