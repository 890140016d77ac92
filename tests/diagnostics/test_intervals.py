import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad import diagnostics as d
from stopgrad.diagnostics.intervals import student_quantile

DEVIATIONS = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4, 0.3], dtype=torch.float64)
MEAN = torch.tensor([0.5, 0.0, 0.3, 0.0, 0.0, 0.0], dtype=torch.float64)
SHARES = DEVIATIONS / DEVIATIONS.sum()
SQUARES = DEVIATIONS.square()


def cloud(seed, n, dim=6):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(seed, n):
    return MEAN + DEVIATIONS * cloud(seed, n)


LARGE = gaussian(2**20, 200_000)
POPULATION = {
    d.effective_rank: float(torch.special.entr(SHARES).sum().exp()),
    d.participation_ratio: float(SQUARES.sum() ** 2 / SQUARES.square().sum()),
    d.embedding_std: float(d.embedding_std(LARGE)),
    d.center_norm: float(d.center_norm(LARGE)),
    d.residual_norm: float(d.residual_norm(LARGE)),
}


@pytest.mark.parametrize("measure", POPULATION)
def test_coverage_on_gaussians(measure):
    runs, n, level = 250, 300, 0.9
    hits = 0
    for seed in range(runs):
        found = d.interval(measure, gaussian(seed, n), level=level)
        hits += found.low <= POPULATION[measure] <= found.high
    slack = 3.5 * math.sqrt(level * (1 - level) / runs)
    assert abs(hits / runs - level) < slack


def test_the_jackknife_of_a_mean_is_its_textbook_interval():
    """One sample a group: the mean and t times the standard error."""
    x = cloud(0, 20, 1)
    found = d.interval(torch.mean, x, level=0.9, groups=20)
    half = scipy.stats.t.ppf(0.95, 19) * float(x.std()) / math.sqrt(20)
    assert found.value == pytest.approx(float(x.mean()))
    assert (found.low, found.high) == pytest.approx(
        (float(x.mean()) - half, float(x.mean()) + half), rel=1e-4
    )


@pytest.mark.parametrize("n", [40, 43, 47])
def test_groups_of_two_sizes_leave_a_mean_unbiased(n):
    x = cloud(1, n, 1)
    found = d.interval(torch.mean, x, groups=8)
    assert (found.low + found.high) / 2 == pytest.approx(float(x.mean()), abs=1e-12)


def test_the_bias_of_a_variance_is_taken_off():
    x = cloud(2, 30, 1)
    found = d.interval(lambda rows: rows.var(correction=0), x, groups=30)
    assert (found.low + found.high) / 2 == pytest.approx(float(x.var()))


def test_pairs_and_groups_of_views_stay_together():
    x1 = cloud(3, 200)
    x2 = x1 + 0.5 * cloud(4, 200)
    found = d.interval(d.alignment, x1, x2)
    large = cloud(5, 100_000)
    assert found.low <= float(d.alignment(large, large + 0.5 * cloud(6, 100_000))) <= found.high
    assert found.high - found.low < 0.1
    views = cloud(7, 100)[:, None] + 0.3 * cloud(8, 300).view(100, 3, 6)
    assert d.interval(d.lidar, views).low < 6.2


@pytest.mark.parametrize(
    "measure", [d.uniformity, d.rankme, d.alpha_req, d.off_diagonal_covariance, lambda x: d.spectrum(x)[0]]
)
def test_every_measure_of_vectors_has_one_and_it_is_the_same_each_time(measure):
    x = gaussian(9, 101)
    first = d.interval(measure, x)
    assert first.low < first.high
    assert first == d.interval(measure, x)
    assert first != d.interval(measure, x, seed=1)
    assert first.value == pytest.approx(float(measure(x)))
    loop = d.interval(measure, x, groups=101)
    assert loop.low == pytest.approx(slow(measure, x)[0], rel=1e-6)
    assert loop.high == pytest.approx(slow(measure, x)[1], rel=1e-6)


def slow(measure, x, level=0.95):
    n, value = len(x), float(measure(x))
    pseudo = torch.tensor(
        [n * value - (n - 1) * float(measure(torch.cat([x[:i], x[i + 1 :]]))) for i in range(n)]
    )
    half = student_quantile((1 + level) / 2, n - 1) * float(pseudo.double().std()) / math.sqrt(n)
    return float(pseudo.mean()) - half, float(pseudo.mean()) + half


def test_collapse_has_no_width_and_nan_stays_nan():
    assert d.interval(d.effective_rank, torch.ones(50, 3)) == pytest.approx((1, 1, 1))
    assert all(math.isnan(value) for value in d.interval(d.effective_rank, torch.full((50, 3), torch.nan)))


def test_bad_input():
    x = cloud(0, 20)
    with pytest.raises(ValueError, match="8 samples"):
        d.interval(d.effective_rank, x[:7])
    with pytest.raises(ValueError, match="8 samples and groups"):
        d.interval(d.effective_rank, x, groups=4)
    with pytest.raises(ValueError, match="as many in each"):
        d.interval(d.alignment, x, x[:9])
    with pytest.raises(ValueError, match="level"):
        d.interval(d.effective_rank, x, level=1.0)


@given(st.integers(7, 200), st.floats(0.005, 0.995))
def test_quantiles_of_student(degrees, probability):
    exact = scipy.stats.t.ppf(probability, degrees)
    assert student_quantile(probability, degrees) == pytest.approx(exact, abs=1e-3)
