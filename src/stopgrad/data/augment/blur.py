"""Augmentations that blur.

Legend: B images, C channels, H W image, K taps of a kernel.
"""

from functools import lru_cache
from math import sqrt
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import one_hot

from stopgrad.data.augment.draws import Draws
from stopgrad.data.augment.op import Params, PositiveRange, Sometimes, between, per_image
from stopgrad.data.augment.resample import separable


class GaussianBlur(Sometimes):
    """Gaussian blur of a random width, edges reflected; torchvision's GaussianBlur.

    ``kernel`` taps (odd); the standard deviation is uniform in ``sigma``, in pixels.
    """

    op: Literal["gaussian_blur"] = "gaussian_blur"
    kernel: int = Field(gt=0)
    sigma: PositiveRange = (0.1, 2.0)

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"a kernel has a middle: an odd number of taps, got {kernel}")
        return kernel

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``sigma``: (B,), pixels."""
        return {"sigma": between(draws.uniform("sigma"), self.sigma)}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Blur every image: rows and columns are multiplied by the band matrix of its own kernel."""
        height, width = images.shape[-2:]
        taps = self._taps(params["sigma"])
        rows = (taps @ _shifts(self.kernel, height, images.device)).view(-1, height, height)
        columns = (
            rows
            if width == height
            else (taps @ _shifts(self.kernel, width, images.device)).view(-1, width, width)
        )
        return separable(images, rows, columns)

    def _taps(self, sigma: Tensor) -> Tensor:
        # (B, K). torchvision's kernel: it spaces the taps 1 / sqrt(2) apart and leaves out the 2 of the
        # Gaussian
        reach = (self.kernel - 1) / (2 * sqrt(2))
        place = torch.linspace(-reach, reach, self.kernel, device=sigma.device)
        taps = torch.softmax((place / sigma.unsqueeze(1)).square_().neg_(), 1)
        # below the rounding of the sum, and where it is denormal a product takes a hundred times as long
        return taps.masked_fill_(taps < 1e-10, 0.0)


@lru_cache(maxsize=8)
def _shifts(kernel: int, size: int, device: torch.device) -> Tensor:
    # (K, size * size): for each tap the matrix that moves every pixel to it, reflected at the edges
    place = torch.arange(size).unsqueeze(0) + torch.arange(kernel).unsqueeze(1) - kernel // 2
    place = (size - 1) - ((size - 1) - place.abs()).abs()
    return one_hot(place, size).to(device, torch.float32).view(kernel, -1)


class BoxBlur(Sometimes):
    """Mix the image with its 3 x 3 mean, which takes a share uniform in [0, 1]; the edge is not padded."""

    op: Literal["box_blur"] = "box_blur"

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``share``: (B,)."""
        return {"share": draws.uniform("share")}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Blur every image."""
        # a pass each way as a product: small images take an eighth of avg_pool2d's time
        down, across = (_means_of_three(side, images.device) for side in images.shape[-2:])
        mean = down @ images @ across.T
        return images.lerp_(mean, per_image(params["share"]))


@lru_cache(maxsize=8)
def _means_of_three(size: int, device: torch.device) -> Tensor:
    # (size, size): the mean of a pixel and its neighbours in a row, of two at its ends
    near = torch.ones(size, size).triu(-1).tril(1)
    return (near / near.sum(1, keepdim=True)).to(device)
