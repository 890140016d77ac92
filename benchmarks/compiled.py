"""Does the setting `compile` pay? A pass forward and back of BYOL's networks, compiled beside eager.

    python benchmarks/compiled.py            # about 6 minutes on 2 cores
    python benchmarks/compiled.py --write    # and benchmarks/results/compiled.md, .json

The encoders, sizes and batches of `train_step.py`'s cases with the heads of the data set's recipe, channels
last where a run has them so, one view after the other, by `compile: default`. Both learners have the same
weights and take turns. convnet-s goes side by side in an eager run on the CPU; here it does not, so that
compiling alone is what differs.

The seconds that compiling takes are those of two processes, one after the other: the first fills Inductor's
cache on disk, which is empty before, the second finds it there.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from byol_epoch.table import RESULTS, header
from stopgrad.method import Learner
from stopgrad.training.build import DataFacts, build_learner, uses_channels_last
from stopgrad.training.compiled import Compiled
from stopgrad.training.distributed import make_fabric
from stopgrad.training.precision import threads_of_an_operation
from stopgrad.training.progress import Progress
from stopgrad.training.settings import resolve


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


class Sides:
    """The same learner twice, and passes of each; ``compile`` of the second is "default"."""

    def __init__(self, case: Case, device: str) -> None:
        settings = resolve(
            {
                "method": "byol",
                "data": {"name": "digits" if case.encoder == "convnet-s" else "cifar10"},
                "encoder": {"name": case.encoder},
                "view_size": case.side,
                "batch_size": case.batch,
                "compile": "default",
            }
        )
        facts = DataFacts(case.channels, (0.5,) * case.channels, (0.25,) * case.channels, None, case.batch)
        self.fabric = make_fabric(device, case.precision)
        self.plain = build_learner(settings, facts).train().to(device)
        shape = (case.batch, case.channels, case.side, case.side)
        self.views: tuple[Tensor, ...] = tuple(torch.randn(shape, device=device) for _ in range(2))
        if uses_channels_last(self.plain, self.fabric.device):
            self.plain.to(memory_format=torch.channels_last)
            self.views = tuple(x.contiguous(memory_format=torch.channels_last) for x in self.views)
        self.twin = copy.deepcopy(self.plain)
        self.compiled = Compiled(self.twin, settings.compile, self.fabric, Progress(1, visible=False))

    def compile(self) -> float:
        """Seconds that it takes."""
        start = time.perf_counter()
        with self.compiled.in_place(self.views, None, None):
            pass
        seconds = time.perf_counter() - start
        if self.compiled.mode is None:
            raise SystemExit("torch.compile does not work here, see above")
        return seconds

    def passes(self) -> dict[str, Callable[[], None]]:
        """A step's forward and backward pass on each side."""
        return {
            "plain": lambda: self._go(self.plain, None),
            "compiled": lambda: self._go(self.twin, self.compiled),
        }

    def _go(self, learner: Learner, compiled: Compiled | None) -> None:
        """A pass forward and back, waited for."""
        place = nullcontext() if compiled is None else compiled.in_place(self.views, None, None)
        with place, self.fabric.autocast():
            loss = learner(self.views).loss
        loss.backward()
        learner.zero_grad(set_to_none=True)
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize()


def measure(case: Case, device: str) -> dict[str, Any]:
    """Seconds of the passes, turn by turn, and of compiling in two fresh processes."""
    first, second = (compile_alone(cases(device).index(case)) for _ in range(2))
    torch.manual_seed(0)
    sides = Sides(case, device)
    with threads_of_an_operation(case.threads):
        sides.compile()
        seconds: dict[str, list[float]] = {name: [] for name in sides.passes()}
        for turn in range(case.turns + 2):
            for name, run in sides.passes().items():
                start = time.perf_counter()
                run()
                if turn > 1:
                    seconds[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["compiled"], strict=True)]
    return {**vars(case), "first": first, "second": second, "seconds": seconds, "ratios": ratios}


def compile_alone(index: int) -> float:
    """Seconds of compiling a case in a process of its own."""
    command = [sys.executable, __file__, "--only-compile", str(index)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def page(results: list[dict[str, Any]]) -> str:
    how = "Written by `python benchmarks/compiled.py --write`, whose docstring says how it is measured"
    head = ("encoder", "images", "batch", "", "plain, ms", "compiled, ms")
    last = ("plain / compiled, median (min..max)", "compiling, s", "compiling with its cache, s")
    lines = [
        "# Does the setting compile pay?",
        "",
        f"{how}. {header()}.",
        "",
        f"| {' | '.join(head + last)} |",
    ]
    lines.append("|---" * 9 + "|")
    for one in results:
        plain, compiled = (1e3 * median(one["seconds"][name]) for name in ("plain", "compiled"))
        ratios = one["ratios"]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        what = f"| {one['encoder']} | {one['side']}x{one['side']} | {one['batch']} | {one['precision']} "
        lines.append(
            what + f"| {plain:.1f} | {compiled:.1f} | {spread} | {one['first']:.0f} | {one['second']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/compiled.md, .json")
    parser.add_argument("--only-compile", type=int, metavar="CASE", help="print the seconds, and end")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.only_compile is not None:
        case = cases(device)[args.only_compile]
        with threads_of_an_operation(case.threads):
            print(Sides(case, device).compile())
        return
    results = []
    for case in cases(device):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            results.append(measure(case, device))
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
