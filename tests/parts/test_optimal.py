"""The optimal linear predictor solves what it says."""

import pytest
import torch

from stopgrad.errors import UsageError
from stopgrad.parts.predictors import Optimal

DIM = 5
EYE = torch.eye(DIM, dtype=torch.float64)


def views(seed=0, count=2, batch=40):
    """Projections and targets, (V, B, D) each."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    z = (randn(1, batch, DIM) + 0.5 * randn(count, batch, DIM)) * torch.linspace(0.3, 2, DIM)
    return z, z @ randn(DIM, DIM) + 0.1 * randn(count, batch, DIM)


def pairs(z, t):
    """(z_v, t_u) of all views u != v."""
    return [(z[v], t[u]) for v in range(len(z)) for u in range(len(z)) if u != v]


def moments(z, t):
    """M and M_2 by loops over pairs and vectors."""
    m = torch.stack([torch.outer(row, row) for view in z for row in view]).mean(dim=0)
    m2 = torch.stack([torch.outer(a, b) for zv, tu in pairs(z, t) for a, b in zip(tu, zv, strict=True)]).mean(
        dim=0
    )
    return m, m2


def solve(z, t, **settings):
    predictor = Optimal(**settings).build(DIM).double()
    predictor.after_step(z, t)
    return predictor.linear.weight.detach()


def loss(w, z, t, ridge=0.0):
    total = torch.stack([(zv @ w.T - tu).square().sum(-1).mean() for zv, tu in pairs(z, t)]).mean()
    return total + ridge * w.square().sum()


def gradient(w, z, t, ridge=0.0):
    w = w.clone().requires_grad_()
    return torch.autograd.grad(loss(w, z, t, ridge), w)[0]


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("count", [2, 3])
def test_right_is_least_squares(ridge, count):
    z, t = views(count=count)
    w = solve(z, t, ridge=ridge)
    assert gradient(w, z, t, ridge).abs().max() < 1e-10
    assert loss(w, z, t, ridge) < loss(w + 1e-3, z, t, ridge)


@pytest.mark.parametrize("ridge", [1e-4, 0.3])
def test_the_other_forms_solve_their_equations(ridge):
    z, t = views()
    m, m2 = moments(z, t)
    left = solve(z, t, form="left", ridge=ridge)
    torch.testing.assert_close((m + ridge * EYE) @ left, m2)
    symmetrised = solve(z, t, form="symmetrised", ridge=ridge)
    torch.testing.assert_close(symmetrised @ (m + ridge * EYE), (m2 + m2.T) / 2)
    w = solve(z, t, form="lyapunov", ridge=ridge)
    torch.testing.assert_close(m @ w + w @ m + ridge * w, m2 + m2.T)
    torch.testing.assert_close(w, w.T)
    assert not torch.allclose(left, symmetrised, atol=0.1)


def test_lyapunov_is_the_best_symmetric_matrix():
    z, t = views()
    w = solve(z, t, form="lyapunov", ridge=0)
    slope = gradient(w, z, t)
    assert (slope + slope.T).abs().max() < 1e-10
    assert slope.abs().max() > 0.1  # a free matrix would do better


@pytest.mark.parametrize("form", ["right", "lyapunov"])
def test_without_ridge_directions_that_are_dead_get_no_weight(form):
    z, t = views()
    z[..., 3:] = 0
    w = solve(z, t, form=form, ridge=0)
    assert w.isfinite().all()
    if form == "right":
        m, m2 = moments(z, t)
        torch.testing.assert_close(w, m2 @ torch.linalg.pinv(m))
    else:
        assert w[3:, 3:].abs().max() == 0


def test_averages_move_with_the_steps():
    first, second = views(0), views(1)
    predictor = Optimal(rho=0.3, ridge=0.2).build(DIM).double()
    predictor.after_step(*first)
    predictor.after_step(*second)
    (m, m2), (n, n2) = moments(*first), moments(*second)
    torch.testing.assert_close(
        predictor.linear.weight.detach() @ (0.3 * m + 0.7 * n + 0.2 * EYE), 0.3 * m2 + 0.7 * n2
    )


def test_at_the_optimum_a_linear_encoder_cannot_grow():
    """d(W W^T)/dt = 0 along the gradient flow of W: the sharp form of why Table 1 fails."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 200, 8, dtype=torch.float64, generator=generator)
    x[1] = x[0] + 0.5 * x[1]
    w = torch.randn(DIM, 8, dtype=torch.float64, generator=generator).requires_grad_()
    z = x @ w.T
    predictor = solve(z.detach(), z.detach(), ridge=0)
    (slope,) = torch.autograd.grad(loss(predictor, z, z.detach()), w)
    growth = slope @ w.detach().T
    assert slope.abs().max() > 0.01
    assert (growth + growth.T).abs().max() < 1e-10


def test_without_targets_it_says_what_it_needs():
    z, t = views()
    predictor = Optimal().build(DIM).double()
    with pytest.raises(UsageError, match="targets of the same two or more views, not of 2 and 0"):
        predictor.after_step(z)
    with pytest.raises(UsageError, match="not of 1 and 1"):
        predictor.after_step(z[:1], t[:1])


def test_nan_makes_nan_and_no_error():
    z, t = views()
    z[0, 0, 0] = torch.nan
    assert solve(z, t).isnan().any()
