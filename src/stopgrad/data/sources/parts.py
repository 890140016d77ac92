"""What every data set is made of: a train, a validation and a test part.

Shapes: N images, C channels, H W pixels.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stopgrad.data.sources.decode import UnreadableImage, printable, read_image, resize_square
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


class FilePart:
    """Images of any size, decoded from files when asked for.

    A file that can no longer be read is replaced by the next readable one (of the same label where there are
    labels), always the same one, with a warning the first time.

    Args:
        root: folder that ``paths`` are relative to.
        paths: N file names.
        labels: int64 (N,) or None.
        channels: 1 or 3.
        size: stored size (see ``DataSettings.image_size``), None for the files' own.
    """

    def __init__(
        self, root: Path, paths: Sequence[str], labels: Tensor | None, channels: int, size: int | None = None
    ) -> None:
        self.root, self.labels, self.channels, self.size = root, labels, channels, size
        # an array and not a list: touching a million str objects would copy their pages into every worker
        self._paths = np.array(paths, dtype=np.str_)
        self._reported: set[int] = set()

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def ids(self) -> Sequence[str]:
        """Paths relative to the root."""
        return [printable(path) for path in self._paths.tolist()]

    def take(self, rows: Tensor) -> "FilePart":
        """The part with the images ``rows`` (int64), in that order."""
        labels = None if self.labels is None else self.labels[rows]
        return FilePart(self.root, self._paths[rows.numpy()].tolist(), labels, self.channels, self.size)

    def __getitem__(self, i: int) -> Tensor:
        for candidate in self._stand_ins(range(len(self))[i]):
            try:
                image = read_image(os.path.join(self.root, self._paths[candidate]), self.channels)
            except UnreadableImage as error:
                if candidate not in self._reported:
                    self._reported.add(candidate)
                    log.warning(
                        "%s can no longer be read (%s): another image takes its place", error.path, error
                    )
                continue
            pixels = torch.from_numpy(image)
            return pixels if self.size is None else resize_square(pixels[None], self.size)[0]
        raise UsageError(f"{self.root}: no image of it can be read any more")

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
