"""Theorems of DirectPred and its family."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stopgrad.parts.precision import full_precision
from stopgrad.parts.predictors import DirectPred, Spectral
from stopgrad.parts.predictors.spectral import FLOOR

DIM = 6


def directpred(dim=DIM, **settings):
    return DirectPred(dim, **settings).double()


def projections(seed, dim=DIM, batch=32):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, dim, dtype=torch.float64, generator=generator) * torch.linspace(0.2, 2, dim) + 0.1
    )


def second_moment(z):
    """E[z z^T] as a sum of outer products."""
    return torch.stack([torch.outer(row, row) for row in z]).mean(dim=0)


def weight_after(z, **settings):
    predictor = directpred(z.shape[1], **settings)
    predictor.after_step((z,))
    return predictor.linear.weight.detach()


def rotation(seed, dim=DIM):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator)).Q


seeds = st.integers(0, 2**31)
RULES = [
    {"eps": 0.0},
    {},
    {"eps_form": "text"},
    {"exponent": 1, "eps": 0.25},
    {"exponent": 0.3},
    {"offset": 0.05, "eps": 0.0},
    {"offset": -0.05, "eps": 0.0, "floor": 0.0},
    {"offset": -0.05, "eps_form": "text", "floor": 0.0},
    {"floor": 0.3},
]
every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


@given(seeds, st.sampled_from([0.0, 0.1, 0.5]))
def test_weight_is_the_matrix_square_root(seed, eps):
    """Against scipy's sqrtm, which goes by the Schur form and not by the eigenvectors."""
    z = projections(seed)
    f = second_moment(z).numpy()
    expected = scipy.linalg.sqrtm(f / np.linalg.eigvalsh(f)[-1]) + eps * np.eye(DIM)
    np.testing.assert_allclose(weight_after(z, eps=eps).numpy(), expected, atol=1e-7)


@given(seeds)
def test_text_form_of_eps(seed):
    z = projections(seed)
    f = second_moment(z).numpy()
    expected = scipy.linalg.sqrtm(f) + 0.1 * np.linalg.eigvalsh(f)[-1] * np.eye(DIM)
    np.testing.assert_allclose(weight_after(z, eps=0.1, eps_form="text").numpy(), expected, atol=1e-7)


def test_the_two_forms_agree_only_at_unit_top_eigenvalue():
    s = torch.tensor([0.1, 0.4, 1.0])
    code, text = Spectral(), Spectral(eps_form="text")
    torch.testing.assert_close(code.eigenvalues(s), text.eigenvalues(s))
    assert not torch.allclose(code.eigenvalues(2 * s), text.eigenvalues(2 * s))


@every_rule
def test_eigenvalues_follow_the_formula(rule):
    s = torch.tensor([1e-3, 0.01, 0.3, 2.5], dtype=torch.float64)
    own = Spectral(**rule)
    code = own.eps_form == "code"
    for sj, pj in zip(s.tolist(), own.eigenvalues(s).tolist(), strict=True):
        r = sj / 2.5 if code else sj
        p = max(r - own.offset, 0) ** own.exponent + own.eps * (1 if code else 2.5)
        assert pj == pytest.approx(max(p, own.floor))


@every_rule
@given(seeds)
def test_weight_turns_with_the_projections(rule, seed):
    """W_p is a function of Fhat as a matrix: of z Q^T it is Q W_p Q^T."""
    z, q = projections(seed), rotation(seed)
    turned, straight = weight_after(z @ q.T, **rule), weight_after(z, **rule)
    torch.testing.assert_close(turned, q @ straight @ q.T, atol=1e-6, rtol=0)
    torch.testing.assert_close(straight @ second_moment(z), second_moment(z) @ straight)


@every_rule
def test_scale_of_the_projections_counts_in_the_text_alone(rule):
    z = projections(0)
    scaled, plain = weight_after(3 * z, **rule), weight_after(z, **rule)
    assert torch.allclose(scaled, plain) == (rule.get("eps_form") != "text")


def test_directcopy_is_the_correlation_itself():
    z = projections(0)
    f = second_moment(z)
    top = torch.linalg.eigvalsh(f)[-1]
    eye = torch.eye(DIM, dtype=torch.float64)
    copied = weight_after(z, exponent=1, eps=0.25)
    torch.testing.assert_close(copied, f / top + 0.25 * eye)
    text = weight_after(z, exponent=1, eps=0.25, eps_form="text")
    torch.testing.assert_close(text, top * copied)  # one predictor for a loss without scale


def test_the_eps_within_the_root():
    """Of Halvagal et al.: (s_j / s_max + e)^alpha. Of Tian et al.: clipped at 1e-4 before the root."""
    s = torch.tensor([0.0, 1e-5, 0.02, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(Spectral(offset=-0.1, eps=0, exponent=0.7).eigenvalues(s), (s + 0.1) ** 0.7)
    clipped = (s - 0.05).clamp(min=1e-4).sqrt()
    torch.testing.assert_close(Spectral(offset=0.05, eps=0, floor=0.01).eigenvalues(s), clipped)


@pytest.mark.parametrize(
    "rule", [{}, {"exponent": 1}, {"eps_form": "text", "floor": 0.0}, {"offset": -0.05, "eps": 0.0}], ids=str
)
@pytest.mark.parametrize("rank", [3, 200])
def test_products_agree_with_eigenvectors(rule, rank):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, rank, generator=generator) @ torch.randn(rank, 150, generator=generator)
    exact = weight_after(z.double(), solver="eigh", **rule)
    predictor = DirectPred(150, solver="products", **rule)
    predictor.after_step((z,))
    error = predictor.linear.weight.double() - exact
    assert torch.linalg.matrix_norm(error, 2) < 1e-3 * torch.linalg.matrix_norm(exact, 2)
    assert torch.linalg.matrix_norm(error) < 1e-3 * torch.linalg.matrix_norm(exact)


@pytest.mark.parametrize(
    "rule",
    [{"exponent": 0.3}, {"offset": 0.1}, {"eps": 0.0}, {"eps": 0.1, "floor": 0.2}, {"eps_form": "text"}],
    ids=str,
)
def test_products_are_refused_where_eigenvalues_may_be_clipped(rule):
    with pytest.raises(ValidationError, match="solver: 'products' needs"):
        Spectral(solver="products", **rule)
    assert not Spectral(**rule).unclipped


@pytest.mark.parametrize("solver", ["eigh", "products"])
def test_dead_projections_leave_a_finite_predictor(solver):
    eps = 0.0 if solver == "eigh" else 0.1
    weight = weight_after(torch.zeros(8, DIM, dtype=torch.float64), eps=eps, solver=solver)
    torch.testing.assert_close(weight, max(eps, FLOOR) * torch.eye(DIM, dtype=torch.float64))


@pytest.mark.parametrize("solver", ["eigh", "products"])
def test_nan_makes_nan_and_no_error(solver):
    """The trainer's check of the loss is to say what went wrong."""
    z = projections(0)
    z[3, 2] = math.nan
    assert weight_after(z, solver=solver).isnan().all()


def test_correlation_is_the_moving_average_of_both_views():
    predictor = directpred(rho=0.3)
    expected = None
    for i in range(4):
        views = projections(2 * i), projections(2 * i + 1)
        c = second_moment(torch.cat(views))
        expected = c if expected is None else 0.3 * expected + 0.7 * c
        predictor.after_step(views)
        torch.testing.assert_close(predictor.correlation, expected)


def test_history_is_the_plain_mean_of_all_steps():
    predictor = directpred(rho="mean")
    batches = [projections(i) for i in range(7)]
    for z in batches:
        predictor.after_step((z,))
    torch.testing.assert_close(predictor.correlation, second_moment(torch.cat(batches)))


def test_centred_is_the_covariance():
    z = projections(0)
    f = np.cov(z.numpy().T, bias=True)
    expected = scipy.linalg.sqrtm(f / np.linalg.eigvalsh(f)[-1]) + 0.1 * np.eye(DIM)
    np.testing.assert_allclose(weight_after(z, centred=True).numpy(), expected, atol=1e-7)
    torch.testing.assert_close(weight_after(z + 5, centred=True), weight_after(z, centred=True))
    assert not torch.allclose(weight_after(z + 5), weight_after(z), atol=0.1)


def test_centred_takes_the_averages_of_both():
    predictor = directpred(centred=True, rho=0.3, exponent=1, eps=0, floor=0)
    first, second = projections(0), projections(1) + 1
    predictor.after_step((first,))
    predictor.after_step((second,))
    mean = 0.3 * first.mean(dim=0) + 0.7 * second.mean(dim=0)
    f = 0.3 * second_moment(first) + 0.7 * second_moment(second) - torch.outer(mean, mean)
    expected = f / torch.linalg.eigvalsh(f)[-1]
    torch.testing.assert_close(predictor.linear.weight.detach(), expected)


def test_noise_is_one_antisymmetric_matrix_that_fades():
    torch.manual_seed(0)
    noisy, plain = directpred(60, noise=0.3), directpred(60)
    added = []
    for step in range(3):
        for predictor in (noisy, plain):
            predictor.after_step((projections(step, 60, batch=200),))
        added.append((noisy.linear.weight - plain.linear.weight).detach())
    torch.testing.assert_close(added[0], -added[0].T)
    assert float(added[0].std()) == pytest.approx(0.3 * math.sqrt(2), rel=0.05)
    torch.testing.assert_close(added[1], added[0] / 2)
    torch.testing.assert_close(added[2], added[0] / 3)


def test_weight_is_set_every_freq_steps_from_the_first():
    predictor = directpred(freq=3)
    assert predictor.linear.weight.requires_grad
    changed = []
    for step in range(7):
        before = predictor.linear.weight.detach().clone()
        predictor.after_step((projections(step),))
        changed.append(not torch.equal(before, predictor.linear.weight.detach()))
    assert changed == [True, False, False, True, False, False, True]


def test_count_of_steps_is_saved():
    first, second = directpred(freq=3, rho="mean"), directpred(freq=3, rho="mean")
    first.after_step((projections(0),))
    second.load_state_dict(first.state_dict())
    for step in range(1, 4):
        for predictor in (first, second):
            predictor.after_step((projections(step),))
    assert torch.equal(first.linear.weight, second.linear.weight)
    torch.testing.assert_close(
        first.correlation, second_moment(torch.cat([projections(i) for i in range(4)]))
    )


def test_decomposition_has_one_thread_and_gives_the_others_back(monkeypatch):
    predictor, threads = directpred(), []
    monkeypatch.setattr(predictor, "solve", lambda: threads.append(torch.get_num_threads()) or torch.eye(DIM))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predictor.after_step((projections(0),))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1]


def test_precision_set_for_training_does_not_reach_the_averages():
    """Neither autocast nor reduced products, such as TF32; both are as before afterwards."""
    z = torch.randn(512, 256, generator=torch.Generator().manual_seed(0))
    exact, reduced = DirectPred(256), DirectPred(256)
    exact.after_step((z,))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            outside = z.T @ z
            reduced.after_step((z,))
            assert torch.equal(z.T @ z, outside)
        assert outside.dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == "medium"
        with full_precision(z.device):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(exact.correlation, reduced.correlation)
    assert torch.equal(exact.linear.weight, reduced.linear.weight)
