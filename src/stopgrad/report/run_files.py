"""What a report reads from a run folder. It stands for itself: a half-written run can be read too."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.errors import UsageError
from stopgrad.files import json_lines

Row = Mapping[str, Any]
READING = b', "reading": '
"""Before the last of a step row, what the monitor read: nine tenths of a log, and the doctor's alone."""


@dataclass(frozen=True)
class Evaluation:
    """The held-out images of `evaluation.npz`: N images, encoder width D, K classes, side s.

    Attributes:
        h: (N, D) float32 encoder features.
        thumbnails: (N, C, s, s) uint8, C 1 or 3.
        ids: N names.
        labels: (N,) int64, or None for data without labels.
        classes: K names, or None.
    """

    h: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]
    ids: tuple[str, ...]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None

    def label_name(self, index: int) -> str | None:
        """The class of image `index`, or None where it is not known."""
        label = -1 if self.labels is None else int(self.labels[index])
        if label < 0:
            return None
        return self.classes[label] if self.classes and label < len(self.classes) else str(label)


@dataclass(frozen=True)
class RunFiles:
    """The files of one run folder; a file that is not there is an empty text, mapping or tuple, or None.

    Steps are without what the monitor read (:meth:`stopgrad.training.folder.RunFolder.readings`).
    """

    path: Path
    config: str
    summary: Row
    steps: tuple[Row, ...]
    epochs: tuple[Row, ...]
    unreadable_lines: int
    evaluation: Evaluation | None


def read_run(run: Path) -> RunFiles:
    """Read what there is in a run folder.

    Raises:
        UsageError: if `run` is no run folder, or one of its files is damaged. A torn line of
            `metrics.jsonl` (the process was killed while writing) is no damage: it is counted.
    """
    if not (run / "metrics.jsonl").is_file() and not (run / "summary.json").is_file():
        raise UsageError(
            f"{run}: not a run folder (no metrics.jsonl in it); give the --out of a training run"
        )
    rows, unreadable = _read_rows(run / "metrics.jsonl")
    return RunFiles(
        path=run,
        config=_text(run / "config.yaml"),
        summary=_read_summary(run / "summary.json"),
        steps=tuple(row for row in rows if row["kind"] == "step"),
        epochs=tuple(row for row in rows if row["kind"] == "epoch"),
        unreadable_lines=unreadable,
        evaluation=_read_evaluation(run / "evaluation.npz"),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_summary(path: Path) -> Row:
    try:
        summary = json.loads(_text(path) or "{}")
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error}); probe the run again to rewrite it") from error
    if not isinstance(summary, dict):
        raise UsageError(f"{path}: not a JSON object; probe the run again to rewrite it")
    return summary


def _read_rows(path: Path) -> tuple[list[Row], int]:
    """The rows in step order; of rows for the same step, as a resumed run may repeat them, the last one."""
    rows: dict[tuple[str, float], Row] = {}
    if not path.is_file():
        return [], 0
    with path.open("rb") as file:  # line by line: the whole may be of gigabytes
        text = b"\n".join(map(_without_reading, file)).decode(errors="replace")
    read, unreadable = json_lines(text)
    for row in read:
        try:
            row["epoch"] = float(row["epoch"])
            rows[str(row["kind"]), float(row["step"])] = row
        except (ValueError, TypeError, KeyError):
            unreadable += 1
    return [rows[key] for key in sorted(rows, key=lambda key: key[1])], unreadable


def _without_reading(line: bytes) -> bytes:
    """The row without it, unless something else comes after it; a torn one stays torn."""
    row, found, _ = line.partition(READING)
    return row + b"}" if found and line.rstrip().endswith(b"}}}") else line


def _read_evaluation(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Evaluation(
                h=arrays["h"],
                thumbnails=arrays["thumbnails"],
                ids=tuple(str(name) for name in arrays["ids"]),
                labels=arrays.get("labels"),
                classes=tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else None,
            )
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: cannot be read ({error}); probe the run again to rewrite it") from error
