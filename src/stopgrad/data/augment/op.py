"""What an augmentation is: parameters drawn for each image, then applied to the batch.

Legend: B images, C channels, H W image.
"""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from stopgrad.data.augment.draws import Draws

Params = dict[str, Tensor]
"""Named parameters, each (B, ...): what happens to each image of the batch."""

Probability = Annotated[float, Field(ge=0, le=1)]


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError(f"a range is (lowest, highest), got ({span[0]}, {span[1]})")
    return span


_AtLeastZero = Annotated[float, Field(ge=0)]
_AboveZero = Annotated[float, Field(gt=0)]

Range = Annotated[tuple[_AtLeastZero, _AtLeastZero], AfterValidator(_ordered)]
"""(lowest, highest), none below 0."""

PositiveRange = Annotated[tuple[_AboveZero, _AboveZero], AfterValidator(_ordered)]
"""(lowest, highest), both above 0."""


class Op(BaseModel, ABC):
    """One augmentation: its settings, how its parameters are drawn, and what they do.

    A subclass adds a field ``op`` that names it in a configuration file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str

    @abstractmethod
    def sample(self, draws: Draws, height: int, width: int) -> Params:
        """Draw the parameters of every image, for images of ``height`` x ``width`` pixels."""

    @abstractmethod
    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Change float images (B, C, H, W) in [0, 1] by ``params``; may overwrite ``images``."""


class Sometimes(Op):
    """An augmentation that keeps the image's size and happens to each image with probability ``p``."""

    p: Probability = 1.0

    @abstractmethod
    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """Parameters for every image, used or not."""

    @abstractmethod
    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Change every image of the batch; may overwrite ``images``."""

    def sample(self, draws: Draws, height: int, width: int) -> Params:
        """The parameters and, unless ``p`` is 1, ``chosen``: bool (B,)."""
        params = self.parameters(draws, height, width)
        if self.p < 1:
            params["chosen"] = draws.uniform("chosen") < self.p
        return params

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Transform the chosen images, or all where there is no choice; may overwrite ``images``."""
        if "chosen" not in params:
            return self.transform(images, _on(images.device, params))
        # found where the draws were made: with an index on the CPU this never waits for the device
        rows = params["chosen"].nonzero().squeeze(1)
        if not len(rows):
            return images
        chosen = {name: values[rows] for name, values in params.items() if name != "chosen"}
        rows = rows.to(images.device, non_blocking=True)
        changed = self.transform(images.index_select(0, rows), _on(images.device, chosen))
        return images.index_copy_(0, rows, changed)


def _on(device: torch.device, params: Params) -> Params:
    return {name: values.to(device, non_blocking=True) for name, values in params.items()}


def between(unit: Tensor, span: tuple[float, float]) -> Tensor:
    """Uniform numbers on [0, 1) spread over ``span``."""
    return unit * (span[1] - span[0]) + span[0]


def per_image(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
