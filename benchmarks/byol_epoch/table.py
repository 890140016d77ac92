"""The table of the results, and the pages that it is written to."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

RESULTS = Path(__file__).parents[1] / "results"


def header() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    names = ("stopgrad", "lightly", "torch", "torchvision", "timm", "pillow")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
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
            f"Turns of {result['block']} steps; {result['workers']} DataLoader workers for lightly; threads",
            f"for an operation: {', '.join(f'{side} {n}' for side, n in result['threads'].items())}.",
            "",
            "| | images/s, median (min..max) | turns | kNN after "
            f"{result['steps']} steps (untrained {result['knn_untrained']:.3f}) |",
            "|---|---|---|---|",
        ]
        for name, rates in result["rates"].items():
            knn = f"{result['knn'][name]:.3f}" if name in result["knn"] else ""
            spread = f"{median(rates):,.1f} ({min(rates):,.1f}..{max(rates):,.1f})"
            lines.append(f"| {name} | {spread} | {len(rates)} | {knn} |")
        lines += ["", "| | stopgrad / lightly, median of turns (min..max) |", "|---|---|"]
        for label, ours, peer in result["pairs"]:
            ratios = result["ratios"][label]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
            what = f"default: {ours} / {peer}" if label == "default" else f"equal precision, {label}"
            lines.append(f"| {what} | {spread} |")
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
