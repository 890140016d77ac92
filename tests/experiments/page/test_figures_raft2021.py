"""The pictures of RAFT show the values of their records, and cope with missing ones."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page.figures.raft2021 import ARCS, FIGURES
from stopgrad.experiments.papers.raft2021 import EXPERIMENTS, TABLE1
from stopgrad.experiments.schema import Result
from stopgrad.experiments.store import Record

BY_ID = {e.id: e for e in EXPERIMENTS}
EPOCHS = [0, 4, 8]
TRACES = ("loss", "z.uniformity", "p.alignment", "online_probe")


def row_of(name, results):
    """A row with results, arm -> seed -> result."""
    records = {
        arm: {seed: Record({}, "", {}, None, 1.0, "", result) for seed, result in of_seed.items()}
        for arm, of_seed in results.items()
    }
    return Row(BY_ID[name], None, frozenset(), records)


def trained(arm, seed):
    """A trial whose values tell arm, seed and series apart; the loss before training is not known."""
    place = [e.name for e in BY_ID["raft2021-tbl3"].arms].index(arm) if "beta" in arm else len(arm)
    series = {
        name: [0.1 * (i + 1) + 0.01 * place + 0.001 * seed + 0.002 * x for x in EPOCHS]
        for i, name in enumerate(TRACES)
    }
    series["loss"][0] = None
    numbers = {"z.uniformity": -2.0 - seed, "p.alignment": 0.5 + seed, "linear_probe": 0.6 + 0.01 * seed}
    return Result(numbers, {"epoch": EPOCHS, **series})


def results(name, seeds=(1, 2, 3), without=()):
    return {
        arm.name: {seed: trained(arm.name, seed) for seed in seeds}
        for arm in BY_ID[name].arms
        if arm.name not in without
    }


def of(figure, name, axis="x"):
    """Traces of a name in a panel."""
    return [trace for trace in figure.data if trace.name == name and (trace.xaxis or "x") == axis]


def line(figure, name, axis="x"):
    (found,) = [trace for trace in of(figure, name, axis) if trace.mode == "lines" and trace.fill is None]
    return found


def test_every_picture_is_of_an_experiment():
    assert FIGURES.keys() <= BY_ID.keys()
    assert {f"raft2021-{what}" for what in ("fig3", "fig4", "fig5", "lpi", "thm5.1")} <= FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_without_trials_or_series_nothing_is_drawn(name):
    arms = [arm.name for arm in BY_ID[name].arms]
    for found in ({}, {arm: {} for arm in arms}, {arm: {1: Result({}, {})} for arm in arms}):
        figure = FIGURES[name](row_of(name, found))
        assert figure.data == ()
        assert figure.layout.title.text
        assert figure.layout.title.subtitle.text
        assert figure.layout.height


@pytest.mark.parametrize(("series", "axis"), [*zip(TRACES, ("x", "x2", "x3", "x4"), strict=True)])
def test_fig4_draws_every_predictor_over_the_epochs_after_the_first(series, axis):
    given = results("raft2021-fig4")
    figure = FIGURES["raft2021-fig4"](row_of("raft2021-fig4", given))
    for arm, of_seed in given.items():
        if arm == "untrained":
            continue
        columns = [result.series[series][1:] for result in of_seed.values()]
        drawn = line(figure, arm, axis)
        assert list(drawn.x) == EPOCHS[1:]
        np.testing.assert_allclose(drawn.y, np.mean(columns, axis=0))
        (band,) = [trace for trace in of(figure, arm, axis) if trace.fill == "toself"]
        assert list(band.y) == [*np.min(columns, axis=0), *np.max(columns, axis=0)[::-1]]


def test_fig4_marks_untrained_weights_the_final_probe_and_the_paper():
    given = results("raft2021-fig4")
    figure = FIGURES["raft2021-fig4"](row_of("raft2021-fig4", given))
    assert set(line(figure, "untrained", "x2").y) == {-4.0}
    assert not of(figure, "untrained", "x")
    (ends,) = of(figure, "linear probe at the end", "x4")
    assert list(ends.text) == [arm for arm in given if arm != "untrained"]
    np.testing.assert_allclose(ends.y, [0.62] * 4)
    np.testing.assert_allclose(ends.error_y.array, [stdev([0.61, 0.62, 0.63])] * 4)
    (theirs,) = of(figure, "the paper's number", "x3")
    assert dict(zip(theirs.text, theirs.y, strict=True)) == {
        arm: TABLE1[arm]["p.alignment"] for arm in ("BYOL, MLP", "BYOL, linear", "BYOL, none")
    }
    colour = dict(zip(theirs.text, theirs.marker.color, strict=True))
    assert colour["BYOL, none"] == line(figure, "BYOL, none", "x3").line.color
    assert len({trace.line.color for arm in given for trace in of(figure, arm) if not trace.fill}) == 4


def test_missing_arms_and_seeds_are_left_out():
    given = results("raft2021-fig4", without=("BYOL, none", "untrained"))
    del given["BYOL, MLP"][2]
    figure = FIGURES["raft2021-fig4"](row_of("raft2021-fig4", given))
    assert not of(figure, "BYOL, none")
    assert not of(figure, "untrained", "x2")
    columns = [given["BYOL, MLP"][seed].series["loss"][1:] for seed in (1, 3)]
    np.testing.assert_allclose(line(figure, "BYOL, MLP").y, np.mean(columns, axis=0))


def test_fig5_has_a_column_for_each_method_and_a_colour_for_each_beta():
    given = results("raft2021-fig5")
    figure = FIGURES["raft2021-fig5"](row_of("raft2021-fig5", given))
    columns = {"BYOL', none": ("x", "x4"), "RAFT, none": ("x2", "x5"), "RAFT, linear": ("x3", "x6")}
    drawn = 0
    for arm, of_seed in given.items():
        for group, axes in columns.items():
            for axis, series in zip(axes, ("p.alignment", "z.uniformity"), strict=True):
                if arm.startswith(group):
                    means = np.mean([r.series[series][1:] for r in of_seed.values()], axis=0)
                    np.testing.assert_allclose(line(figure, arm, axis).y, means)
                    drawn += 1
                else:
                    assert not of(figure, arm, axis) or arm == "untrained"
    assert drawn == 18
    same = {line(figure, f"{name}, beta 1", axes[0]).line.color for name, axes in columns.items()}
    assert len(same) == 1
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis4.type != "log"


def test_fig3_bars_are_the_shares_of_the_first_seeds_arcs():
    random = np.random.default_rng(0)
    angles = {seed: random.uniform(-math.pi, math.pi, 200).tolist() for seed in (1, 2)}
    given = {
        "RAFT": {
            s: Result({"entropy": 0.9 + 0.02 * s}, {"angle": a, "angle_origin": [0.1] * 5})
            for s, a in angles.items()
        }
    }
    figure = FIGURES["raft2021-fig3"](row_of("raft2021-fig3", given))
    around, spike = figure.data
    assert around.name == spike.name == "RAFT"
    assert around.subplot != spike.subplot
    for share, middle in zip(around.r, around.theta, strict=True):
        half = 180 / ARCS
        inside = [a for a in angles[1] if middle - half <= math.degrees(a) < middle + half]
        assert share == pytest.approx(len(inside) / 200)
    assert sum(around.r) == pytest.approx(1)
    assert max(spike.r) == 1
    assert spike.theta[np.argmax(spike.r)] == pytest.approx(math.degrees(0.1), abs=180 / ARCS)
    headings = [note.text for note in figure.layout.annotations]
    assert any("RAFT" in text and "0.93 ± 0.01" in text for text in headings)


def test_an_identity_start_is_counted_from_the_untrained_weights_on():
    courses = {1: [-1.0, -2.0, -3.0], 2: [-1.5, -2.5, -3.5]}
    given = {
        seed: Result({}, {"z.uniformity": [-2.2 - seed, *course], "loss": [None, 0.3, 0.2, 0.1]})
        for seed, course in courses.items()
    }
    figure = FIGURES["raft2021-lpi"](row_of("raft2021-lpi", {"all": given}))
    drawn = line(figure, "BYOL, identity start", "x2")
    assert list(drawn.x) == [1, 2, 3]
    np.testing.assert_allclose(drawn.y, [-1.25, -2.25, -3.25])
    np.testing.assert_allclose(line(figure, "untrained", "x2").y, [fmean([-3.2, -4.2])] * 2)
    loss = line(figure, "BYOL, identity start")
    assert list(loss.x) == [1, 2, 3]
    assert list(loss.y) == [0.3, 0.2, 0.1]


def test_the_twins_gaps_are_drawn_step_by_step_where_they_are_not_0():
    given = {
        "linear": {None: Result({}, {"loss_gap": [0.0, 1e-15, 2e-15]})},
        "none": {None: Result({}, {"loss_gap": [4.0, 3.0, 3.5]})},
    }
    figure = FIGURES["raft2021-thm5.1"](row_of("raft2021-thm5.1", given))
    (linear,), (none,) = of(figure, "linear"), of(figure, "none")
    assert list(linear.x) == [1, 2, 3]
    assert list(linear.y) == [None, 1e-15, 2e-15]
    assert list(none.y) == [4.0, 3.0, 3.5]
    assert figure.layout.yaxis.type == "log"


@pytest.mark.parametrize("name", ["raft2021-tbl1", "raft2021-tan", "raft2021-tbl3"])
def test_tables_have_a_panel_for_probe_alignment_and_uniformity(name):
    figure = FIGURES[name](row_of(name, results(name)))
    means = {trace.xaxis for trace in figure.data if trace.name == "mean ± standard deviation"}
    assert means == {"x", "x2", "x3"}
