"""Batched augmentation on the device of the images, every image with parameters of its own."""

from typing import Annotated

from pydantic import Field

from stopgrad.data.augment.blur import BoxBlur, GaussianBlur
from stopgrad.data.augment.color import Brightness, ColorJitter, Grayscale, LogContrast, Solarize
from stopgrad.data.augment.damage import Cutout, Erase, GaussianNoise
from stopgrad.data.augment.draws import Draws
from stopgrad.data.augment.geometry import Affine, HorizontalFlip, RandomResizedCrop, Rotation
from stopgrad.data.augment.op import Op, Params

AnyOp = Annotated[
    RandomResizedCrop
    | HorizontalFlip
    | Rotation
    | Affine
    | ColorJitter
    | Grayscale
    | Solarize
    | LogContrast
    | Brightness
    | GaussianBlur
    | BoxBlur
    | GaussianNoise
    | Erase
    | Cutout,
    Field(discriminator="op"),
]
"""Any augmentation, told apart by ``op`` in a configuration file."""

__all__ = [
    "Affine",
    "AnyOp",
    "BoxBlur",
    "Brightness",
    "ColorJitter",
    "Cutout",
    "Draws",
    "Erase",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "HorizontalFlip",
    "LogContrast",
    "Op",
    "Params",
    "RandomResizedCrop",
    "Rotation",
    "Solarize",
]
