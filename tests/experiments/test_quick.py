"""A quick run: 2 seeds, shorter training, every rule decided."""

import json

import pytest

from stopgrad import cli
from stopgrad.experiments.papers import EXPERIMENTS
from stopgrad.experiments.schema import EPOCHS, QUICK, QUICK_SEEDS, shortened

TRAINING = [e for e in EXPERIMENTS.values() if e.kind == "training"]
BY_ITSELF = [e for e in EXPERIMENTS.values() if e.quick is not None]


def epochs(trial):
    return trial.spec["settings"]["epochs"]


@pytest.mark.parametrize("experiment", TRAINING, ids=lambda e: e.id)
def test_every_arm_is_shortened_in_proportion(experiment):
    whole, quick = experiment.trials(), experiment.trials(quick=True)
    for arm, of_seed in quick.items():
        assert list(of_seed) == [1, 2]
        settings, full = of_seed[1].spec["settings"], whole[arm][1].spec["settings"]
        assert settings["epochs"] == max(1, round(full["epochs"] * QUICK["epochs"] / EPOCHS))
        assert settings["data"]["limit"] == QUICK["data"]["limit"]
        assert settings["schedule"]["warmup_epochs"] <= settings["epochs"]
        same = ("method", "predictor", "gradient", "pairing", "distance", "projector")
        assert {name: settings[name] for name in same} == {name: full[name] for name in same}


def test_what_an_arm_says_of_the_epochs_keeps_its_proportion():
    assert shortened({"epochs": 3 * EPOCHS})["epochs"] == 3 * shortened({})["epochs"]
    assert shortened({"epochs": 1})["epochs"] == 1
    arms = EXPERIMENTS["tian2021-tbl8"].trials(quick=True)
    assert epochs(arms["learned, 300 epochs"][1]) == 3 * epochs(arms["learned, 100 epochs"][1])


def test_the_functions_that_train_are_known():
    assert {e.function for e in BY_ITSELF} >= {
        "tian2021.figure2", "raft2021.identity_start", "raft2021.circle", "zhang2022.figure4",
        "zhang2022.figure5a", "zhang2022.figure5b", "zhang2022.figure5c", "zhang2022.correlation",
        "zhang2022.bias_to_center",
    }  # fmt: skip


@pytest.mark.parametrize("experiment", BY_ITSELF, ids=lambda e: e.id)
def test_a_function_that_trains_is_shortened_by_its_literals(experiment):
    whole, quick = experiment.trials(), experiment.trials(quick=True)
    assert next(iter(experiment.trials(seeds=1).values())).keys() == {1}
    for arm, of_seed in quick.items():
        assert len(of_seed) == min(QUICK_SEEDS, len(experiment.seeds))
        for seed, trial in of_seed.items():
            assert trial.function == experiment.function
            assert trial.arguments["seed"] == seed
            assert trial.identity != whole[arm][seed].identity


def test_what_is_exact_stays_so():
    for experiment in EXPERIMENTS.values():
        if not experiment.trains:
            whole, quick = experiment.trials(), experiment.trials(quick=True)
            assert {a: {s: t.identity for s, t in of.items()} for a, of in whole.items()} == {
                a: {s: t.identity for s, t in of.items()} for a, of in quick.items()
            }


@pytest.mark.slow
def test_all_of_it_gives_every_claim_a_verdict(tmp_path, monkeypatch, capfd):
    """Some 20 minutes on 2 cores."""
    arguments = ["all", "--quick", "--jobs", "2", "--store", str(tmp_path / "store"), "--quiet", "--json"]
    monkeypatch.setattr("sys.argv", ["stopgrad", "reproduce", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = json.loads(capfd.readouterr().out)
    assert said["failed"] == {}
    assert stop.value.code == 0
    assert [row["id"] for row in said["experiments"]] == list(EXPERIMENTS)
    assert all(row["verdict"] is not None and row["missing"] == 0 for row in said["experiments"])
