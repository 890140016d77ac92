"""The main job, measured: every method on `digits` over several seeds, as a table with a verdict.

    python -m stopgrad.experiments.main_job [--seeds 1 2 3 4 5] [--jobs 2] [--write]

Floors and expectations were written down before the runs (FLOORS, COLLAPSING, UNTRAINED); the test part is
read once per run. A finished run is not run again: results are kept in the folder given by --out.
"""

import argparse
import json
import os
import statistics
from itertools import product
from pathlib import Path
from typing import Any

from stopgrad.experiments.pool import process_pool

METHODS = (
    "directpred", "simsiam", "byol", "byol-lp", "supervised",
    "simsiam-np", "simsiam-nosg", "byol-np", "byol-nosg",
)  # fmt: skip
SEEDS = (1, 2, 3, 4, 5)
FLOORS = {"directpred": 0.885, "simsiam": 0.86, "byol": 0.83}
COLLAPSING = ("simsiam-np", "simsiam-nosg", "byol-np", "byol-nosg")
UNTRAINED = (0.565, 0.03)
"""Linear probe of the untrained encoder, and how far the mean may lie from it."""

PAGE = Path("docs/results/main-job.md")
TEXT = """# The main job on `digits`

Written by `make results` (`python -m stopgrad.experiments.main_job --write`).

Mean ± standard deviation over n = {n} seeds ({seeds}), the default recipe of each method
(`stopgrad pretrain --data digits --method M --seed S`), 1024 test images, read once per run. Accuracies in
%. `linear probe` is fitted on standardised encoder features with all labels, its regularisation chosen on
the validation images; `std` and `effective rank` are of the projections z of test images with batch
normalisation in evaluation mode: std 1 is isotropic, 0 is collapsed. The verdict reads only std and
effective rank, never an accuracy.

{table}

The supervised reference has no projection: its z is the encoder's features.

## Expectations, written down before the runs

{checks}
"""
COLUMNS = ("linear_probe", "linear_probe_raw", "linear_probe_20", "knn", "std", "effective_rank")
HEADS = ("linear probe", "raw features", "20 labels a class", "kNN", "std of z", "effective rank of z")


def main() -> None:
    """Run what is missing, print the page, and write it with --write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, a thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/main-job"), help="folder of the runs")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    arms = list(product(arguments.seeds, METHODS))
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    with process_pool(arguments.jobs) as pool:
        folders = [arguments.out / f"{method}-{seed}" for seed, method in arms]
        for (seed, method), summary in zip(arms, pool.map(_run, arms, folders), strict=True):
            results[method].append(summary)
            print(
                f"{method} {seed}: {summary['verdict']}, linear probe {summary['linear_probe']:.3f}",
                flush=True,
            )
    page = render(results, arguments.seeds)
    print(page)
    if arguments.write:
        from stopgrad.files import write_text

        write_text(PAGE, page)


def render(results: dict[str, list[dict[str, Any]]], seeds: list[int]) -> str:
    """The page of the results, in Markdown."""
    controls = [s["untrained"] for s in results["directpred"]]
    rows = [_row("untrained encoder", controls, "-")]
    for method, summaries in results.items():
        verdicts = {
            v: sum(s["verdict"] == v for s in summaries) for v in sorted({s["verdict"] for s in summaries})
        }
        rows.append(
            _row(
                f"`{method}`", summaries, ", ".join(f"{v} {n}/{len(summaries)}" for v, n in verdicts.items())
            )
        )
    table = [f"| method | {' | '.join(HEADS)} | verdict |", "|---" * (len(HEADS) + 2) + "|", *rows]
    checks = [f"- {'holds' if good else 'DOES NOT HOLD'}: {words}" for words, good in _checks(results)]
    return TEXT.format(
        n=len(seeds), seeds=", ".join(map(str, seeds)), table="\n".join(table), checks="\n".join(checks)
    )


def _checks(results: dict[str, list[dict[str, Any]]]) -> list[tuple[str, bool]]:
    checks = []
    for method, floor in FLOORS.items():
        mean = statistics.mean(s["linear_probe"] for s in results[method])
        checks.append((f"`{method}` reaches {100 * floor:g} % on average: {100 * mean:.1f} %", mean >= floor))
    middle, margin = UNTRAINED
    mean = statistics.mean(s["untrained"]["linear_probe"] for s in results["directpred"])
    words = (
        f"the untrained encoder lies within {100 * margin:g} points of {100 * middle:g} %: {100 * mean:.1f} %"
    )
    checks.append((words, abs(mean - middle) <= margin))
    for method in COLLAPSING:
        summaries = results[method]
        collapsed = all("collapse" in s["verdict"] for s in summaries)
        checks.append((f"`{method}` ends with a collapse verdict on every seed", collapsed))
        gap = statistics.mean(s["linear_probe"] - s["untrained"]["linear_probe"] for s in summaries)
        words = (
            f"its probe is no better than the untrained encoder's, paired by seed: {100 * gap:+.1f} points"
        )
        checks.append((words, gap <= 0))
    return checks


def _row(name: str, summaries: list[dict[str, Any]], verdict: str) -> str:
    cells = []
    for column in COLUMNS:
        values = [s[column] for s in summaries]
        scale, digits = (1, 2 if column == "std" else 1) if column in ("std", "effective_rank") else (100, 1)
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{scale * statistics.mean(values):.{digits}f} ± {scale * deviation:.{digits}f}")
    return f"| {name} | {' | '.join(cells)} | {verdict} |"


def _run(arm: tuple[int, str], out: Path) -> dict[str, Any]:
    from stopgrad import jobs

    seed, method = arm
    if (out / "summary.json").is_file():
        return json.loads((out / "summary.json").read_text())
    return jobs.pretrain("digits", method, out, resume=True, show_progress=False, seed=seed)


if __name__ == "__main__":
    main()
