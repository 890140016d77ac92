"""Unpickling arrays, text and plain containers, and nothing else.

A pickle is a program: it may call any function it can name. Here it can name only the stand-ins below, which
rebuild NumPy arrays of plain integers from their bytes. NumPy's own rebuilding functions are not reachable
either, as they trust what they are given.
"""

import pickle
import re
from typing import IO, Any

import numpy as np

from stopgrad.errors import UsageError


class _Dtype:
    """Stands in for ``numpy.dtype``: integers in the machine's byte order, or of one byte."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        text = name.decode("ascii") if isinstance(name, bytes) else str(name)
        if not re.fullmatch(r"[<|]?[ui][1248]", text):
            raise pickle.UnpicklingError(f"arrays of {text[:20]!r} are not admitted")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|", b"<", b"|"):
            raise pickle.UnpicklingError("arrays of foreign byte order are not admitted")


class _Array:
    """Stands in for ``numpy.ndarray``."""

    array = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _frombuffer(data, dtype, shape, "F" if fortran else "C").array


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return made


def _encode(text: str, encoding: str) -> bytes:
    # how Python 3 writes bytes in old protocols
    return text.encode("latin1")


_ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise UsageError(f"refused: it names {module}.{name}, and only data is admitted") from None


def load_pickle(stream: IO[bytes]) -> dict[str, Any]:
    """The dictionary pickled in ``stream`` (by Python 2 or 3), keys as text, arrays as NumPy arrays.

    Raises:
        UsageError: if it names any function or class, or is not a dictionary.
        Exception: of nearly any kind, if it is damaged.
    """
    loaded = _Unpickler(stream, encoding="bytes").load()
    if not isinstance(loaded, dict):
        raise UsageError(f"holds a {type(loaded).__name__}, not a dictionary")
    return {
        key.decode("ascii") if isinstance(key, bytes) else str(key): getattr(value, "array", value)
        for key, value in loaded.items()
    }
