"""`make demo`: pretrain on bundled real images, see what collapses, and compare on held-out images.

    python -m stopgrad.experiments.demo [--out runs/demo]

Five rows on the same test images and, but for raw pixels, the same small encoder: raw pixels, the untrained
encoder, DirectPred, SimSiam without a predictor (which collapses), and supervised training as the upper
reference.
Two processes train at a time. About three minutes on two cores.
"""

import argparse
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from stopgrad.experiments.pool import process_pool

ARMS = ("directpred", "simsiam-np", "supervised")
COLUMNS = ("kNN", "linear probe", "20 labels", "std", "effective rank", "verdict")


def main() -> None:
    """Train the three arms, add the two controls, print the table and the report's path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the three runs")
    out: Path = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    print("Pretraining on 4096 handwritten digits at random pose ...", file=sys.stderr)
    # one thread a run: a second one hardly helps at this size, a second run does
    os.environ["OMP_NUM_THREADS"] = "1"
    with process_pool(min(len(ARMS), os.cpu_count() or 1)) as pool:
        results = dict(zip(ARMS, pool.map(_train, ARMS, [out / arm for arm in ARMS]), strict=True))
    rows = {
        "raw pixels": raw_pixels(),
        "untrained encoder": results["directpred"]["untrained"],
        "DirectPred": results["directpred"],
        "SimSiam without predictor": results["simsiam-np"],
        "supervised": results["supervised"],
    }
    _print_table(rows)
    print(f"\nreport  {out / 'directpred' / 'report.html'}")


def raw_pixels() -> dict[str, Any]:
    """The same figures for the pixels themselves, as the weakest control."""
    import torch

    from stopgrad import diagnostics
    from stopgrad.data.sources import DataSettings, load_dataset
    from stopgrad.training.results import probe_vectors
    from stopgrad.training.settings import EvaluationSettings

    dataset = load_dataset(DataSettings())
    fit, val, test = (
        torch.stack([part[i] for i in range(len(part))]).flatten(1).float() / 255
        for part in (dataset.probe, dataset.val, dataset.test)
    )
    return {
        **probe_vectors(fit, val, test, dataset, EvaluationSettings()),
        "std": float(diagnostics.embedding_std(test)),
        "effective_rank": float(diagnostics.effective_rank(test)),
    }


def _train(method: str, out: Path) -> dict[str, Any]:
    from stopgrad import jobs

    show = method == ARMS[0]
    return jobs.pretrain("digits", method, out, show_progress=show)


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table("on 1024 held-out images", *COLUMNS, box=SIMPLE)
    for name, row in rows.items():
        figures = [f"{100 * row[key]:.1f} %" for key in ("knn", "linear_probe", "linear_probe_20")]
        measures = [f"{row.get('std', math.nan):.2f}", f"{row.get('effective_rank', math.nan):.1f}"]
        table.add_row(name, *figures, *measures, row.get("verdict", ""))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
