"""Which files below a folder are readable images, and how large they are.

Every file is decoded once to find out. The answer is kept in the user's cache folder together with the size
and time of change of each file, so that later runs decode only what is new or changed. To see what is, every
run lists the folder and asks for the state of each file: some seconds for a million of them. A file that was
rewritten at the same size with its time of change put back goes unnoticed.
"""

import os
import stat
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stopgrad.data.sources.blobs import Texts
from stopgrad.data.sources.checks import Checks, Ints, read_cache, write_cache
from stopgrad.data.sources.decode import printable
from stopgrad.data.sources.parts import Files, Skipped
from stopgrad.errors import UsageError

#: the suffixes that torchvision's ImageFolder knows, and JPEG's other two
SUFFIXES = frozenset(
    {".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True, eq=False)
class Index:
    """The images below a folder in the order of their paths, and what had to be left out."""

    store: Files
    checks: Checks
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, eq=False)
class _Listing:
    """N files: paths relative to the folder, with ``/``; bytes and time of change in nanoseconds."""

    paths: Texts
    size: Ints
    changed: Ints


def index_folder(root: Path, workers: int | None = None) -> Index:
    """Find all images below ``root``, in the order of their paths, and the files that had to be left out.

    Links are followed, each folder once, so loops end. Hidden files and folders, and files without the suffix
    of an image, are not looked at.

    Raises:
        UsageError: if there is no such folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    files, skipped = _list_files(root)
    store, checks = Files(root, files.paths), Checks.none(len(files.paths))
    key = os.path.realpath(root)
    try:
        columns = read_cache("folder", key)
        old = _Listing(Texts.of_columns(columns, "paths"), columns["size"], columns["changed"])
        known = Checks.of_columns(columns, len(old.paths))
    except (KeyError, ValueError):
        old, known = _Listing(Texts(), *np.empty((2, 0), np.int64)), Checks.none(0)
    there, here = _unchanged(old, files)
    checks.carry(known, there, here)

    def save() -> None:
        write_cache(
            "folder",
            key,
            {
                **files.paths.columns("paths"),
                "size": files.size,
                "changed": files.changed,
                **checks.columns(),
            },
        )

    checks.complete(store, "Checking images", workers, save)
    if len(here) == len(files.paths) != len(old.paths):  # files are gone, and none is new
        save()
    damaged = [Skipped(store.name(row), reason) for row, reason in checks.reasons.items()]
    return Index(store, checks, tuple(sorted([*skipped, *damaged], key=lambda file: file.path)))


def _unchanged(old: _Listing, new: _Listing) -> tuple[Ints, Ints]:
    """Rows of the old and of the new listing that are one file of the same size and time."""
    place = {path: row for row, path in enumerate(old.paths)}
    there = np.array([place.get(path, -1) for path in new.paths], dtype=np.int64)
    here = np.flatnonzero(there >= 0)
    there = there[here]
    same = (old.size[there] == new.size[here]) & (old.changed[there] == new.changed[here])
    return there[same], here[same]


def _list_files(root: Path) -> tuple[_Listing, list[Skipped]]:
    paths: list[str] = []
    size, changed = array("q"), array("q")
    skipped: list[Skipped] = []
    folders, seen = [""], {_identity(os.stat(root))}
    while folders:
        folder = folders.pop()
        try:
            # a folder under its own name goes before links to it
            entries = sorted(os.scandir(os.path.join(root, folder)), key=lambda e: (e.is_symlink(), e.name))
        except OSError as error:
            skipped.append(Skipped(printable(folder) or ".", error.strerror or str(error)))
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            is_image = os.path.splitext(entry.name)[1].lower() in SUFFIXES
            try:
                info = os.stat(entry.path)
            except OSError as error:
                if is_image:
                    skipped.append(Skipped(printable(path), f"broken link: {error.strerror}"))
                continue
            if stat.S_ISDIR(info.st_mode):
                if _identity(info) not in seen:
                    seen.add(_identity(info))
                    folders.append(path)
            elif is_image and stat.S_ISREG(info.st_mode):
                paths.append(path)
                size.append(info.st_size)
                changed.append(info.st_mtime_ns)
    order = np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64)
    sizes, times = (np.array(column, dtype=np.int64)[order] for column in (size, changed))
    return _Listing(Texts(paths[row] for row in order.tolist()), sizes, times), skipped


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino
