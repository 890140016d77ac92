"""Which files below a folder are readable images, and how large they are.

Every file is decoded once to find out. The answer is kept in the user's cache folder together with the size
and time of change of each file, so that later runs decode only what is new or changed.
"""

import hashlib
import json
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from stopgrad.data.sources.decode import UnreadableImage, check_image, printable
from stopgrad.data.sources.parts import Skipped
from stopgrad.data.sources.threads import in_threads
from stopgrad.errors import UsageError, require
from stopgrad.files import write_text

log = logging.getLogger(__name__)

#: the suffixes that torchvision's ImageFolder knows, and JPEG's other two
SUFFIXES = frozenset(
    {".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_VERSION = 1


@dataclass(frozen=True)
class Found:
    """A readable image: path relative to the folder (with ``/``), upright height and width in pixels."""

    path: str
    height: int
    width: int


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    changed: int  # nanoseconds


@dataclass(frozen=True)
class _Entry:
    """What is known of a file of this size and time: its image size, or why it is not readable."""

    size: int
    changed: int
    height: int
    width: int
    reason: str


def index_folder(root: Path, workers: int | None = None) -> tuple[list[Found], list[Skipped]]:
    """Find all images below ``root``, in the order of their paths, and the files that had to be left out.

    Links are followed, each folder once, so loops end. Hidden files and folders, and files without the suffix
    of an image, are not looked at.

    Raises:
        UsageError: if there is no such folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    files, skipped = _list_files(root)
    known = _read_cache(root)
    entries = {file.path: known.get(file.path) for file in files}
    fresh = [file for file in files if not _current(entries[file.path], file)]
    if fresh:
        if len(fresh) > 1000:
            log.info("%s: decoding %d new or changed images once, to find damaged ones", root, len(fresh))
        in_threads(
            lambda file: _examine(root, file),
            fresh,
            lambda i, entry: entries.update({fresh[i].path: entry}),
            "Checking images",
            workers,
        )
    complete = {path: entry for path, entry in entries.items() if entry is not None}
    if fresh or len(known) != len(complete):
        _write_cache(root, complete)
    found = [Found(path, e.height, e.width) for path, e in complete.items() if not e.reason]
    skipped += [Skipped(printable(path), e.reason) for path, e in complete.items() if e.reason]
    return found, sorted(skipped, key=lambda file: file.path)


def _current(entry: _Entry | None, file: _File) -> bool:
    return entry is not None and (entry.size, entry.changed) == (file.size, file.changed)


def _examine(root: Path, file: _File) -> _Entry:
    try:
        height, width = check_image(os.path.join(root, file.path))
    except UnreadableImage as error:
        return _Entry(file.size, file.changed, 0, 0, str(error))
    return _Entry(file.size, file.changed, height, width, "")


def _list_files(root: Path) -> tuple[list[_File], list[Skipped]]:
    files: list[_File] = []
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
                files.append(_File(path, info.st_size, info.st_mtime_ns))
    return sorted(files, key=lambda file: file.path), skipped


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def cache_file(root: Path) -> Path:
    """Where the index of ``root`` is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache")
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return Path(base) / "stopgrad" / f"index-{key}.json"


def _stamp() -> list[object]:
    """Another Pillow may read other files."""
    return [_VERSION, require("PIL", "vision").__version__]


def _read_cache(root: Path) -> dict[str, _Entry]:
    try:
        stored = json.loads(cache_file(root).read_text(encoding="utf-8"))
        if stored["stamp"] != _stamp():
            return {}
        return {path: _Entry(*entry) for path, entry in stored["files"].items()}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # no cache, or none to rely on: it is made anew


def _write_cache(root: Path, entries: dict[str, _Entry]) -> None:
    files = {path: [e.size, e.changed, e.height, e.width, e.reason] for path, e in entries.items()}
    try:
        write_text(cache_file(root), json.dumps({"stamp": _stamp(), "files": files}))
    except (OSError, RuntimeError) as error:
        log.info("the index of %s could not be kept (%s): the next run makes it again", root, error)
