"""Run folders in the form that training writes, without training."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EPOCHS, STEPS_AN_EPOCH = 24, 8


def measures(rng: np.random.Generator, progress: float, width: int = 64) -> dict[str, Any]:
    spectrum = np.exp(-np.arange(width) / (2 + 12 * progress))
    spectrum /= spectrum.sum()
    m_o = float(0.9 - 0.7 * progress)
    return {
        "std": float(0.3 + 0.6 * progress + 0.01 * rng.normal()),
        "uniformity": float(-0.5 - 3 * progress),
        "alignment": float(0.6 - 0.4 * progress),
        "effective_rank": float(2 + 30 * progress),
        "m_o": m_o,
        "m_r": float(np.sqrt(1 - m_o**2)),
        "spectrum": spectrum.tolist(),
    }


def metric_rows(epochs: int, nodes: tuple[str, ...], labels: bool) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for epoch in range(epochs + 1):
        progress = epoch / max(epochs, 1)
        for place in range(STEPS_AN_EPOCH if epoch else 0):
            step = (epoch - 1) * STEPS_AN_EPOCH + place + 1
            rows.append(
                {
                    "kind": "step",
                    "step": step,
                    "epoch": step / STEPS_AN_EPOCH,
                    "loss": -0.2 - 0.7 * progress + 0.03 * rng.normal(),
                    "std": 0.3 + 0.6 * progress,
                    "effective_rank": 2 + 30 * progress,
                    "lr": 0.2 * (1 + np.cos(np.pi * progress)) / 2,
                    "images_per_second": 5000 + 200 * rng.normal(),
                }
            )
        row = {"kind": "epoch", "step": epoch * STEPS_AN_EPOCH, "epoch": epoch}
        if epoch:
            row["loss"] = -0.2 - 0.7 * progress
        if labels:
            row |= {"knn": 0.6 + 0.3 * progress, "online_probe": 0.5 + 0.35 * progress}
        rows.append(row | {node: measures(rng, progress * (1 - 0.1 * i)) for i, node in enumerate(nodes)})
    return rows


def evaluation_arrays(count: int, labels: bool, channels: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    own = rng.integers(0, 10, count)
    side = 16
    stripes = np.sin(np.arange(side)[None, :] * (own[:, None] + 1) / 4)[:, None, :, None] * 80 + 128
    noise = rng.normal(0, 20, (count, channels, side, side))
    arrays: dict[str, Any] = {
        "h": (rng.normal(size=(10, 32))[own] * 1.2 + rng.normal(size=(count, 32))).astype(np.float32),
        "z": rng.normal(size=(count, 16)).astype(np.float32),
        "thumbnails": np.clip(stripes + noise, 0, 255).astype(np.uint8),
        "ids": np.array([f"test/{i}" for i in range(count)]),
    }
    if labels:
        arrays |= {"labels": own.astype(np.int64), "classes": np.array([f"digit {k}" for k in range(10)])}
    return arrays


def summary_of(nodes: tuple[str, ...], labels: bool) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    probes = ("knn", "linear_probe", "linear_probe_raw", "linear_probe_20", "linear_probe_20_raw")
    final = {node: measures(rng, 1 - 0.1 * i) for i, node in enumerate(nodes)}
    return {
        "method": "directpred",
        "data": "digits",
        "seed": 3,
        "epochs": EPOCHS,
        "images_per_second": 5012.0,
        "loss": -0.9,
        **{key: final["z"][key] for key in ("std", "effective_rank", "alignment", "uniformity")},
        **{key: 0.9 - 0.03 * i if labels else None for i, key in enumerate(probes)},
        "verdict": "healthy",
        "evidence": [
            {"measure": "std", "of": "z", "value": 0.9, "threshold": 0.1, "says": "z is spread out"},
            {"measure": "std", "of": "p", "value": 0.88, "threshold": 0.1, "says": "p is spread out"},
            {"measure": "effective_rank", "of": "z", "value": 32.0, "threshold": 4.0, "says": "z is wide"},
        ],
        **final,
        "untrained": {key: 0.6 - 0.03 * i if labels else None for i, key in enumerate(probes)},
        "skipped": [],
        "run": "runs/demo",
        "stopgrad": "0.1.0",
    }


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Writes a run folder; `change` may edit rows, summary and arrays before they are written."""

    def make(
        epochs: int = EPOCHS,
        labels: bool = True,
        predictor: bool = True,
        channels: int = 1,
        count: int = 60,
        change: Callable[[list[dict[str, Any]], dict[str, Any], dict[str, Any]], None] | None = None,
    ) -> Path:
        nodes = ("z", "z_train", "p", "p_train") if predictor else ("z", "z_train")
        rows = metric_rows(epochs, nodes, labels)
        summary, arrays = summary_of(nodes, labels), evaluation_arrays(count, labels, channels)
        if change is not None:
            change(rows, summary, arrays)
        run = tmp_path / "run"
        run.mkdir()
        (run / "config.yaml").write_text("method: directpred\npredictor:\n  eps: 0.1\n")
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "summary.json").write_text(json.dumps(summary))
        np.savez(run / "evaluation.npz", **arrays)
        return run

    yield make
    shutil.rmtree(tmp_path / "run", ignore_errors=True)  # a report has 5 MB
