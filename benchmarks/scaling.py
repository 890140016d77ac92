"""Weak scaling: images a second of one process, and of two that train together with as many images each.

    python benchmarks/scaling.py            # convnet-s and ResNet-18 at 32x32, about 5 minutes on 2 cores
    python benchmarks/scaling.py --write    # and benchmarks/results/scaling.md, .json

Each process is pinned to a processor of its own and has one thread. The processes talk by gloo, as without
GPUs. They are started with the variables that torchrun sets, and train BYOL on the bundled digits as
`stopgrad pretrain` does: gradients and batch normalisation over the joint batch, the monitor, the step log.
Evaluation and checkpoints are not counted.

One process and two take turns, a block of steps each; those whose turn it is not wait for a line on stdin.
The first turn warms up and is not counted. Efficiency is the rate of the two over twice the rate of the one,
in the same turn.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from byol_epoch.ours import Block
from stopgrad.training.distributed import launch, peers
from stopgrad.training.folder import RunFolder
from stopgrad.training.pretrain import Session, complete
from stopgrad.training.settings import resolve

RESULTS = Path(__file__).parent / "results"
SHARED = {
    "method": "byol",
    "recipe": "digits",
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "epochs": 1000,
}
CASES: dict[str, dict[str, Any]] = {
    "convnet-s, 16x16": {"encoder": {"name": "convnet-s"}, "batch_size": 64},
    "resnet18, 32x32": {"encoder": {"name": "resnet18"}, "view_size": 32, "batch_size": 64},
}
"""Changes to the settings; ``batch_size`` is that of one process."""
BLOCK = {"convnet-s, 16x16": 60, "resnet18, 32x32": 4}


def work(case: str) -> None:
    """One process: a block of steps for each line on stdin, its seconds on stdout."""
    torch.set_num_threads(1)
    changes = CASES[case]
    batch = changes["batch_size"] * int(os.environ["WORLD_SIZE"])
    settings = complete(resolve({**SHARED, **changes, "batch_size": batch}))
    fabric = launch(settings)
    with tempfile.TemporaryDirectory() as folder, peers(fabric):
        session = Session.open(settings, fabric)
        trainer = session.trainer(RunFolder(Path(folder)), None, show_progress=False)
        trainer.batches = blocks = Block(trainer.batches)
        print("ready", flush=True)
        for line in sys.stdin:
            goal = trainer.state.step + int(line)
            start = time.perf_counter()
            while (step := trainer.state.step) < goal:
                epoch, done = divmod(step, len(blocks))
                blocks.most = min(goal - step, len(blocks) - done)
                trainer._epoch(epoch, [])
            print(time.perf_counter() - start, flush=True)


class Team:
    """Processes that train together, each on a processor of its own."""

    def __init__(self, case: str, processors: list[int]) -> None:
        self.world = len(processors)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        self.processes = []
        for rank, processor in enumerate(processors):
            told = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": self.world,
                "LOCAL_WORLD_SIZE": self.world,
            }
            told |= {"TORCHELASTIC_RUN_ID": "scaling", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = {**os.environ, "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in told.items()}
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, "--work", case], env=environment, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, text=True,
                    preexec_fn=lambda processor=processor: os.sched_setaffinity(0, {processor}),
                )
            )  # fmt: skip
        self._answers()

    def rate(self, steps: int, images: int) -> float:
        """Images a second over ``steps`` steps of ``images`` images a process."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        return self.world * steps * images / max(map(float, self._answers()))

    def _answers(self) -> list[str]:
        lines = [process.stdout.readline().strip() for process in self.processes if process.stdout]
        if "" in lines:
            raise SystemExit("a process ended; its message stands above")
        return lines

    def close(self) -> None:
        """Let the processes end."""
        for process in self.processes:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()


def measure(case: str, turns: int, block: int) -> dict[str, Any]:
    """Rates of one and of two processes, turn by turn."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        raise SystemExit("scaling: two processors are needed")
    teams = [Team(case, processors[:1]), Team(case, processors[:2])]
    rates: dict[str, list[float]] = {"1": [], "2": []}
    for turn in range(turns + 1):
        for team in teams[:: 1 if turn % 2 else -1]:
            rate = team.rate(block, CASES[case]["batch_size"])
            if turn:
                rates[str(team.world)].append(rate)
            print(f"{case}, turn {turn}/{turns}: {team.world} process(es) {rate:,.1f} images/s", flush=True)
    for team in teams:
        team.close()
    efficiency = [two / (2 * one) for one, two in zip(rates["1"], rates["2"], strict=True)]
    return {"case": case, "block": block, "rates": rates, "efficiency": efficiency}


def spread(values: list[float], digits: int) -> str:
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "# Weak scaling",
        "",
        "Written by `python benchmarks/scaling.py --write`, whose docstring says how it is measured. "
        + machine(),
        "",
        "| | images/s of 1 process, median (min..max) | of 2 | efficiency |",
        "|---|---|---|---|",
    ]
    for row in results:
        one, two = (spread(row["rates"][world], 1) for world in ("1", "2"))
        batch = CASES[row["case"]]["batch_size"]
        what = f"{row['case']}, {batch} images a process and step"
        lines.append(f"| {what} | {one} | {two} | {spread(row['efficiency'], 2)} |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text().splitlines() if path.exists() else []
    model = next((line.split(":")[1].strip() for line in text if line.startswith("model name")), "unknown")
    versions = ", ".join(f"{name} {version(name)}" for name in ("stopgrad", "torch", "lightning-fabric"))
    return f"{model}, a thread a process; Python {platform.python_version()}, {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two short turns of the small case")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/scaling.md, .json")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work)
        return
    cases = list(CASES)[:1] if args.quick else list(CASES)
    results = [measure(c, 2, 4) if args.quick else measure(c, args.turns, BLOCK[c]) for c in cases]
    text = table(results)
    print(text)
    if args.write:
        (RESULTS / "scaling.md").write_text(text)
        content = {"machine": machine(), "results": results}
        (RESULTS / "scaling.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
