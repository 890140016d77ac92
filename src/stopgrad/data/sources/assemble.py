"""From the images that a source found to a train, a validation and a test part.

A part that a source does not have is held out of the training images by a fixed permutation: a tenth of
them, at least 8, or a quarter where that is fewer.
"""

import logging
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stopgrad.data.sources.checks import Checks, Ints, Store
from stopgrad.data.sources.parts import (
    ArrayPart,
    FilePart,
    Loaded,
    Part,
    Skipped,
    fixed_permutation,
    held_out_count,
)
from stopgrad.data.sources.settings import DataSettings
from stopgrad.data.sources.threads import in_threads
from stopgrad.errors import UsageError

log = logging.getLogger(__name__)

#: what parts are called, and which they are
PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
FEWEST = 8
#: images of one size up to this many bytes (uint8, all parts) are kept in memory
MEMORY = 2**30

Classes = tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class Found:
    """What a source found.

    ``rows`` are the rows of the store of each part, in their order, readable ones only. ``group`` is int64,
    for each row of the store: the number of its label in ``names``, -1 without one.
    """

    store: Store
    checks: Checks
    rows: dict[str, Ints]
    group: Ints
    names: Sequence[str]
    skipped: tuple[Skipped, ...] = ()

    def require(self, part: str, fewest: int) -> None:
        """Refuse to go on with fewer images.

        Raises:
            UsageError: if the part has fewer.
        """
        count = len(self.rows[part])
        if count >= fewest:
            return
        bad = self.skipped
        what = f"{count} readable images to train on" if count else "no readable image below it"
        damaged = f"; {len(bad)} unreadable: {bad[0].path} ({bad[0].reason}) ..." if bad else ""
        raise UsageError(f"{self.store.place}: {what}{damaged}; at least {fewest} needed")

    def classes(self, part: str) -> Classes:
        """The labels of a part in their order: where each of its images has one, and there are two."""
        present = np.unique(self.group[self.rows[part]])
        labelled = len(present) >= 2 and present[0] >= 0
        return tuple(self.names[i] for i in present) if labelled else None


def grouped(labels: Iterable[str | None], numbers: bool = False) -> tuple[Ints, list[str]]:
    """Labels as numbers of their sorted names, -1 for None; ``numbers`` sorts integers as such.

    >>> grouped(["10", "9", None], numbers=True)
    (array([ 1,  0, -1]), ['9', '10'])
    """
    seen: dict[str, int] = {}
    found = array("q", (-1 if label is None else seen.setdefault(label, len(seen)) for label in labels))
    by_value = numbers and all(name.isdecimal() for name in seen)
    names = sorted(seen, key=int) if by_value else sorted(seen)
    # of each group in the order of first sight, its place; the last is for rows without a label
    place = np.empty(len(seen) + 1, np.int64)
    place[[seen[name] for name in names]] = np.arange(len(names))
    place[-1] = -1
    return place[np.array(found, dtype=np.int64)], names


def skipped_rows(store: Store, checks: Checks) -> list[Skipped]:
    """The rows that are not readable, by name."""
    return sorted(
        (Skipped(store.name(row), why) for row, why in checks.reasons.items()), key=lambda s: s.path
    )


def assemble(found: Found, settings: DataSettings) -> Loaded:
    """Three parts of what a source found, the train part in a fixed random order.

    Raises:
        UsageError: if there are fewer than 8 training images.
    """
    found.require("train", FEWEST)
    classes = found.classes("train")
    rows = dict(found.rows)
    for name in ("val", "test"):
        groups = {found.names[i] if i >= 0 else None for i in np.unique(found.group[rows[name]])}
        if classes and not groups <= set(classes):
            log.warning(
                "%s: %s is not labelled as train is: it is not used, images of train are held out for it",
                found.store.place,
                name,
            )
            rows[name] = rows[name][:0]
    rows = _hold_out(rows)
    rows["train"] = rows["train"][: settings.limit]
    built = build_parts(found, rows, classes, settings)
    return Loaded(built["train"], built["val"], built["test"], classes, found.skipped)


def _hold_out(rows: dict[str, Ints]) -> dict[str, Ints]:
    train = rows["train"]
    order = fixed_permutation(len(train)).numpy()
    count, start = held_out_count(len(train)), 0
    filled = dict(rows)
    for name in ("val", "test"):
        if not len(rows[name]):
            filled[name] = train[np.sort(order[start : start + count])]
            start += count
    # in random order, since `limit` takes the first ones and paths come sorted by class
    filled["train"] = train[order[start:]]
    return filled


def build_parts(
    found: Found, rows: dict[str, Ints], classes: Classes, settings: DataSettings
) -> dict[str, Part]:
    """Parts of the rows: in memory where all images are of one size and few, else decoded when asked for."""
    channels, size = settings.channels or 3, settings.image_size
    number = {name: i for i, name in enumerate(classes or ())}
    # of each group, which class it is; the last is for rows without a group
    class_of = torch.tensor([*(number.get(name, -1) for name in found.names), -1])
    files: dict[str, FilePart] = {}
    for name, own in rows.items():
        labels = class_of[torch.from_numpy(found.group[own])] if classes else None
        files[name] = FilePart(found.store, labels, channels, size, torch.from_numpy(own))
    everything = np.concatenate(list(rows.values()))
    heights, widths = found.checks.height[everything], found.checks.width[everything]
    if size:
        height = width = size
    elif (heights == heights[0]).all() and (widths == widths[0]).all():
        height, width = int(heights[0]), int(widths[0])
    else:
        return {**files}
    if len(everything) * channels * height * width > MEMORY:
        return {**files}
    return {name: _in_memory(part, height, width, settings.workers) for name, part in files.items()}


def _in_memory(part: FilePart, height: int, width: int, workers: int | None) -> ArrayPart:
    images = torch.empty((len(part), part.channels, height, width), dtype=torch.uint8)
    in_threads(
        part.__getitem__, range(len(part)), lambda i, image: images[i].copy_(image), "Loading images", workers
    )
    return ArrayPart(images, part.labels, part.ids)
