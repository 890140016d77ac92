"""What a run's folder tells the doctor: its measures over time, and the parts of its method."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stopgrad.diagnostics.diagnosis import Reading
from stopgrad.errors import UsageError
from stopgrad.training.folder import RunFolder, readings_of
from stopgrad.training.settings import RunSettings, read_yaml, validate

NODES = ("z", "p", "z_train", "p_train")


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run."""
    folder = RunFolder(path)
    return any(file.is_file() for file in (folder.config, folder.metrics, folder.summary))


def read_settings(folder: RunFolder) -> RunSettings | None:
    """The run's settings, None where there is no ``config.yaml``.

    Raises:
        UsageError: they are damaged.
    """
    return validate(read_yaml(folder.config)) if folder.config.is_file() else None


Rows = Sequence[Mapping[str, Any]]
"""Of a run's log."""


def read_readings(folder: RunFolder, rows: Rows) -> list[Reading]:
    """What the monitor read while the run trained, in the order of the steps; the run may still be training.

    A run that ended with a loss that is no number has a last reading that says so.

    Raises:
        UsageError: nothing was read yet, or a file is damaged.
    """
    readings = readings_of(rows)
    diverged = read_summary(folder).get("diverged_at_step")
    if diverged is not None:
        readings.append(Reading(diverged, readings[-1].nodes if readings else {}, math.nan))
    if not readings:
        raise UsageError(f"{folder.path}: nothing was read in this run yet, wait for its first epoch")
    return readings


def read_measures(folder: RunFolder, rows: Rows) -> dict[str, dict[str, Any]]:
    """Measures by node: of the test images where the run has ended, else of the last measured epoch.

    Nothing before the first epoch has ended.
    """
    epochs = [row for row in rows if row["kind"] == "epoch" and row["step"] > 0 and "z" in row]
    known = [row for row in (read_summary(folder), *reversed(epochs)) if row]
    return _nodes(known[0]) if known else {}


def _nodes(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The measures of a row by node; where they were not finite, vectors were not."""
    nodes = {}
    for name in NODES:
        if isinstance(row.get(name), Mapping):
            values = {key: math.nan if value is None else value for key, value in row[name].items()}
            nodes[name] = values if row[name].get("std") is not None else {**values, "finite": 0.0}
    return nodes


def read_summary(folder: RunFolder) -> Mapping[str, Any]:
    """The run's ``summary.json``, empty where it has not ended.

    Raises:
        UsageError: it is damaged.
    """
    if not folder.summary.is_file():
        return {}
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{folder.summary}: not JSON ({error})") from None
    if not isinstance(summary, Mapping) or not {"loss", "z"} <= summary.keys():
        raise UsageError(f"{folder.summary}: not the summary of a run")
    return summary
