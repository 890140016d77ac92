import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.diagnostics import Reading, examine
from stopgrad.diagnostics.diagnosis import VERDICTS
from stopgrad.diagnostics.doctor import HUGE, RISEN, RULES, Course
from stopgrad.diagnostics.fingerprints import fingerprint, fingerprints
from stopgrad.diagnostics.remedies import FIXES

WELL = {"std": 0.9, "effective_rank": 30.0, "zero_rows": 0.0, "norm": 8.0, "finite": 1.0}


def run(steps=12, loss=lambda i: -0.5 - 0.02 * i, **changes):
    """Readings of a healthy run; a change is a function of the reading's number, by node__measure or name."""
    readings = []
    for i in range(steps):
        nodes, scalars = {"z": dict(WELL), "p": dict(WELL)}, {"view_distance": 0.3, "batch": 64.0}
        for name, value in changes.items():
            node, _, measure = name.rpartition("__")
            (nodes.setdefault(node, dict(WELL)) if node else scalars)[measure] = value(i)
        readings.append(Reading(10 * i, nodes, loss(i), scalars))
    return readings


def after(first, bad, good):
    return lambda i: bad if i >= first else good


BROKEN = {
    "diverged": run(z__finite=after(4, 0.5, 1.0)),
    "identical-views": run(view_distance=after(4, 0.0, 0.3)),
    "target-leak": run(target_gradient=after(4, 1.0, 0.0)),
    "frozen-target": run(target_moved=after(4, 0.0, 1e-3), online_moved=lambda i: 1e-2),
    "dead-projector": run(z__zero_rows=after(4, 1.0, 0.0)),
    "normalisation-leak": run(z_eval__std=after(4, 0.01, 0.9)),
    "nan-ahead": run(z__norm=lambda i: 8.0 if i < 1 else 8 * 40.0 ** (i - 1)),
    "complete-collapse": run(z__std=after(4, 0.001, 0.9)),
    "dimensional-collapse": run(z__effective_rank=after(4, 1.2, 30.0)),
    "predictor-collapse": run(p__std=after(4, 0.001, 0.9)),
    "constant-loss": run(loss=lambda i: 4.0 - min(i, 4) * 0.1),
}


def test_a_healthy_run_is_healthy():
    found = examine(run())
    assert (found.verdict, found.first_bad_step, found.fixes) == ("healthy", None, ())
    assert {item.measure for item in found.evidence} == {"std", "effective_rank"}


@pytest.mark.parametrize("verdict", BROKEN)
def test_every_failure_has_its_name_its_first_step_and_a_fix(verdict):
    found = examine(BROKEN[verdict])
    assert found.verdict == verdict
    expected = {"nan-ahead": 60, "normalisation-leak": 50, "constant-loss": 80}.get(verdict, 40)
    assert found.first_bad_step == expected
    assert found.fixes
    assert found.evidence
    assert 0.5 <= found.confidence <= 1


def test_every_class_has_a_rule_and_fixes():
    assert {rule.verdict for rule in RULES} == set(VERDICTS) - {"healthy"} == set(FIXES) == set(BROKEN)


def test_what_has_passed_is_not_held_against_a_run():
    assert examine(run(z__std=lambda i: 0.01 if i == 3 else 0.9)).verdict == "healthy"


def test_causes_come_before_symptoms():
    both = run(target_gradient=lambda i: 1.0, z__std=lambda i: 0.001)
    assert examine(both).verdict == "target-leak"
    everywhere = run(z__std=lambda i: 0.001, p__std=lambda i: 0.001)
    assert examine(everywhere).verdict == "complete-collapse"


def test_a_rising_loss_is_divergence_and_a_falling_one_is_not():
    assert examine(run(steps=20, loss=lambda i: 0.1 * i)).verdict == "diverged"
    assert examine(run(steps=20, loss=lambda i: -0.04 * i)).verdict == "healthy"
    assert examine(run(steps=20, loss=lambda i: math.nan if i == 19 else 0.0)).verdict == "diverged"


EIGHTHS = st.integers(-8, 8).map(lambda i: i / 8)  # their sums are exact in any order


@given(st.lists(EIGHTHS | st.sampled_from([None, math.nan, math.inf, 1e5]), min_size=1))
def test_when_a_loss_began_to_rise_is_as_the_rule_says_at_each_reading(losses):
    """By the rule's words, over the losses up to a reading."""

    def rising(i):
        known = [loss for loss in losses[: i + 1] if loss is not None]
        if not known or abs(known[-1]) > HUGE * (1 + abs(known[0])):
            return bool(known)
        lowest = min((loss for loss in known if not math.isnan(loss)), default=math.inf)
        quarter = known[len(known) - len(known) // 4 :]
        allowed = max(RISEN * (known[0] - lowest), 0.05 * abs(known[0]))
        return len(known) >= 8 and sum(quarter) / len(quarter) > known[0] + allowed

    readings = run(steps=len(losses), loss=lambda i: losses[i])
    rule = next(rule for rule in RULES if rule.shows.__name__ == "_rising")
    shown = [bool(rule.shows(Course(readings), i)) for i in range(len(losses))]
    assert shown == [rising(i) for i in range(len(losses))]


def test_a_long_run_that_rises_is_read_once():
    """The first bad step is looked for from the end: no reading may take a look at all the others."""
    asked = []

    class Counted(Reading):
        def __getattribute__(self, name):
            if name == "loss":
                asked.append(None)
            return super().__getattribute__(name)

    readings = [Counted(r.step, r.nodes, r.loss, r.scalars) for r in run(2000, lambda i: 0.1 * i)]
    found = examine(readings)
    assert (found.verdict, found.first_bad_step) == ("diverged", 70)
    assert len(asked) < 10 * len(readings)


@pytest.mark.parametrize(
    ("facts", "words", "first"),
    [
        ({"stops_gradient": False}, "Theorem 2", "stop the gradient"),
        ({"predictor": "identity"}, "no predictor", "predictor"),
        ({"weight_decay": 0.2, "sigma2": 0.5}, "weight decay", "weight decay"),
        ({"symmetric": True, "ema": None}, "symmetric", "EMA"),
        ({"lr_scale": 0.1}, "slowly", "learning rate tenfold"),
    ],
)
def test_facts_name_the_cause_and_its_fix_comes_first(facts, words, first):
    found = examine(BROKEN["complete-collapse"], facts)
    assert words in found.cause
    assert first in found.fixes[0].change
    assert len({fix.change for fix in found.fixes}) == len(found.fixes)
    assert examine(BROKEN["complete-collapse"]).cause is None


def test_weight_decay_is_judged_at_the_theorys_bound():
    bound = 1 / (4 * 1.5)
    for factor, blamed in ((0.99, False), (1.01, True)):
        facts = {"weight_decay": factor * bound, "sigma2": 0.5}
        assert (examine(BROKEN["complete-collapse"], facts).cause is not None) is blamed


def test_fingerprints_count_only_with_collapse():
    assert fingerprint(math.log(127), batch=64).says.startswith("ln(2 * 64 - 1)")
    assert fingerprint(-0.9995).value == -1
    assert fingerprint(0.5) is fingerprint(None) is fingerprint(math.nan) is None
    assert len(fingerprints(64, 128)) == 8
    at_one = examine(run(loss=lambda i: -1.0 - 1e-4 * i))
    assert at_one.verdict == "healthy"
    collapsed = examine(run(loss=lambda i: -1.0 - 1e-4 * i, z__std=lambda i: 1e-4))
    assert any(item.of == "loss" for item in collapsed.evidence)


def test_a_file_has_one_reading_and_no_step():
    found = examine([Reading(None, {"z": {"std": 0.001, "effective_rank": 1.0}})])
    assert (found.verdict, found.first_bad_step) == ("complete-collapse", None)
    with pytest.raises(ValueError, match="at least one"):
        examine([])


def test_a_weight_decay_above_the_bound_is_the_cause_by_the_noise_that_was_measured():
    facts = {"stops_gradient": True, "predictor": "linear", "ema": 0.99, "weight_decay": 0.15}

    def cause(sigma2):
        node = {"std": 0.001, "effective_rank": 5.0}
        return examine([Reading(10, {"z": node}, -1.0, {"sigma2": sigma2})], facts).cause

    # 1 / (4 (1 + sigma^2)) is 0.15 at sigma^2 = 2 / 3
    assert cause(0.6) is None
    assert "weight decay above" in str(cause(0.7))


def test_narrow_vectors_have_a_lower_threshold():
    def verdict(rank, dim):
        return examine([Reading(10, {"z": {"std": 0.9, "effective_rank": rank, "dim": dim}})]).verdict

    # a twentieth of the width, between 1.5 and 3.1
    for dim, threshold in ((1000, 3.1), (62, 3.1), (40, 2.0), (16, 1.5)):
        assert verdict(threshold + 0.01, dim) == "healthy"
        assert verdict(threshold - 0.01, dim) == "dimensional-collapse"


def growing(*norms):
    node = {"std": 0.9, "effective_rank": 20.0}
    readings = [Reading(4 * i, {"z": {**node, "norm": norm}}) for i, norm in enumerate(norms)]
    return examine(readings).verdict


def test_norms_that_grow_ever_faster_will_overflow_and_those_that_slow_down_may_not():
    assert growing(1, 1.4, 2.1, 3.6, 8.0) == "nan-ahead"
    assert growing(1, 2.2, 3.9, 6.1, 8.0) == "healthy"


def test_a_loss_that_rises_from_its_lowest_is_no_divergence_before_it_passes_its_start():
    def verdict(*losses):
        node = {"std": 0.9, "effective_rank": 20.0}
        return examine([Reading(4 * i, {"z": node}, loss) for i, loss in enumerate(losses)]).verdict

    low = [-0.1, -0.9, -0.95, -0.95, -0.9]
    assert verdict(*low, -0.8, -0.7, -0.6, -0.6, -0.6) == "healthy"
    assert verdict(*low, -0.5, 0.2, 0.5, 0.6, 0.6) == "diverged"
