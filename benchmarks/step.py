"""Where the time of a training step goes, and how much of the machine's matrix product rate it reaches.

    python benchmarks/step.py               # about 8 minutes on 2 cores
    python benchmarks/step.py --write       # and the tables in benchmarks/README.md, results/step.json
    python benchmarks/step.py --quick       # a smoke run on few steps, whose numbers mean nothing

The cases of `train_step.py`, those on CUDA where there is a GPU, trained by the loop of `stopgrad pretrain`.

Parts: seconds in the calls that make up a step, each waited for on a GPU. "views" is what the loop waits for
its next batch; "forward, backward" has the loss and the way back; "rest" is the loop itself, its bookkeeping
and its record of losses.

Time inside operators: seconds inside torch's operators (their own time in `torch.profiler`, in a turn of its
own) over those that the process takes for the turn before it, without the profiler: CPU time, divided by the
threads of an operation, which wait for each other busily. Dispatching an operator counts as the operator's.
The median of the turns, and their spread: above 100 % the machine was faster in the one turn than in the
other.

Roofline: floating point operations of the matrix products and convolutions of a step (`FlopCounterMode`, a
multiplication and an addition are two) over the time of a step, beside the fastest of some square matrix
products of the same precision in the same run, on all cores, which is where a step is: where an operation has
one thread, each view has its own.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from byol_epoch.cases import Case, select
from byol_epoch.ours import Stopgrad
from byol_epoch.table import RESULTS, header

PARTS = ("views", "forward, backward", "optimiser", "predictor", "target", "monitor, log", "rest")
MARKS = ("<!-- step.py writes from here -->", "<!-- to here -->")
SIDES = (256, 512, 1024, 2048)  # of the matrices whose product is timed


class Clock:
    """Seconds in the parts of a trainer's steps: its calls are wrapped, nothing else changes."""

    def __init__(self, run: Stopgrad, device: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        trainer, state = run.trainer, run.trainer.state
        learner = state.bare_learner
        self._wrap(trainer, "_pass", "forward, backward")
        self._wrap(state.optimizer, "step", "optimiser")
        self._wrap(state.optimizer, "zero_grad", "optimiser")
        self._wrap(learner.predictor, "after_step", "predictor")
        self._wrap(learner.target, "after_step", "target")
        self._wrap(trainer, "_read", "monitor, log")
        self._wrap(trainer, "_write_step_row", "monitor, log")
        self._batches = run.blocks.epoch
        run.blocks.epoch = self._timed_batches

    def _timed_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        batches = self._batches(epoch, start)
        while True:
            batch = self._time("views", lambda: next(batches, None))
            if batch is None:
                return
            yield batch

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        call = getattr(owner, name)
        setattr(owner, name, lambda *given, **named: self._time(part, lambda: call(*given, **named)))

    def _time(self, part: str, call: Callable[[], Any]) -> Any:
        start = now(self._device)
        result = call()
        self.seconds[part] += now(self._device) - start
        return result


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(case: Case, precision: str, turns: int) -> dict[str, Any]:
    """A case in one precision."""
    dataset = case.load()
    with tempfile.TemporaryDirectory() as folder:
        run = Stopgrad(case, precision, dataset, Path(folder))
        threads = run.trainer.settings.threads
        run.steps(case.block)  # warms up
        flops = count(run, case)
        clock, rows, shares = Clock(run, case.device), [], []
        for _ in range(turns):
            clock.seconds.clear()
            start, busy = now(case.device), time.process_time()
            run.steps(case.block)
            whole, busy = now(case.device) - start, (time.process_time() - busy) / threads
            row = {part: clock.seconds[part] / case.block for part in PARTS[:-1]}
            rows.append(row | {"rest": whole / case.block - sum(row.values()), "step": whole / case.block})
            shares.append(inside_operators(run, case) / busy)
        run.close()
    peak = fastest_product(precision, case.device)
    seconds = {part: median(row[part] for row in rows) for part in (*PARTS, "step")}
    return {
        "case": case.name, "precision": precision, "threads": threads, "turns": turns, "block": case.block,
        "seconds": seconds, "spread": [min(row["step"] for row in rows), max(row["step"] for row in rows)],
        "flops": flops, "peak": peak,
        "operators": median(shares), "operators_spread": [min(shares), max(shares)],
    }  # fmt: skip


def count(run: Stopgrad, case: Case) -> float:
    """Operations of one step: its forward and backward pass and the target's forward pass."""
    learner: nn.Module = run.learner
    batch = next(iter(run.blocks.batches.epoch(0)))
    counter = FlopCounterMode(display=False)
    with counter:
        views = [run.trainer.normalise(view) for view in batch.views]
        run.trainer.fabric.backward(run.trainer.state.learner(views, batch.labels, batch.index).loss)
    learner.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def inside_operators(run: Stopgrad, case: Case) -> float:
    """Seconds inside torch's operators in a turn, of all its threads."""
    everywhere = _ExperimentalConfig(profile_all_threads=True)  # a view has a thread of its own
    with profile(
        activities=[ProfilerActivity.CPU], acc_events=True, experimental_config=everywhere
    ) as profiler:
        run.steps(case.block)
    inside = sum(e.self_cpu_time_total for e in profiler.key_averages() if e.key.startswith("aten::"))
    return inside * 1e-6


def fastest_product(precision: str, device: str) -> float:
    """Operations a second of the fastest square matrix product."""
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    best = 0.0
    for side in SIDES if device == "cpu" else (4096, 8192):
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        repeats = max(3, int(2e10 / side**3)) if device == "cpu" else 20
        a @ b
        for _ in range(3):
            start = now(device)
            for _ in range(repeats):
                a @ b
            best = max(best, repeats * 2 * side**3 / (now(device) - start))
    return best


def tables(results: list[dict[str, Any]]) -> str:
    """Parts and roofline."""
    lines = [
        "Parts, milliseconds of a step (share):", "",
        "| case | threads | " + " | ".join(PARTS) + " | step, median (min..max) |",
        "|---" * (len(PARTS) + 3) + "|",
    ]  # fmt: skip
    for one in results:
        step = one["seconds"]["step"]
        cells = [f"{1e3 * one['seconds'][part]:.2f} ({one['seconds'][part] / step:.0%})" for part in PARTS]
        low, high = (1e3 * value for value in one["spread"])
        name = f"{one['case']} {one['precision']}"
        lines.append(
            f"| {name} | {one['threads']} | {' | '.join(cells)} | {1e3 * step:.2f} ({low:.2f}..{high:.2f}) |"
        )
    lines += [
        "", "Roofline:", "",
        "| case | Gflop a step | Gflop/s reached | Gflop/s of the fastest matrix product | share of it | "
        "time inside operators (min..max) |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for one in results:
        reached = one["flops"] / one["seconds"]["step"]
        low, high = one["operators_spread"]
        lines.append(
            f"| {one['case']} {one['precision']} | {one['flops'] / 1e9:.3g} | {reached / 1e9:.3g} | "
            f"{one['peak'] / 1e9:.3g} | {reached / one['peak']:.0%} | "
            f"{one['operators']:.0%} ({low:.0%}..{high:.0%}) |"
        )
    return "\n".join(lines) + "\n"


def write(results: list[dict[str, Any]], command: str) -> None:
    """The tables between their marks in the README, and all numbers."""
    readme = RESULTS.parent / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    how = f"Written by `{command}`, whose docstring says how it is measured. {header()}."
    readme.write_text(f"{before}{MARKS[0]}\n{how}\n\n{tables(results)}{MARKS[1]}{after}")
    content = {"command": command, "machine": header(), "results": results}
    (RESULTS / "step.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="all of train_step.py by default")
    parser.add_argument("--quick", action="store_true", help="few steps, whose numbers mean nothing")
    parser.add_argument("--write", action="store_true", help="write benchmarks/README.md, results/step.json")
    args = parser.parse_args()
    results = []
    for case in select(parser, args.cases, args.quick):
        for precision in case.precisions:
            print(f"{case.name} {precision} ...", flush=True)
            results.append(measure(case, precision, turns=2 if args.quick else 5))
    if not results:
        return
    command = " ".join(["python", *sys.argv])
    print(f"\n{tables(results)}")
    if args.write:
        write(results, command)


if __name__ == "__main__":
    main()
