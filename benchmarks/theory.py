"""Trajectories of modes a second: stopgrad's batched solver against scipy, torchode and torchdiffeq.

    python benchmarks/theory.py              # about 5 minutes on 2 cores
    python benchmarks/theory.py --write      # and benchmarks/results/theory.md, theory.json
    python benchmarks/theory.py --quick      # a smoke run on few settings

Everybody solves the same random settings (tau moving, p0 > 0, t = 50) at rtol 1e-8, in float64, to the
final state alone. scipy's `solve_ivp` takes one setting at a time, a random sample of them, in plain Python
numbers; the others take a batch, torchode and torchdiffeq a smaller one: its size is in the table.
torchdiffeq has one step size for the whole batch. All contenders take turns within one run. Compiling is not
counted; its time stands in a line of its own. The largest relative error against a solution at rtol 1e-12
stands beside each rate, since a tolerance is no result. Memory is the peak of a process above its start, a
fresh process for each batch.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from stopgrad.theory.modes import Modes

RESULTS = Path(__file__).parent / "results"
T_END, RTOL, ATOL = 50.0, 1e-8, 1e-12
NAMES = ("alpha_p", "beta", "eta", "sigma2", "p0", "s0", "tau0")
RANGES = ((0.2, 5.0), (0.05, 1.0), (0.0, 0.3), (0.0, 1.0), (0.05, 1.0), (0.01, 1.0), (0.0, 1.0))


def settings(count: int) -> Tensor:
    """Random settings, uniform in RANGES. (7, count)"""
    low, high = torch.tensor(RANGES, dtype=torch.float64).T.unsqueeze(2)
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(len(NAMES), count, generator=generator, dtype=torch.float64)


def modes(values: Tensor) -> Modes:
    return Modes(**dict(zip(NAMES, values, strict=True)))


def rates(t: Any, p: Any, s: Any, tau: Any, values: Any) -> tuple[Any, Any, Any]:
    """The paper's equations, for numbers and tensors alike."""
    alpha_p, beta, eta, sigma2 = values
    pull = tau - (1 + sigma2) * p
    log_s = 2 * (p * pull - eta)
    return alpha_p * s * pull - eta * p, s * log_s, beta * (1 - tau) - tau * log_s / 2


def stopgrad(values: Tensor, compiled: bool) -> Tensor:
    end = modes(values).final(T_END, rtol=RTOL, compiled=compiled)
    return torch.stack([end.p, end.s, end.tau])


def scipy_loop(values: Tensor, method: str, rtol: float = RTOL, atol: float = ATOL) -> Tensor:
    ends = []
    for row in values.T.tolist():
        constants, start = row[:4], row[4:]
        end = solve_ivp(
            lambda t, y, c=constants: rates(t, *y, c), (0.0, T_END), start, method, rtol=rtol, atol=atol
        )
        ends.append(end.y[:, -1])
    return torch.from_numpy(np.stack(ends, 1))


def torchode(values: Tensor) -> Tensor:
    import torchode as to

    constants = values[:4]
    term = to.ODETerm(lambda t, y: torch.stack(rates(t, *y.unbind(1), constants), 1))
    controller = to.IntegralController(atol=ATOL, rtol=RTOL, term=term)
    solver = to.AutoDiffAdjoint(to.Tsit5(term=term), controller)
    count = values.shape[1]
    start, end = torch.zeros(count, dtype=torch.float64), torch.full((count,), T_END, dtype=torch.float64)
    problem = to.InitialValueProblem(y0=values[4:].T.contiguous(), t_start=start, t_end=end)
    with torch.no_grad():
        return solver.solve(problem).ys[:, -1].T


def torchdiffeq(values: Tensor) -> Tensor:
    from torchdiffeq import odeint

    constants = values[:4]
    times = torch.tensor([0.0, T_END], dtype=torch.float64)
    with torch.no_grad():
        return odeint(
            lambda t, y: torch.stack(rates(t, *y, constants)), values[4:], times, rtol=RTOL, atol=ATOL,
            method="dopri8",
        )[-1]  # fmt: skip


def contenders(count: int) -> dict[str, tuple[int, Callable[[Tensor], Tensor]]]:
    """Name -> (settings of a turn, solver)."""
    some = min(count, 200)
    return {
        "stopgrad, compiled": (count, lambda values: stopgrad(values, True)),
        "stopgrad, eager": (count, lambda values: stopgrad(values, False)),
        "scipy LSODA": (some, lambda values: scipy_loop(values, "LSODA")),
        "scipy DOP853": (some, lambda values: scipy_loop(values, "DOP853")),
        "torchode Tsit5": (min(count, 20_000), torchode),
        "torchdiffeq dopri8": (min(count, 20_000), torchdiffeq),
    }


def measure(count: int, turns: int) -> dict[str, Any]:
    values = settings(count)
    exact = scipy_loop(values[:, :100], "DOP853", rtol=1e-12, atol=1e-16)
    begin = time.perf_counter()
    stopgrad(settings(64), compiled=True)
    compiling = time.perf_counter() - begin
    found: dict[str, dict[str, Any]] = {}
    for turn in range(turns):
        for name, (share, solve) in contenders(count).items():
            part = values[:, :share]
            begin = time.perf_counter()
            end = solve(part)
            rate = share / (time.perf_counter() - begin)
            row = found.setdefault(name, {"settings": share, "rates": []})
            row["rates"].append(rate)
            few = min(share, exact.shape[1])
            error = (end[:, :few] - exact[:, :few]).abs() / exact[:, :few].abs().clamp(min=1e-6)
            row["error"] = error.max().item()
            print(
                f"turn {turn + 1}/{turns}  {name:20} {rate:12,.0f} trajectories/s",
                file=sys.stderr,
                flush=True,
            )
    return {"count": count, "contenders": found, "compiling_s": compiling, "memory": memory(count)}


def memory(count: int) -> list[tuple[int, float]]:
    """(settings, MiB above an idle process) for a few batch sizes, each in a fresh process."""
    return [
        (n, float(subprocess.check_output([sys.executable, __file__, "--memory", str(n)], text=True)))
        for n in (count, 2 * count, 4 * count, 8 * count)
    ]


def peak_mib() -> float:
    """Peak resident memory of this process; ru_maxrss would count the parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def table(result: dict[str, Any]) -> str:
    rows = result["contenders"]
    lines = [
        "# Trajectories of modes a second",
        "",
        "Written by `python benchmarks/theory.py --write`, whose docstring says how it is measured. "
        + machine(),
        "",
        f"{result['count']:,} random settings, t = {T_END:g}, rtol {RTOL:g}.",
        "",
        "| | trajectories/s, median (min..max) | settings a turn | largest relative error |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        r = row["rates"]
        spread = f"{median(r):,.0f} ({min(r):,.0f}..{max(r):,.0f})"
        lines.append(f"| {name} | {spread} | {row['settings']:,} | {row['error']:.1e} |")
    lines += ["", "| ratio, median of turns (min..max) | compiled | eager |", "|---|---|---|"]
    for name in list(rows)[2:]:
        cells = []
        for ours in list(rows)[:2]:
            ratios = [a / b for a, b in zip(rows[ours]["rates"], rows[name]["rates"], strict=True)]
            cells.append(f"{median(ratios):,.0f} ({min(ratios):,.0f}..{max(ratios):,.0f})")
        lines.append(f"| against {name} | {cells[0]} | {cells[1]} |")
    sizes = "; ".join(f"{n:,} settings {mib:,.0f} MiB" for n, mib in result["memory"])
    lines += [
        "",
        f"Compiling took {result['compiling_s']:.0f} s, once (torch keeps the result on disk). Memory above "
        f"the idle process, eager: {sizes}.",
    ]
    return "\n".join(lines) + "\n"


def machine() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text().splitlines() if path.exists() else []
    model = next((line.split(":")[1].strip() for line in text if line.startswith("model name")), "unknown")
    names = ("stopgrad", "torch", "scipy", "torchode", "torchdiffeq")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{model}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="settings")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few settings, one turn")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/theory.md, .json")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        stopgrad(settings(64), compiled=False)
        before = peak_mib()
        stopgrad(settings(args.memory), compiled=False)
        print(peak_mib() - before)
        return
    result = measure(*((2_000, 1) if args.quick else (args.count, args.turns)))
    text = table(result)
    print(text)
    if args.write:
        (RESULTS / "theory.md").write_text(text)
        (RESULTS / "theory.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
