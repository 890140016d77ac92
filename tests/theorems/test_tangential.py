"""Tangential gradients are the plain ones where the nodes are normalised by autograd (Shi et al., sec. 5)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.diagnostics import unit
from stopgrad.method import Method
from stopgrad.parts.gradient import tangential
from stopgrad.parts.pairing import raft_pairs
from stopgrad.parts.predictors import Linear, Mlp
from stopgrad.parts.target import Ema, Same

seeds = st.integers(0, 2**31)
distances = pytest.mark.parametrize("distance", ["cosine", "squared-l2"])
PAIRS = raft_pairs(0.8, 0.3)


@distances
@pytest.mark.parametrize("predictor", [Linear(), Mlp(hidden=8)], ids=lambda p: p.kind)
@pytest.mark.parametrize("target", [Ema(), Same(stop_gradient=False)], ids=lambda t: t.kind)
def test_a_learner_has_the_plain_gradients(distance, predictor, target, build, draw, gradients):
    plain = Method(target=target, predictor=predictor, pairing=PAIRS, distance=distance)
    both = []
    for method in (plain, plain.but(gradient="tangential")):
        learner = build(method)
        nodes = learner(draw())
        both.append({"loss": nodes.loss} | gradients(nodes.loss, learner))
    assert both[0]["encoder.body.0.weight"].abs().max() > 1e-3
    for name, expected in both[0].items():
        torch.testing.assert_close(both[1][name], expected, rtol=1e-10, atol=1e-13, msg=name)


@distances
@given(seeds)
def test_queries_and_keys_have_the_plain_gradients(distance, seed):
    generator = torch.Generator().manual_seed(seed)
    z, p, t = torch.randn(3, 2, 5, 4, dtype=torch.float64, generator=generator).requires_grad_()
    plain = Method(target=Same(stop_gradient=False), pairing=PAIRS, distance=distance)
    expected, found = (
        torch.autograd.grad(method.loss(z, p, t), (p, t))
        for method in (plain, plain.but(gradient="tangential"))
    )
    assert all(g.abs().max() > 0 for g in expected)  # of p2 as a key too, and of the targets
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@distances
@pytest.mark.parametrize("gradient", ["exact", "tangential"])
@given(seed=seeds)
def test_each_is_orthogonal_to_its_unit_vector(distance, gradient, seed):
    generator = torch.Generator().manual_seed(seed)
    p, t = (unit(x).requires_grad_() for x in torch.randn(2, 10, 4, dtype=torch.float64, generator=generator))
    method = Method(target=Same(stop_gradient=False), pairing=PAIRS, distance=distance, gradient=gradient)
    loss = method.loss(p.chunk(2), p.chunk(2), t.chunk(2))
    for x, by_x in zip((p, t), torch.autograd.grad(loss, (p, t)), strict=True):
        assert (by_x * x).sum(1).abs().max() < 1e-14 < by_x.norm(dim=1).min()


@given(seeds)
def test_of_any_gradient_the_part_along_the_row_is_left_out(seed):
    generator = torch.Generator().manual_seed(seed)
    x, upstream = torch.randn(2, 5, 4, dtype=torch.float64, generator=generator)
    x = unit(x).requires_grad_()
    rows = tangential(x)
    assert torch.equal(rows, x)
    (found,) = torch.autograd.grad((rows * upstream).sum(), x)
    for row, given_, kept in zip(x.detach(), upstream, found, strict=True):
        projector = torch.eye(4, dtype=torch.float64) - torch.outer(row, row)
        torch.testing.assert_close(kept, projector @ given_)
