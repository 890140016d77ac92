"""Every rule in both directions and at its boundary, on numbers made for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.experiments.rules import (
    CONDITIONAL,
    FAILS,
    HOLDS,
    UNREACHABLE,
    All,
    Always,
    Collapses,
    Greater,
    Indistinguishable,
    Pooled,
    Survives,
    Under,
    Unreachable,
    Within,
)

NOISE = (-0.02, -0.01, 0.0, 0.01, 0.02)


def numbers(measure="m", seeds=True, **arms):
    """Arm -> seed -> measure -> value; a number stands for five seeds about it, a list for itself."""
    found = {}
    for arm, values in arms.items():
        values = values if isinstance(values, list | tuple) else [values + n for n in NOISE]
        found[arm] = {(seed if seeds else None): {measure: v} for seed, v in enumerate(values, start=1)}
    return found


def outcome(rule, given):
    return rule.judge(given).outcome


def test_greater_needs_an_interval_above_zero():
    rule = Greater("a", "b", "m")
    up = rule.judge(numbers(a=[0.5, 0.6, 0.7], b=[0.4, 0.45, 0.66]))
    assert up.outcome == HOLDS
    assert up.statistics["n"] == 3
    assert up.statistics["mean"] == pytest.approx(0.29 / 3)
    assert outcome(rule, numbers(a=[0.4, 0.45, 0.66], b=[0.5, 0.6, 0.7])) == FAILS
    assert outcome(rule, numbers(a=[0.5, 0.6, 0.7], b=[0.6, 0.5, 0.69])) == FAILS
    # no difference is not a greater one
    assert outcome(rule, numbers(a=0.5, b=0.5)) == FAILS


def test_greater_says_when_it_is_the_other_way_round():
    rule = Greater("a", "b", "m")
    assert "other way round" in rule.judge(numbers(a=0.4, b=0.5)).why
    assert "other way round" not in rule.judge(numbers(a=[0.1, 0.3], b=[0.3, 0.1])).why


@given(st.floats(-1, 1), st.floats(0, 0.5))
def test_greater_by_a_margin_is_decided_by_the_margin(gap, by):
    """Seeds that differ by the same amount leave no doubt: the boundary is the margin itself."""
    exactly = {"a": {None: {"m": gap}}, "b": {None: {"m": 0.0}}}
    assert outcome(Greater("a", "b", "m", by), exactly) == (HOLDS if gap > by else FAILS)


def test_seeds_are_paired_by_number_not_by_place():
    given = {
        "a": {1: {"m": 0.1}, 2: {"m": 0.9}, 3: {"m": 0.5}},
        "b": {3: {"m": 0.4}, 1: {"m": 0.0}, 2: {"m": 0.8}},
    }
    assert outcome(Greater("a", "b", "m"), given) == HOLDS


@given(st.floats(-0.1, 0.1))
def test_indistinguishable_is_an_interval_within_the_margin(gap):
    rule = Indistinguishable("a", "b", "m", margin=0.05)
    exactly = {"a": {None: {"m": gap}}, "b": {None: {"m": 0.0}}}
    assert outcome(rule, exactly) == (HOLDS if abs(gap) < 0.05 else FAILS)


def test_indistinguishable_is_not_the_failure_to_tell_apart():
    rule = Indistinguishable("a", "b", "m", margin=0.05)
    wide = numbers(a=[0.1, 0.9, 0.2, 0.8], b=[0.9, 0.1, 0.8, 0.2])
    assert outcome(rule, wide) == FAILS
    assert outcome(Greater("a", "b", "m"), wide) == FAILS
    assert outcome(rule, numbers(a=0.50, b=0.51)) == HOLDS
    with pytest.raises(ValueError, match="margin"):
        Indistinguishable("a", "b", "m", margin=0)


def test_within_takes_the_whole_interval():
    assert outcome(Within("a", "m", 0.4, 0.6), numbers(a=0.5)) == HOLDS
    assert outcome(Within("a", "m", 0.4, 0.6), numbers(a=0.7)) == FAILS
    # the mean is inside, its interval is not
    assert outcome(Within("a", "m", 0.4, 0.6), numbers(a=[0.2, 0.8, 0.5])) == FAILS
    assert outcome(Within("a", "m", low=0.5), {"a": {None: {"m": 0.5}}}) == HOLDS
    assert outcome(Within("a", "m", high=0.5), {"a": {None: {"m": 0.5000001}}}) == FAILS


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.floats(-1, 1), st.floats(-1, 1))
def test_always_is_about_every_trial(values, low, high):
    found = Always("a", "m", low, high).judge(numbers(a=values))
    assert (found.outcome == HOLDS) == all(low <= v <= high for v in values)
    assert found.statistics == {"n": len(values), "smallest": min(values), "largest": max(values)}


def test_pooled_is_the_mean_over_the_trials_of_all_its_arms():
    given = numbers(a=[0.0, 0.5], b=[1.0], c=[100.0])
    assert outcome(Pooled(("a", "b"), "m", low=0.5), given) == HOLDS
    assert outcome(Pooled(("a", "b"), "m", low=0.51), given) == FAILS
    assert outcome(Pooled(("a", "b"), "m", high=0.49), given) == FAILS
    assert outcome(Pooled(("a", "b", "c"), "m", high=1), given) == FAILS
    assert Pooled(("a", "b"), "m").arms() == {"a", "b"}


@pytest.mark.parametrize(
    ("rule", "measure"),
    [(Collapses("a", 0.6, "p"), "p.collapsed"), (Survives("a", 0.6, "p"), "p.healthy")],
)
def test_shares_count_seeds(rule, measure):
    assert outcome(rule, numbers(measure, a=[1.0, 1.0, 1.0, 0.0, 0.0])) == HOLDS
    assert outcome(rule, numbers(measure, a=[1.0, 1.0, 0.0, 0.0, 0.0])) == FAILS
    assert rule.judge(numbers(measure, a=[1.0, 0.0])).statistics == {"n": 2, "yes": 1}


def test_a_diverged_run_neither_collapsed_nor_survived():
    given = {"a": {1: {"z.collapsed": 0.0, "z.healthy": 0.0, "diverged": 1.0}}}
    assert outcome(Collapses("a"), given) == FAILS
    assert outcome(Survives("a"), given) == FAILS


GOOD, BAD = Always("a", "m", high=1), Always("a", "m", high=0)
GIVEN = numbers(a=[0.5, 0.6])
CONDITION = Under("it rains", BAD, GOOD)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((GOOD,), HOLDS),
        ((GOOD, GOOD), HOLDS),
        ((GOOD, BAD), FAILS),
        ((GOOD, CONDITION), CONDITIONAL),
        ((CONDITION, BAD), FAILS),
        ((GOOD, Unreachable("no data")), UNREACHABLE),
        ((CONDITION, Unreachable("no data")), UNREACHABLE),
        ((BAD, Unreachable("no data")), FAILS),
    ],
)
def test_all_is_as_good_as_its_worst(rules, expected):
    found = All(*rules).judge(GIVEN)
    assert found.outcome == expected
    assert [part["outcome"] for part in found.statistics["parts"]] == [outcome(r, GIVEN) for r in rules]
    assert All(*rules).arms() == {"a"}


def test_all_of_nothing_is_refused():
    with pytest.raises(ValueError, match="All"):
        All()


@pytest.mark.parametrize(
    ("general", "conditional", "expected"),
    [
        (GOOD, GOOD, HOLDS),
        (GOOD, BAD, HOLDS),
        (BAD, GOOD, CONDITIONAL),
        (BAD, BAD, FAILS),
        (Unreachable("no data"), BAD, UNREACHABLE),
        (Unreachable("no data"), GOOD, CONDITIONAL),
    ],
)
def test_under_a_condition(general, conditional, expected):
    found = Under("it rains", general, conditional).judge(GIVEN)
    assert found.outcome == expected
    assert ("it rains" in found.why) == (expected not in (HOLDS,))
    assert found.statistics["general"]["outcome"] == outcome(general, GIVEN)


@pytest.mark.parametrize(
    "rule", [Greater("a", "b", "m"), Indistinguishable("a", "b", "m", 0.1), Within("a", "m", 0, 1)]
)
def test_one_seed_decides_nothing_but_one_exact_trial_does(rule):
    one = numbers(a=[0.5], b=[0.45])
    assert outcome(rule, one) == UNREACHABLE
    exact = numbers(seeds=False, a=[0.5], b=[0.45])
    assert outcome(rule, exact) == HOLDS


def test_a_diverged_seed_is_no_support():
    given = numbers(a=0.9, b=0.1)
    given["b"][3] = {"diverged": 1.0}
    found = Greater("a", "b", "m").judge(given)
    assert found.outcome == FAILS
    assert "seed 3" in found.why
    assert "diverged" in found.why


@pytest.mark.parametrize(
    "given",
    [
        {"a": {1: {"other": 0.0}}, "b": {1: {"m": 0.0}}},
        {"a": {1: {"m": 0.0}}},
        {"a": {}, "b": {1: {"m": 0.0}}},
        {"a": {1: {"m": 0.0}}, "b": {2: {"m": 0.0}}},
    ],
)
def test_a_mistake_in_the_literals_is_no_verdict(given):
    with pytest.raises(LookupError):
        Greater("a", "b", "m").judge(given)


def test_rules_say_what_they_ask_for():
    rule = All(Greater("a", "b", "m", 0.1), Always("a", "m", high=2), Always("a", "m", 1, 2))
    assert rule.describe().count("; and ") == 2
    assert "<= 2" in rule.describe()
    assert "in [1, 2]" in rule.describe()
    assert "it rains" in CONDITION.describe()
