"""What the monitor costs: time of a training step with and without it, in turns.

    python benchmarks/monitor.py            # ResNet-18, batch 256, d 2048; some minutes on 2 cores
    python benchmarks/monitor.py --write    # and benchmarks/results/monitor.md

SimSiam on 32x32 images (random pixels: time does not depend on them), CIFAR stem, projector and predictor as
published (2048 wide). Both loops have their own copy of one model. A turn is one step of each, in changing
order; the share is that of the sums over a reading's whole interval, so that the steps that are read count
with those that are not. ``--every 1`` reads every step.
"""

import argparse
import copy
import platform
import time
from pathlib import Path
from statistics import median

import torch

from stopgrad.diagnostics.monitor import Monitor
from stopgrad.method import Learner
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.settings import resolve

RESULTS = Path(__file__).parent / "results"


def make(batch: int, dim: int, encoder: str) -> Learner:
    settings = resolve(
        {
            "method": "simsiam",
            "recipe": "zhang2022",
            "encoder": {"name": encoder},
            "projector": {"hidden": (dim, dim), "out": dim},
            "batch_size": batch,
        }
    )
    return build_learner(settings, DataFacts(3, (0.5,) * 3, (0.25,) * 3, None, batch)).train()


class Loop:
    """A plain loop, watched or not."""

    def __init__(self, learner: Learner, device: str, monitor: Monitor | None) -> None:
        self.learner, self.device, self.monitor = learner.to(device), device, monitor
        self.optimizer = torch.optim.SGD(learner.parameters(), lr=0.03, momentum=0.9)
        if monitor is not None:
            monitor.attach(learner, projector="projector", predictor="predictor", encoder="encoder")

    def step(self, views: list[torch.Tensor]) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        self.optimizer.zero_grad()
        self.learner(views).loss.backward()
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def span(seconds: list[float]) -> str:
    return f"{median(seconds):.3f} s ({min(seconds):.3f}..{max(seconds):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument(
        "--every", type=int, default=None, help="steps a reading; by the default budget if not given"
    )
    parser.add_argument("--write", action="store_true")
    own = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    bare = make(own.batch, own.dim, own.encoder)
    monitor = Monitor(every=own.every)
    loops = Loop(copy.deepcopy(bare), device, None), Loop(bare, device, monitor)
    views = [torch.rand(own.batch, 3, 32, 32, device=device) for _ in range(2)]
    for loop in loops:
        loop.step(views)
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(own.turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            seconds[which].append(loops[which].step(views))
        print(
            f"turn {turn + 1}/{own.turns}: {seconds[0][-1]:.3f} s alone, {seconds[1][-1]:.3f} s watched",
            flush=True,
        )
    interval = monitor._due - (monitor.readings[-1].step or 0)
    step = median(seconds[0])
    share = monitor._cost / (interval * step)
    lines = [
        "# What the monitor costs\n",
        f"`python benchmarks/monitor.py`, {platform.machine()}, {device}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads.\n",
        f"{own.encoder}, batch {own.batch}, d {own.dim}; {own.turns} turns.\n",
        "| | |\n|---|---|",
        f"| step alone, median (min..max) | {span(seconds[0])} |",
        f"| step watched, likewise | {span(seconds[1])} |",
        f"| one reading | {monitor._cost:.4f} s |",
        f"| steps from one reading to the next | {interval} |",
        f"| the monitor's share of the time | {100 * share:.2f} % (budget {100 * monitor.budget:g} %) |",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if own.write:
        (RESULTS / "monitor.md").write_text(text)


if __name__ == "__main__":
    main()
