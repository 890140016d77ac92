"""Sets of vectors: checks of what evaluation is given, and embedding files.

Shapes: N vectors, D features, K classes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad.errors import UsageError, require
from stopgrad.files import whole_file

SUFFIXES = (".npz", ".parquet")
CHECKED_AT_ONCE = 16_384


@dataclass(frozen=True)
class Vectors:
    """What an embedding file holds.

    Attributes:
        vectors: (N, D) float32.
        ids: N names, such as image paths.
        labels: (N,) int64, or None.
        classes: names of the K classes, or None.
    """

    vectors: Tensor
    ids: tuple[str, ...]
    labels: Tensor | None
    classes: tuple[str, ...] | None


def check_vectors(vectors: Tensor, what: str) -> None:
    """Refuse what no evaluation can use.

    Raises:
        UsageError: not (N, D) with N, D >= 1, or NaN or infinity inside.
    """
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise UsageError(f"{what}: expected shape (N, D) with N, D >= 1, got {tuple(vectors.shape)}")
    # part by part: the answer for a million vectors at once would take a copy of them
    bad = sum(int((~torch.isfinite(part).all(dim=1)).sum()) for part in vectors.split(CHECKED_AT_ONCE))
    if bad:
        raise UsageError(
            f"{what}: {bad} of {len(vectors)} vectors hold NaN or infinity; the run diverged, "
            "use an earlier checkpoint or a lower learning rate"
        )


def check_labels(labels: Tensor | None, count: int, what: str) -> Tensor:
    """The labels, if there is one class index for each of ``count`` vectors.

    Raises:
        UsageError: no labels, another number of labels, labels that are not integers of at least 0.
    """
    if labels is None:
        raise UsageError(f"{what}: there are no labels; give a labelled part (one folder a class)")
    if labels.shape != (count,):
        raise UsageError(f"{what}: expected {count} labels, got shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise UsageError(f"{what}: labels are class indices (integers), got {labels.dtype}")
    if count and int(labels.min()) < 0:
        raise UsageError(f"{what}: label {int(labels.min())} is negative; leave unlabelled images out")
    return labels.long()


def check_suffix(path: Path) -> str:
    """The format of an embedding file, to be asked before anything is computed for it.

    Raises:
        UsageError: neither ``.npz`` nor ``.parquet``.
        MissingExtra: ``.parquet`` without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: an embedding file ends in {' or '.join(SUFFIXES)}, not '{path.suffix}'")
    if suffix == ".parquet":
        require("pyarrow.parquet", "data")
    return suffix


def save_vectors(
    path: Path,
    vectors: Tensor,
    ids: Sequence[str],
    labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """Write an embedding file; ``path`` is replaced in one step.

    ``.npz``: arrays ``vectors`` (N, D) float32, ``ids`` (N,) str, ``labels`` (N,) int64 and ``classes``
    (K,) str where given. ``.parquet``: columns ``id``, ``vector`` (lists of D floats), ``label`` and
    ``class`` (its name) where given.

    Raises:
        UsageError: unknown suffix, or lengths that differ.
    """
    suffix = check_suffix(path)
    if vectors.ndim != 2 or len(ids) != len(vectors):
        raise UsageError(f"{path}: {len(ids)} ids for vectors of shape {tuple(vectors.shape)}")
    if labels is not None:
        labels = check_labels(labels, len(vectors), f"{path}: labels").cpu()
        if classes is not None and len(labels) and int(labels.max()) >= len(classes):
            raise UsageError(f"{path}: label {int(labels.max())} has no name among {len(classes)} classes")
    write = _write_npz if suffix == ".npz" else _write_parquet
    with whole_file(path) as temporary:
        write(temporary, vectors.detach().float().cpu().numpy(), list(ids), labels, classes)


def load_vectors(path: Path) -> Vectors:
    """Read an embedding file written by :func:`save_vectors`. No code in the file is run.

    Raises:
        UsageError: unknown suffix, no such file, or a file of other content.
    """
    suffix = check_suffix(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        read = _read_npz(path) if suffix == ".npz" else _read_parquet(path)
    except Exception as error:  # zipfile, numpy and pyarrow each have errors of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path}: not an embedding file of stopgrad ({reason})") from error
    if read.vectors.ndim != 2 or len(read.ids) != len(read.vectors):
        raise UsageError(
            f"{path}: not an embedding file of stopgrad "
            f"({len(read.ids)} ids for vectors of shape {tuple(read.vectors.shape)})"
        )
    return read


def _write_npz(
    path: Path, vectors: np.ndarray, ids: list[str], labels: Tensor | None, classes: Sequence[str] | None
) -> None:
    arrays: dict[str, Any] = {"vectors": vectors, "ids": np.array(ids, dtype=str)}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    if classes is not None:
        arrays["classes"] = np.array(list(classes), dtype=str)
    np.savez(path, **arrays)


def _read_npz(path: Path) -> Vectors:
    with np.load(path, allow_pickle=False) as file:
        return Vectors(
            vectors=torch.from_numpy(file["vectors"].astype(np.float32)),
            ids=tuple(file["ids"].tolist()),
            labels=torch.from_numpy(file["labels"].astype(np.int64)) if "labels" in file else None,
            classes=tuple(file["classes"].tolist()) if "classes" in file else None,
        )


def _write_parquet(
    path: Path, vectors: np.ndarray, ids: list[str], labels: Tensor | None, classes: Sequence[str] | None
) -> None:
    arrow = require("pyarrow", "data")
    width = vectors.shape[1]
    flat = arrow.array(vectors.reshape(-1), type=arrow.float32())
    columns = {
        "id": arrow.array(ids, type=arrow.string()),
        "vector": arrow.FixedSizeListArray.from_arrays(flat, width),
    }
    if labels is not None:
        columns["label"] = arrow.array(labels.numpy())
        if classes is not None:
            columns["class"] = arrow.array([classes[label] for label in labels.tolist()], type=arrow.string())
    table = arrow.table(columns)
    if classes is not None:
        # The column names only the classes that occur; a label's meaning needs all of them.
        table = table.replace_schema_metadata({"stopgrad.classes": json.dumps(list(classes))})
    require("pyarrow.parquet", "data").write_table(table, path)


def _read_parquet(path: Path) -> Vectors:
    table = require("pyarrow.parquet", "data").read_table(path)
    vectors = table["vector"].combine_chunks()
    flat = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(table), vectors.type.list_size)
    metadata = table.schema.metadata or {}
    names = metadata.get(b"stopgrad.classes")
    labels = table["label"].to_numpy() if "label" in table.column_names else None
    return Vectors(
        vectors=torch.from_numpy(flat.astype(np.float32)),
        ids=tuple(table["id"].to_pylist()),
        labels=None if labels is None else torch.from_numpy(labels.astype(np.int64)),
        classes=None if names is None else tuple(json.loads(names)),
    )
