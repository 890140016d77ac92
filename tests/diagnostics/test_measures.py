import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad import diagnostics as d


def cloud(seed, n=40, dim=6):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_collapsed_matrix():
    x = torch.tensor([[1.0, 2.0, 3.0]]).expand(50, 3)
    assert float(d.embedding_std(x)) == pytest.approx(0, abs=1e-7)
    assert float(d.center_norm(x)) == pytest.approx(1)
    assert float(d.residual_norm(x)) == pytest.approx(0, abs=1e-7)
    assert float(d.effective_rank(x)) == 1
    assert float(d.uniformity(x)) == pytest.approx(0, abs=1e-6)
    assert float(d.spectrum(x).sum()) == 0


def test_scaled_copies_of_one_direction_are_collapsed_on_the_sphere_and_of_rank_one():
    x = torch.linspace(1, 5, 50)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert float(d.embedding_std(x)) == pytest.approx(0, abs=1e-6)
    assert float(d.effective_rank(x)) == pytest.approx(1, abs=1e-5)


def test_cross_polytope_is_isotropic():
    """+-e_i: std 1 after scaling, centre 0, full rank, equal spectrum."""
    x = torch.cat([torch.eye(5), -torch.eye(5)]).double()
    assert float(d.embedding_std(x)) == pytest.approx(1)
    assert float(d.center_norm(x)) == pytest.approx(0, abs=1e-12)
    assert float(d.residual_norm(x)) == pytest.approx(1)
    assert float(d.effective_rank(x)) == pytest.approx(5)
    torch.testing.assert_close(d.spectrum(x), torch.full((5,), 0.2, dtype=torch.float64))


@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_center_and_residual_share_the_unit_sphere(seed, scale):
    x = scale * cloud(seed) + 0.3
    assert float(d.center_norm(x)) ** 2 + float(d.residual_norm(x)) ** 2 == pytest.approx(1)
    assert 0 <= float(d.embedding_std(x)) <= 1


@given(st.integers(0, 2**31))
def test_rotation_changes_no_measure_but_std(seed):
    x = cloud(seed) + torch.tensor([1.0, 0, 0, 0, 0, 0])
    q, _ = torch.linalg.qr(cloud(seed + 1, 6))
    for measure in (d.center_norm, d.residual_norm, d.uniformity, d.effective_rank):
        assert float(measure(x @ q)) == pytest.approx(float(measure(x)))
    torch.testing.assert_close(d.spectrum(x @ q), d.spectrum(x))


def test_rank_of_k_equal_directions_is_k():
    basis, _ = torch.linalg.qr(cloud(0, 40, 40))
    for k in (1, 3, 17):
        x = basis[:, :k] - basis[:, :k].mean(dim=0)
        q, _ = torch.linalg.qr(x)
        assert float(d.effective_rank(q)) == pytest.approx(k, rel=1e-9)


def test_effective_rank_of_a_known_spectrum():
    x = torch.cat([torch.diag(torch.tensor([3.0, 1.0])), -torch.diag(torch.tensor([3.0, 1.0]))]).double()
    p = torch.tensor([0.75, 0.25])
    assert float(d.effective_rank(x)) == pytest.approx(math.exp(float(-(p * p.log()).sum())))


def test_uniformity_against_a_loop():
    x = cloud(3, 9)
    rows = x / x.norm(dim=1, keepdim=True)
    terms = [math.exp(-2 * float((a - b).square().sum())) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    assert float(d.uniformity(x)) == pytest.approx(math.log(sum(terms) / len(terms)))
    with pytest.raises(ValueError, match="at least 2"):
        d.uniformity(x[:1])


def test_alignment_runs_from_0_to_4():
    x = cloud(4)
    assert float(d.alignment(x, 7 * x)) == pytest.approx(0, abs=1e-12)
    assert float(d.alignment(x, -x)) == pytest.approx(4)


def test_half_precision_is_measured_in_single():
    x = cloud(5, 64, 256).to(torch.float16) * 100
    assert float(d.embedding_std(x)) == pytest.approx(float(d.embedding_std(x.double())), abs=1e-4)
    assert float(d.effective_rank(x)) == pytest.approx(float(d.effective_rank(x.double())), rel=1e-3)


def node(std=0.9, rank=20.0):
    return {"std": std, "effective_rank": rank}


@pytest.mark.parametrize(
    ("z", "loss", "verdict"),
    [
        (node(), -0.9, "healthy"),
        (node(std=0.01), -1.0, "complete-collapse"),
        (node(std=0.01, rank=1.0), -1.0, "complete-collapse"),
        (node(std=0.3, rank=1.1), -1.0, "dimensional-collapse"),
        (node(), math.nan, "diverged"),
        (node(std=math.nan), -0.5, "diverged"),
        (node(), math.inf, "diverged"),
    ],
)
def test_verdicts(z, loss, verdict):
    found, evidence = d.judge({"z": z, "p": node()}, loss)
    assert found == verdict
    assert {(e.of, e.measure) for e in evidence} == {(o, m) for o in "zp" for m in ("std", "effective_rank")}


def test_a_collapsed_prediction_alone_is_no_collapse_of_z():
    assert d.judge({"z": node(), "p": node(std=0.0, rank=1.0)}, -1.0)[0] == "healthy"
