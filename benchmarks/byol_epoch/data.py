"""The images of both sides: coloured shapes made here, and the bundled digits."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.data.sources import ArrayPart, Dataset, DataSettings, load_dataset

Array = NDArray[Any]
_TOGETHER = 256  # images drawn at once: their float64 fill some gigabytes otherwise


def shapes(train: int, val: int, size: int = 32, copies: int = 1) -> Dataset:
    """Ten classes of colour images: five shapes, striped or checked, at random pose and in random hues.

    Colours and place say nothing of the class, so that raw pixels do not give it away. Each training image is
    there ``copies`` times: speed asks for bytes, not for images that differ.
    """
    rng = np.random.RandomState(0)
    count = train + val
    labels = rng.randint(0, 10, count)
    angle, scale = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.5, 0.8, count)
    shift, colours = rng.uniform(-0.3, 0.3, (count, 2)), rng.uniform(0, 1, (2, count, 3, 1, 1))
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for start in range(0, count, _TOGETHER):
        part = slice(start, start + _TOGETHER)
        drawn = draw(size, labels[part], angle[part], scale[part], shift[part], colours[:, part])
        drawn = drawn + rng.normal(0, 0.05, drawn.shape)
        images[part] = torch.from_numpy(np.rint(drawn.clip(0, 1) * 255).astype(np.uint8))
    dataset = split(images, torch.from_numpy(labels.astype(np.int64)), train)
    if copies == 1:
        return dataset
    rows = torch.arange(train).repeat(copies)
    return replace(dataset, train=dataset.train.take(rows))


def draw(size: int, labels: Array, angle: Array, scale: Array, shift: Array, colours: Array) -> Array:
    """Shapes without noise, (N, 3, S, S) in [0, 1]."""
    centre = (np.arange(size) + 0.5) / (size / 2) - 1
    x, y = centre[None, None, :] - shift[:, :1, None], centre[None, :, None] - shift[:, 1:, None]
    cos, sin = ((f(angle) / scale)[:, None, None] for f in (np.cos, np.sin))
    u, v = cos * x + sin * y, cos * y - sin * x
    radius, side = np.hypot(u, v), np.maximum(abs(u), abs(v))
    masks = [
        radius < 0.9,
        side < 0.75,
        (radius < 0.95) & (radius > 0.5),
        (np.minimum(abs(u), abs(v)) < 0.25) & (side < 0.9),
        (v > -0.6) & (v + 1.7 * abs(u) < 0.8),
    ]
    inside = np.select([(labels % 5 == i)[:, None, None] for i in range(5)], masks)
    stripes, across = np.sin(9 * u), np.sin(9 * v)
    texture = 0.75 + 0.25 * np.sign(np.where((labels < 5)[:, None, None], stripes, stripes * across))
    return np.where(inside[:, None], colours[0] * texture[:, None], colours[1])


def split(images: Tensor, labels: Tensor, train: int) -> Dataset:
    """A data set whose training part shows no labels to the trainer; ``probe`` has them for kNN."""
    ids = [str(i) for i in range(len(images))]
    probe = ArrayPart(images[:train], labels[:train], ids[:train])
    held_out = ArrayPart(images[train:], labels[train:], ids[train:])
    pixels = probe.images.float() / 255
    mean, std = (tuple(f(pixels, dim=(0, 2, 3)).tolist()) for f in (torch.mean, torch.std))
    return Dataset(
        name="shapes", classes=tuple("0123456789"), channels=images.shape[1], mean=mean, std=std,
        train=replace(probe, labels=None), val=held_out, test=held_out, probe=probe, skipped=(),
    )  # fmt: skip


def digits() -> Dataset:
    """The bundled digits, with labels for kNN alone."""
    dataset = load_dataset(DataSettings(name="digits"))
    return replace(dataset, train=replace(dataset.train, labels=None), probe=dataset.train)
