"""Does `torch.compile` pay? Forward and backward pass of encoder and projector, compiled beside plain.

    python benchmarks/compiled.py            # about 4 minutes on 2 cores
    python benchmarks/compiled.py --write    # and benchmarks/results/compiled.md, .json

The encoders, sizes and batches of `train_step.py`'s cases, channels last, in training mode, a sum as the
loss; bf16 by autocast. Both networks have the same weights and take turns. The seconds of the first compiled
pass, which a run pays once, stand beside; Inductor's cache on disk is not used for it.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from byol_epoch.table import RESULTS, header
from stopgrad.networks.encoders import EncoderSettings, build_encoder
from stopgrad.networks.heads import ProjectorSettings, build_projector
from stopgrad.training.precision import threads_of_an_operation


@dataclass(frozen=True)
class Case:
    """A network, its images, and how often it is timed; ``threads`` of an operation."""

    encoder: str
    channels: int
    side: int
    batch: int
    precision: str
    turns: int
    threads: int | str


def cases(device: str) -> list[Case]:
    if device == "cuda":
        return [
            Case("resnet18", 3, 32, 512, "bf16", 50, "auto"),
            Case("resnet50", 3, 224, 128, "bf16", 20, "auto"),
        ]
    resnet = [Case("resnet18", 3, 32, 64, precision, 7, "auto") for precision in ("fp32", "bf16")]
    return [
        Case("convnet-s", 1, 16, 64, "fp32", 300, 1),
        Case("convnet-s", 1, 16, 256, "fp32", 100, 1),
        *resnet,
    ]


def measure(case: Case, device: str) -> dict[str, Any]:
    """Seconds of the passes, turn by turn."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name=case.encoder), case.channels, case.side)
    plain = nn.Sequential(encoder, build_projector(ProjectorSettings(), encoder.width))
    plain.to(device, memory_format=torch.channels_last)
    images = torch.randn(case.batch, case.channels, case.side, case.side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(copy.deepcopy(plain))
    with threads_of_an_operation(case.threads):
        passes = {
            name: step_of(net, images, case.precision)
            for name, net in (("plain", plain), ("compiled", compiled))
        }
        start = time.perf_counter()
        passes["compiled"]()
        first = time.perf_counter() - start
        seconds: dict[str, list[float]] = {name: [] for name in passes}
        for turn in range(case.turns + 2):
            for name, run in passes.items():
                start = time.perf_counter()
                run()
                if turn > 1:
                    seconds[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["compiled"], strict=True)]
    return {**vars(case), "first": first, "seconds": seconds, "ratios": ratios}


def step_of(net: Any, images: torch.Tensor, precision: str) -> Callable[[], None]:
    """A pass forward and back, waited for."""

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = net(images).float().sum()
        loss.backward()
        net.zero_grad(set_to_none=True)
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def page(results: list[dict[str, Any]]) -> str:
    how = "Written by `python benchmarks/compiled.py --write`, whose docstring says how it is measured"
    head = ("encoder", "images", "batch", "", "plain, ms", "compiled, ms")
    last = ("plain / compiled, median (min..max)", "first compiled pass, s")
    lines = ["# Does torch.compile pay?", "", f"{how}. {header()}.", "", f"| {' | '.join(head + last)} |"]
    lines.append("|---" * 8 + "|")
    for one in results:
        plain, compiled = (1e3 * median(one["seconds"][name]) for name in ("plain", "compiled"))
        ratios = one["ratios"]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        what = f"| {one['encoder']} | {one['side']}x{one['side']} | {one['batch']} | {one['precision']} "
        lines.append(what + f"| {plain:.1f} | {compiled:.1f} | {spread} | {one['first']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/compiled.md, .json")
    args = parser.parse_args()
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = [measure(case, device) for case in cases(device)]
    text = page(results)
    print(text)
    if args.write:
        stem = Path(RESULTS) / "compiled"
        stem.with_suffix(".md").write_text(text)
        stem.with_suffix(".json").write_text(
            json.dumps({"machine": header(), "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
