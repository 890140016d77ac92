import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.diagnostics.diagnosis import Diagnosis, Evidence, Reading
from stopgrad.diagnostics.doctor import examine
from stopgrad.diagnostics.series import evidence_series


def node(std=0.8, rank=20.0, **more):
    return {"std": std, "effective_rank": rank, **more}


def run(count=12, loss=lambda i: -0.1 * i, scalars=None, **nodes):
    """Readings at steps 20, 40 ...; a node is a function of i."""
    return [
        Reading(
            20 * (i + 1),
            {name: make(i) for name, make in nodes.items()},
            loss(i),
            {name: make(i) for name, make in (scalars or {}).items()},
        )
        for i in range(count)
    ]


def fine(i):
    return node(0.8 - 0.01 * i, 20.0 + i)


RUNS = {
    "complete-collapse": lambda: run(z=lambda i: node(0.8 * 0.3**i), loss=lambda i: -1 + 0.1**i),
    "dimensional-collapse": lambda: run(z=lambda i: node(rank=20 * 0.7**i)),
    "predictor-collapse": lambda: run(z=fine, p=lambda i: node(0.8 * 0.3**i)),
    "diverged": lambda: run(z=fine, loss=lambda i: math.nan if i > 8 else -0.1 * i),
    "frozen-target": lambda: run(
        z=fine, scalars={"online_moved": lambda i: 0.1, "target_moved": lambda i: 0.0 if i > 3 else 0.1}
    ),
    "target-leak": lambda: run(z=fine, scalars={"target_gradient": lambda i: float(i > 2)}),
    "identical-views": lambda: run(z=fine, scalars={"view_distance": lambda i: 0.0}),
    "normalisation-leak": lambda: run(z=fine, z_eval=lambda i: node(0.3 * 0.6**i)),
    "dead-projector": lambda: run(
        z=lambda i: node(zero_rows=min(1.0, 0.1 * i)),
        scalars={"gradient_norm_projector": lambda i: 10.0 ** (-3 * i)},
    ),
    "nan-ahead": lambda: run(z=lambda i: node(norm=10.0**i)),
    "constant-loss": lambda: run(z=fine, loss=lambda i: max(0.3, 1 - 0.1 * i)),
}


@pytest.mark.parametrize("verdict", RUNS)
def test_every_evidence_has_a_course_that_ends_at_its_value_on_the_forbidden_side(verdict):
    readings = RUNS[verdict]()
    diagnosis = examine(readings)
    assert diagnosis.verdict == verdict
    series = evidence_series(readings, diagnosis)
    assert [(s.measure, s.of, s.says) for s in series] == [
        (e.measure, e.of, e.says) for e in diagnosis.evidence
    ]
    for one, item in zip(series, diagnosis.evidence, strict=True):
        assert one.steps[-1] == readings[-1].step
        assert one.values[-1] == pytest.approx(item.value, rel=1e-12, nan_ok=True)
        assert one.threshold == item.threshold
        if verdict == "complete-collapse" and one.measure == "loss":
            assert one.below is None
        else:
            assert one.below == item.below


@pytest.mark.parametrize("verdict", RUNS)
def test_a_course_shows_the_failure_from_the_first_bad_step_on_and_not_just_before(verdict):
    readings = RUNS[verdict]()
    diagnosis = examine(readings)
    series = [s for s in evidence_series(readings, diagnosis) if s.below is not None]
    shown = {step for s in series for step, value in zip(s.steps, s.values, strict=True) if _failed(s, value)}
    before = [r.step for r in readings if r.step < diagnosis.first_bad_step]
    after = [r.step for r in readings if r.step >= diagnosis.first_bad_step]
    assert shown.issuperset(after)
    assert not before or before[-1] not in shown or verdict == "complete-collapse"  # which may be foreseen


def _failed(one, value):
    if not math.isfinite(value):
        return True
    return value < one.threshold if one.below else value >= one.threshold


def test_a_healthy_run_shows_spread_and_rank_of_z_and_p_with_the_failure_below():
    readings = run(z=fine, p=lambda i: node(0.5, 9.0), z_eval=fine)
    series = evidence_series(readings, examine(readings))
    assert [(s.measure, s.of) for s in series] == [
        ("std", "z"), ("effective_rank", "z"), ("std", "p"), ("effective_rank", "p"),
    ]  # fmt: skip
    assert {s.below for s in series} == {True}
    assert series[0].values == tuple(r.nodes["z"]["std"] for r in readings)
    assert series[3].values == (9.0,) * 12
    assert series[0].steps == tuple(range(20, 260, 20))


def test_what_has_no_steps_has_no_course():
    reading = Reading(None, {"z": node(0.001)})
    assert evidence_series([reading], examine([reading])) == []


def test_readings_that_lack_a_measure_are_left_out_and_an_unknown_measure_altogether():
    readings = run(z=lambda i: node() if i % 2 else node(std=None), p=fine)
    series = evidence_series(readings, examine(readings))
    assert series[0].steps == tuple(r.step for r in readings[1::2])
    unknown = Evidence("colour", "z", 1.0, 2.0, True, "?")
    assert evidence_series(readings, Diagnosis("diverged", 1.0, 20, (unknown,))) == []


def test_statistics_that_have_not_settled_are_no_evidence_of_a_leak():
    readings = RUNS["normalisation-leak"]()
    (one,) = evidence_series(readings, examine(readings))
    assert one.steps == tuple(r.step for r in readings if r.step >= 50)
    assert one.values == pytest.approx([r.nodes["z"]["std"] / r.nodes["z_eval"]["std"] for r in readings[2:]])


@given(st.floats(1e6, 1e30), st.booleans())
def test_a_loss_out_of_proportion_leaves_on_the_side_of_its_sign(size, negative):
    sign = -1 if negative else 1
    readings = run(z=fine, loss=lambda i: sign * (size if i > 8 else 0.1))
    diagnosis = examine(readings)
    (one,) = evidence_series(readings, diagnosis)
    assert diagnosis.verdict == "diverged"
    assert one.below is negative
    assert math.copysign(1, one.threshold) == sign
    assert [step for step, v in zip(one.steps, one.values, strict=True) if _failed(one, v)] == [200, 220, 240]


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=20))
def test_the_spread_of_the_loss_is_that_of_its_last_five(losses):
    readings = run(len(losses), loss=lambda i: losses[i], z=fine)
    item = Evidence("loss_spread", "loss", 0.0, 1e-6, True, "")
    (one,) = evidence_series(readings, Diagnosis("constant-loss", 1.0, 20, (item,)))
    assert one.steps == tuple(r.step for r in readings[4:])
    for i, value in enumerate(one.values):
        window = losses[i : i + 5]
        assert value == (max(window) - min(window)) / max(1.0, abs(window[-1]))
