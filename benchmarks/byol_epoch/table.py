"""The table of the results, and the pages that it is written to."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import distributions, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

NAME_OF_STABLE = "stable-pretraining"
INSTALL_STABLE = "stable-pretraining is not installed: pip install stable-pretraining==0.1.8"
RESULTS = Path(__file__).parents[1] / "results"


def header() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    names = ("stopgrad", "lightly", NAME_OF_STABLE, "lightning", "torch", "torchvision", "timm", "pillow")
    present = {name for name in names if next(iter(distributions(name=name)), None) is not None}
    versions = ", ".join(f"{name} {version(name)}" for name in names if name in present)
    return (
        f"{model}, {processors()} processors{device}; {torch.get_num_threads()} threads of torch; "
        f"Python {platform.python_version()}, {versions}"
    )


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(results: Sequence[dict[str, Any]]) -> str:
    blocks = []
    for result in results:
        lines = [
            f"## {result['case']}: {result['title']}",
            "",
            f"Turns of {result['block']} steps; {result['workers']} DataLoader workers for a peer; threads",
            f"for an operation: {', '.join(f'{side} {n}' for side, n in result['threads'].items())}.",
            *(() if NAME_OF_STABLE in result["peers"] else ("", f"{INSTALL_STABLE}.")),
            "",
            "| | images/s, median (min..max) | turns | kNN after "
            f"{result['steps']} steps (untrained {result['knn_untrained']:.3f}) |",
            "|---|---|---|---|",
        ]
        for name, rates in result["rates"].items():
            knn = f"{result['knn'][name]:.3f}" if name in result["knn"] else ""
            spread = f"{median(rates):,.1f} ({min(rates):,.1f}..{max(rates):,.1f})"
            lines.append(f"| {name} | {spread} | {len(rates)} | {knn} |")
        lines += ["", "| | stopgrad / the best peer, median of turns (min..max) |", "|---|---|"]
        for label, ours, peer in result["pairs"]:
            ratios = result["ratios"][label]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
            what = "default" if label == "default" else "equal precision"
            lines.append(f"| {what}: {ours} / {peer} | {spread} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def write(result: dict[str, Any], machine: str, command: str) -> None:
    """One page and one JSON file a case, with the command that made it."""
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"train_step_{result['case']}"
    how = f"Written by `{command}`, whose docstring says how it is measured"
    stem.with_suffix(".md").write_text(f"# A BYOL training epoch\n\n{how}. {machine}.\n\n{table([result])}\n")
    content = {"command": command, "machine": machine, **result}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
