"""What a trial is: which settings are one, and what quick and seeds change."""

from dataclasses import replace

import pytest

from stopgrad.errors import UsageError
from stopgrad.experiments.rules import Always, Greater
from stopgrad.experiments.schema import DIGITS, QUICK_SEEDS, Arm, Trial


@pytest.fixture
def training(experiment):
    return experiment(
        function=None,
        base=DIGITS,
        arms=(
            Arm("a", {"method": "byol-lp"}),
            Arm("b", {"method": "byol-lp", "optimizer": {"weight_decay": 0.0}}),
        ),
        seeds=(1, 2, 3),
        rule=Greater("a", "b", "linear_probe"),
    )


def of(**changes):
    return Trial("training", {**DIGITS, "method": "directpred", **changes})


def test_two_ways_to_write_the_same_settings_are_one_trial():
    plain = of(seed=1)
    assert of(seed=1, predictor={"eps": 0.1, "rho": 0.3}).identity == plain.identity
    assert of(seed=1, recipe="digits").identity == plain.identity
    assert of(seed=2).identity != plain.identity
    assert of(seed=1, predictor={"eps": 0.2}).identity != plain.identity


def test_exact_trials_are_told_apart_by_function_and_literals():
    one = Trial("exact", {"c": "zero"}, "tian2021.integral")
    assert one.identity == Trial("exact", {"c": "zero"}, "tian2021.integral").identity
    assert one.identity != Trial("exact", {"c": "free"}, "tian2021.integral").identity
    assert one.identity != Trial("exact", {"c": "zero"}, "tian2021.lemma1").identity
    tuples = Trial("exact", {"lrs": (1, 2)}, "f"), Trial("exact", {"lrs": [1, 2]}, "f")
    assert tuples[0].spec == tuples[1].spec


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(UsageError, match=r"^predictor\.ep"):
        _ = of(predictor={"ep": 1}).identity


def test_arms_share_their_seeds_and_differ_in_what_they_change(training):
    trials = training.trials()
    assert {arm: list(of_seed) for arm, of_seed in trials.items()} == {"a": [1, 2, 3], "b": [1, 2, 3]}
    a, b = trials["a"][2].spec["settings"], trials["b"][2].spec["settings"]
    assert (a["seed"], b["seed"]) == (2, 2)
    a["optimizer"]["weight_decay"] = 0.0
    assert a == b


def test_seeds_and_quick(training, experiment):
    assert list(training.trials(seeds=7)["a"]) == [1, 2, 3, 4, 5, 6, 7]
    quick = training.trials(quick=True)["b"]
    assert len(quick) == QUICK_SEEDS
    assert list(training.trials(seeds=1, quick=True)["b"]) == [1]
    alone = replace(training, seeds=(3,))
    assert list(alone.trials(seeds=7)["a"]) == list(alone.trials(quick=True)["a"]) == [3]
    settings = quick[1].spec["settings"]
    assert settings["epochs"] < training.trials()["b"][1].spec["settings"]["epochs"]
    assert settings["optimizer"]["weight_decay"] == 0.0
    exact = experiment()
    assert exact.trials(seeds=3, quick=True)["zero"][None].identity == exact.trials()["zero"][None].identity


def test_an_exact_function_that_draws_gets_its_seeds(experiment):
    trials = experiment(function="tian2021.theorem3", arms=(Arm("free"),), seeds=(4, 5)).trials(seeds=1)
    assert {seed: trial.arguments for seed, trial in trials["free"].items()} == {
        4: {"seed": 4},
        5: {"seed": 5},
    }


def test_where_the_data_lie_is_no_part_of_a_trial(tmp_path):
    here, there = (of(data={"name": "cifar10", "dir": str(tmp_path / name)}) for name in "ab")
    assert here.identity == there.identity
    assert here.arguments["data"] != there.arguments["data"]
    assert here.identity != of(data={"name": "cifar100", "dir": str(tmp_path / "a")}).identity
    # as it has always been for digits: what is in the store stays valid
    digits = of(seed=1).spec["settings"]["data"]
    assert digits == digits | {
        "name": "digits", "dir": None, "channels": None, "image_size": None, "download": False,
        "limit": None, "workers": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "raft2021-x"}, "begin with 'tian2021-'"),
        ({"arms": (Arm("free"), Arm("free"))}, "share a name"),
        ({"rule": Always("fre", "drift")}, "no arm 'fre'"),
        ({"paper_numbers": {"other": {"m": 1.0}}}, "no arm 'other'"),
        ({"function": None}, "needs seeds"),
        ({"quick": {}}, "needs seeds"),
        ({"function": None, "seeds": (1,), "quick": {}}, "QUICK"),
        ({"rule_at": {"cifar10": Always("fre", "drift")}}, "no arm 'fre'"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(experiment, changes, message):
    with pytest.raises(ValueError, match=message):
        experiment(**changes)
