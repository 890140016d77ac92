"""The run folder: where everything that a run writes lies."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from stopgrad.diagnostics.diagnosis import Reading
from stopgrad.errors import UsageError
from stopgrad.files import json_lines, to_json, write_text


class RunFolder:
    """Paths of a run, and its log of metrics."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.log = path / "train.log"
        self.checkpoint = path / "checkpoints" / "last.ckpt"
        self.healthy = path / "checkpoints" / "healthy.ckpt"
        self.rescues = path / "rescues.json"
        self.exported = path / "exported"
        self.evaluation = path / "evaluation.npz"
        self.report = path / "report.html"
        self.tensorboard = path / "tensorboard"

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """The folder of a run that was made before.

        Raises:
            UsageError: when ``path`` holds no run.
        """
        folder = cls(path)
        if not folder.config.is_file():
            raise UsageError(f"{path}: not a run folder (no config.yaml); name the folder that --out gave")
        return folder

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the log; a torn last line, as a kill leaves it, is passed over."""
        if self.metrics.exists():
            yield from json_lines(self.metrics.read_text(encoding="utf-8", errors="replace"))[0]

    def readings(self, until: float = math.inf) -> list[Reading]:
        """What the monitor read of the run's training steps up to ``until``, in their order."""
        return readings_of(row for row in self.rows() if row["step"] <= until)

    def truncate_metrics(self, step: int) -> None:
        """Forget the rows after ``step``, which a resumed run will write again."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        write_text(self.metrics, "".join(kept))


def readings_of(rows: Iterable[Mapping[str, Any]]) -> list[Reading]:
    """What the monitor read, out of the rows of a log."""
    return [_reading(row) for row in rows if row["kind"] == "step" and "reading" in row]


def _reading(row: Mapping[str, Any]) -> Reading:
    """The reading of a step row; a loss that JSON has as null was not finite."""
    loss = math.nan if row["loss"] is None else row["loss"]
    return Reading(row["step"], row["reading"]["nodes"], loss, row["reading"]["scalars"])


class MetricsLog:
    """Appends rows to ``metrics.jsonl`` and, where TensorBoard is installed, to its event files."""

    def __init__(self, folder: RunFolder, step: int):
        folder.truncate_metrics(step)
        self._file: TextIO = folder.metrics.open("a", buffering=1)
        self._board = _tensorboard(folder.tensorboard, step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row; nested scalars go to TensorBoard under their dotted names."""
        self._file.write(to_json(row) + "\n")
        if self._board is not None:
            self._board.file_writer.add_summary(_summary(row), row["step"])

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _tensorboard(path: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path), purge_step=step + 1)


def _summary(row: Mapping[str, Any]) -> Any:
    """All of a row in one event: its writer's queue is short, and an event each would wait for the disk."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(
        value=[
            Summary.Value(tag=f"{row['kind']}/{name}", simple_value=value) for name, value in _scalars(row)
        ]
    )


def _scalars(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and key != "step":
            yield prefix + key, value


def run_logger(folder: RunFolder) -> logging.Logger:
    """The package's logger, writing to ``train.log`` of this run from now on."""
    logger = logging.getLogger("stopgrad")
    for old in list(logger.handlers):
        if isinstance(old, logging.FileHandler):
            logger.removeHandler(old)
            old.close()
    handler = logging.FileHandler(folder.log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return logger
