"""Gradient parts against autograd through the project's losses; closed forms against optimisation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from stopgrad.diagnostics import center_norm, residual_norm, unit
from stopgrad.errors import UsageError
from stopgrad.parts.distances import cosine
from stopgrad.theory.decomposition import (
    bias_only,
    center_share,
    decompose,
    infonce,
    infonce_weights,
    mirror,
    simsiam,
    triplet,
    zhang2022_fig5a,
)


def draw(*shape, seed=0, center=0.7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) + center


def through_normalisation(raw, gradient):
    """What a gradient by the normalised rows is by the raw ones."""
    rows = unit(raw)
    return (gradient - (gradient * rows).sum(1, keepdim=True) * rows) / raw.norm(dim=1, keepdim=True)


def gradient_of(loss, raw):
    leaf = raw.clone().requires_grad_()
    loss(leaf).backward()
    return -leaf.grad * len(raw)


def test_center_and_residual_have_the_sizes_of_the_diagnostics():
    rows = draw(12, 5)
    center, residual = decompose(unit(rows))
    assert torch.allclose(center + residual, unit(rows))
    assert torch.allclose(center.norm(), center_norm(rows))
    assert torch.allclose(residual.square().sum(1).mean().sqrt(), residual_norm(rows))
    assert float(center.norm() ** 2 + residual.square().sum(1).mean()) == pytest.approx(1)
    assert residual.mean(0).abs().max() < 1e-15


METHODS = {
    "simsiam": (lambda x, y: simsiam(x, y), lambda a, x, y: cosine(a, y)),
    "mirror": (lambda x, y: mirror(x, y), lambda a, x, y: cosine(a, x)),
    "triplet": (lambda x, y: triplet(x, y), lambda a, x, y: cosine(a, x) - cosine(a, y)),
    "infonce": (
        lambda x, y: infonce(draw(9, 4, seed=1), x, 0.3),
        lambda a, x, y: 0.3 * cross_entropy(unit(a) @ unit(x).T / 0.3, torch.arange(9)),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_basic_and_extra_are_the_gradient_of_the_loss(name):
    of_method, loss = METHODS[name]
    anchor, x, y = (draw(9, 4, seed=seed) for seed in (1, 2, 3))
    gradient = of_method(x, y)
    expected = gradient_of(lambda a: loss(a, x, y), anchor)
    assert torch.allclose(through_normalisation(anchor, gradient.full), expected, atol=1e-13)
    naive = gradient_of(lambda a: cosine(a, y if name == "mirror" else x), anchor)
    assert torch.allclose(through_normalisation(anchor, gradient.basic), naive, atol=1e-13)
    assert torch.allclose(gradient.o_e + gradient.r_e, gradient.extra)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_targets_keep_what_is_asked_for(center, residual):
    p, z = draw(9, 4, seed=2).requires_grad_(), draw(9, 4, seed=3)
    gradient = simsiam(p, z)
    target = gradient.target(center=center, residual=residual)
    assert not target.requires_grad
    anchor = unit(draw(9, 4, seed=1))
    found = gradient_of(lambda a: -(a * target).sum(1).mean(), anchor)
    o_p, o_z = unit(p).mean(0), unit(z).mean(0)
    expected = unit(p) + center * (o_z - o_p) + residual * (unit(z) - o_z - unit(p) + o_p)
    assert torch.allclose(found, expected, atol=1e-13)


def test_the_anchors_own_direction_is_a_dummy():
    anchor, other = draw(9, 4, seed=1), draw(9, 4, seed=2)
    assert through_normalisation(anchor, unit(anchor)).abs().max() < 1e-15
    difference = through_normalisation(anchor, unit(other) - unit(anchor))
    assert torch.allclose(difference, through_normalisation(anchor, unit(other)))


def test_triplet_with_shuffled_negatives_takes_the_whole_center():
    z = draw(9, 4)
    gradient = triplet(z, z.roll(2, 0))
    assert torch.allclose(gradient.o_e, -decompose(unit(z)).center)
    assert float(center_share(gradient.o_e, decompose(unit(z)).center)) == pytest.approx(-1)


def test_infonce_center_is_that_of_the_keys_only_without_bias():
    z_a, z_b = draw(40, 3, seed=1, center=0.3), draw(40, 3, seed=2, center=0.3)
    o_z = decompose(unit(z_b)).center
    weights = infonce_weights(z_a, z_b, 0.1)
    assert torch.allclose(weights.sum(1), torch.ones(40, dtype=torch.float64))
    biased = infonce(z_a, z_b, 0.1)
    assert torch.allclose(biased.o_e, -(weights.mean(0) @ unit(z_b)))
    assert (biased.o_e + o_z).norm() > 0.1 * o_z.norm()
    assert torch.allclose(infonce(z_a, z_b, 1e9).o_e, -o_z, atol=1e-8)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), shift=st.floats(-1, 1))
def test_crossings_of_figure_5a(seed, shift):
    p, z = draw(8, 5, seed=seed, center=shift), draw(8, 5, seed=seed + 1)
    o_p, o_z = decompose(unit(p)).center, decompose(unit(z)).center
    found = zhang2022_fig5a(p, z)
    at = zhang2022_fig5a(p, z, [found.eta_p, found.eta_z])
    assert abs(at.simsiam[0]) < 1e-12
    assert abs(at.mirror[1]) < 1e-12
    cosine_of_centers = torch.cosine_similarity(o_p, o_z, dim=0)
    assert (1 + found.eta_p) * (1 + found.eta_z) == pytest.approx(float(cosine_of_centers**2))
    assert (found.simsiam.diff() <= 1e-12).all()  # falls through the crossing
    assert found.eta_p == pytest.approx(float(o_z @ o_p / o_p.square().sum() - 1))


def test_figure_5a_curves_are_cosines():
    p, z = draw(8, 5, seed=1), draw(8, 5, seed=2)
    found = zhang2022_fig5a(p, z, [-0.4, 0.3])
    o_p, o_z = unit(p).mean(0), unit(z).mean(0)
    v = o_p - o_z - 0.3 * o_z
    assert float(found.mirror[1]) == pytest.approx(float(v @ o_z / (v.norm() * o_z.norm())))


def views(seed, noise, center, n=64, d=8):
    image = draw(n, d, seed=seed, center=center)
    return [image + noise * draw(n, d, seed=seed + i, center=0.0) for i in (101, 202)]


def best_bias(z_a, z_b, score):
    a, b = unit(z_a), unit(z_b)
    bias = torch.zeros(a.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([bias], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = -score(a + bias, b) - score(b + bias, a)
        loss.backward()
        return loss

    optimizer.step(closure)
    return bias.detach()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), noise=st.floats(0.1, 0.6), center=st.floats(0.1, 1.0))
def test_bias_is_the_optimum_at_the_root_mean_square_length(seed, noise, center):
    z_a, z_b = views(seed, noise, center)
    a, b = unit(z_a), unit(z_b)

    def loss(bias):
        length = ((a + bias).square().sum(1).mean() / 2 + (b + bias).square().sum(1).mean() / 2).sqrt()
        return (((a + bias) * b).sum(1).mean() + ((b + bias) * a).sum(1).mean()) / length

    found = bias_only(z_a, z_b)
    bias = found.bias.clone().requires_grad_()
    value = loss(bias)
    value.backward()
    assert bias.grad.norm() < 1e-12
    for step in draw(5, 8, seed=seed, center=0.0):
        assert loss(found.bias + 0.1 * step) < value
    assert found.strength == pytest.approx(found.c / (1 + found.c))


def test_bias_is_near_the_optimum_of_the_loss():
    for center, near in ((0.3, 0.06), (1.0, 0.06)):
        z_a, z_b = views(7, 0.4, center, n=2000)
        exact = best_bias(z_a, z_b, lambda p, z: -cosine(p, z))
        found = bias_only(z_a, z_b).bias
        assert torch.cosine_similarity(exact, found, dim=0) > 0.99
        assert (exact - found).norm() / exact.norm() < near


def test_strength_is_the_share_of_the_center_in_the_gradient():
    z_a, z_b = views(3, 0.4, 0.8, n=500)
    found = bias_only(z_a, z_b)
    a, b = unit(z_a), unit(z_b)
    p = a + found.bias
    center = decompose(torch.cat([a, b])).center
    # A.8: minus the gradient by Z_a is along Z_b - m (Z_a + b), m = <p, Z_b> / ||p||^2 on average
    m = ((p * b).sum() + ((b + found.bias) * a).sum()) / (p.square().sum() + (b + found.bias).square().sum())
    assert torch.allclose(m * found.bias, found.strength * center)


def test_perfect_agreement_needs_no_bias_and_collapse_leaves_none_to_find():
    z = draw(20, 4)
    found = bias_only(z, 2 * z)
    assert found.c == pytest.approx(0, abs=1e-12)
    assert found.strength == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError, match="z_a, z_b"):
        bias_only(z, -z)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: simsiam(torch.ones(2, 3), torch.ones(3, 2)), "p_b, z_b"),
        (lambda: mirror(torch.ones(0, 3), torch.ones(0, 3)), "p_b"),
        (lambda: triplet(torch.ones(2, 3), torch.ones(1, 3)), "z_b, z_n"),
        (lambda: infonce(torch.ones(2, 3), torch.ones(2, 3), 0.0), "temperature"),
        (lambda: zhang2022_fig5a(torch.ones(2, 3), torch.ones(2)), "z"),
        (lambda: bias_only(torch.ones(2, 3), torch.ones(2, 4)), "z_a, z_b"),
    ],
)
def test_bad_input_is_one_line_that_names_the_argument(call, named):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(named)
    assert "\n" not in str(error.value)
