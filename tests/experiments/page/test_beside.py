"""Predictions beside outcomes: what is counted, what the page says of it, and the two pictures."""

from dataclasses import replace

import pytest

from stopgrad.experiments.counterpart import trials
from stopgrad.experiments.exact import counterpart as exact
from stopgrad.experiments.ledger import Row, row
from stopgrad.experiments.page import beside
from stopgrad.experiments.schema import Result
from stopgrad.experiments.store import Record
from stopgrad.parts.target import Same
from stopgrad.postmortem.counterpart import counterpart

from ..examples import LEARNED, NONE, RAFT, experiment, run


def theory(collapsed, **more):
    numbers = {"reached": 1.0, "collapsed": float(collapsed), "rank": 0.0 if collapsed else 4.0,
               "dropped": 0.3, "arrived": 1.0, "epochs": 5.0}  # fmt: skip
    series = {"l_s": [1.0, 1.0, 2.0], "s": [1.0, 0.5, 0.0], "survives": [1, 1, 0]}
    return Result(numbers | more, series)


def outcome(collapsed, **more):
    series = {"epoch": [0, 4, 8, 12], "z.std": [0.9, 0.5, 0.8, 0.8], "z.effective_rank": [9, 9, 9.0, 9.5],
              "z.spectrum": [[1.0], [0.5, 0.5], [0.7, 0.3], [0.6, 0.4]]}  # fmt: skip
    return Result({"z.collapsed": float(collapsed), "diverged": 0.0, "z.effective_rank": 9.5} | more, series)


def rows_of(*experiments, results, predictions=None):
    """Rows with trained results by (arm, seed), and the theory's."""
    made = []
    for one in experiments:
        records = {
            arm: {
                seed: Record(trial.spec, "s", {}, None, 1.0, "now", results[arm, seed])
                for seed, trial in of_seed.items()
                if (arm, seed) in results
            }
            for arm, of_seed in one.trials().items()
        }
        said = {
            arm: {
                seed: Record(trial.spec, "s", {}, None, 1.0, "now", predictions[arm, seed])
                for seed, trial in of_seed.items()
                if (arm, seed) in (predictions or {})
            }
            for arm, of_seed in trials(one).items()
        }
        made.append(Row(one, None, frozenset(), records, predicted=said))
    return made


def test_the_matrix_counts_each_trial_once():
    one = experiment(NONE, LEARNED)
    other = replace(one, id="tian2021-other")
    predictions = {(arm, seed): theory(arm == "byol-np") for arm in ("byol-np", "byol-lp") for seed in (1, 2)}
    results = {
        ("byol-np", 1): outcome(True), ("byol-np", 2): outcome(False),
        ("byol-lp", 1): outcome(False), ("byol-lp", 2): Result({"diverged": 1.0}),
    }  # fmt: skip
    found = beside.collect(rows_of(one, other, results=results, predictions=predictions))
    counted = beside.matrix(found.of("near"))
    assert counted["collapsed", "collapsed"] == counted["collapsed", "not collapsed"] == 1
    assert counted["not collapsed", "not collapsed"] == counted["not collapsed", "diverged"] == 1
    assert sum(counted.values()) == 4
    said = beside.agreement(found.pairs)
    assert said.startswith("the same in 2 of 4 trials, in all seeds of 0 of 2 arms")
    assert said.endswith('"not collapsed" of every trial is right in 2')


def test_the_page_says_what_was_counted():
    one = experiment(NONE, LEARNED, RAFT)
    predictions = {("byol-np", 1): theory(True), ("byol-lp", 1): theory(False, arrived=0.0, epochs=90.0)}
    results = {(arm, 1): outcome(arm == "byol-lp") for arm in ("byol-np", "byol-lp", "raft")}
    results["byol-lp", 2] = outcome(False)
    rows = rows_of(one, results=results, predictions=predictions)
    text = beside.markdown(rows)
    assert "| predicted: collapsed | 0 | 1 |" in text
    assert "| predicted: not collapsed | 1 | 0 |" in text
    assert "| linear predictor, EMA | 1 | 0 | 1 | 0 |" in text
    assert "theory's end lies at epoch 90, the run has 24 epochs" in text
    assert "Theory has no word on 1 arms" in text
    assert "1 trials wait" in text
    assert "| pairing: the modes are of" in text
    (page,) = beside.sections(rows)
    assert page.startswith('<section id="beside">')
    assert page.count("<figure>") == 2


def test_missing_trials_are_no_error(store):
    one = experiment(NONE, RAFT)
    for rows in ([], [row(one, store)], rows_of(one, results={("byol-np", 1): outcome(True)})):
        text = beside.markdown(rows)
        assert "No trial has both" in text
        assert beside.sections(rows)
        assert beside.spectrum_figure(beside.collect(rows)).data == ()
        assert beside.time_figure(beside.collect(rows)).data == ()


def test_a_prediction_that_theory_does_not_reach_is_counted_by_its_reason():
    one, trial = experiment(NONE), ("byol-np", 1)
    predictions = {trial: exact.unreached("lr: 0.1 is too large, 7")}
    found = beside.collect(rows_of(one, results={trial: outcome(True)}, predictions=predictions))
    assert found.pairs == []
    assert found.none == {"lr: too large for the flow to stand for SGD": {"tian2021-example byol-np"}}


def pair(said, came):
    settings = run("byol-lp")
    return beside.Pair("tian2021-example", "byol-lp", settings, counterpart(settings), said, came)


def test_spectra_are_compared_as_shares():
    one = pair(theory(False), outcome(False))
    predicted, measured = beside.spectra(one)
    assert predicted == pytest.approx([2 / 3, 1 / 3, 0])
    assert measured == pytest.approx([0.6, 0.4])
    assert beside.overlap(predicted, measured) == pytest.approx(0.6 + 1 / 3)
    dead = theory(True)
    dead.series["survives"] = [0, 0, 0]
    assert (
        beside.spectra(pair(dead, Result({})))[0].size == beside.spectra(pair(dead, Result({})))[1].size == 0
    )


@pytest.mark.parametrize(
    ("std", "rank", "epoch"),
    [
        ([0.8, 0.8, 0.8, 0.8], [9, 9, 9, 9], 4.0),
        ([0.1, 0.5, 0.8, 0.8], [9, 9, 9, 9], 8.0),
        ([0.8, 0.8, 0.8, 0.8], [2, 9, 5, 9], None),
        ([0.8, 0.8, None, 0.8], [9, 9, 9, 9], 4.0),
        ([0.8], [9], None),
        ([], [], None),
    ],
)
def test_when_measures_settle(std, rank, epoch):
    series = {"epoch": [0, 4, 8, 12][: len(std)], "z.std": std, "z.effective_rank": rank}
    assert beside.settled(series) == epoch


def test_targets_in_words():
    assert beside.target_of(run("byol-lp")) == "EMA"
    assert beside.target_of(run(target=Same())) == "stop-gradient alone"
    assert beside.target_of(run(target=Same(stop_gradient=False))) == "no stop-gradient"


def test_pictures_have_a_point_a_mode_and_a_trial():
    found = beside.Collected([pair(theory(False), outcome(False))])
    spectrum, time = beside.spectrum_figure(found), beside.time_figure(found)
    assert spectrum.data[0].x == pytest.approx([2 / 3, 1 / 3])
    assert spectrum.data[0].y == pytest.approx([0.6, 0.4])
    assert (time.data[0].x.tolist(), time.data[0].y.tolist()) == ([5.0], [8.0])
