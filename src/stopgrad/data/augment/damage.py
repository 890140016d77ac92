"""Augmentations that lose pixels: noise and erased rectangles.

Legend: B images, C channels, H W image.
"""

from math import log, prod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from stopgrad.data.augment.draws import Draws, normals
from stopgrad.data.augment.op import Params, PositiveRange, Probability, Range, Sometimes, between, per_image

_TRIES = 10

Fill = Literal["mean"] | float
"""What an erased pixel becomes: a value, or the mean of its image, channel by channel."""


class GaussianNoise(Sometimes):
    """Add independent normal noise to every value; clamped to [0, 1]. torchvision's GaussianNoise.

    The standard deviation is uniform in ``sigma``, drawn for each image.
    """

    op: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: Range

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``sigma``: (B,); ``key``: int64 (B,), from which the noise of each image is counted."""
        return {"sigma": between(draws.uniform("sigma"), self.sigma), "key": draws.keys("noise")}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Add noise to every image."""
        noise = normals(params["key"], prod(images.shape[1:])).view_as(images)
        return images.addcmul_(noise, per_image(params["sigma"])).clamp_(0.0, 1.0)


class Erase(Sometimes):
    """Fill a rectangle of random area, aspect and place; torchvision's RandomErasing.

    Ten tries of an area (a share of the image, uniform in ``scale``) and an aspect ratio (height over width,
    log-uniform in ``ratio``); the image stays as it is when none fits.
    """

    op: Literal["erase"] = "erase"
    p: Probability = 0.5
    scale: Range = (0.02, 0.33)
    ratio: PositiveRange = (0.3, 3.3)
    fill: Fill = 0.0

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``box``: int64 (B, 4) of top, left, height, width; an empty one where nothing is erased."""
        unit = draws.uniform("box", (2 * _TRIES + 2,))
        area = between(unit[:, :_TRIES], self.scale) * (height * width)
        ratio = between(unit[:, _TRIES : 2 * _TRIES], (log(self.ratio[0]), log(self.ratio[1]))).exp_()
        heights = (area * ratio).sqrt_().round_()
        widths = area.div_(ratio).sqrt_().round_()
        fits = (heights < height) & (widths < width)
        first = fits.to(torch.uint8).argmax(1, keepdim=True)
        found = fits.gather(1, first).squeeze(1)
        tall = heights.gather(1, first).squeeze(1) * found
        wide = widths.gather(1, first).squeeze(1) * found
        top = unit[:, -2] * (height - tall + 1)
        left = unit[:, -1] * (width - wide + 1)
        return {"box": torch.stack([top, left, tall, wide], 1).to(torch.int64)}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Erase a rectangle of every image."""
        return fill_boxes(images, params["box"], self.fill)


class Cutout(Sometimes):
    """Fill a ``side`` x ``side`` square that lies inside the image, all places alike."""

    op: Literal["cutout"] = "cutout"
    side: int = Field(gt=0)
    fill: Fill = "mean"

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``box``: int64 (B, 4) of top, left, height, width."""
        tall, wide = min(self.side, height), min(self.side, width)
        free = torch.tensor([height - tall + 1, width - wide + 1])
        place = draws.uniform("place", (2,))
        corner = (place * free.to(place.device)).to(torch.int64)
        return {"box": torch.cat([corner, corner.new_tensor([tall, wide]).expand_as(corner)], 1)}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Erase a square of every image."""
        return fill_boxes(images, params["box"], self.fill)


def fill_boxes(images: Tensor, box: Tensor, fill: Fill) -> Tensor:
    """Fill one rectangle (top, left, height, width in ``box``, (B, 4)) of each image (B, C, H, W)."""
    top, left, tall, wide = box.view(-1, 4, 1).unbind(1)
    y = torch.arange(images.shape[-2], device=images.device)
    x = torch.arange(images.shape[-1], device=images.device)
    inside = ((y >= top) & (y < top + tall)).unsqueeze(2) & ((x >= left) & (x < left + wide)).unsqueeze(1)
    if fill == "mean":
        return torch.where(inside.unsqueeze(1), images.mean((2, 3), keepdim=True), images)
    return images.masked_fill_(inside.unsqueeze(1), fill)
