"""What DirectPred's update costs in a training step, and how near its two solvers come to the exact matrix.

    python benchmarks/predictor.py                 # all tables, about 8 minutes on 2 cores
    python benchmarks/predictor.py --write         # and benchmarks/results/predictor_DEVICE.md, .json
    python benchmarks/predictor.py --quick         # a smoke run in half a minute, whose numbers mean nothing

`step`: CIFAR ResNet-18, batch 256, two views, the settings of the catalogue's `directpred` with the recipe of
cifar; on a CPU with projections of 256, on CUDA of 256 and 2048. A step is the forward and backward passes,
the optimiser, the update of the predictor (correlation and W_p) and of the target; the share is the update's
time over its own step's. Views are ready-made random images, so a step here is shorter than in training and
the share larger. On CUDA the clock waits for the device on either side of the update.

`solvers`: milliseconds from Fhat to W_p, by eigenvectors and by products, which take turns; a ratio is that
of one turn. On CPUs both have one thread up to a width of 1024, as in training: `torch.linalg.eigh` stands
beside them as it comes, with all threads. With exponent 1 (DirectCopy) products need the largest eigenvalue
alone.

`accuracy`: W_p in float32 against eigenvectors in float64, eps = 0.1, as ||W - W_exact|| / ||W_exact|| in the
spectral and in the Frobenius norm; spectra of condition 1e6 and of deficient rank.
"""

import argparse
import json
import os
import platform
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from stopgrad.parts.predictors import DirectPred, Spectral
from stopgrad.parts.predictors.eigenvectors import one_thread
from stopgrad.training.build import DataFacts, build_learner, uses_channels_last
from stopgrad.training.distributed import make_fabric
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.precision import resolve_precision
from stopgrad.training.settings import resolve

RESULTS = Path(__file__).parent / "results"
FACTS = DataFacts(3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), None, 50_000)
SOLVERS = {name: {"solver": name} for name in ("eigh", "products")}


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Timed(DirectPred):
    """Keeps the seconds of each update."""

    def after_step(self, z: Any, t: Any = ()) -> None:
        """Time it."""
        device = self.linear.weight.device.type
        start = clock(device)
        super().after_step(z, t)
        self.seconds = clock(device) - start


def measure_step(dim: int, precision: str, device: str, batch: int, steps: int) -> dict[str, Any]:
    """Seconds of the steps after the first, which warms up, and of the update in each."""
    settings = resolve(
        {
            "method": "directpred",
            "recipe": "cifar",
            "data": {"name": "cifar10"},
            "projector": {"out": dim},
            "batch_size": batch,
            "device": device,
        }
    )
    precision = resolve_precision(precision, device)
    fabric = make_fabric(device, precision, devices=1)
    learner: Any = build_learner(settings, FACTS)
    learner.predictor.__class__ = Timed
    learner = learner.to(fabric.device)
    optimizer = build_optimizer(settings.optimizer, learner)
    size = settings.view_size
    views = list(torch.randn(2, batch, 3, size, size, device=fabric.device))
    if uses_channels_last(learner, fabric.device):
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
    whole, update = [], []
    for step in range(steps + 1):
        start = clock(device)
        with fabric.autocast():
            nodes = learner(views)
        nodes.loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        learner.after_step(nodes, 0.5)
        if step:
            whole.append(clock(device) - start)
            update.append(learner.predictor.seconds)
            print(
                f"step {precision} d={dim}: {whole[-1]:.3f} s, update {1e3 * update[-1]:.2f} ms", flush=True
            )
    return {"precision": precision, "dim": dim, "batch": batch, "whole": whole, "update": update}


def as_in_training(rule: Spectral, f: Tensor) -> Tensor:
    with one_thread(f):
        return rule.weight(f)


def measure_solvers(dim: int, exponent: float, device: str, turns: int) -> dict[str, Any]:
    """Milliseconds of each solver by turns, after one that warms up."""
    z = torch.randn(512, dim, device=device)
    f = z.T @ z / len(z)
    rules = {name: Spectral(exponent=exponent, **fields) for name, fields in SOLVERS.items()}
    work = {name: partial(as_in_training, rule, f) for name, rule in rules.items()}
    work["linalg.eigh"] = partial(torch.linalg.eigh, f)
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(turns + 1):
        for name, call in work.items():
            start = clock(device)
            call()
            if turn:
                times[name].append(1e3 * (clock(device) - start))
    print(
        f"solvers d={dim} exponent {exponent:g}: {shown(times['eigh'])} {shown(times['products'])}",
        flush=True,
    )
    return {"dim": dim, "exponent": exponent, "milliseconds": times}


def spectra(dim: int) -> dict[str, Tensor]:
    i = torch.linspace(0, 1, dim, dtype=torch.float64)
    zeros = torch.zeros(dim, dtype=torch.float64)
    return {
        "geometric from 1 to 1e-6": 10 ** (-6 * i),
        "even from 1 to 1e-6": 1 - i * (1 - 1e-6),
        "1, then 1e-2 to 1e-6": torch.cat([i[-1:], 10 ** (-2 - 4 * i[1:])]),
        "half of the rank, 1 to 1e-3": torch.where(i < 0.5, 10 ** (-6 * i), zeros),
        "rank 8": torch.cat([torch.linspace(1, 0.1, 8, dtype=torch.float64), zeros[8:]]),
        "rank 1": torch.cat([i[-1:], zeros[1:]]),
        "flat": torch.ones_like(i),
        "geometric from 1 to 1e-12": 10 ** (-12 * i),
    }


def measure_accuracy(dim: int, device: str) -> list[dict[str, Any]]:
    """Relative errors of both solvers in float32, by spectrum."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for name, s in spectra(dim).items():
        u = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator)).Q.to(device)
        s = s.to(device)
        exact = (u * (s.sqrt() + 0.1)) @ u.T
        f = ((u * s) @ u.T).float()
        errors = {}
        for solver, fields in SOLVERS.items():
            difference = Spectral(**fields).weight(f).double() - exact
            errors[solver] = [
                float(torch.linalg.matrix_norm(difference, norm) / torch.linalg.matrix_norm(exact, norm))
                for norm in (2, "fro")
            ]
        print(f"accuracy d={dim} {name}: {errors}", flush=True)
        rows.append({"dim": dim, "spectrum": name, "errors": errors})
    return rows


def shown(values: list[float], scale: float = 1, unit: str = "") -> str:
    middle, low, high = (
        f"{float(f'{scale * x:.3g}'):,g}" for x in (median(values), min(values), max(values))
    )
    return f"{middle}{unit} ({low}..{high})"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(result: dict[str, Any]) -> str:
    steps = [
        [
            str(row["dim"]), row["precision"], shown(row["whole"], 1, " s"), shown(row["update"], 1e3, " ms"),
            shown([u / w for u, w in zip(row["update"], row["whole"], strict=True)], 100, " %"),
            str(len(row["whole"])),
        ]
        for row in result["step"]
    ]  # fmt: skip
    solvers = []
    for row in result["solvers"]:
        eigh, products, plain = row["milliseconds"].values()
        ratios = [a / b for a, b in zip(eigh, products, strict=True)]
        times = (shown(each) for each in (plain, eigh, products, ratios))
        solvers.append([str(row["dim"]), f"{row['exponent']:g}", *times])
    accuracy = [
        [str(row["dim"]), row["spectrum"], *(f"{e:.1e}" for pair in row["errors"].values() for e in pair)]
        for row in result["accuracy"]
    ]
    batch = result["step"][0]["batch"]
    return "\n\n".join(
        [
            f"## Share of a training step (CIFAR ResNet-18, batch {batch})\n\nMedian (min..max) of steps.",
            table(["d", "precision", "step", "update", "share", "steps"], steps),
            "## From Fhat to W_p, milliseconds\n\nMedian (min..max) of turns; the ratio is that of one turn.",
            table(["d", "exponent", "linalg.eigh", "eigh", "products", "eigh / products"], solvers),
            "## Error of W_p in float32, relative to float64",
            table(
                [
                    "d",
                    "spectrum",
                    "eigh, spectral",
                    "eigh, Frobenius",
                    "products, spectral",
                    "products, Frobenius",
                ],
                accuracy,
            ),
        ]
    )


def header() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{model}, {os.cpu_count()} processors{gpu}; {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, stopgrad {version('stopgrad')}, torch {version('torch')}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/predictor_DEVICE.*")
    parser.add_argument("--quick", action="store_true", help="small and short: a smoke run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, help="timed steps of each precision and width")
    parser.add_argument("--turns", type=int, default=9, help="timed turns of the solvers")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    steps = args.steps or (2 if args.quick else 50 if cuda else 6)
    precisions = dict.fromkeys(resolve_precision(name, args.device) for name in ("fp32", "auto"))
    small = (64, 256) if args.quick else (64, 256, 512, 1024, 2048)
    batch = 16 if args.quick else 256
    result = {
        "step": [
            measure_step(dim, precision, args.device, batch, steps)
            for dim in ((256, 2048) if cuda else (256,))
            for precision in precisions
        ],
        "solvers": [
            measure_solvers(dim, exponent, args.device, args.turns if dim < 2048 else 3)
            for exponent in (0.5, 1)
            for dim in small
        ],
        "accuracy": [row for dim in small if dim != 512 for row in measure_accuracy(dim, args.device)],
    }
    text = page(result)
    print(f"\n{header()}.\n\n{text}\n")
    if args.write:
        write(result, text, args.device)


def write(result: dict[str, Any], text: str, device: str) -> None:
    """One page and one JSON file a device, with the command that made them."""
    RESULTS.mkdir(exist_ok=True)
    command = " ".join(["python", *sys.argv])
    stem = RESULTS / f"predictor_{device}"
    how = f"Written by `{command}`, whose docstring says how it is measured"
    stem.with_suffix(".md").write_text(f"# DirectPred's update\n\n{how}. {header()}.\n\n{text}\n")
    content = {"command": command, "machine": header(), **result}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
