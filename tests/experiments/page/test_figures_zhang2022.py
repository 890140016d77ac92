"""The pictures of Zhang et al. show the values of their records, and cope with missing ones."""

import inspect
from statistics import fmean, stdev

import numpy as np
import pytest

from stopgrad.experiments.exact import zhang2022 as exact
from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page.figures.zhang2022 import FIGURES, PHASES
from stopgrad.experiments.papers.zhang2022 import EXPERIMENTS
from stopgrad.experiments.schema import Result
from stopgrad.experiments.store import Record

BY_ID = {e.id: e for e in EXPERIMENTS}
SEEDS = (1, 2, 3)


def row_of(name, results):
    """A row with results, arm -> seed -> result."""
    records = {
        arm: {seed: Record({}, "", {}, None, 1.0, "", result) for seed, result in of_seed.items()}
        for arm, of_seed in results.items()
    }
    return Row(BY_ID[name], None, frozenset(), records)


def results(name, make):
    """``make``: place of the arm, seed -> its result."""
    return {
        arm.name: {seed: make(place, seed) for seed in SEEDS} for place, arm in enumerate(BY_ID[name].arms)
    }


def draw(name, given):
    return FIGURES[name](row_of(name, given))


def of(figure, name, axis="x"):
    """Traces of a name in a panel."""
    return [trace for trace in figure.data if trace.name == name and (trace.xaxis or "x") == axis]


def line(figure, name, axis="x"):
    (found,) = [trace for trace in of(figure, name, axis) if trace.mode == "lines" and trace.fill is None]
    return found


def shows(figure, name, axis, x, columns):
    """Whether a line is the mean of the seeds' columns and its band their range."""
    drawn = line(figure, name, axis)
    assert list(drawn.x) == list(x)
    np.testing.assert_allclose(drawn.y, np.mean(columns, axis=0))
    (band,) = [trace for trace in of(figure, name, axis) if trace.fill == "toself"]
    assert list(band.y) == [*np.min(columns, axis=0), *np.max(columns, axis=0)[::-1]]


def columns(of_seed, series):
    return [result.series[series] for result in of_seed.values()]


def test_every_picture_is_of_an_experiment():
    assert FIGURES.keys() <= BY_ID.keys()
    drawn = ("tbl2", "fig3", "fig4", "fig5a", "fig5b", "fig5c", "fig6", "fig8")
    assert {f"zhang2022-{name}" for name in drawn} <= FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_without_trials_or_series_nothing_is_drawn(name):
    arms = [arm.name for arm in BY_ID[name].arms]
    for found in ({}, {arm: {} for arm in arms}, {arm: {1: Result({}, {})} for arm in arms}):
        figure = draw(name, found)
        assert figure.data == ()
        assert figure.layout.title.text
        assert figure.layout.title.subtitle.text
        assert figure.layout.height


@pytest.mark.parametrize(
    ("name", "panels"),
    [
        ("zhang2022-tbl2", {"online_probe": "x", "z.std": "x2", "p.std": "x3"}),
        ("zhang2022-fig3", {"online_probe": "x", "knn": "x2", "z.std": "x3"}),
    ],
)
def test_trainings_are_followed_over_the_epochs_after_the_first(name, panels):
    def make(place, seed):
        series = {s: [0.0, 0.1 * place + 0.01 * seed, 0.2 * place] for s in panels}
        return Result({"linear_probe": 0.1 * place + 0.01 * seed}, {"epoch": [0, 4, 8], **series})

    given = results(name, make)
    given.pop("naive", None)
    figure = draw(name, given)
    for arm, of_seed in given.items():
        for series, axis in panels.items():
            shows(figure, arm, axis, [4, 8], [course[1:] for course in columns(of_seed, series)])
    assert not of(figure, "naive")
    (ends,) = of(figure, "linear probe at the end")
    probes = [[r.numbers["linear_probe"] for r in of_seed.values()] for of_seed in given.values()]
    assert list(ends.text) == list(given)
    np.testing.assert_allclose(ends.y, [fmean(probe) for probe in probes])
    np.testing.assert_allclose(ends.error_y.array, [stdev(probe) for probe in probes])
    for paper in of(figure, "the paper's number"):
        theirs = BY_ID[name].paper_numbers
        assert dict(zip(paper.text, paper.y, strict=True)) == {
            a: v["linear_probe"] for a, v in theirs.items()
        }


def test_fig4_has_m_o_above_m_r_with_batch_normalisation_and_without():
    given = results(
        "zhang2022-fig4",
        lambda place, seed: Result({}, {"m_o": [0.1, 0.1 * place + 0.01 * seed], "m_r": [0.9, 0.1 * seed]}),
    )
    del given["random"]
    figure = draw("zhang2022-fig4", given)
    for arm, of_seed in given.items():
        above, below = ("x2", "x4") if "no final BN" in arm else ("x", "x3")
        shows(figure, arm, above, [0, 1], columns(of_seed, "m_o"))
        shows(figure, arm, below, [0, 1], columns(of_seed, "m_r"))
        assert len([trace for trace in figure.data if trace.name == arm]) == 4  # two lines, two bands
    assert {trace.name for trace in figure.data} == given.keys()
    ends = (line(figure, arm, axis) for arm, axis in (("o", "x"), ("o, no final BN", "x2")))
    assert len({trace.line.color for trace in ends}) == 1


def test_fig5a_marks_our_crossings_and_the_papers():
    given = results(
        "zhang2022-fig5a",
        lambda place, seed: Result(
            {"eta_p": -0.1 * seed - place, "eta_z": 0.1 * seed},
            {"eta": [-1.0, 1.0], "simsiam": [0.5 + 0.1 * seed, -0.5], "mirror": [0.8, -0.1 * seed]},
        ),
    )
    figure = draw("zhang2022-fig5a", given)
    for axis, of_seed in zip(("x", "x2"), given.values(), strict=True):
        curves = [trace for trace in figure.data if (trace.xaxis or "x") == axis]
        solid = [t for t in curves if t.mode == "lines" and t.fill is None and t.line.dash != "dot"]
        for curve, name in zip(solid, ("simsiam", "mirror"), strict=True):
            np.testing.assert_allclose(curve.y, np.mean(columns(of_seed, name), axis=0))
        for node, theirs in (("p", -0.5), ("z", 0.2)):
            assert set(line(figure, f"the paper's η<sub>{node}</sub>", axis).x) == {theirs}
            (ours,) = of(figure, f"our η<sub>{node}</sub>", axis)
            shares = [result.numbers[f"eta_{node}"] for result in of_seed.values()]
            np.testing.assert_allclose([*ours.x, *ours.error_x.array], [fmean(shares), stdev(shares)])
            assert list(ours.y) == [0]


def test_fig5b_parts_the_steps_as_the_trials_do():
    parameters = inspect.signature(exact.figure5b).parameters
    assert [parameters[p].default for p in ("learn", "collapse", "recover")] == [n for _, n in PHASES]
    steps = 34
    given = results(
        "zhang2022-fig5b",
        lambda place, seed: Result({}, {"m_r": [0.1 * place + 0.01 * seed * i for i in range(steps)]}),
    )
    figure = draw("zhang2022-fig5b", given)
    for arm, of_seed in given.items():
        axis = "x2" if "no final BN" in arm else "x"
        drawn = line(figure, arm, axis)
        assert list(drawn.x) == list(range(steps))
        np.testing.assert_allclose(drawn.y, np.mean(columns(of_seed, "m_r"), axis=0))
    for axis in ("x", "x2"):
        np.testing.assert_allclose([t.x[0] for t in of(figure, "next loss", axis)], [10, 22])


def test_fig5c_is_over_the_logarithm_of_the_temperature():
    course = {"temperature": [0.1, 1.0], "o_e": [0.0, 0.0]}
    given = {"all": {seed: Result({}, {**course, "r_e": [0.7 + 0.01 * seed, 0.1 * seed]}) for seed in SEEDS}}
    figure = draw("zhang2022-fig5c", given)
    shows(figure, "r<sub>e</sub>", "x", [0.1, 1.0], columns(given["all"], "r_e"))
    assert set(line(figure, "o<sub>e</sub>").y) == {0}
    assert {trace.x[0] for trace in of(figure, "the paper's largest")} == {0.1, 0.2}
    assert figure.layout.xaxis.type == "log"


def covariance(place, seed):
    return Result(
        {"covariance": 0.2 * place + 0.01 * seed, "linear_probe": 0.9 - 0.1 * place - 0.02 * seed},
        {"epoch": [0, 1, 2], "covariance": [0.9, 0.5 + 0.01 * seed, 0.2 * place + 0.01 * seed]},
    )


def test_fig6_follows_the_covariance_from_before_training():
    given = results("zhang2022-fig6", covariance)
    figure = draw("zhang2022-fig6", given)
    for arm, of_seed in given.items():
        shows(figure, arm, "x", [0, 1, 2], columns(of_seed, "covariance"))


def test_fig8_has_every_seed_at_its_temperature_and_the_covariance_over_training():
    given = results("zhang2022-fig8", covariance)
    del given["temperature 0.5"]
    figure = draw("zhang2022-fig8", given)
    for arm, of_seed in given.items():
        temperature = float(arm.split()[1])
        for measure, axis in (("linear_probe", "x"), ("covariance", "x2")):
            (dots,) = of(figure, arm, axis)
            assert list(dots.y) == [result.numbers[measure] for result in of_seed.values()]
            assert set(dots.x) == {temperature}
            (mean,) = [t for t in of(figure, "mean of the seeds", axis) if list(t.text) == [arm]]
            assert mean.y[0] == pytest.approx(fmean(dots.y))
            assert list(mean.x) == [temperature]
        shows(figure, arm, "x3", [0, 1, 2], columns(of_seed, "covariance"))
    assert "temperature 0.5" not in {trace.name for trace in figure.data}
