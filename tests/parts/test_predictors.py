import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.parts.predictors import DirectPred, Identity, Linear, Mlp, Spectral
from stopgrad.parts.predictors.spectral import FLOOR, correlation


def directpred(dim=6, **settings):
    return DirectPred(dim, **settings).double()


def projections(seed, dim=6, batch=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, dtype=torch.float64, generator=generator) * torch.linspace(0.2, 2, dim)


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.1, 0.5]))
def test_weight_is_the_matrix_square_root(seed, eps):
    """Against scipy's sqrtm, which goes by the Schur form and not by the eigenvectors."""
    predictor = directpred(eps=eps)
    z = projections(seed)
    predictor.after_step((z, z))
    f = (z.T @ z / len(z)).numpy()
    expected = scipy.linalg.sqrtm(f / np.linalg.eigvalsh(f)[-1]) + eps * np.eye(6)
    np.testing.assert_allclose(predictor.linear.weight.detach().numpy(), expected, atol=1e-7)


@given(st.integers(0, 2**31))
def test_text_form_of_eps(seed):
    predictor = directpred(eps=0.1, eps_form="text")
    z = projections(seed)
    predictor.after_step((z, z))
    f = (z.T @ z / len(z)).numpy()
    expected = scipy.linalg.sqrtm(f) + 0.1 * np.linalg.eigvalsh(f)[-1] * np.eye(6)
    np.testing.assert_allclose(predictor.linear.weight.detach().numpy(), expected, atol=1e-7)


def test_the_two_forms_agree_only_at_unit_top_eigenvalue():
    s = torch.tensor([0.1, 0.4, 1.0])
    code, text = directpred(3), directpred(3, eps_form="text")
    torch.testing.assert_close(code.eigenvalues(s), text.eigenvalues(s))
    assert not torch.allclose(code.eigenvalues(2 * s), text.eigenvalues(2 * s))


def test_correlation_is_the_moving_average_of_both_views():
    predictor = directpred(rho=0.3)
    batches = [(projections(2 * i), projections(2 * i + 1)) for i in range(4)]
    expected = None
    for views in batches:
        joint = torch.cat(views)
        c = torch.stack([torch.outer(row, row) for row in joint]).mean(dim=0)
        expected = c if expected is None else 0.3 * expected + 0.7 * c
        predictor.after_step(views)
    torch.testing.assert_close(predictor.correlation, expected)


def test_forward_and_evaluation_change_nothing():
    predictor = directpred()
    predictor.after_step((projections(0), projections(1)))
    before = {k: v.clone() for k, v in predictor.state_dict().items()}
    predictor(projections(2))
    predictor.eval()(projections(3))
    assert all(torch.equal(before[k], v) for k, v in predictor.state_dict().items())


def test_weight_is_set_every_freq_steps_only():
    predictor = directpred(freq=3)
    assert predictor.linear.weight.requires_grad
    changed = []
    for step in range(6):
        before = predictor.linear.weight.detach().clone()
        predictor.after_step((projections(step),))
        changed.append(not torch.equal(before, predictor.linear.weight.detach()))
    assert changed == [False, False, True, False, False, True]


def test_count_of_steps_is_saved():
    first, second = directpred(freq=2), directpred(freq=2)
    first.after_step((projections(0),))
    second.load_state_dict(first.state_dict())
    for predictor in (first, second):
        predictor.after_step((projections(1),))
    assert torch.equal(first.linear.weight, second.linear.weight)
    assert second.steps == 2


def test_dead_projections_leave_a_finite_predictor():
    predictor = directpred(eps=0.0)
    predictor.after_step((torch.zeros(8, 6, dtype=torch.float64),))
    torch.testing.assert_close(predictor.linear.weight.detach(), FLOOR * torch.eye(6, dtype=torch.float64))


def test_correlation_under_autocast_is_single_precision():
    z = torch.randn(64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(correlation((z,)), z.T @ z / 64) or correlation((z,)).dtype == torch.float32
        assert torch.equal(correlation((z,)), correlation_outside(z))


def correlation_outside(z):
    with torch.autocast("cpu", enabled=False):
        return z.T @ z / len(z)


def test_symmetric_step_is_the_gradient_step_among_symmetric_matrices():
    torch.manual_seed(0)
    predictor = Linear(symmetric=True).build(4).double()
    z, t = projections(0, 4), projections(1, 4)
    start = predictor.linear.weight.detach().clone()
    assert torch.equal(start, start.T)
    # the same loss as a function of the symmetric part of a free matrix
    free = start.clone().requires_grad_()
    loss = (z @ ((free + free.T) / 2).T - t).square().mean()
    (expected,) = torch.autograd.grad(loss, free)
    optimizer = torch.optim.SGD(predictor.parameters(), lr=0.1)
    (predictor(z) - t).square().mean().backward()
    optimizer.step()
    predictor.after_step(())
    torch.testing.assert_close(predictor.linear.weight.detach(), start - 0.1 * expected)


@pytest.mark.parametrize(
    "settings", [Identity(), Linear(), Linear(bias=True), Mlp(hidden=8), Mlp(hidden=8, bn=False), Spectral()]
)
def test_every_predictor_maps_to_its_own_width(settings):
    predictor = settings.build(5)
    assert predictor(torch.randn(7, 5)).shape == (7, 5)
    assert settings.equation().startswith("p_v = ")


def test_mlp_is_sign_symmetric_in_its_last_layer():
    """Negating the last layer negates p: the correspondence of RAFT and BYOL' rests on it."""
    predictor = Mlp(hidden=8).build(5).double().eval()
    z = projections(0, 5)
    before = predictor(z)
    with torch.no_grad():
        for w in predictor.layers[-1].parameters():
            w.neg_()
    torch.testing.assert_close(predictor(z), -before)
