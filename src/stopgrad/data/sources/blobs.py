"""Millions of strings or files in two tensors.

A Python object each would cost a hundred bytes, and a worker that touches one copies its page. Tensors are
shared with forked workers as they are, and with spawned ones through PyTorch's shared memory.
"""

import os
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Columns = dict[str, NDArray[Any]]


class Blobs(Sequence[bytes]):
    """N pieces of bytes, one behind the other: ``data`` uint8, ``ends`` int64 (N,)."""

    def __init__(self, pieces: Iterable[bytes] = ()) -> None:
        data, ends = bytearray(), array("q")
        for piece in pieces:
            data += piece
            ends.append(len(data))
        self.data: Tensor = torch.from_numpy(np.array(data, dtype=np.uint8))
        self.ends: Tensor = torch.from_numpy(np.array(ends, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, i: int) -> bytes: ...
    @overload
    def __getitem__(self, i: slice) -> list[bytes]: ...
    def __getitem__(self, i: int | slice) -> bytes | list[bytes]:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        i = range(len(self))[i]
        start = int(self.ends[i - 1]) if i else 0
        return self.data[start : int(self.ends[i])].numpy().tobytes()


class Texts(Sequence[str]):
    """N strings; names of files that are not UTF-8 come back as they were."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._blobs = Blobs(os.fsencode(text) for text in texts)

    def __len__(self) -> int:
        return len(self._blobs)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [os.fsdecode(piece) for piece in self._blobs[i]]
        return os.fsdecode(self._blobs[i])

    def columns(self, name: str) -> Columns:
        """What :meth:`of_columns` makes the strings of again."""
        return {f"{name}.data": self._blobs.data.numpy(), f"{name}.ends": self._blobs.ends.numpy()}

    @classmethod
    def of_columns(cls, columns: Columns, name: str) -> "Texts":
        """The strings of :meth:`columns`.

        Raises:
            KeyError: if they are not there.
            ValueError: if they are not the two columns of strings.
        """
        data, ends = columns[f"{name}.data"], columns[f"{name}.ends"]
        if (
            data.dtype != np.uint8
            or ends.dtype != np.int64
            or (int(ends[-1]) if len(ends) else 0) != len(data)
        ):
            raise ValueError(f"{name}: no strings")
        texts = cls()
        texts._blobs.data, texts._blobs.ends = torch.from_numpy(data), torch.from_numpy(ends)
        return texts
