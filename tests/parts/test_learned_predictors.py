"""Theorems of the predictors that are learned: linear, MLP, bias, two FC, Tanh(FC)."""

import math

import pytest
import torch
from torch import nn
from torch.func import jacrev
from torch.nn.functional import cosine_similarity, normalize

from stopgrad.parts.predictors import Bias, Linear, Mlp, TanhFc, TwoFc

DIM = 5


def projections(seed, batch=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, DIM, dtype=torch.float64, generator=generator) * torch.linspace(0.2, 2, DIM)


def one_step(predictor, z, t, lr=0.1):
    optimizer = torch.optim.SGD(predictor.parameters(), lr=lr)
    (predictor(z) - t).square().mean().backward()
    optimizer.step()
    predictor.after_step((z,))


@pytest.mark.parametrize("init", ["default", "xavier", "identity"])
def test_symmetric_step_is_the_gradient_step_among_symmetric_matrices(init):
    torch.manual_seed(0)
    predictor = Linear(symmetric=True, init=init).build(DIM).double()
    z, t = projections(0), projections(1)
    start = predictor.linear.weight.detach().clone()
    assert torch.equal(start, start.T)
    # the same loss as a function of the symmetric part of a free matrix
    free = start.clone().requires_grad_()
    (expected,) = torch.autograd.grad((z @ ((free + free.T) / 2).T - t).square().mean(), free)
    one_step(predictor, z, t)
    torch.testing.assert_close(predictor.linear.weight.detach(), start - 0.1 * expected)


def test_free_weight_is_left_alone_after_the_step():
    predictor = Linear().build(DIM)
    before = predictor.linear.weight.detach().clone()
    predictor.after_step((torch.randn(3, DIM),))
    assert torch.equal(predictor.linear.weight, before)


def test_identity_start_predicts_the_projections():
    predictor = Linear(init="identity", bias=True).build(DIM)
    z = torch.randn(7, DIM)
    assert torch.equal(predictor(z), z)


def test_xavier_start_has_its_variance_and_no_bias():
    torch.manual_seed(0)
    linear = Linear(init="xavier", bias=True).build(256).linear
    assert linear.weight.abs().max() <= math.sqrt(6 / 512)
    assert float(linear.weight.detach().var()) == pytest.approx(2 / 512, rel=0.02)
    assert not linear.bias.any()


def tied(**settings):
    torch.manual_seed(0)
    predictor = Mlp(hidden=16, symmetric=True, **settings).build(DIM).double()
    for step in range(4):
        one_step(predictor, projections(2 * step), projections(2 * step + 1))
    return predictor.eval()


@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"bn": False}, {"bn": False, "bias": False}])
def test_tied_mlp_has_a_symmetric_jacobian(settings):
    predictor, free = tied(**settings), Mlp(hidden=16, **settings).build(DIM).double().eval()
    for z in projections(9, batch=3):
        jacobian, other = (jacrev(lambda x, net=net: net(x[None])[0])(z) for net in (predictor, free))
        torch.testing.assert_close(jacobian, jacobian.T)
        assert jacobian.abs().max() > 1e-3
        assert not torch.allclose(other, other.T, atol=1e-3)


def test_tied_step_is_the_gradient_step_among_tied_layers():
    """The orthogonal projection of a step is the step along the projected gradient."""
    torch.manual_seed(0)
    predictor = Mlp(hidden=16, bn=False, bias=False, symmetric=True).build(DIM).double()
    start = predictor.layers[0].weight.detach().clone()
    assert torch.equal(start, predictor.layers[-1].weight.T)
    z, t = projections(0), projections(1)
    shared = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(((z @ shared.T).relu() @ shared - t).square().mean(), shared)
    one_step(predictor, z, t)
    for weight in (predictor.layers[0].weight, predictor.layers[-1].weight.T):
        torch.testing.assert_close(weight.detach(), start - 0.1 * gradient / 2)


def test_mlp_has_only_the_parts_it_was_asked_for():
    def kinds(**settings):
        layers = Mlp(hidden=8, **settings).build(DIM).layers
        norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm1d)]
        return [norm.affine for norm in norms], layers[0].bias is not None, layers[-1].bias is not None

    assert kinds() == ([True], False, True)
    assert kinds(affine=False) == ([False], False, True)
    assert kinds(bn=False) == ([], True, True)
    assert kinds(bias=False) == ([True], False, False)
    assert kinds(bn=False, bias=False) == ([], False, False)


def test_mlp_is_sign_symmetric_in_its_last_layer():
    """Negating the last layer negates p: the correspondence of RAFT and BYOL' rests on it."""
    predictor = Mlp(hidden=8).build(DIM).double().eval()
    z = projections(0)
    before = predictor(z)
    with torch.no_grad():
        for w in predictor.layers[-1].parameters():
            w.neg_()
    torch.testing.assert_close(predictor(z), -before)


def test_bias_comes_to_rest_at_its_share_of_the_centre():
    """b = c o_z with c = (1 - rho) / (rho - ||o_z||^2), rho = E<Z_a, Z_b> (Zhang et al. 2022, A.8)."""
    generator = torch.Generator().manual_seed(0)
    dim, count = 32, 20_000

    def noise(size):
        return size * torch.randn(count, dim, dtype=torch.float64, generator=generator) / dim**0.5

    common = noise(1.0) + nn.functional.one_hot(torch.tensor(0), dim)
    z = [(common + noise(0.3)) * torch.rand(count, 1, generator=generator).add(0.5) for _ in range(2)]
    first, second = (normalize(x) for x in z)
    centre, agreement = (first + second).mean(dim=0) / 2, (first * second).sum(-1).mean()
    expected = (1 - agreement) / (agreement - centre @ centre)

    predictor = Bias().build(dim).double()
    assert torch.equal(predictor(z[0]), first)  # it starts at zero, and at any length of z
    optimizer = torch.optim.LBFGS(predictor.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        both = (cosine_similarity(predictor(a), b).mean() for a, b in (z, z[::-1]))
        value = -sum(both)
        value.backward()
        return value

    optimizer.step(loss)
    b = predictor.bias.detach()
    assert cosine_similarity(b, centre, dim=0) > 0.9999
    assert float(b.norm() / centre.norm()) == pytest.approx(float(expected), rel=0.01)


@pytest.mark.parametrize("hidden", [3, 16])
def test_two_layers_are_one_of_their_rank(hidden):
    predictor = TwoFc(hidden=hidden).build(DIM).double()
    z = projections(0)
    bias = predictor(torch.zeros(1, DIM, dtype=torch.float64))
    jacobian = jacrev(lambda x: predictor(normalize(x[None]))[0] * x.norm())(z[0])  # of p times ||z||: linear
    matrix = jacobian - torch.outer(bias[0], normalize(z[0], dim=0))
    torch.testing.assert_close(predictor(z), normalize(z) @ matrix.T + bias)
    assert torch.linalg.matrix_rank(matrix) == min(hidden, DIM)
    assert [layer.bias is None for layer in predictor.layers] == [True, False]


@pytest.mark.parametrize("settings", [Bias(), TwoFc(hidden=8), TanhFc(), TanhFc(reading="reparameterised")])
def test_the_length_of_z_counts_only_without_normalisation(settings):
    z = projections(0).float()
    predictor = settings.build(DIM)
    torch.testing.assert_close(predictor(z), predictor(3 * z))
    predictor.normalise = False
    assert not torch.allclose(predictor(z), predictor(3 * z))
    plain = settings.but(normalise=False).build(DIM)
    plain.load_state_dict(predictor.state_dict())
    assert torch.equal(plain(z), predictor(z))


def test_tanh_in_place_bounds_the_weights_and_pulls_them_to_zero():
    predictor = TanhFc().build(DIM).double()
    nn.init.normal_(predictor.linear.weight, std=5)
    signs = predictor.linear.weight.sign()
    z = projections(0)
    torch.testing.assert_close(predictor(z), normalize(z) @ predictor.linear.weight.T)
    steps = 4000
    for _ in range(steps):
        predictor.after_step((z,))
        assert predictor.linear.weight.abs().max() < 1
    expected = math.sqrt(3 / (2 * steps))
    torch.testing.assert_close(predictor.linear.weight.detach(), signs * expected, rtol=0.01, atol=0)


def test_tanh_reparameterised_bounds_what_is_applied_and_leaves_the_weight():
    predictor = TanhFc(reading="reparameterised").build(DIM).double()
    nn.init.normal_(predictor.linear.weight, std=2)
    before = predictor.linear.weight.detach().clone()
    z, t = projections(0), projections(1)
    predictor.after_step((z,))
    assert torch.equal(predictor.linear.weight, before)
    applied = before.tanh().requires_grad_()
    torch.testing.assert_close(predictor(z), normalize(z) @ applied.T)
    (outer,) = torch.autograd.grad((normalize(z) @ applied.T - t).square().mean(), applied)
    (predictor(z) - t).square().mean().backward()
    torch.testing.assert_close(predictor.linear.weight.grad, outer * (1 - before.tanh().square()))
