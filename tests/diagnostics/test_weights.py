import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stopgrad import diagnostics as d


def cloud(seed, n=40, dim=6):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthogonal(seed, dim=6):
    return torch.linalg.qr(cloud(seed, dim, dim))[0]


def symmetric(values, vectors):
    return vectors * torch.tensor(values, dtype=torch.float64) @ vectors.T


def test_spectrum_negative_part_and_asymmetry_of_known_matrices():
    w = symmetric([3.0, -1.0, 2.0, 0.0], orthogonal(0, 4))
    skew = cloud(1, 4, 4) - cloud(1, 4, 4).T
    assert d.weight_spectrum(w + skew).tolist() == pytest.approx([3, 2, 0, -1], abs=1e-12)
    assert float(d.negative_part(w + skew)) == pytest.approx(1 / 6)
    assert float(d.negative_part(w @ w)) == pytest.approx(0, abs=1e-12)
    assert float(d.negative_part(-w @ w)) == pytest.approx(1)
    assert float(d.asymmetry(w)) == pytest.approx(0, abs=1e-12)
    assert float(d.asymmetry(skew)) == pytest.approx(2)
    expected = 2 * skew.norm() / math.sqrt(float(w.norm() ** 2 + skew.norm() ** 2))
    assert float(d.asymmetry(w + skew)) == pytest.approx(float(expected))


def test_zeros_and_what_is_not_finite():
    zero, bad = torch.zeros(3, 3), torch.full((3, 3), torch.nan)
    assert (
        float(d.asymmetry(zero)) == float(d.negative_part(zero)) == float(d.commutator_norm(zero, zero)) == 0
    )
    assert float(d.eigenspace_alignment(zero, zero)) == 1
    assert d.eigenvector_cosine(zero, torch.eye(3)).tolist() == [1, 1, 1]
    one_sided = (d.asymmetry, d.negative_part, lambda w: d.weight_spectrum(w).sum())
    two_sided = (d.commutator_norm, d.eigenspace_alignment, lambda w, f: d.eigenvector_cosine(w, f).sum())
    for measure in one_sided:
        assert math.isnan(measure(bad))
    for measure in two_sided:
        assert math.isnan(measure(bad, torch.eye(3)))
        assert math.isnan(measure(torch.eye(3), bad))


@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_rotation_and_scale_change_nothing(seed, scale):
    w, f, q = cloud(seed, 6, 6), cloud(seed + 1), orthogonal(seed + 2)
    f = f.T @ f
    turned, f_turned = scale * q @ w @ q.T, scale * q @ f @ q.T
    for measure in (d.asymmetry, d.negative_part):
        assert float(measure(turned)) == pytest.approx(float(measure(w)), rel=1e-9, abs=1e-12)
    for measure in (d.commutator_norm, d.eigenspace_alignment):
        assert float(measure(turned, f_turned)) == pytest.approx(float(measure(w, f)), rel=1e-7)
    cosines = d.eigenvector_cosine(w, f)
    torch.testing.assert_close(d.eigenvector_cosine(turned, f_turned), cosines, rtol=0, atol=1e-9)
    assert 0 <= float(d.commutator_norm(w, f)) <= math.sqrt(2)


def test_commutator_reaches_its_bound():
    a, b = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert float(d.commutator_norm(a, b)) == pytest.approx(math.sqrt(2))


def test_eigenvector_cosine_against_numpy():
    w, f = cloud(0, 6, 6), cloud(1).T @ cloud(1)
    values, vectors = np.linalg.eigh(f.numpy())
    expected = []
    for j in np.argsort(-values):
        u = vectors[:, j]
        image = w.numpy() @ u
        expected.append(abs(u @ image) / np.linalg.norm(image))
    assert d.eigenvector_cosine(w, f).tolist() == pytest.approx(expected)


def slow_alignment(w, f, spaces_w, spaces_f):
    """With scipy's principal angles, for eigenspaces given by index from the largest eigenvalue on."""
    bases_w = np.linalg.eigh(((w + w.T) / 2).numpy())[1][:, ::-1]
    bases_f = np.linalg.eigh(f.numpy())[1][:, ::-1]
    total = 0.0
    for rows in spaces_f:
        for columns in spaces_w:
            angles = scipy.linalg.subspace_angles(bases_f[:, rows], bases_w[:, columns])
            total += (np.cos(angles) ** 4).sum()
    return total / len(w)


@given(st.integers(0, 2**31))
def test_alignment_against_principal_angles(seed):
    w = symmetric([5.0, 5.0, 3.0, 1.0, 1.0, 1.0], orthogonal(seed))
    f = symmetric([9.0, 7.0, 7.0, 2.0, 2.0, 1.0], orthogonal(seed + 1))
    expected = slow_alignment(w, f, [[0, 1], [2], [3, 4, 5]], [[0], [1, 2], [3, 4], [5]])
    assert float(d.eigenspace_alignment(w, f)) == pytest.approx(expected, rel=1e-6)
    singles = [[i] for i in range(6)]
    w, f = (
        symmetric([6.0, 5, 4, 3, 2, 1], orthogonal(seed)),
        symmetric([1.0, 2, 4, 7, 11, 16], orthogonal(seed + 1)),
    )
    assert float(d.eigenspace_alignment(w, f)) == pytest.approx(
        slow_alignment(w, f, singles, singles), rel=1e-6
    )


@given(st.integers(0, 2**31))
def test_degenerate_eigenspaces_that_commute_are_aligned(seed):
    q = orthogonal(seed)
    turn = torch.block_diag(orthogonal(seed + 1, 3), torch.eye(3))  # within F's threefold eigenspace
    f, w = symmetric([2.0, 2, 2, 1, 0, 0], q), symmetric([5.0, 4, 3, 1, 0.5, 0.2], q @ turn.double())
    assert float(d.commutator_norm(w, f)) == pytest.approx(0, abs=1e-12)
    assert float(d.eigenspace_alignment(w, f)) == pytest.approx(1)
    assert float(d.eigenspace_alignment(f, w)) == pytest.approx(1)
    assert float(d.eigenspace_alignment(w, f + 1e-6 * cloud(seed, 6, 6), tolerance=1e-3)) == pytest.approx(
        1, abs=1e-3
    )
    assert float(d.eigenspace_alignment(torch.eye(6), f)) == pytest.approx(1)


def test_random_eigenvectors_are_aligned_by_chance_alone():
    found = [
        float(
            d.eigenspace_alignment(
                symmetric(range(1, 21), orthogonal(i, 20)), symmetric(range(1, 21), orthogonal(99 + i, 20))
            )
        )
        for i in range(30)
    ]
    assert np.mean(found) == pytest.approx(3 / 22, rel=0.03)


def test_bad_shapes():
    with pytest.raises(ValueError, match="square"):
        d.asymmetry(torch.ones(2, 3))
    with pytest.raises(ValueError, match="of one size"):
        d.eigenspace_alignment(torch.eye(2), torch.eye(3))
    with pytest.raises(ValueError, match="z, p, t"):
        d.predictor_optimality_gap(torch.ones(3, 2), torch.ones(2, 2), torch.ones(2, 2))


def test_the_least_squares_predictor_has_no_gap():
    z, t = cloud(0, 50), cloud(1, 50, 4) + cloud(0, 50)[:, :4]
    best = torch.linalg.lstsq(z, t).solution
    assert float(d.predictor_optimality_gap(z, z @ best, t)) == pytest.approx(0, abs=1e-12)
    assert float(d.predictor_optimality_gap(z, 3 * z @ best, t)) == pytest.approx(0, abs=1e-12)
    explained = 1 - float((z @ best - t).square().sum() / t.square().sum())
    for useless in (-z @ best, torch.zeros_like(t)):
        assert float(d.predictor_optimality_gap(z, useless, t)) == pytest.approx(explained)
    assert float(d.predictor_optimality_gap(z, t, t)) == pytest.approx(explained - 1)  # better than linear
    assert math.isnan(d.predictor_optimality_gap(z * torch.nan, t, t))


@given(st.integers(0, 2**31))
def test_the_gap_of_a_linear_predictor_is_a_loss_above_the_optimum(seed):
    z, t, w = cloud(seed, 30), cloud(seed + 1, 30), cloud(seed + 2, 6, 6)
    p = z @ w.T
    factor = max(float((p * t).sum() / p.square().sum()), 0)
    loss, energy = float((factor * p - t).square().sum()), float(t.square().sum())
    optimum = float((z @ torch.linalg.lstsq(z, t).solution - t).square().sum())
    gap = float(d.predictor_optimality_gap(z, p, t))
    assert gap == pytest.approx((loss - optimum) / energy)
    assert 0 <= gap <= 1


def test_collapsed_projections_leave_one_direction_to_explain():
    z, t = torch.ones(20, 3), torch.ones(20, 3) + torch.tensor([[1.0], [-1.0]]).repeat(10, 1)
    assert float(d.predictor_optimality_gap(z, z, t)) == pytest.approx(0, abs=1e-6)


def test_parameter_distance():
    online, target = nn.Linear(3, 2), nn.Linear(3, 2)
    target.load_state_dict(online.state_dict())
    assert float(d.parameter_distance(online, target)) == 0
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(0.75)
    assert float(d.parameter_distance(online, target)) == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"parameter 1\.bias"):
        d.parameter_distance(
            nn.Sequential(nn.Identity(), nn.Linear(3, 2)),
            nn.Sequential(nn.Identity(), nn.Linear(3, 2, bias=False)),
        )
    with pytest.raises(ValueError, match="parameter weight"):
        d.parameter_distance(nn.Linear(3, 2), nn.Linear(2, 2))
