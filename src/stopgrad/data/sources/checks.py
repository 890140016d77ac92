"""Which images decode, and how large they are: looked at once, and kept in the user's cache folder."""

import hashlib
import io
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from stopgrad.data.sources.blobs import Columns, Texts
from stopgrad.data.sources.decode import UnreadableImage, check_image
from stopgrad.data.sources.threads import in_threads
from stopgrad.errors import require
from stopgrad.files import whole_file

log = logging.getLogger(__name__)

_VERSION = 2
#: images looked at between two writings of the index: what a kill loses at most
_AT_ONCE = 1 << 17
_UNKNOWN = -1

Ints = NDArray[np.int64]


class Store(Protocol):
    """Encoded images by row, which any number of processes may read."""

    @property
    def place(self) -> str:
        """Where they are, for messages."""
        ...

    @property
    def near(self) -> int | None:
        """None for rows in any order; else they are best asked for at most so many behind the last."""
        ...

    def __len__(self) -> int: ...

    def name(self, row: int) -> str:
        """What a person finds the image by."""
        ...

    def open(self, row: int) -> str | IO[bytes]:
        """The path of the encoded image, or its bytes.

        Raises:
            UnreadableImage: if it is not there any more.
        """
        ...


@dataclass(eq=False)
class Checks:
    """What is known of N rows: upright ``height`` and ``width``, int64 (N,), and why a row is not readable.

    The height is 0 where a row is not readable, -1 where nobody has looked.
    """

    height: Ints
    width: Ints
    reasons: dict[int, str] = field(default_factory=dict)

    @classmethod
    def none(cls, count: int) -> "Checks":
        """Nothing known yet."""
        return cls(np.full(count, _UNKNOWN), np.full(count, _UNKNOWN))

    @property
    def readable(self) -> Ints:
        """Rows that decode, in order."""
        return np.flatnonzero(self.height > 0)

    def unreadable(self, row: int, reason: str) -> None:
        """Note that a row is no image."""
        self.height[row] = self.width[row] = 0
        self.reasons[row] = reason

    def carry(self, known: "Checks", old: Ints, new: Ints) -> None:
        """Take over what ``known`` has of its rows ``old``, as our rows ``new``."""
        self.height[new], self.width[new] = known.height[old], known.width[old]
        place = dict(zip(old.tolist(), new.tolist(), strict=True)) if known.reasons else {}
        self.reasons |= {place[row]: reason for row, reason in known.reasons.items() if row in place}

    def complete(self, store: Store, title: str, workers: int | None, save: Callable[[], None]) -> None:
        """Decode every row that nobody has looked at, and ``save`` now and then and at the end."""
        fresh = np.flatnonzero(self.height == _UNKNOWN)
        if len(fresh) > 1000:
            log.info(
                "%s: decoding %d new or changed images once, to find damaged ones", store.place, len(fresh)
            )
        for start in range(0, len(fresh), _AT_ONCE):
            rows = fresh[start : start + _AT_ONCE].tolist()
            several = (
                f" ({start // _AT_ONCE + 1} of {-(-len(fresh) // _AT_ONCE)})" if len(fresh) > _AT_ONCE else ""
            )

            def keep(i: int, found: tuple[int, int] | str, rows: list[int] = rows) -> None:
                if isinstance(found, str):
                    self.unreadable(rows[i], found)
                else:
                    self.height[rows[i]], self.width[rows[i]] = found

            in_threads(lambda row: _look(store, row), rows, keep, title + several, workers)
            save()

    def columns(self) -> Columns:
        """What :meth:`of_columns` makes the checks of again."""
        texts = Texts(self.reasons.values())
        rows = np.fromiter(self.reasons, np.int64, len(self.reasons))
        return {"height": self.height, "width": self.width, "bad": rows, **texts.columns("reasons")}

    @classmethod
    def of_columns(cls, columns: Columns, count: int) -> "Checks":
        """The checks of :meth:`columns`.

        Raises:
            KeyError: if they are not there.
            ValueError: if they are not those of ``count`` rows.
        """
        height, width = (columns[name].astype(np.int64) for name in ("height", "width"))
        bad, reasons = columns["bad"].tolist(), Texts.of_columns(columns, "reasons")
        if height.shape != (count,) or width.shape != (count,) or len(bad) != len(reasons):
            raise ValueError("not the checks of these rows")
        return cls(height, width, dict(zip(bad, reasons, strict=True)))


def _look(store: Store, row: int) -> tuple[int, int] | str:
    try:
        return check_image(store.open(row), store.name(row))
    except UnreadableImage as error:
        return str(error)


def cache_file(kind: str, key: str) -> Path:
    """Where the index called ``key`` is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache")
    return Path(base) / "stopgrad" / f"{kind}-{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npz"


def _stamp() -> str:
    """Another Pillow may read other files."""
    return f"{_VERSION} {require('PIL', 'vision').__version__}"


def read_cache(kind: str, key: str) -> Columns:
    """The columns that were written, empty where there are none to rely on."""
    try:
        # opened here: NumPy would leave a damaged file open
        content = io.BytesIO(cache_file(kind, key).read_bytes())
        with np.load(content, allow_pickle=False) as stored:
            columns = dict(stored)
        return columns if str(columns.pop("stamp", "")) == _stamp() else {}
    # a damaged zip or array raises nearly anything; it is made anew
    except Exception:
        return {}


def write_cache(kind: str, key: str, columns: Columns) -> None:
    """Keep columns for the next run, if that is possible."""
    try:
        with whole_file(cache_file(kind, key)) as temporary:
            np.savez(temporary, allow_pickle=False, stamp=np.array(_stamp()), **columns)
    except (OSError, RuntimeError) as error:
        log.info("the index of %s could not be kept (%s): the next run makes it again", key, error)
