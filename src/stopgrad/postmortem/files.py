"""Files of vectors, read in chunks: .npy, .npz, .parquet, .pt and .safetensors. No code in them is run.

Legend: N vectors of width D, one a row.
"""

import math
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stopgrad.diagnostics.verdict import RANK_COLLAPSED
from stopgrad.errors import UsageError, require

CHUNK = 2**22
"""Numbers read at a time: 16 MiB as float32."""
FEWEST = math.ceil(2 * RANK_COLLAPSED)
"""Fewer vectors span too few directions to tell collapse from their number."""
OBVIOUS = ("vectors", "embeddings", "features")
"""Names that win where a file holds several arrays that could be meant; the first is our own."""
WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""Endings that a checkpoint may have."""


@dataclass(frozen=True)
class VectorFile:
    """An open file of vectors.

    Attributes:
        path: where it lies.
        key: which array or column of it; None where it holds only one without a name.
        rows: N.
        dim: D.
        dtype: as stored.
        chunks: reads the rows from the start, in order: tensors (n, D) of any real dtype.
    """

    path: Path
    key: str | None
    rows: int
    dim: int
    dtype: str
    chunks: Callable[[], Iterator[Tensor]]


# RuntimeError: an encrypted member, or a compression that Python does not know
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


class Entry(NamedTuple):
    """What a file says of one array: its shape, its dtype's name, and whether that is of real numbers."""

    shape: tuple[int, ...]
    dtype: str
    real: bool


def rows_of_chunk(dim: int) -> int:
    """Rows of width ``dim`` that are read at a time."""
    return max(1, CHUNK // max(dim, 1))


def open_vectors(path: Path, key: str | None = None) -> VectorFile:
    """Open a file of vectors; what it holds is checked as far as its header tells.

    Args:
        path: ends in .npy, .npz, .parquet, .pt, .pth or .safetensors.
        key: name of the array or column; needed only where several could be meant.

    Raises:
        UsageError: no such file, an unknown or damaged one, Python objects in it, no array (N, D) of real
            numbers, several to choose from, too few vectors or too narrow ones.
        MissingExtra: .parquet without pyarrow.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UsageError(
            f"{path}: cannot read '{path.suffix}' as vectors; known are {', '.join(READERS)}{_hint(path)}"
        )
    if path.stat().st_size == 0:
        raise UsageError(f"{path}: the file is empty")
    opened = READERS[suffix](path, key)
    check_size(str(path), opened.rows, opened.dim)
    return opened


def check_size(what: str, rows: int, dim: int) -> None:
    """Refuse sizes at which isotropic vectors look collapsed: an effective rank is at most min(N - 1, D).

    Raises:
        UsageError: too few vectors, or too narrow ones.
    """
    if rows < FEWEST:
        raise UsageError(f"{what}: {rows} vector{'s' * (rows != 1)}, at least {FEWEST} are needed to judge")
    if dim <= RANK_COLLAPSED:
        raise UsageError(
            f"{what}: vectors of width {dim}; collapse is an effective rank below {RANK_COLLAPSED:g}, which "
            "takes wider ones to tell"
        )


def read_torch(path: Path) -> Any:
    """What a file of ``torch.save`` holds, on the CPU, admitting tensors and plain values only.

    Tensors stay on disk until they are used, where the file's format allows it.

    Raises:
        UsageError: damaged, or it holds objects that only running code could restore.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that torch did not write
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise UsageError(f"{path}: not a file of torch.save, or damaged") from None
        raise UsageError(
            f"{path}: holds a {found[1]}, which only running code from the file could restore; where you "
            "trust it, save its weights alone: c = torch.load(FILE, weights_only=False); "
            "torch.save(c['state_dict'], 'weights.pt')"
        ) from None
    except OSError:
        raise
    except Exception as error:  # what a restricted unpickler runs into in other files is of any kind
        raise UsageError(f"{path}: not a file of torch.save, or damaged ({_line(error)})") from None


def choose(path: Path, entries: Mapping[str, Entry], key: str | None) -> str:
    """The array that is meant: the one named, else the only one (N, D) of real numbers, else an obvious name.

    Raises:
        UsageError: unknown key, none that fits, or several.
    """
    if key is not None:
        if key not in entries:
            raise UsageError(f"{path}: no '{key}' in it; it holds {_list(entries)}")
        check_entry(f"{path}: '{key}'", entries[key])
        return key
    fitting = [name for name, e in entries.items() if len(e.shape) == 2 and e.real]
    if len(fitting) == 1:
        return fitting[0]
    obvious = [name for name in OBVIOUS if name in fitting]
    if obvious:
        return obvious[0]
    if not fitting:
        raise UsageError(f"{path}: no array (N, D) of real numbers; it holds {_list(entries)}{_hint(path)}")
    chosen = {name: entries[name] for name in fitting}
    raise UsageError(
        f"{path}: {len(fitting)} arrays (N, D), say which by --key: {_list(chosen)}{_hint(path)}"
    )


def check_entry(what: str, entry: Entry) -> None:
    """Refuse what are no vectors.

    Raises:
        UsageError: not two-dimensional, or not of real numbers.
    """
    if not entry.real:
        objects = entry.dtype == "object"
        why = "Python objects, which only pickle reads and which is never used here" if objects else "numbers"
        says = f"holds {why}" if objects else f"holds {entry.dtype}, not real {why}"
        raise UsageError(f"{what}: {says}; save the vectors as one float array (N, D)")
    if len(entry.shape) != 2:
        raise UsageError(f"{what}: expected shape (N, D), one vector a row, got {entry.shape}")


# ---- .npy and .npz


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def entry(self) -> Entry:
        return Entry(self.shape, str(self.dtype), self.dtype.kind in "fiu")


def _read_header(file: IO[bytes], what: str) -> _Header:
    """The header of an .npy stream, which is left at the first number."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        version = npy.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} of the format")
        return _Header(*readers[version](file))
    except (ValueError, SyntaxError, EOFError) as error:
        raise UsageError(f"{what}: not an array of numpy.save ({_line(error)})") from None


def _stream(file: IO[bytes], header: _Header, what: str) -> Iterator[Tensor]:
    """The rows of a C-ordered array whose numbers begin where the stream stands."""
    rows, dim = header.shape
    step = rows_of_chunk(dim)
    for start in range(0, rows, step):
        chunk = np.empty((min(step, rows - start), dim), header.dtype)
        if _fill(file, chunk) < chunk.nbytes:
            raise UsageError(f"{what}: the file is cut off; its header promises {rows} vectors")
        yield _tensor(chunk)


def _fill(file: IO[bytes], chunk: NDArray[Any]) -> int:
    """Read into a chunk as many bytes as there are; returns how many."""
    view, done = chunk.reshape(-1).view(np.uint8).data, 0
    while done < len(view):
        read = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not read:
            break
        done += read
    return done


def _tensor(chunk: NDArray[Any]) -> Tensor:
    """A chunk in a dtype that torch computes with: whole numbers and long doubles become float64."""
    ours = chunk.dtype.kind == "f" and chunk.dtype.itemsize <= 8
    kind = chunk.dtype.newbyteorder("=") if ours else np.dtype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(chunk, dtype=kind))


def _slices(array: NDArray[Any]) -> Iterator[Tensor]:
    step = rows_of_chunk(array.shape[1])
    for start in range(0, len(array), step):
        yield _tensor(array[start : start + step])


def _open_npy(path: Path, key: str | None) -> VectorFile:
    _has_no_names(path, key)
    with path.open("rb") as file:
        header = _read_header(file, str(path))
        begin = file.tell()
    check_entry(str(path), header.entry)
    if path.stat().st_size < begin + math.prod(header.shape) * header.dtype.itemsize:
        raise UsageError(f"{path}: the file is cut off; its header promises {header.shape[0]} vectors")

    def chunks() -> Iterator[Tensor]:
        if header.fortran:  # rows do not lie together: the system pages in what is asked for
            yield from _slices(np.load(path, mmap_mode="r", allow_pickle=False))
            return
        with path.open("rb") as file:
            file.seek(begin)
            yield from _stream(file, header, str(path))

    rows, dim = header.shape
    return VectorFile(path, None, rows, dim, str(header.dtype), chunks)


def _open_npz(path: Path, key: str | None) -> VectorFile:
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {}
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as file:
                        headers[name.removesuffix(".npy")] = _read_header(file, f"{path}: '{name}'")
    except DAMAGED as error:
        raise UsageError(f"{path}: not an archive of numpy.savez, or damaged ({_line(error)})") from None
    chosen = choose(path, {name: header.entry for name, header in headers.items()}, key)
    header, what = headers[chosen], f"{path}: '{chosen}'"

    def chunks() -> Iterator[Tensor]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{chosen}.npy") as file:
                _read_header(file, what)
                if header.fortran:  # rows do not lie together, and a compressed array cannot be paged in
                    values = np.empty(math.prod(header.shape), header.dtype)
                    if _fill(file, values) < values.nbytes:
                        raise UsageError(f"{what}: the file is cut off")
                    yield from _slices(values.reshape(header.shape, order="F"))
                else:
                    yield from _stream(file, header, what)
        except DAMAGED as error:
            raise UsageError(f"{what}: damaged ({_line(error)})") from None

    rows, dim = header.shape
    return VectorFile(path, chosen, rows, dim, str(header.dtype), chunks)


# ---- torch and safetensors


def _open_torch(path: Path, key: str | None) -> VectorFile:
    content = read_torch(path)
    if isinstance(content, Tensor):
        _has_no_names(path, key)
        return _of_tensor(path, None, content)
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: holds a {type(content).__name__}; expected a tensor or a mapping of them")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        names = ", ".join(map(str, list(content)[:8]))
        raise UsageError(f"{path}: no tensor under its names ({names}){_hint(path)}")
    chosen = choose(path, {name: _entry(value) for name, value in tensors.items()}, key)
    return _of_tensor(path, chosen, tensors[chosen])


def _entry(tensor: Tensor) -> Entry:
    real = tensor.layout == torch.strided and not tensor.is_complex() and tensor.dtype != torch.bool
    return Entry(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), real)


def _of_tensor(path: Path, key: str | None, tensor: Tensor) -> VectorFile:
    entry = _entry(tensor)
    check_entry(str(path) if key is None else f"{path}: '{key}'", entry)
    rows, dim = entry.shape

    def chunks() -> Iterator[Tensor]:
        for chunk in tensor.detach().split(rows_of_chunk(dim)):
            yield chunk if chunk.is_floating_point() else chunk.double()

    return VectorFile(path, key, rows, dim, entry.dtype, chunks)


def _open_safetensors(path: Path, key: str | None) -> VectorFile:
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, no mapping
            entries = {
                name: Entry(tuple(s.get_shape()), str(s.get_dtype()).lower(), s.get_dtype() != "BOOL")
                for name, s in slices.items()
            }
    except SafetensorError as error:
        raise UsageError(f"{path}: not a safetensors file, or damaged ({_line(error)})") from None
    chosen = choose(path, entries, key)
    rows, dim = entries[chosen].shape

    def chunks() -> Iterator[Tensor]:
        step = rows_of_chunk(dim)
        with safe_open(path, "pt") as file:
            array = file.get_slice(chosen)
            for start in range(0, rows, step):
                chunk: Tensor = array[start : start + step]
                yield chunk if chunk.is_floating_point() else chunk.double()

    return VectorFile(path, chosen, rows, dim, entries[chosen].dtype, chunks)


# ---- parquet


def _open_parquet(path: Path, key: str | None) -> VectorFile:
    arrow = require("pyarrow", "data")
    parquet = require("pyarrow.parquet", "data")
    try:
        file = parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a Parquet file, or damaged ({_line(error)})") from None
    with file:
        rows = file.metadata.num_rows
        fields = {field.name: _storage(field.type) for field in file.schema_arrow}
        lists = {name: kind for name, kind in fields.items() if _of_numbers(arrow, kind)}
        entries = {
            name: Entry((rows, -1) if name in lists else (rows,), str(kind), name in lists)
            for name, kind in fields.items()
        }
        chosen = choose(path, entries, key)
        kind = lists[chosen]
        fixed = isinstance(kind, arrow.FixedSizeListType)
        dim = kind.list_size if fixed else _first_length(file, chosen) if rows else 0

    def chunks() -> Iterator[Tensor]:
        before = 0
        try:
            with parquet.ParquetFile(path) as again:
                for batch in again.iter_batches(rows_of_chunk(dim), columns=[chosen]):
                    column = batch.column(0)
                    yield _rows(path, chosen, getattr(column, "storage", column), dim, before)
                    before += len(column)
        except (arrow.ArrowException, OSError) as error:
            raise UsageError(f"{path}: damaged ({_line(error)})") from None

    return VectorFile(path, chosen, rows, dim, str(kind.value_type), chunks)


def _storage(kind: Any) -> Any:
    """The type that lies in the file; an extension type (such as a tensor) wraps it."""
    return getattr(kind, "storage_type", kind)


def _of_numbers(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))


def _first_length(file: Any, name: str) -> int:
    batch = next(file.iter_batches(1, columns=[name]))
    return len(batch.column(0)[0].as_py() or ())


def _rows(path: Path, name: str, column: Any, dim: int, before: int) -> Tensor:
    """(n, D) from a column of n lists; a missing number becomes NaN, a missing or other list is refused."""
    compute = require("pyarrow.compute", "data")
    lengths = compute.fill_null(compute.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != dim)
    if len(wrong):
        length = lengths[wrong[0]]
        has = "has no vector" if length < 0 else f"has {length} numbers"
        raise UsageError(f"{path}: row {before + wrong[0]} of '{name}' {has}, the first row {dim}")
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return _tensor(values if values.flags.writeable else values.copy())


READERS: dict[str, Callable[[Path, str | None], VectorFile]] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".parquet": _open_parquet,
    ".pt": _open_torch,
    ".pth": _open_torch,
    ".safetensors": _open_safetensors,
}


# ---- words


def _has_no_names(path: Path, key: str | None) -> None:
    if key is not None:
        raise UsageError(f"--key {key}: {path} holds one array without a name; leave --key out")


def _hint(path: Path) -> str:
    """What else a file of this ending may be."""
    if path.suffix.lower() not in WEIGHTS:
        return ""
    return "; if it is a checkpoint, add --model timm/NAME --data FOLDER"


def _list(entries: Mapping[str, Entry], most: int = 8) -> str:
    shown = []
    for name, entry in list(entries.items())[:most]:
        lengths = ["?" if length < 0 else str(length) for length in entry.shape]
        shown.append(f"{name} ({', '.join(lengths)}) {entry.dtype}")
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return (", ".join(shown) + more) if shown else "no array"


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
