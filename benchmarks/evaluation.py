"""kNN and linear probes side by side with scikit-learn and lightly: accuracy, time, memory.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py            # about a minute on one core
    OMP_NUM_THREADS=1 python benchmarks/evaluation.py --write    # and benchmarks/results/evaluation.md, .json

Features are drawn: classes are Gaussians about fixed means, near enough to each other that no classifier is
perfect, and each feature has a scale of its own. All contenders take turns on the same features; a time is of
the processor, which other work on the machine stretches less than the clock on the wall.

- kNN, k 20, cosine, votes exp(similarity / 0.07). lightly: `knn_predict` of its benchmarks, on features that
  were normalised before its time began. scikit-learn: `KNeighborsClassifier` with these weights, brute force.
- Linear probe: the whole choice, C among seven on a validation part, and the score on the test part. The peer
  is scikit-learn's `LogisticRegression` in a loop over the same C with as many iterations. "in parts" is what
  a training part too large for float64 gets (float32, part by part), tried here on a small one. lightly has
  no solver to compare: its linear evaluation is a Lightning module trained by SGD.
- Memory: 256 queries against a bank of 10^6 x 512, each contender in a process of its own; what the peak adds
  to the normalised bank and queries, which lie there before.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from lightly.utils.benchmarking import knn_predict as lightly_knn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import normalize

from stopgrad.evaluation import linear
from stopgrad.evaluation.knn import knn_predict

RESULTS = Path(__file__).parent / "results"
K, TEMPERATURE = 20, 0.07
BANK, QUERIES, WIDTH = 1_000_000, 256, 512
Labelled = tuple[Tensor, Tensor]


def draw(count: int, width: int, classes: int, distance: float, seed: int) -> Labelled:
    """Features (count, width) and labels; the means and the scales are the same for every seed."""
    fixed = torch.Generator().manual_seed(99)
    means = distance * torch.randn(classes, width, generator=fixed)
    scales = torch.exp(torch.randn(width, generator=fixed))
    own = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=own)
    return (means[labels] + torch.randn(count, width, generator=own)) * scales, labels


def knn_contenders(bank: Labelled, queries: Tensor, classes: int) -> dict[str, Callable[[], Tensor]]:
    """What each predicts for the queries."""
    units, directions = normalize(queries, dim=1), normalize(bank[0], dim=1).T.contiguous()
    peer = KNeighborsClassifier(
        K, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / TEMPERATURE), n_jobs=1
    )
    peer.fit(bank[0].numpy(), bank[1].numpy())
    return {
        "stopgrad": lambda: knn_predict(queries, *bank, classes, K, TEMPERATURE),
        "lightly": lambda: lightly_knn(units, directions, bank[1], classes, K, TEMPERATURE)[:, 0],
        "scikit-learn": lambda: torch.from_numpy(peer.predict(queries.numpy())),
    }


def probe_contenders(
    train: Labelled, val: Labelled, test: Labelled, parts: bool
) -> dict[str, Callable[[], float]]:
    """The accuracy that each comes to."""

    def in_parts() -> float:
        before = linear.DOUBLE_UP_TO, linear.SCORES_AT_ONCE
        linear.DOUBLE_UP_TO, linear.SCORES_AT_ONCE = 0, 2**14
        try:
            return linear.linear_probe(*train, *test, val).accuracy
        finally:
            linear.DOUBLE_UP_TO, linear.SCORES_AT_ONCE = before

    def sklearn() -> float:
        x = StandardScaler().fit(train[0].double().numpy())
        fit, choose, score = (x.transform(part.double().numpy()) for part, _ in (train, val, test))
        best, accuracy = None, -1.0
        for c in linear.GRID:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = LogisticRegression(C=c, max_iter=linear.MAX_ITERATIONS).fit(fit, train[1].numpy())
            if (own := model.score(choose, val[1].numpy())) > accuracy:
                best, accuracy = model, own
        assert best is not None
        return float(best.score(score, test[1].numpy()))

    ours = {"stopgrad": lambda: linear.linear_probe(*train, *test, val).accuracy}
    return {**ours, **({"stopgrad, in parts": in_parts} if parts else {}), "scikit-learn": sklearn}


def take_turns(
    title: str, contenders: dict[str, Callable[[], Any]], accuracy: Callable[[Any], float], turns: int
) -> dict[str, Any]:
    """Seconds of every contender in every turn, in changing order, and its accuracy."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    accuracies = {}
    for turn in range(turns):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            found = contenders[name]()
            seconds[name].append(time.process_time() - start)
            accuracies[name] = accuracy(found)
        print(f"{title}, turn {turn + 1}/{turns}", flush=True)
    return {"title": title, "seconds": seconds, "accuracy": accuracies}


def measure(quick: bool) -> dict[str, Any]:
    """All cases."""
    turns = 2 if quick else 5
    cases = []
    count, asked = (2_000, 100) if quick else (20_000, 500)
    bank, (queries, truth) = draw(count, 512, 100, 0.15, 0), draw(asked, 512, 100, 0.15, 1)
    title = f"kNN: {asked:,} queries, bank {count:,} x 512, 100 classes"
    contenders = knn_contenders(bank, queries, 100)
    cases.append(take_turns(title, contenders, lambda x: float((x == truth).double().mean()), turns))
    for count, width, classes, distance in ((4096, 128, 10, 0.2), (8192, 256, 20, 0.15)):
        count = count // 8 if quick else count
        parts = [draw(n, width, classes, distance, s) for s, n in enumerate((count, 1024, 4096))]
        title = f"linear probe: {count:,} x {width}, {classes} classes"
        contenders = probe_contenders(*parts, parts=count > 4096 or quick)
        cases.append(take_turns(title, contenders, float, turns))
    size = BANK // 50 if quick else BANK
    memory = {name: in_own_process(name, size) for name in ("stopgrad", "lightly")}
    return {"machine": machine(), "cases": cases, "memory": {"bank": size, "mib": memory}}


def in_own_process(name: str, bank: int) -> float:
    """MiB that the contender's peak adds."""
    command = [sys.executable, __file__, "--memory", name, "--bank", str(bank)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory(name: str, count: int) -> float:
    """MiB that the peak of one prediction adds to what lies there before."""
    # a bank of repeated parts: drawing all of it would take longer than the search
    bank = normalize(torch.randn(count // 100, WIDTH), dim=1).repeat(100, 1)
    queries = normalize(torch.randn(QUERIES, WIDTH), dim=1)
    labels = torch.randint(1000, (len(bank),))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    if name == "stopgrad":
        knn_predict(queries, bank, labels, 1000, K, TEMPERATURE)
    else:
        lightly_knn(queries, bank.T, labels, 1000, K, TEMPERATURE)
    return status("VmHWM") - before


def status(field: str) -> float:
    """MiB of resident memory: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def spread(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def table(result: dict[str, Any]) -> str:
    lines = [
        "# kNN and linear probes",
        "",
        "Written by `OMP_NUM_THREADS=1 python benchmarks/evaluation.py --write`, whose docstring says how it",
        f"is measured. {result['machine']}",
    ]
    for case in result["cases"]:
        ours = case["seconds"]["stopgrad"]
        lines += ["", f"## {case['title']}", ""]
        lines += [
            "| | accuracy, % | s, median (min..max) | times stopgrad's, turn by turn |",
            "|---|---|---|---|",
        ]
        for name, seconds in case["seconds"].items():
            ratio = (
                "" if name == "stopgrad" else spread([a / b for a, b in zip(seconds, ours, strict=True)], 2)
            )
            accuracy = f"{100 * case['accuracy'][name]:.2f}"
            lines.append(f"| {name} | {accuracy} | {spread(seconds, 3)} | {ratio} |")
    bank = result["memory"]["bank"]
    size = bank * WIDTH * 4 / 2**20
    lines += ["", f"## Memory: {QUERIES} queries, bank {bank:,} x {WIDTH} ({size:,.0f} MiB)"]
    lines += ["", "| | MiB beside bank and queries |", "|---|---|"]
    lines += [f"| {name} | {mib:,.0f} |" for name, mib in result["memory"]["mib"].items()]
    return "\n".join(lines) + "\n"


def machine() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text().splitlines() if path.exists() else []
    model = next((line.split(":")[1].strip() for line in text if line.startswith("model name")), "unknown")
    names = ("stopgrad", "torch", "scipy", "scikit-learn", "lightly")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{model}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, whose numbers mean nothing")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/evaluation.md, .json")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--bank", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(memory(args.memory, args.bank))
        return
    result = measure(args.quick)
    if args.write:
        (RESULTS / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    text = table(result)
    print(text)
    if args.write:
        (RESULTS / "evaluation.md").write_text(text)


if __name__ == "__main__":
    main()
