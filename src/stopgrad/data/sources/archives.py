"""Official archives: where they lie on disk, and what is in them. Nothing is ever unpacked to disk."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stopgrad.data.sources.settings import DataSettings
from stopgrad.errors import MissingExtra, UsageError, require


@dataclass(frozen=True)
class Official:
    """An archive as its authors publish it: one top folder packed in one file."""

    name: str
    folder: str
    archive: str
    url: str
    md5: str
    #: a file that tells the top folder, relative to it
    sign: str


def locate(official: Official, settings: DataSettings) -> Path:
    """The archive, or the folder unpacked from it, in ``settings.dir`` or being ``settings.dir``.

    Raises:
        UsageError: if it is not there and is not to be downloaded, or the download fails.
    """
    base = settings.dir
    if base is None:
        raise UsageError(f"data {official.name}: needs the place of {official.archive}, --data-dir PATH")
    for place in (base, base / official.folder, base / official.archive):
        if place.is_file() or (place / official.sign).is_file():
            return place
    if settings.download:
        return _download(official, base)
    raise UsageError(
        f"data {official.name}: neither {official.archive} nor {official.folder}/ in {base}: get it from "
        f"{official.url}, or use --download"
    )


def _download(official: Official, base: Path) -> Path:
    utilities = require("torchvision.datasets.utils", "vision")
    try:
        utilities.download_url(official.url, str(base), official.archive, official.md5)
    # urllib, ssl, sockets and torchvision's own RuntimeError: whatever it is, the remedy is the same
    except Exception as error:
        raise UsageError(
            f"data {official.name}: download failed ({_first_line(error)}): "
            f"fetch {official.url} and put {official.archive} into {base}"
        ) from error
    return base / official.archive


@contextmanager
def damage_is_usage(official: Official, path: Path) -> Iterator[None]:
    """Turn whatever a damaged archive raises into one line that names it."""
    try:
        yield
    except MissingExtra:
        raise
    except UsageError as error:
        raise UsageError(f"data {official.name}: {path}: {error}") from error
    # readers of damaged tar, gzip, zip, pickle and text raise nearly anything
    except Exception as error:
        raise UsageError(
            f"data {official.name}: {path} is damaged or not readable ({_first_line(error)}): "
            f"the official file is {official.url}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_members(
    official: Official, path: Path, wanted: set[str], read: Callable[[str, IO[bytes], int], None]
) -> None:
    """Call ``read(name, stream, bytes)`` for each wanted member, in the order of the archive (tar) or any.

    Names are relative to the top folder. A tar is read once from its start and no further than needed.

    Raises:
        UsageError: if a member is missing.
    """
    missing = set(wanted)
    if path.is_dir():
        for name in sorted(wanted):
            if (path / name).is_file():
                missing.discard(name)
                with open(path / name, "rb") as stream:
                    read(name, stream, (path / name).stat().st_size)
    else:
        with tarfile.open(path, "r:*") as tar:
            for member in tar:
                name = member.name.removeprefix("./").removeprefix(f"{official.folder}/")
                stream_or_none = tar.extractfile(member) if member.isfile() and name in missing else None
                if stream_or_none is not None:
                    missing.discard(name)
                    read(name, stream_or_none, member.size)
                if not missing:
                    break
    if missing:
        raise UsageError(f"lacks {', '.join(sorted(missing))}")


@contextmanager
def open_files(official: Official, path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Names (relative to the top folder) and a reader of a zip or folder of many small files."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        yield sorted(names), lambda name: (path / name).read_bytes()
        return
    with zipfile.ZipFile(path) as packed:
        top = f"{official.folder}/"
        names = [
            name.removeprefix(top) for name in packed.namelist() if name.startswith(top) and name[-1] != "/"
        ]
        yield sorted(names), lambda name: packed.read(top + name)
