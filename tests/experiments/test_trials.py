"""A run's summary as numbers, its epoch rows as series."""

import math

import pytest

from stopgrad.experiments.trials import numbers_of, series_of


def summary(std=0.9, rank=20.0, loss=-0.8, verdict="healthy", **more):
    nodes = {node: {"std": std, "effective_rank": rank, "spectrum": [1.0]} for node in ("z", "p")}
    return {"method": "byol", "seed": 3, "epochs": 2, "images_per_second": 99.0, "loss": loss,
            "linear_probe": 0.8, "verdict": verdict, **nodes, **more}  # fmt: skip


def test_numbers_are_flat_and_finite():
    numbers = numbers_of(summary(linear_probe_raw=None, knn=math.nan, untrained={"knn": 0.6}))
    assert numbers == {
        "loss": -0.8, "linear_probe": 0.8, "untrained.knn": 0.6, "diverged": 0.0,
        "z.std": 0.9, "z.effective_rank": 20.0, "z.collapsed": 0.0, "z.healthy": 1.0,
        "p.std": 0.9, "p.effective_rank": 20.0, "p.collapsed": 0.0, "p.healthy": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(("std", "rank", "collapsed"), [(0.001, 20.0, 1), (0.9, 1.2, 1), (0.9, 20.0, 0)])
def test_each_node_is_judged_on_its_own(std, rank, collapsed):
    numbers = numbers_of(summary(p={"std": std, "effective_rank": rank}))
    assert (numbers["p.collapsed"], numbers["p.healthy"]) == (collapsed, 1 - collapsed)
    assert (numbers["z.collapsed"], numbers["z.healthy"]) == (0, 1)


def test_a_diverged_run_is_neither():
    for loss in (None, math.nan):
        numbers = numbers_of(summary(std=math.nan, loss=loss, verdict="diverged", linear_probe=None))
        assert (numbers["diverged"], numbers["z.collapsed"], numbers["z.healthy"]) == (1, 0, 0)
        assert "linear_probe" not in numbers
        assert "z.std" not in numbers


def test_evaluated_rows_are_columns_of_few_digits():
    rows = [
        {"kind": "epoch", "epoch": 0, "loss": None, "knn": 0.25, "z": {"std": 0.5, "spectrum": [1 / 3, 0.0]}},
        {"kind": "epoch", "epoch": 1, "loss": -0.5},
        {"kind": "epoch", "epoch": 2, "loss": -0.123456789, "z": {"std": math.nan, "spectrum": [2e-7, 1.0]},
         "z_train": {"std": 0.5}},
    ]  # fmt: skip
    assert series_of(rows) == {
        "epoch": [0, 2], "loss": [None, -0.12346], "knn": [0.25, None], "z.std": [0.5, None],
        "z.spectrum": [[0.33333, 0.0], [2e-7, 1.0]],
    }  # fmt: skip
