"""What every data set is made of: a train, a validation and a test part.

Shapes: N images, C channels, H W pixels.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stopgrad.data.sources.blobs import Texts
from stopgrad.data.sources.checks import Store
from stopgrad.data.sources.decode import Shrink, UnreadableImage, printable, read_shrunk, resize_square
from stopgrad.errors import UsageError

log = logging.getLogger(__name__)


def fixed_permutation(count: int) -> Tensor:
    """The permutation of ``count`` images that splits are made by, int64: the same for good, everywhere."""
    return torch.from_numpy(np.random.RandomState(0).permutation(count).astype(np.int64))


def held_out_count(count: int) -> int:
    """How many of ``count`` training images stand in for a part that a set does not have.

    >>> [held_out_count(n) for n in (8, 20, 200, 50_000)]
    [2, 5, 20, 5000]
    """
    return max(1, min(8, count // 4), count // 10)


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """Images of one size in memory: ``images`` uint8 (N,C,H,W), ``labels`` int64 (N,) or None."""

    images: Tensor
    labels: Tensor | None
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.images.shape[1]

    def take(self, rows: Tensor) -> "ArrayPart":
        """The part with the images ``rows`` (int64), in that order."""
        labels = None if self.labels is None else self.labels[rows]
        return ArrayPart(self.images[rows], labels, [self.ids[i] for i in rows.tolist()])


class Files:
    """Image files below a folder: a store of their paths relative to ``root``."""

    near = None

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self.root, self.place = root, str(root)
        self.paths = paths if isinstance(paths, Texts) else Texts(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        """The path relative to the root."""
        return printable(self.paths[row])

    def open(self, row: int) -> str:
        """The whole path."""
        return os.path.join(self.root, self.paths[row])


class FilePart:
    """Images of any size, decoded when asked for.

    An image that can no longer be read is replaced by the next readable one (of the same label where there
    are labels), always the same one, with a warning the first time.

    Args:
        store: where the encoded images are.
        labels: int64 (N,) or None.
        channels: 1 or 3.
        size: stored size (see ``DataSettings.image_size``), None for the images' own.
        rows: of the store, int64 (N,), all by default.
    """

    def __init__(
        self,
        store: Store,
        labels: Tensor | None,
        channels: int,
        size: int | None = None,
        rows: Tensor | None = None,
    ) -> None:
        self.store, self.labels, self.channels, self.size = store, labels, channels, size
        self._rows = torch.arange(len(store)) if rows is None else rows
        self._reported: set[int] = set()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> Sequence[str]:
        """What a person finds the images by: paths relative to the root, where they are files."""
        return [self.store.name(row) for row in self._rows.tolist()]

    def take(self, rows: Tensor) -> "FilePart":
        """The part with the images ``rows`` (int64), in that order."""
        labels = None if self.labels is None else self.labels[rows]
        return FilePart(self.store, labels, self.channels, self.size, self._rows[rows])

    def __getitem__(self, i: int) -> Tensor:
        return self.read(i)

    def read(self, i: int, shrink: Shrink | None = None) -> Tensor:
        """Image ``i``, uint8 (C,H,W); at a part of its size where ``shrink`` allows it and none is stored."""
        for candidate in self._stand_ins(range(len(self))[i]):
            row = int(self._rows[candidate])
            name = self.store.name(row)
            try:
                image = read_shrunk(
                    self.store.open(row), self.channels, name, shrink if self.size is None else None
                )
            except UnreadableImage as error:
                if candidate not in self._reported:
                    self._reported.add(candidate)
                    log.warning(
                        "%s: %s can no longer be read (%s): another image takes its place",
                        self.store.place, name, error,
                    )  # fmt: skip
                continue
            pixels = torch.from_numpy(image)
            return pixels if self.size is None else resize_square(pixels[None], self.size)[0]
        raise UsageError(f"{self.store.place}: no image of it can be read any more")

    def _stand_ins(self, i: int) -> Iterator[int]:
        """``i``, then the images that may take its place."""
        for step in range(len(self)):
            j = (i + step) % len(self)
            if self.labels is None or bool(self.labels[j] == self.labels[i]):
                yield j


Part = ArrayPart | FilePart


@dataclass(frozen=True)
class Loaded:
    """What a loader hands over; ``load_dataset`` makes a ``Dataset`` of it.

    ``statistics`` are the per-channel (mean, std) that the field uses for the set, None to compute them.
    """

    train: Part
    val: Part
    test: Part
    classes: tuple[str, ...] | None = None
    skipped: tuple[Skipped, ...] = ()
    probe: Part | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three parts.

    ``mean`` and ``std`` are per channel, of images in [0, 1]. ``probe`` is the labelled part on which probes
    and kNN banks are fitted: the train part, except where pretraining uses unlabelled images too (STL-10).
    """

    name: str
    classes: tuple[str, ...] | None
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Part
    val: Part
    test: Part
    probe: Part
    skipped: tuple[Skipped, ...] = ()
