"""What a run's folder tells the doctor: its measures over time, and the parts of its method."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stopgrad.diagnostics.diagnosis import Reading
from stopgrad.errors import UsageError
from stopgrad.training.folder import RunFolder
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


def read_readings(folder: RunFolder, batch: int | None = None) -> list[Reading]:
    """The run's readings in the order of their steps.

    One for each measured epoch, of the validation images; the last is that of ``summary.json``, of the test
    images, where the run has ended. The untrained network is no reading: its batch normalisation has seen no
    images yet, so that in evaluation mode it looks collapsed.

    Args:
        folder: of the run; it may still be training.
        batch: N of the loss, which gives some losses their meaning.

    Raises:
        UsageError: nothing was measured yet, or a file is damaged.
    """
    scalars = {} if batch is None else {"batch": float(batch)}
    readings = [
        Reading(row["step"], _nodes(row), row["loss"], scalars)
        for row in folder.rows()
        if row["kind"] == "epoch" and row["step"] > 0 and "z" in row
    ]
    summary = _read_summary(folder)
    if summary:
        loss = summary["loss"]  # null is what a number that is not finite was written as
        last = readings[-1].step if readings else None
        diverged = summary.get("diverged_at_step")
        end = Reading(
            last if diverged is None else diverged,
            _nodes(summary),
            math.nan if loss is None else loss,
            scalars,
        )
        readings = [*(r for r in readings if r.step != end.step), end]
    if not readings:
        raise UsageError(f"{folder.path}: nothing was measured in this run yet, wait for its first epoch")
    return readings


def _nodes(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The measures of a row by node; where they were not finite, vectors were not."""
    nodes = {}
    for name in NODES:
        if isinstance(row.get(name), Mapping):
            values = {key: math.nan if value is None else value for key, value in row[name].items()}
            nodes[name] = values if row[name].get("std") is not None else {**values, "finite": 0.0}
    return nodes


def _read_summary(folder: RunFolder) -> Mapping[str, Any]:
    if not folder.summary.is_file():
        return {}
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{folder.summary}: not JSON ({error})") from None
    if not isinstance(summary, Mapping) or not {"loss", "z"} <= summary.keys():
        raise UsageError(f"{folder.summary}: not the summary of a run")
    return summary
