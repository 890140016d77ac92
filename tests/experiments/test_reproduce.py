"""The command: what it prints, where, and with which exit status."""

import json

import pytest

from stopgrad.experiments import papers
from stopgrad.experiments.schema import Arm


def test_list_says_what_there_is(reproduce):
    status, out, _ = reproduce("list", "--json")
    assert status == 0
    found = json.loads(out)["experiments"]
    assert [e["id"] for e in found] == list(papers.EXPERIMENTS)
    for e in found:
        assert {"id", "paper", "section", "claim", "rule", "cost", "arms", "seeds", "kind"} <= e.keys()
        assert e["cost"]["minutes"] > 0
        assert e["cost"]["memory_gib"] > 0
    status, out, _ = reproduce("list")
    assert status == 0
    assert all(name in out for name in papers.EXPERIMENTS)


def test_a_claim_is_run_once_and_its_verdict_printed(reproduce, ran, tmp_path):
    status, out, err = reproduce("tian2021-integral", "tian2021-integral", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["trials"], found["reused"], found["ran"]) == (2, 0, 2)
    assert found["experiments"][0]["verdict"]["outcome"] == "holds under a condition"
    assert "2 of 2" in err
    assert len(list((tmp_path / "results/ledger").iterdir())) == 2
    status, out, err = reproduce("tian2021-integral", "--quiet")
    assert "2 in the store before" in out
    assert err == ""
    assert len(ran) == 2


def test_a_store_of_ones_own(reproduce, ran, tmp_path):
    reproduce("tian2021-integral", "--store", tmp_path / "own", "--quick", "--jobs", 2)
    assert len(list((tmp_path / "own").iterdir())) == 2
    assert not (tmp_path / "results").exists()


def test_a_failed_trial_is_status_1(reproduce, ran, monkeypatch, experiment):
    bad = experiment(arms=(Arm("zero", {"c": "zero", "t_end": "x"}), Arm("free", {"c": "free"})))
    monkeypatch.setitem(papers.EXPERIMENTS, bad.id, bad)
    status, out, _ = reproduce(bad.id, "--json")
    assert status == 1
    assert list(json.loads(out)["failed"]) == ["tian2021-example zero"]
    status, out, _ = reproduce(bad.id)
    assert (status, "failed  tian2021-example zero" in out, "1 trials missing" in out) == (1, True, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tian2021-thm9"], "did you mean 'tian2021-thm"),
        (["tian2021-thm1", "--executor", "rays"], "--executor"),
        (["tian2021-thm1", "--jobs", "0"], "--jobs"),
        (["all", "--seeds", "0"], "--seeds"),
        ([], "list"),
    ],
)
def test_bad_input_is_one_line(reproduce, arguments, said):
    status, out, err = reproduce(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
