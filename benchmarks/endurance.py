"""A day of training in small: 20,000 steps of the small encoder. Does memory grow, does it slow down?

    python benchmarks/endurance.py               # about 10 minutes on 2 cores
    python benchmarks/endurance.py --write       # and benchmarks/results/endurance.md, .json
    python benchmarks/endurance.py --steps 1000  # shorter

`stopgrad pretrain` on the bundled digits, 64 steps an epoch, with all that a run does besides its steps: the
log, TensorBoard, the monitor, a checkpoint and a judgement an epoch, and an evaluation every 40 epochs. It
runs in a process of its own, whose resident memory is read at the end of each epoch.

Memory: the slope of the resident memory over steps (least squares over the second half, when caches are
full), in MiB per 1,000 steps, asked to be under 1.

Speed: the median rate of the last quarter of the epochs, their evaluations not counted, over that of the
second quarter, asked to be within 3 %. The machine's own speed changes by more than that: so after each step
the process does a small work that stays the same, a pass of another encoder in each of two threads as the
step has, and the rate is that of the epoch times the seconds of this work.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from byol_epoch.table import RESULTS, header

PER_EPOCH = 64  # 4,096 digits in batches of 64
EVALUATED_EVERY = 40
MOST_GROWTH, MOST_DRIFT = 1.0, 0.03


def train(steps: int) -> None:
    """The run itself; a line of JSON an epoch: step, resident bytes, seconds, those of the same work."""
    import stopgrad as sg
    from stopgrad.training.trainer import Trainer

    same_work, page = SameWork(), resource.getpagesize()
    step, written, last = Trainer._step, Trainer._write_epoch_row, [time.perf_counter()]

    def accompanied(trainer: Trainer, batch: Any) -> Any:
        nodes = step(trainer, batch)
        same_work()
        return nodes

    def observed(trainer: Trainer, epoch: int, loss: float | None) -> None:
        seconds, reference = time.perf_counter() - last[0], same_work.take_seconds()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
        row = {"step": trainer.state.step, "resident": resident, "seconds": seconds - reference}
        print(json.dumps({**row, "reference": reference}), flush=True)
        written(trainer, epoch, loss)
        last[0] = time.perf_counter()  # evaluation is not counted

    Trainer._step, Trainer._write_epoch_row = accompanied, observed
    with tempfile.TemporaryDirectory() as folder:
        sg.pretrain(
            "digits", "byol", out=Path(folder) / "run", epochs=steps // PER_EPOCH, seed=0, device="cpu",
            evaluation={"every": EVALUATED_EVERY}, show_progress=False,
        )  # fmt: skip


class SameWork:
    """What takes a process as long at its end as at its start, if the machine lets it."""

    def __init__(self) -> None:
        import torch

        from stopgrad.networks.encoders import EncoderSettings, build_encoder
        from stopgrad.training.side_by_side import TwoThreads

        with torch.random.fork_rng():
            self.encoders = [build_encoder(EncoderSettings(), 1, 16) for _ in range(2)]
            self.images = [torch.randn(64, 1, 16, 16) for _ in range(2)]
        self.threads, self.seconds = TwoThreads(), 0.0

    def __call__(self) -> None:
        """One pass in each thread."""
        start = time.perf_counter()
        self.threads.map(lambda encoder, images: encoder(images).sum().backward(), self.encoders, self.images)
        self.seconds += time.perf_counter() - start

    def take_seconds(self) -> float:
        """Seconds of all passes since the last call."""
        taken, self.seconds = self.seconds, 0.0
        return taken


def measure(steps: int) -> dict[str, Any]:
    """What became of memory and speed."""
    command = [sys.executable, __file__, "--child", "--steps", str(steps)]
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                rows.append(json.loads(line))
                if len(rows) % 20 == 0:
                    print(f"step {rows[-1]['step']:,}: {rows[-1]['resident'] / 2**20:.0f} MiB", flush=True)
    if child.returncode:
        sys.exit(f"the run ended with status {child.returncode}")
    rows = rows[1:]  # the row before the first step
    late = rows[len(rows) // 2 :]
    step = np.array([row["step"] for row in late]) / 1000
    memory = np.array([row["resident"] for row in late]) / 2**20
    rates = [PER_EPOCH / row["seconds"] for row in rows]
    against = [row["reference"] / row["seconds"] for row in rows]
    quarter = len(rates) // 4

    def drift(speeds: list[float]) -> float:
        return median(speeds[-quarter:]) / median(speeds[quarter : 2 * quarter]) - 1

    return {
        "steps": steps,
        "growth": float(np.polyfit(step, memory, 1)[0]),
        "drift": drift(against),
        "drift_by_the_clock": drift(rates),
        "rate": median(rates),
        "resident": [float(memory[0]), float(memory[-1])],
        "rows": rows,
    }


def page(found: dict[str, Any], command: str) -> str:
    lines = [
        "# A day of training in small", "",
        f"Written by `{command}`, whose docstring says how it is measured. {header()}.", "",
        "| | measured | asked |", "|---|---|---|",
        f"| steps | {found['steps']:,} | 20,000 |",
        f"| memory, second half, MiB per 1,000 steps | {found['growth']:.3f} | < {MOST_GROWTH:g} |",
        f"| resident memory, middle, MiB | {found['resident'][0]:.0f} | |",
        f"| resident memory, end, MiB | {found['resident'][1]:.0f} | |",
        f"| rate, last quarter over second, beside the same work | {found['drift']:+.1%} | "
        f"within {MOST_DRIFT:.0%} |",
        f"| rate, last quarter over second, by the clock | {found['drift_by_the_clock']:+.1%} | |",
        f"| steps a second, median | {found['rate']:.1f} | |",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000, help="of the run, in whole epochs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/endurance.md, .json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.steps)
        return
    found = measure(args.steps)
    command = "python benchmarks/endurance.py --write"
    print(f"\n{page(found, command)}")
    if args.write:
        (RESULTS / "endurance.md").write_text(page(found, command))
        content = {"command": command, "machine": header(), **found}
        (RESULTS / "endurance.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
