"""The interval against a slow loop and against what it promises."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from stopgrad.experiments.statistics import bootstrap_interval, estimate, paired, summarise

values = st.lists(st.floats(-100, 100), min_size=1, max_size=8)


def test_the_interval_is_the_quantiles_of_resampled_means_as_wide_as_students_t():
    x = np.random.default_rng(3).exponential(size=7)
    slow = np.random.default_rng(4)
    means = [np.mean([x[slow.integers(7)] for _ in range(7)]) for _ in range(20_000)]
    low, high = bootstrap_interval(x.tolist())
    spread = np.std(means)
    tail = norm.sf(t.ppf(0.975, 6) * np.sqrt(7 / 6))  # 0.4 % instead of 2.5 %
    np.testing.assert_allclose([low, high], np.quantile(means, [tail, 1 - tail]), atol=0.13 * spread)


def test_the_interval_holds_the_mean_of_normal_draws_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr("stopgrad.experiments.statistics.RESAMPLES", 3000)
    random = np.random.default_rng(0)
    for n, share in ((5, 0.92), (12, 0.95), (30, 0.95)):
        intervals = np.array([bootstrap_interval(random.standard_normal(n).tolist()) for _ in range(400)])
        covered = ((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)).mean()
        assert covered == pytest.approx(share, abs=0.025), n


def test_the_same_values_give_the_same_interval():
    x = [0.1, 0.4, 0.2, 0.9, 0.3]
    assert bootstrap_interval(x) == bootstrap_interval(x)


@given(values)
def test_a_summary_is_pythons_own(x):
    found = summarise(x)
    assert found.n == len(x)
    assert found.mean == pytest.approx(statistics.fmean(x), abs=1e-9)
    assert found.std == pytest.approx(math.sqrt(statistics.variance(x)) if len(x) > 1 else 0, abs=1e-6)


@given(values)
def test_the_mean_lies_in_its_interval_and_this_within_the_values(x):
    found = estimate(x)
    assert min(x) - 1e-9 <= found.low <= found.high <= max(x) + 1e-9
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9


@given(st.floats(-10, 10), st.integers(1, 6))
def test_equal_values_have_no_width(value, n):
    assert bootstrap_interval([value] * n) == (value, value)


@given(values, st.floats(-10, 10))
def test_pairs_take_out_what_seeds_share(b, gap):
    found = paired([y + gap for y in b], b)
    assert found.mean == pytest.approx(gap, abs=1e-9)
    assert found.high - found.low < 1e-9


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_what_has_no_mean_is_refused(bad):
    with pytest.raises(ValueError, match=r"^values: "):
        summarise(bad)


def test_pairs_need_a_partner():
    with pytest.raises(ValueError, match="zip"):
        paired([1.0, 2.0], [1.0])
