"""How the numbers of a trial are made: the one file of the frame that they depend on."""

import importlib
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stopgrad.errors import UsageError
from stopgrad.experiments.schema import Result, Trial

NO_RESULTS = ("seed", "epochs", "images_per_second")
NODES = ("z", "p", "z_train", "p_train")
SERIES_DIGITS = 5
"""Significant digits of a series: the figures need no more, and the store is kept under version control."""


def run_trial(trial: Trial) -> Result:
    """Run a trial. The same trial gives the same result, in any process, before or after any other.

    Raises:
        Exception: whatever the trial raises.
    """
    return _exact(trial) if trial.kind == "exact" else _training(trial)


def _exact(trial: Trial) -> Result:
    module, _, name = str(trial.function).rpartition(".")
    function = getattr(importlib.import_module(f"stopgrad.experiments.exact.{module}"), name, None)
    if function is None:
        raise UsageError(f"function: '{trial.function}' does not exist")
    result = function(**trial.arguments)
    return Result(_finite(result.numbers), result.series)


def _training(trial: Trial) -> Result:
    from stopgrad.training.folder import RunFolder
    from stopgrad.training.pretrain import run
    from stopgrad.training.settings import resolve

    with temporary_run() as folder:
        summary = run(resolve(trial.arguments), folder, show_progress=False)
        rows = [row for row in RunFolder(folder).rows() if row["kind"] == "epoch"]
    return Result(numbers_of(summary), series_of(rows))


def numbers_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The measures of a run's summary under dotted names, such as ``linear_probe`` and ``z.std``.

    Besides: ``diverged``, and for every node ``z.collapsed`` and ``z.healthy``, each 0 or 1, by
    `stopgrad.diagnostics.judge`. Settings, and how fast the run was, are left out: they are no results.
    """
    from stopgrad import diagnostics

    numbers = {name: value for name, value in _flat(summary) if name not in NO_RESULTS}
    loss = summary["loss"]
    numbers["diverged"] = float(summary["verdict"] == "diverged")
    for node in NODES:
        if node in summary:
            verdict, _ = diagnostics.judge({"z": summary[node]}, math.nan if loss is None else loss)
            numbers[f"{node}.collapsed"] = float("collapse" in verdict)
            numbers[f"{node}.healthy"] = float(verdict == "healthy")
    return _finite(numbers)


def series_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The evaluated epoch rows as columns: ``epoch``, ``loss``, ``knn``, ``z.std``, ``z.spectrum`` and so on.

    Batch normalisation is in evaluation mode; what is measured of the predictor's modes is left out. Values
    have `SERIES_DIGITS` significant digits.
    """
    evaluated = [row for row in rows if "z" in row]
    columns: dict[str, list[Any]] = {}
    for index, row in enumerate(evaluated):
        for name, value in _leaves(row):
            if name != "kind" and name.partition(".")[0] not in ("z_train", "p_train", "modes"):
                columns.setdefault(name, [None] * len(evaluated))[index] = _rounded(value)
    return columns


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{SERIES_DIGITS}g}") if math.isfinite(value) else None
    return value


def _flat(content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in _leaves(content):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


@contextmanager
def temporary_run() -> Iterator[Path]:
    """A folder for a run of which only numbers are kept; the run's log, which lies in it, is closed."""
    with tempfile.TemporaryDirectory(prefix="stopgrad-trial-") as folder:
        try:
            yield Path(folder) / "run"
        finally:
            _close_logs()


def _close_logs() -> None:
    logger = logging.getLogger("stopgrad")
    for handler in list(logger.handlers):
        if isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
            handler.close()
