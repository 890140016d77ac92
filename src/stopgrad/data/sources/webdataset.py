"""Shards of tar files as WebDataset writes them: the members of a sample lie side by side and share a name.

    cat/0001.jpg  cat/0001.cls  cat/0001.json  cat/0002.jpg ...

Each shard is read once: what lies where, which images decode, and the labels are kept in the user's cache
folder, with the size and time of change of the shard. From then on the shards are like a folder: any sample
can be read at any time, so that order, resuming and the shares of the ranks are exact.

Parts: where the names of all shards say ``train``, ``val`` or ``test`` (``imagenet-train-0001.tar``,
``val/0001.tar``), these are the parts.

The naming of samples is WebDataset's: https://github.com/webdataset/webdataset, ``base_plus_ext``.
"""

import io
import json
import logging
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

import numpy as np
import torch

from stopgrad.data.sources.assemble import PART_NAMES, Found, assemble, grouped, skipped_rows
from stopgrad.data.sources.blobs import Columns, Texts
from stopgrad.data.sources.checks import Checks, Ints, read_cache, write_cache
from stopgrad.data.sources.decode import UnreadableImage, printable
from stopgrad.data.sources.index import SUFFIXES
from stopgrad.data.sources.parts import Loaded, Skipped
from stopgrad.data.sources.settings import DataSettings
from stopgrad.errors import UsageError, require

log = logging.getLogger(__name__)

#: the suffix that is taken for the label where none is named
LABEL = "cls"
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_REMOTE = ("pipe:", "http:", "https:", "s3:", "gs:", "hf:")


def load_webdataset(settings: DataSettings) -> Loaded:
    """The samples of the shards that ``settings.dir`` names: a folder, a file, or a pattern of files.

    Raises:
        UsageError: if there is no shard, one is packed or no tar, or too few images are readable.
        MissingExtra: for a pattern with braces, without the extra ``data``.
    """
    if settings.dir is None:
        raise UsageError("data webdataset: needs the shards, --data-dir 'FOLDER/train-{000..099}.tar'")
    pattern = str(settings.dir)
    paths = find_shards(pattern)
    shards = [_shard(path, f"{i} of {len(paths)}", settings) for i, path in enumerate(paths, 1)]
    store = Shards(pattern, shards)
    checks, skipped = Checks.none(len(store)), []
    for shard, start in zip(shards, store.starts.tolist(), strict=True):
        own = np.arange(len(shard.names))
        checks.carry(shard.checks, own, start + own)
        if shard.broken:
            skipped.append(Skipped(printable(shard.path), shard.broken))
    group, names = grouped((label or None for shard in shards for label in shard.labels), numbers=True)
    rows = checks.readable
    _tell_of_unlabelled(store, rows[group[rows] < 0], len(rows), settings.label)
    part = np.repeat(_parts(paths), [len(shard.names) for shard in shards])[rows]
    by_part = {name: rows[part == name] for name in ("train", "val", "test")}
    skipped += skipped_rows(store, checks)
    return assemble(Found(store, checks, by_part, group, names, tuple(skipped)), settings)


def find_shards(pattern: str) -> list[str]:
    """The files of a folder, or of a pattern with braces (``{000..099}``, ``{a,b}``) or wildcards.

    Raises:
        UsageError: if there is none, or one of those named is missing.
        MissingExtra: for braces without the extra ``data``.
    """
    if pattern.startswith(_REMOTE):
        raise UsageError(
            f"data webdataset: {pattern}: only files on disk can be read in any order: copy them"
        )
    if os.path.isdir(pattern):
        found = sorted(str(path) for path in Path(pattern).rglob("*.tar"))
    else:
        found = []
        for each in require("braceexpand", "data").braceexpand(pattern) if "{" in pattern else [pattern]:
            found += sorted(glob(each, recursive=True)) if has_magic(each) else [each]
    missing = [path for path in found if not os.path.isfile(path)]
    if missing or not found:
        which = f"{missing[0]}: no such file" if missing else f"{pattern}: no shard (*.tar) there"
        raise UsageError(f"data webdataset: {which}")
    return list(dict.fromkeys(found))


@dataclass(frozen=True, eq=False)
class _Shard:
    """A tar file's N samples: their images' member names, where these lie, and their labels, "" for none."""

    path: str
    names: Texts
    offset: Ints
    size: Ints
    labels: Texts
    checks: Checks
    broken: str = ""  # why the rest of the shard is missing


class Shards:
    """Tar files as one store: each image is read from its place, without a look at what lies before it."""

    near = None

    def __init__(self, place: str, shards: Sequence[_Shard]) -> None:
        self.place = place
        self._paths = [shard.path for shard in shards]
        self._called = _below_all(self._paths)
        self._names = [shard.names for shard in shards]
        counts = [len(names) for names in self._names]
        # tensors, which worker processes share whichever way they start
        self._starts = torch.tensor([0, *counts]).cumsum(0)
        self._offset = torch.cat([torch.from_numpy(shard.offset) for shard in shards])
        self._size = torch.cat([torch.from_numpy(shard.size) for shard in shards])

    @property
    def starts(self) -> Ints:
        """The first row of each shard, int64 (shards,)."""
        return self._starts[:-1].numpy()

    def __len__(self) -> int:
        return len(self._offset)

    def name(self, row: int) -> str:
        """The shard and the member in it."""
        shard, within = self._find(row)
        return printable(f"{self._called[shard]}/{self._names[shard][within]}")

    def open(self, row: int) -> io.BytesIO:
        """The image's bytes.

        Raises:
            UnreadableImage: if the sample has no image, or the shard is gone.
        """
        if self._offset[row] < 0:
            raise UnreadableImage(self.name(row), "a sample without an image")
        try:
            with open(self._paths[self._find(row)[0]], "rb") as file:
                file.seek(int(self._offset[row]))
                return io.BytesIO(file.read(int(self._size[row])))
        except OSError as error:
            raise UnreadableImage(self.name(row), error.strerror or str(error)) from error

    def _find(self, row: int) -> tuple[int, int]:
        shard = int(torch.searchsorted(self._starts, row, right=True)) - 1
        return shard, row - int(self._starts[shard])


def _below_all(paths: Sequence[str]) -> list[str]:
    """The paths relative to the folder that all of them are in."""
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def _parts(paths: Sequence[str]) -> list[str]:
    """The part of each shard, by its name; all are train where the names do not say it."""
    named = [
        {PART_NAMES.get(word) for word in re.split("[^a-z]+", p.lower())} - {None} for p in _below_all(paths)
    ]
    if any(len(names) != 1 for names in named) or {"train"} not in named:
        return ["train"] * len(paths)
    return [str(name) for names in named for name in names]


def _tell_of_unlabelled(store: Shards, rows: Ints, images: int, label: str | None) -> None:
    if not len(rows):
        return
    first = store.name(int(rows[0]))
    if label is not None:
        raise UsageError(f"data webdataset: {first} has no label .{label} (nor have {len(rows) - 1} others)")
    if len(rows) < images:
        log.warning(
            "%s: %d images have no label (first: %s): labels are not used", store.place, len(rows), first
        )


# ---- the index of a shard


def _shard(path: str, number: str, settings: DataSettings) -> _Shard:
    """A shard's samples, from the cache if it has not changed."""
    info = os.stat(path)
    key = "\0".join([os.path.realpath(path), settings.image or "", settings.label or ""])
    stamp = np.array([info.st_size, info.st_mtime_ns])
    shard = _of_columns(path, read_cache("shard", key), stamp) or _list_shard(path, settings)
    store = Shards(path, [shard])

    def save() -> None:
        write_cache("shard", key, {**_columns(shard), "stamp_of_file": stamp})

    shard.checks.complete(store, f"Checking images, shard {number}", settings.workers, save)
    return shard


def _columns(shard: _Shard) -> Columns:
    return {
        "offset": shard.offset,
        "size": shard.size,
        "broken": np.array(shard.broken),
        **shard.names.columns("names"),
        **shard.labels.columns("labels"),
        **shard.checks.columns(),
    }


def _of_columns(path: str, columns: Columns, stamp: Ints) -> _Shard | None:
    try:
        if not np.array_equal(columns["stamp_of_file"], stamp):
            return None
        names, labels = (Texts.of_columns(columns, name) for name in ("names", "labels"))
        checks = Checks.of_columns(columns, len(names))
        return _Shard(path, names, columns["offset"], columns["size"], labels, checks, str(columns["broken"]))
    except (KeyError, ValueError):
        return None


@dataclass
class _Sample:
    key: str
    members: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # suffix -> name, offset, size
    label: str = ""


def _list_shard(path: str, settings: DataSettings) -> _Shard:
    """Read the heads of all members, and the labels; the images are passed over."""
    names, labels, broken = [], [], ""
    offset, size = array("q"), array("q")
    try:
        with tarfile.open(path, "r:") as tar:
            for sample in _samples(tar, settings.label or LABEL):
                if not sample.members:
                    continue  # before the first
                name, at, many = _image_of(sample, settings.image)
                names.append(name)
                labels.append(sample.label)
                offset.append(at)
                size.append(many)
    except (tarfile.TarError, OSError, EOFError) as error:
        if not names:
            raise UsageError(
                f"data webdataset: {path}: is no tar file that can be read in any order ({error}); "
                "unpack it if it is packed: gunzip"
            ) from error
        broken = f"cut off or damaged after {len(names)} samples: {error}"
    starts, sizes = (np.array(column, dtype=np.int64) for column in (offset, size))
    return _Shard(path, Texts(names), starts, sizes, Texts(labels), Checks.none(len(names)), broken)


def _samples(tar: tarfile.TarFile, label: str) -> Iterator[_Sample]:
    """Members side by side whose names agree up to the first dot after the last slash."""
    suffix_of_label, _, key_of_label = label.partition(".") if label.startswith("json.") else (label, "", "")
    sample = _Sample("")
    try:
        for member in tar:
            match = _NAME.match(member.name)
            if not match or not member.isreg() or member.issparse():
                continue
            key, suffix = match[1], match[2].lower()
            if key != sample.key or suffix in sample.members:
                yield sample
                sample = _Sample(key)
            sample.members[suffix] = (member.name, member.offset_data, member.size)
            if suffix == suffix_of_label and (content := tar.extractfile(member)) is not None:
                sample.label = _label(content.read(), key_of_label)
        _require_end(tar)
    except tarfile.TarError:
        yield sample
        raise
    yield sample


def _require_end(tar: tarfile.TarFile) -> None:
    # a damaged head ends the list as the end does, which is a block of zeros, or that of the file
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("damaged head of a member")


def _label(content: bytes, key: str) -> str:
    """A label as text: the whole content, or what a JSON object has under ``key``; "" if it has none."""
    try:
        value = json.loads(content).get(key) if key else content.decode().strip()
    except (ValueError, AttributeError):
        return ""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _image_of(sample: _Sample, suffix: str | None) -> tuple[str, int, int]:
    """Name, offset and size of the sample's image; offset -1 if it has none."""
    for own, place in sample.members.items():
        if own == suffix or (suffix is None and f".{own}" in SUFFIXES):
            return place
    return sample.key, -1, 0
