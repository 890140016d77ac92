import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad import diagnostics as d

RANKS = (d.effective_rank, d.rankme, d.participation_ratio)


def cloud(seed, n=40, dim=6):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_singular_values(values, n=40, seed=0):
    """Centred rows with these singular values."""
    left = torch.linalg.qr(cloud(seed, n, len(values) + 1) - cloud(seed, n, len(values) + 1).mean(dim=0))[0]
    left = torch.linalg.qr(left - left.mean(dim=0))[0][:, : len(values)]
    right = torch.linalg.qr(cloud(seed + 1, len(values), len(values)))[0]
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


def entropy_rank(shares):
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


@pytest.mark.parametrize("n", [4, 40])  # fewer rows than dimensions, and more
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_collapsed_rows(n, dtype):
    x = torch.full((n, 6), 0.1, dtype=dtype)
    assert float(d.effective_rank(x)) == 1
    assert float(d.participation_ratio(x)) == 1
    assert math.isnan(d.alpha_req(x))
    assert float(d.off_diagonal_covariance(x)) == pytest.approx(0, abs=1e-20)
    assert d.spectrum(x).tolist() == [0] * min(n, 6)
    shares = [1 + 1e-7] + [1e-7] * (min(n, 6) - 1)
    assert float(d.rankme(x)) == pytest.approx(entropy_rank(shares), rel=1e-12)


@pytest.mark.parametrize("r", [1, 7])
def test_rankme_reads_above_the_rank_as_the_docstring_says(r):
    k = 300
    x = torch.zeros(k, k)
    x[:r, :r] = torch.eye(r)
    assert float(d.rankme(x)) / r - 1 == pytest.approx(1.6e-6 * (k - r), rel=0.02)


def test_zero_rows_and_one_row():
    for x in (torch.zeros(5, 3), torch.ones(1, 3)):
        assert float(d.effective_rank(x)) == float(d.participation_ratio(x)) == 1
        assert float(d.rankme(x)) == pytest.approx(1, abs=1e-5)
        assert float(d.off_diagonal_covariance(x)) == 0
        assert d.spectrum(x).sum() == 0


def test_rank_3_in_128_dimensions():
    x = cloud(0, 500, 3) @ torch.linalg.qr(cloud(1, 128, 3))[0].T + 5
    for rows in (x, x[:100], x.float()):
        assert 2.9 < float(d.effective_rank(rows)) <= 3 + 1e-9
        assert 2.8 < float(d.participation_ratio(rows)) <= 3
        assert int((d.spectrum(rows - 5) > 0).sum()) == 3
        assert int((d.spectrum(rows) > 0).sum()) == 4  # on the sphere the mean is a direction
    assert 3.9 < float(d.rankme(x - x.mean(dim=0) + torch.ones(128).double() * 0.1)) < 4.01


def test_isotropic_gaussian_has_full_rank_and_unit_spread():
    x = cloud(0, 20000, 8)
    assert float(d.embedding_std(x)) == pytest.approx(1, abs=2e-3)
    unscaled = x / x.norm(dim=1, keepdim=True)
    assert float(unscaled.std(dim=0).mean()) == pytest.approx(1 / math.sqrt(8), abs=1e-3)
    for measure in RANKS:
        assert float(measure(x)) == pytest.approx(8, rel=2e-3)
    assert float(d.alpha_req(x)) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("values", [[3.0, 1.0], [1.0] * 5, [4.0, 2.0, 1.0, 0.5, 0.0]])
def test_closed_forms_of_known_singular_values(values):
    x = with_singular_values(values)
    shares = [v / sum(values) for v in values]
    assert float(d.effective_rank(x + 7)) == pytest.approx(entropy_rank(shares), rel=1e-7)
    assert float(d.rankme(x)) == pytest.approx(entropy_rank([p + 1e-7 for p in shares]), rel=1e-9)
    squares = [v * v for v in values]
    ratio = sum(squares) ** 2 / sum(v * v for v in squares)
    assert float(d.participation_ratio(x - 2)) == pytest.approx(ratio, rel=1e-9)


@given(st.floats(0, 3), st.integers(0, 1000))
def test_alpha_req_of_an_exact_power_law(alpha, seed):
    values = [j ** (-alpha / 2) for j in range(1, 21)]
    x = with_singular_values(values, seed=seed) + 1
    assert float(d.alpha_req(x)) == pytest.approx(alpha, abs=1e-7)


def test_alpha_req_fits_the_stated_range_and_leaves_zeros_out():
    values = [9.0, 8.0] + [j**-0.75 for j in range(3, 11)] + [0.0] * 5
    x = with_singular_values(values)
    assert float(d.alpha_req(x, first=3)) == pytest.approx(1.5, abs=1e-8)
    assert float(d.alpha_req(x, first=3, last=5)) == pytest.approx(1.5, abs=1e-8)
    index, logs = np.log(np.arange(1, 11)), 2 * np.log(values[:10])
    assert float(d.alpha_req(x)) == pytest.approx(-np.polyfit(index, logs, 1)[0], abs=1e-8)
    assert math.isnan(d.alpha_req(x, first=10))
    for first, last in ((0, 5), (5, 5)):
        with pytest.raises(ValueError, match="first, last"):
            d.alpha_req(x, first, last)


@given(st.integers(0, 2**31), st.integers(2, 20), st.floats(0.01, 100), st.floats(0.5, 4))
def test_rotation_and_scale_change_no_rank_and_they_are_ordered(seed, n, scale, steep):
    x = cloud(seed, n) * torch.arange(1, 7) ** -steep + 0.5
    q = torch.linalg.qr(cloud(seed + 1, 6))[0]
    for measure in (*RANKS, d.alpha_req):
        assert float(measure(scale * x @ q)) == pytest.approx(float(measure(x)), rel=1e-6, nan_ok=True)
    assert float(d.participation_ratio(x)) <= float(d.effective_rank(x)) * (1 + 1e-9)
    assert float(d.participation_ratio(x)) >= 1 - 1e-9
    assert float(d.effective_rank(x)) <= min(n - 1, 6) * (1 + 1e-9)


@pytest.mark.parametrize("n", [5, 50])
def test_off_diagonal_covariance_against_a_loop(n):
    x = cloud(3, n, 7) + 0.5
    rows = (x / x.norm(dim=1, keepdim=True)).numpy()
    covariance = np.cov(rows.T)
    expected = sum(covariance[i, j] ** 2 for i in range(7) for j in range(7) if i != j) / 7
    assert float(d.off_diagonal_covariance(x)) == pytest.approx(expected, rel=1e-10)
    assert float(d.off_diagonal_covariance(3 * x)) == pytest.approx(expected, rel=1e-10)


def slow_lidar(x):
    groups, views, dim = x.shape
    mean = x.mean((0, 1))
    between, within = np.zeros((dim, dim)), np.zeros((dim, dim))
    for group in x:
        centre = group.mean(0)
        between += np.outer(centre - mean, centre - mean) / groups
        for view in group:
            within += np.outer(view - centre, view - centre) / (groups * views)
    values = scipy.linalg.eigh(between, within + 1e-4 * np.eye(dim), eigvals_only=True).clip(0)
    p = values / values.sum() + 1e-7
    return math.exp(-(p * np.log(p)).sum())


@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(2, 4), st.floats(0, 1))
def test_lidar_against_a_slow_one(seed, groups, views, noise):
    x = cloud(seed, groups, 5)[:, None] + noise * cloud(seed + 1, groups * views, 5).view(groups, views, 5)
    assert float(d.lidar(x)) == pytest.approx(slow_lidar(x.numpy()), rel=1e-6)


def test_lidar_sees_the_directions_that_views_share():
    shared = torch.zeros(400, 1, 6).double()
    shared[..., :2] = cloud(0, 400, 2)[:, None]
    x = shared + 0.01 * cloud(1, 400 * 3, 6).view(400, 3, 6)
    assert float(d.lidar(x)) == pytest.approx(2, abs=0.1)
    assert float(d.lidar(torch.ones(4, 3, 6))) == pytest.approx(1, abs=1e-4)
    assert math.isnan(d.lidar(torch.full((4, 3, 6), torch.nan)))


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3), (0, 2, 3)])
def test_lidar_needs_groups_of_views(shape):
    with pytest.raises(ValueError, match="V >= 2"):
        d.lidar(torch.ones(shape))


def test_rows_that_are_not_finite_give_nan():
    for bad in (torch.nan, torch.inf):
        x = cloud(0).clone()
        x[3, 2] = bad
        for measure in (*RANKS, d.alpha_req, d.off_diagonal_covariance, d.embedding_std, d.uniformity):
            assert math.isnan(measure(x)), measure
        assert d.spectrum(x).isnan().all()


def test_no_rows_are_refused():
    for measure in (*RANKS, d.alpha_req, d.off_diagonal_covariance, d.spectrum):
        for x in (torch.ones(0, 3), torch.ones(3)):
            with pytest.raises(ValueError, match="at least one row"):
                measure(x)


def test_a_large_mean_hides_no_variance_but_float32_rounding_is_none():
    x = cloud(0, 30, 4)
    assert float(d.effective_rank(x + 1e4)) == pytest.approx(float(d.effective_rank(x)), rel=1e-7)
    rounded = torch.ones(30, 4) / 3 * (1 + torch.finfo(torch.float32).eps * cloud(1, 30, 4).float().sign())
    assert float(d.effective_rank(rounded)) == 1


def test_uniformity_in_blocks_is_that_of_all_pairs(monkeypatch):
    x = cloud(3, 50)
    rows = x / x.norm(dim=1, keepdim=True)
    expected = torch.pdist(rows).square().mul(-2).exp().mean().log()
    for pairs in (7, 50, 512):
        monkeypatch.setattr("stopgrad.diagnostics.spread.PAIRS_AT_ONCE", pairs)
        torch.testing.assert_close(d.uniformity(x), expected)
