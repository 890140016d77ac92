"""Many small models at once: one after the other, stacked by `torch.func.vmap`, or a process each.

    python benchmarks/many_models.py               # about 5 minutes on 2 cores
    python benchmarks/many_models.py --write       # and benchmarks/results/many_models.md, .json
    python benchmarks/many_models.py --quick       # a smoke run in half a minute, whose numbers mean nothing

The ledger trains a thousand small encoders (`stopgrad reproduce`). A step here is what such a trial repeats:
forward and backward pass of SimSiam on two views of 64 images of 16x16 with the small encoder, and SGD with
momentum, on ready-made images. All contenders do the same K of them, in float32, and take turns:

- `in turn`: K learners in one thread, a step of each after the other;
- `vmap`: their weights and buffers stacked, one step for all by `torch.func`, in one thread;
- `vmap, 2 threads`: the same with two threads an operation;
- `2 processes`: K learners in two processes of one thread, half of them in each.

That `vmap` trains what `in turn` trains is asserted on the first step.
"""

import argparse
import json
import multiprocessing
import platform
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from stopgrad.method import Learner
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.settings import resolve

RESULTS = Path(__file__).parent / "results"
FACTS = DataFacts(1, (0.3,), (0.3,), None, 4096)
BATCH, SIZE = 64, 16
LR, MOMENTUM = 0.05, 0.9
CONTENDERS = ("in turn", "vmap", "vmap, 2 threads", "2 processes")


def learners(count: int) -> list[Learner]:
    """SimSiam with the small encoder, seeds 0, 1, ..."""
    made = []
    for seed in range(count):
        settings = resolve({"method": "simsiam", "data": {"name": "digits"}, "seed": seed, "device": "cpu"})
        made.append(build_learner(settings, FACTS).train())
    return made


def views(count: int) -> list[tuple[Tensor, Tensor]]:
    """Ready-made batches, a pair for each learner."""
    draw = torch.Generator().manual_seed(0)
    shape = (BATCH, 1, SIZE, SIZE)
    return [(torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)) for _ in range(count)]


class InTurn:
    """A step of each learner after the other."""

    def __init__(self, count: int):
        self.learners, self.views = learners(count), views(count)
        self.optimizers = [
            torch.optim.SGD(learner.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
            for learner in self.learners
        ]

    def step(self) -> list[float]:
        """The losses. (K,)"""
        losses = []
        for learner, optimizer, own in zip(self.learners, self.optimizers, self.views, strict=True):
            loss = learner(own).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
        return losses


class Stacked:
    """One step for all."""

    def __init__(self, count: int):
        own = learners(count)
        self.base = own[0]
        self.params, self.buffers = stack_module_state(own)
        pairs = views(count)
        self.views = tuple(torch.stack(column) for column in zip(*pairs, strict=True))
        self.momenta = {name: torch.zeros_like(value) for name, value in self.params.items()}
        self._step = vmap(grad_and_value(self._loss), randomness="different")

    def _loss(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], first: Tensor, second: Tensor
    ) -> Tensor:
        return functional_call(self.base, (params, buffers), ((first, second),)).loss

    def step(self) -> list[float]:
        """The losses. (K,)"""
        gradients, losses = self._step(self.params, self.buffers, *self.views)
        with torch.no_grad():
            momenta = list(self.momenta.values())
            torch._foreach_mul_(momenta, MOMENTUM)
            torch._foreach_add_(momenta, [gradients[name] for name in self.momenta])
            torch._foreach_add_([self.params[name] for name in self.momenta], momenta, alpha=-LR)
        return losses.detach().tolist()


def serve(connection: Connection, count: int) -> None:
    """In a process of its own: as many steps as are asked for, until none are."""
    torch.set_num_threads(1)
    own = InTurn(count)
    while steps := connection.recv():
        for _ in range(steps):
            own.step()
        connection.send(True)


class TwoProcesses:
    """Half of the learners in each of two processes."""

    def __init__(self, count: int):
        context = multiprocessing.get_context("spawn")
        self.ends, self.children = [], []
        for own in (count - count // 2, count // 2):
            here, there = context.Pipe()
            child = context.Process(target=serve, args=(there, own), daemon=True)
            child.start()
            self.ends.append(here)
            self.children.append(child)

    def run(self, steps: int) -> None:
        """Steps of all learners."""
        for end in self.ends:
            end.send(steps)
        for end in self.ends:
            end.recv()

    def close(self) -> None:
        """End the processes."""
        for end, child in zip(self.ends, self.children, strict=True):
            end.send(0)
            child.join()


def check(count: int) -> None:
    """Both ways train the same models; batch normalisation keeps rounding from staying small for long."""
    in_turn, stacked = InTurn(count), Stacked(count)
    for _ in range(2):
        torch.testing.assert_close(
            torch.tensor(in_turn.step()), torch.tensor(stacked.step()), atol=1e-4, rtol=1e-4
        )


def measure(count: int, steps: int, turns: int) -> dict[str, list[float]]:
    """Milliseconds of a step of one model, for each contender and turn."""
    in_turn, stacked, processes = InTurn(count), Stacked(count), TwoProcesses(count)

    def repeat(one: InTurn | Stacked, threads: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(steps):
            one.step()

    ways = dict(
        zip(
            CONTENDERS,
            (
                lambda: repeat(in_turn, 1),
                lambda: repeat(stacked, 1),
                lambda: repeat(stacked, 2),
                lambda: processes.run(steps),
            ),
            strict=True,
        )
    )
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:  # the first warms up
                taken[name].append(1000 * (time.perf_counter() - start) / (steps * count))
    processes.close()
    return taken


def table(found: dict[int, dict[str, list[float]]]) -> str:
    """Markdown: milliseconds, and how many times faster than `in turn`, median and range of the turns."""
    lines = [
        "| models | way | ms a model's step | times `in turn` |",
        "|---|---|---|---|",
    ]
    for count, ways in found.items():
        base = ways[CONTENDERS[0]]
        for name, taken in ways.items():
            ratios = [b / own for b, own in zip(base, taken, strict=True)]
            lines.append(
                f"| {count} | {name} | {_spread(taken, 1)} | "
                f"{'1' if name == CONTENDERS[0] else _spread(ratios, 2)} |"
            )
    return "\n".join(lines)


def _spread(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/many_models.*")
    parser.add_argument("--quick", action="store_true", help="a smoke run whose numbers mean nothing")
    options = parser.parse_args()
    counts, steps, turns = ((2,), 2, 2) if options.quick else ((2, 5, 20), 20, 7)
    torch.set_num_threads(1)
    check(2)
    found: dict[int, dict[str, Any]] = {count: measure(count, steps, turns) for count in counts}
    text = table(found)
    print(text)
    if options.write:
        head = (
            "# Many small models at once\n\n"
            "Written by `python benchmarks/many_models.py --write`, whose docstring says what is counted. "
            f"{platform.machine()}, {multiprocessing.cpu_count()} processors, PyTorch {torch.__version__}; "
            f"{turns} turns, median and range.\n\n"
        )
        (RESULTS / "many_models.md").write_text(head + text + "\n", encoding="utf-8")
        (RESULTS / "many_models.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
