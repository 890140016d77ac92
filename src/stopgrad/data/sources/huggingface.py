"""Data sets of the Hugging Face ``datasets`` library: on the hub, in files of it, or a folder of its own.

    hf:ylecun/mnist              a data set of the hub
    hf:FOLDER                    what ``save_to_disk`` wrote, or images, parquet or arrow files
    hf:'FOLDER/train-*.parquet'  files

Images are never decoded by that library: their bytes come from its memory-mapped files, and the workers make
crops of them as of any file. Which rows decode is looked at once, and kept in the user's cache folder under
the data set's fingerprint, which changes with its content.

``data.streaming`` reads the training images in the order of their files instead, without fetching them all
beforehand (:class:`Stream`).
"""

import io
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stopgrad.data.sources.assemble import FEWEST, PART_NAMES, Found, assemble, grouped, skipped_rows
from stopgrad.data.sources.blobs import Blobs, Texts
from stopgrad.data.sources.checks import Checks, Ints, read_cache, write_cache
from stopgrad.data.sources.decode import UnreadableImage, check_image
from stopgrad.data.sources.parts import FilePart, Loaded, Skipped, held_out_count
from stopgrad.data.sources.settings import DataSettings
from stopgrad.errors import UsageError, require, unknown

#: rows of a stream that are shuffled among themselves; a worker holds so many encoded images, and a few more
NEAR = 1024
#: images of a stream that are held back for each of validation, test and probe
HELD = 1024
_AT_ONCE = 32


def load_huggingface(settings: DataSettings) -> Loaded:
    """The data set that ``settings.dir`` names, by its columns of images and labels.

    Raises:
        UsageError: if it cannot be had, has no column of images, or too few are readable; for a stream, if
            it does not say how long it is.
        MissingExtra: without the extra ``data``.
    """
    if settings.dir is None:
        raise UsageError("data hf: needs a data set of the hub or its files, --data hf:NAME-or-path")
    place = str(settings.dir)
    splits = _splits(_open(place, settings), place, settings)
    return (_load_stream if settings.streaming else _load_rows)(place, splits, settings)


def _open(place: str, settings: DataSettings) -> Mapping[str, Any]:
    """The splits of a data set by name."""
    library = require("datasets", "data")
    path, suffix = Path(place), Path(place).suffix.lstrip(".")
    kind = {"parquet": "parquet", "arrow": "arrow"}.get(suffix)
    try:
        if not settings.streaming and any((path / f).is_file() for f in ("dataset_dict.json", "state.json")):
            found = library.load_from_disk(place)
        elif kind:
            found = library.load_dataset(kind, data_files=place, streaming=settings.streaming)
        else:
            found = library.load_dataset(place, settings.subset, streaming=settings.streaming)
    # the library, its readers of files and its clients of the hub raise nearly anything
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"data hf: {place}: {reason[:300]}") from error
    return found if isinstance(found, Mapping) else {settings.split: found}


def _splits(found: Mapping[str, Any], place: str, settings: DataSettings) -> dict[str, tuple[str, Any]]:
    """The name and the data of train and, where they are there, val and test."""
    train = settings.split if settings.split in found or len(found) > 1 else next(iter(found))
    if train not in found:
        raise unknown(f"data hf: {place}: split", train, list(found))
    chosen = {"train": (train, found[train])}
    for name, data in found.items():
        part = PART_NAMES.get(name.lower())
        if name != train and part not in chosen and part in ("val", "test"):
            chosen[part] = (name, data)
    return chosen


# ---- columns


def _image_column(place: str, data: Any, settings: DataSettings) -> str:
    library, features = require("datasets", "data"), data.features or {}
    if settings.image is not None:
        if features and settings.image not in features:
            raise unknown(f"data hf: {place}: column", settings.image, list(features))
        return settings.image
    for name, feature in features.items():
        if isinstance(feature, library.Image):
            return str(name)
    raise UsageError(
        f"data hf: {place}: no column says that it holds images: name one, --set data.image=COLUMN. "
        f"Columns: {', '.join(features) or 'not known'}"
    )


def _label_column(place: str, data: Any, settings: DataSettings) -> str | None:
    library, features = require("datasets", "data"), data.features or {}
    if settings.label is not None:
        if settings.label not in features:
            raise unknown(f"data hf: {place}: column", settings.label, list(features))
        return settings.label
    return next((str(n) for n, feature in features.items() if isinstance(feature, library.ClassLabel)), None)


def _encoded(name: str, value: Any) -> str | io.BytesIO:
    """A cell of an image column as its path or its bytes."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return io.BytesIO(value)
    if isinstance(value, str) and "://" in value:
        return _fetched(name, value)
    if isinstance(value, str) and value:
        return value
    raise UnreadableImage(name, "no image in the column")


def _fetched(name: str, url: str) -> io.BytesIO:
    files = require("fsspec", "data")
    try:
        with files.open(url, "rb") as file:
            return io.BytesIO(file.read())
    # as many kinds of errors as there are kinds of places
    except Exception as error:
        raise UnreadableImage(name, " ".join(str(error).split()) or type(error).__name__) from error


# ---- rows in any order


class Rows:
    """Splits of a data set as one store, one behind the other."""

    near = None

    def __init__(self, place: str, splits: Mapping[str, Any], column: str) -> None:
        library = require("datasets", "data")
        self.place, self._column = place, column
        only = [
            data.select_columns([column]).cast_column(column, library.Image(decode=False))
            for data in splits.values()
        ]
        self._data = only[0] if len(only) == 1 else library.concatenate_datasets(only)
        self._names = list(splits)
        self._starts = np.cumsum([0, *(len(data) for data in only)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, row: int) -> str:
        """The split and the row in it."""
        split = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"{self._names[split]}/{row - self._starts[split]}"

    def open(self, row: int) -> str | io.BytesIO:
        """The image's bytes, or its path.

        Raises:
            UnreadableImage: if the row has no image.
        """
        return _encoded(self.name(row), self._data[row][self._column])


def _load_rows(place: str, splits: dict[str, tuple[str, Any]], settings: DataSettings) -> Loaded:
    column = _image_column(place, splits["train"][1], settings)
    label = _label_column(place, splits["train"][1], settings)
    splits = {part: (name, data) for part, (name, data) in splits.items() if column in data.column_names}
    store = Rows(place, dict(splits.values()), column)
    key = "\0".join([column, *(data._fingerprint for _, data in splits.values())])
    try:
        checks = Checks.of_columns(read_cache("hf", key), len(store))
    except (KeyError, ValueError):
        checks = Checks.none(len(store))
    checks.complete(
        store, "Checking images", settings.workers, lambda: write_cache("hf", key, checks.columns())
    )
    group, names = _labels(place, [data for _, data in splits.values()], label)
    rows, part = checks.readable, np.repeat(list(splits), [len(data) for _, data in splits.values()])
    by_part = {name: rows[part[rows] == name] for name in ("train", "val", "test")}
    return assemble(Found(store, checks, by_part, group, names, tuple(skipped_rows(store, checks))), settings)


def _labels(place: str, splits: list[Any], column: str | None) -> tuple[Ints, list[str]]:
    """The group of each row of all splits, -1 without one, and the groups' names."""
    if column is None:
        return np.full(sum(map(len, splits)), -1), []
    cells: list[Any] = []
    for data in splits:
        cells += (
            data.select_columns([column])[column][:] if column in data.column_names else [None] * len(data)
        )
    names = getattr(splits[0].features[column], "names", None)
    if names is not None:
        return np.array([-1 if cell is None else cell for cell in cells], dtype=np.int64), list(names)
    odd = next((cell for cell in cells if not isinstance(cell, int | str | None)), None)
    if odd is not None:
        raise UsageError(
            f"data hf: {place}: column {column} holds a {type(odd).__name__}, not numbers or names"
        )
    return grouped((None if cell is None else str(cell) for cell in cells), numbers=True)


# ---- rows in their order


class Held:
    """A few encoded images in memory, under their names."""

    near = None

    def __init__(self, place: str, names: Texts, images: Blobs) -> None:
        self.place, self._names, self._images = place, names, images

    def __len__(self) -> int:
        return len(self._images)

    def name(self, row: int) -> str:
        """Which part it was held back for, and its number there."""
        return self._names[row]

    def open(self, row: int) -> io.BytesIO:
        """The image's bytes."""
        return io.BytesIO(self._images[row])


class Stream:
    """Rows that can only be read one after the other, as a store that is asked for them nearly in order.

    Each process that reads goes through all of the stream and keeps the last ``NEAR`` encoded images; a row
    that lies further back starts the stream anew, and skips to it. So every rank and worker sees the rows by
    the same numbers, no sample is lost or read twice in an epoch, and a run resumes exactly; the price is
    that the bytes travel to each worker.
    """

    near = NEAR

    def __init__(self, place: str, data: Any, column: str, start: int, length: int) -> None:
        self.place, self._data, self._column = place, data, column
        self._start, self._length = start, length
        self._forget()

    def _forget(self) -> None:
        self._reader: Iterator[Any] | None = None
        self._kept: dict[int, Any] = {}
        self._next, self._process = 0, os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_kept": {}}

    def __len__(self) -> int:
        return self._length

    def name(self, row: int) -> str:
        """The row, counted from where training begins."""
        return f"train/{row}"

    def open(self, row: int) -> str | io.BytesIO:
        """The image's bytes.

        Raises:
            UnreadableImage: if the row has no image.
            UsageError: if the stream ends before it.
        """
        if self._reader is None or self._process != os.getpid() or row < min(self._kept, default=0):
            self._forget()
            self._next = max(0, row - NEAR)
            self._reader = _cells(self._data.skip(self._start + self._next))
        while self._next <= row:
            try:
                self._kept[self._next] = next(self._reader)[self._column]
            except StopIteration:
                raise UsageError(
                    f"data hf: {self.place}: the stream ended after {self._next} training images: "
                    f"--set data.limit={self._next}"
                ) from None
            self._next += 1
            self._kept.pop(self._next - NEAR - _AT_ONCE, None)  # a few more: for images that stand in
        return _encoded(self.name(row), self._kept[row])


def _cells(data: Any) -> Iterator[dict[str, Any]]:
    # by batches: one by one, the library would share the rows out among PyTorch's workers
    for batch in data.iter(batch_size=_AT_ONCE):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _load_stream(place: str, splits: dict[str, tuple[str, Any]], settings: DataSettings) -> Loaded:
    """Train on the stream, without labels; the first images of each part are held back, with theirs."""
    library = require("datasets", "data")
    name, train = splits["train"]
    column = _image_column(place, train, settings)
    label = _label_column(place, train, settings)
    names = getattr(train.features[label], "names", None) if label else None
    if settings.label is not None and names is None:
        raise UsageError(
            f"data hf: {place}: a stream does not say which labels column {label} has beforehand"
        )
    length = _length(train, name)
    if length is None and settings.limit is None:
        raise UsageError(
            f"data hf: {place}: the stream does not say how long it is, and an epoch has to end: "
            "--set data.limit=IMAGES, or read it without data.streaming"
        )
    each = min(HELD, held_out_count(length or settings.limit or HELD))
    wanted = [column] if names is None else [column, label]
    data = {
        part: each_split.select_columns(wanted).cast_column(column, library.Image(decode=False))
        for part, (_, each_split) in splits.items()
    }
    start, held, skipped = 0, {}, []
    for part in ("val", "test", "probe"):
        own = part in data
        cells = list(islice(_cells(data[part] if own else data["train"].skip(start)), each))
        # what trains may be the bank of neighbours too, as everywhere
        start += 0 if own or part == "probe" else each
        held[part], bad = _held(place, part, cells, column, label if names else None, settings)
        skipped += bad
    many = min(x for x in (None if length is None else length - start, settings.limit) if x is not None)
    if many < FEWEST:
        raise UsageError(f"data hf: {place}: {many} images to train on; at least {FEWEST} needed")
    channels, size = settings.channels or 3, settings.image_size
    only = data["train"].select_columns([column])
    stream = FilePart(Stream(place, only, column, start, many), None, channels, size)
    labelled = names is not None and all(part.labels is not None for part in held.values())
    classes, bank = (tuple(names), held["probe"]) if labelled and names else (None, None)
    return Loaded(stream, held["val"], held["test"], classes, tuple(skipped), bank)


def _length(data: Any, split: str) -> int | None:
    """Rows of a stream, where its data set says so."""
    splits = data.info.splits
    known = splits.get(split) if splits else None
    return (known.num_examples or None) if known else None


def _held(
    place: str, part: str, cells: list[dict[str, Any]], column: str, label: str | None, settings: DataSettings
) -> tuple[FilePart, list[Skipped]]:
    """The readable ones of the first rows of a part, with their labels if all have one."""
    names, images, labels, skipped = [], [], [], []
    for i, cell in enumerate(cells):
        name = f"{part}/{i}"
        try:
            source = _encoded(name, cell[column])
            data = Path(source).read_bytes() if isinstance(source, str) else source.read()
            check_image(io.BytesIO(data), name)
        except (UnreadableImage, OSError) as error:
            skipped.append(Skipped(name, str(error)))
            continue
        names.append(name)
        images.append(data)
        labels.append(-1 if label is None or cell[label] is None else int(cell[label]))
    if not images:
        raise UsageError(f"data hf: {place}: none of the first {len(cells)} images for {part} is readable")
    store = Held(place, Texts(names), Blobs(images))
    numbers = torch.tensor(labels) if min(labels) >= 0 else None
    return FilePart(store, numbers, settings.channels or 3, settings.image_size), skipped
