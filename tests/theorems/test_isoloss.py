"""IsoLoss is the plain loss with the predictor's gradient passed straight through (Halvagal et al. 2023)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.method import Method
from stopgrad.parts.predictors import Spectral
from stopgrad.parts.target import Ema, Same

seeds = st.integers(0, 2**31)
distances = pytest.mark.parametrize("distance", ["euclidean", "cosine"])
spectra = st.lists(st.floats(0, 3), min_size=2, max_size=6).filter(lambda values: max(values) > 0.1)
"""Eigenvalues of W_p, zeros among them; rows with W_p z = 0 alone have no direction."""


def random(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]


def predictor(values, seed):
    """W_p = U diag(values) U^T with a random basis U, and both."""
    dim = len(values)
    basis = torch.linalg.qr(random(seed, (dim, dim))[0]).Q
    values = torch.tensor(values, dtype=torch.float64)
    return basis @ torch.diag(values) @ basis.T, basis, values


def published_euclidean(z1, z2, weight):
    """Their Eq. 15: ||z1 - SG(z2 + z1 - W_p z1)||^2. It has no 1/2, so its gradient is twice ours."""
    return (z1 - (z2 + z1 - z1 @ weight).detach()).square().sum(1).mean()


def published_cosine(z1, z2, weight):
    """Their Eq. 17, with the square root of W_p."""
    values, basis = torch.linalg.eigh(weight)
    root = basis @ torch.diag(values.clamp(min=0).sqrt()) @ basis.T
    length, other = (z1 @ weight).norm(dim=1), z2.norm(dim=1)
    first = (z2 / (length * other)[:, None]).detach()
    second = (((z1 @ weight) * z2).sum(1) / (length**3 * other)).detach()
    return (-(z1 * first).sum(1) + second * (z1 @ root).square().sum(1) / 2).mean()


PUBLISHED = {"euclidean": (published_euclidean, 0.5), "cosine": (published_cosine, 1.0)}


@distances
@given(seeds, spectra, st.integers(1, 5))
def test_straight_through_has_the_gradient_of_the_published_loss(distance, seed, values, batch):
    weight, *_ = predictor(values, seed)
    z1, z2 = random(seed, *[(batch, len(values))] * 2)
    z1.requires_grad_()
    loss = Method(gradient="straight-through", distance=distance)
    found = torch.autograd.grad(loss.loss((z1, z2), (z1 @ weight, z2 @ weight), (z1, z2)), z1)
    formula, share = PUBLISHED[distance]
    expected = torch.autograd.grad(0.5 * share * formula(z1, z2, weight), z1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@distances
@given(seeds, spectra, st.integers(1, 5))
def test_its_gradient_times_the_eigenvalue_is_the_plain_one(distance, seed, values, batch):
    """lambda_m grad_m(IsoLoss) = grad_m(plain loss), mode by mode in the eigenbasis of W_p."""
    weight, basis, values = predictor(values, seed)
    z1, z2 = random(seed, *[(batch, len(values))] * 2)
    z1.requires_grad_()
    modes = {}
    for gradient in ("exact", "straight-through"):
        loss = Method(gradient=gradient, distance=distance).loss(
            (z1, z2), (z1 @ weight, z2 @ weight), (z1, z2)
        )
        modes[gradient] = torch.autograd.grad(loss, z1)[0] @ basis
    torch.testing.assert_close(modes["exact"], values * modes["straight-through"], rtol=1e-9, atol=1e-10)


def trained(build, draw, method):
    """A learner whose W_p is that of its own projections."""
    learner = build(method)
    learner.after_step(learner(draw(seed=5)), 0.0)
    return learner, learner.predictor.linear.weight.detach()


@distances
@pytest.mark.parametrize("target", [Same(), Ema(tau=0.9)], ids=lambda target: target.kind)
def test_it_trains_a_network_as_the_published_loss_does(distance, target, build, draw, gradients):
    method = Method(target=target, predictor=Spectral(), gradient="straight-through", distance=distance)
    learner, weight = trained(build, draw, method)
    views = draw()
    nodes = learner(views)
    z = [learner.projector(learner.encoder(x)) for x in views]
    t = [x.detach() for x in (z if target.kind == "same" else [learner.target(x) for x in views])]
    formula, share = PUBLISHED[distance]
    expected = gradients(share * (formula(z[0], t[1], weight) + formula(z[1], t[0], weight)) / 2, learner)
    found = gradients(nodes.loss, learner)
    assert max(g.abs().max() for g in found.values()) > 1e-3
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@distances
def test_through_a_network_the_plain_gradient_is_it_scaled_mode_by_mode(distance, build, draw, gradients):
    iso = Method(predictor=Spectral(), gradient="straight-through", distance=distance)
    learner, weight = trained(build, draw, iso)
    nodes = learner(draw())
    by_z = torch.autograd.grad(nodes.loss, nodes.z, retain_graph=True)
    scaled = sum((z * (g @ weight)).sum() for z, g in zip(nodes.z, by_z, strict=True))
    learner.method = iso.but(gradient="exact")
    plain = gradients(learner(draw()).loss, learner)
    for name, gradient in gradients(scaled, learner).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-9, atol=1e-12, msg=name)
    assert not torch.allclose(
        plain["projector.3.weight"], gradients(nodes.loss, learner)["projector.3.weight"]
    )


def test_the_logged_value_is_the_plain_loss():
    """And not the published expression, whose value is another."""
    weight, *_ = predictor([0.2, 1.0, 0.5], 0)
    z1, z2 = random(0, (4, 3), (4, 3))
    both = [
        Method(gradient=gradient).loss((z1, z2), (z1 @ weight, z2 @ weight), (z1, z2))
        for gradient in ("exact", "straight-through")
    ]
    torch.testing.assert_close(*both)
    published = (published_cosine(z1, z2, weight) + published_cosine(z2, z1, weight)) / 2
    assert not torch.allclose(published, both[0])
