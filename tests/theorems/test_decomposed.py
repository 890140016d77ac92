"""Removing o_e and r_e from the gradient, against hand-written losses (Zhang et al. 2022, Tables 3 and 4)."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.method import Method
from stopgrad.parts.distances import Cosine
from stopgrad.parts.gradient import Decomposed
from stopgrad.parts.pairing import INVERSE, MIRROR, SYMMETRIC
from stopgrad.parts.predictors import Identity, Linear, Mlp
from stopgrad.parts.target import Ema, Same

simsiam = Method(predictor=Mlp(hidden=8))
KEPT = list(itertools.product([True, False], repeat=2))
every_kept = pytest.mark.parametrize(("center", "residual"), KEPT)
either_predictor = pytest.mark.parametrize("own", ["shared", "separate"])


def decomposed(center=True, residual=True, own="shared"):
    return Decomposed(center=center, residual=residual, predictor_loss=own)


def of(method, build, draw, gradients, heads=("predictor.",)):
    """The gradients of a method's learner, its predictor's apart from the rest."""
    learner = build(method)
    found = gradients(learner(draw()).loss, learner)
    predictor = {key: g for key, g in found.items() if key.startswith(heads)}
    return {key: g for key, g in found.items() if key not in predictor}, predictor


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert any(g.abs().max() > 1e-3 for g in expected.values())
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-9, atol=1e-13, msg=key)


@either_predictor
@pytest.mark.parametrize("target", [Same(), Ema()], ids=lambda t: t.kind)
@pytest.mark.parametrize("predictor", [Linear(), Mlp(hidden=8)], ids=lambda p: p.kind)
def test_with_both_kept_it_is_exact(own, target, predictor, build, draw, gradients):
    exact = Method(target=target, predictor=predictor)
    expected = of(exact, build, draw, gradients)
    for found, part in zip(
        of(exact.but(gradient=decomposed(own=own)), build, draw, gradients), expected, strict=True
    ):
        assert_same(found, part)


def test_with_neither_kept_it_is_the_symmetric_predictor(build, draw, gradients):
    expected = of(simsiam.but(pairing=SYMMETRIC), build, draw, gradients)
    found = of(simsiam.but(gradient=decomposed(False, False)), build, draw, gradients)
    for part, other in zip(found, expected, strict=True):
        assert_same(part, other)


@every_kept
def test_a_separate_predictor_learns_as_that_of_simsiam(center, residual, build, draw, gradients):
    _, expected = of(simsiam, build, draw, gradients)
    encoder, found = of(
        simsiam.but(gradient=decomposed(center, residual, "separate")), build, draw, gradients
    )
    assert_same(found, expected)
    shared, own = of(simsiam.but(gradient=decomposed(center, residual)), build, draw, gradients)
    assert_same(encoder, shared)  # its own loss does not reach the encoder
    weight = "predictor.layers.0.weight"
    assert torch.allclose(own[weight], expected[weight]) == (center and residual)


@every_kept
def test_a_separate_predictor_leaves_every_other_node_alone(center, residual, build, draw, gradients):
    """In mirror SimSiam the queries are z_v, which the predictor's loss reads as well."""
    mirror = simsiam.but(pairing=MIRROR)
    _, expected = of(mirror, build, draw, gradients)
    _, found = of(mirror.but(gradient=decomposed(center, residual, "separate")), build, draw, gradients)
    assert_same(found, expected)


def test_a_predictor_that_would_learn_nothing_is_refused():
    with pytest.raises(ValueError, match=r"gradient\.predictor_loss: no query .* use 'separate'"):
        simsiam.but(pairing=MIRROR, gradient=decomposed())


def test_a_separate_predictor_and_its_inverse_learn_once(build, draw, gradients):
    """From the exact losses of Algorithm 4 alone, not from the encoder's as well."""
    exact = simsiam.but(pairing=INVERSE)
    expected = of(exact, build, draw, gradients, heads=("predictor.", "inverse."))[1]
    separate = exact.but(gradient=decomposed(own="separate"))
    assert_same(of(separate, build, draw, gradients, heads=("predictor.", "inverse."))[1], expected)


@given(st.integers(0, 2**31), st.integers(2, 8), st.floats(-1, 1))
def test_without_o_e_the_extra_pull_has_no_mean(seed, batch, shift):
    generator = torch.Generator().manual_seed(seed)
    query, key, basic = torch.randn(3, batch, 5, dtype=torch.float64, generator=generator) + shift
    pull = Cosine().pull(query, key, basic)
    assert (pull.target(center=False) - pull.basic).mean(0).abs().max() < 1e-15
    extra = pull.target(residual=False) - pull.basic
    torch.testing.assert_close(extra, extra.mean(0).expand(batch, 5))


def rows(x):
    return [row / row.norm() for row in x]


def slow(anchors, basic, extra, center, residual):
    """-P_a . sg(basic + o_e + r_e), image by image."""
    count = len(anchors)
    o_e = sum(extra) / count
    total = 0.0
    for anchor, towards, whole in zip(anchors, basic, extra, strict=True):
        target = towards
        if center:
            target = target + o_e
        if residual:
            target = target + (whole - o_e)
        total = total - anchor.dot(target.detach()) / count
    return total


@every_kept
def test_table_4(center, residual, build, draw, gradients):
    """SimSiam: G_e = Z_b - P_b by P_a."""
    learner = build(simsiam.but(gradient=decomposed(center, residual)))
    nodes = learner(draw())
    (p_a, p_b), (z_a, z_b) = map(rows, nodes.p), map(rows, nodes.z)
    one = slow(p_a, p_b, [z - p for z, p in zip(z_b, p_b, strict=True)], center, residual)
    other = slow(p_b, p_a, [z - p for z, p in zip(z_a, p_a, strict=True)], center, residual)
    torch.testing.assert_close(nodes.loss, (one + other) / 2)
    assert_same(gradients(nodes.loss, learner), gradients((one + other) / 2, learner))


def softmax(scores):
    exponentials = [torch.exp(score) for score in scores]
    return [x / sum(exponentials) for x in exponentials]


def extra_of_triplet(anchors, keys):
    """-Z_n, the negative being the image before."""
    return [-keys[i - 1] for i in range(len(keys))]


def extra_of_infonce(anchors, keys, temperature=0.2):
    """-sum_i lambda_i Z_i over all keys, the positive among them, by the temperature (Eq. 6)."""
    weights = [softmax([anchor.dot(key) / temperature for key in keys]) for anchor in anchors]
    return [-sum(w * key for w, key in zip(row, keys, strict=True)) / temperature for row in weights]


def extra_of_simple(anchors, keys):
    """Minus the mean of the other images' keys."""
    return [-sum(k for j, k in enumerate(keys) if j != i) / (len(keys) - 1) for i in range(len(keys))]


EXTRA = {
    "triplet": (extra_of_triplet, 1),
    "infonce": (extra_of_infonce, 1 / 0.2),
    "simple-contrastive": (extra_of_simple, 1),
}
contrastive = pytest.mark.parametrize("distance", EXTRA)


@contrastive
@every_kept
def test_table_3(distance, center, residual, build, draw, gradients):
    """Of losses with negatives on z alone; the first row of the table is the triplet loss."""
    extra, scale = EXTRA[distance]
    plain = Method(predictor=Identity(), distance=distance)
    learner = build(plain.but(gradient=decomposed(center, residual)))
    nodes = learner(draw())
    views = [rows(z) for z in nodes.z]
    terms = []
    for anchors, keys in (views, views[::-1]):
        basic = [scale * key for key in keys]
        terms.append(slow(anchors, basic, extra(anchors, keys), center, residual))
    torch.testing.assert_close(nodes.loss, sum(terms) / 2)
    assert_same(gradients(nodes.loss, learner), gradients(sum(terms) / 2, learner))


@contrastive
@either_predictor
def test_losses_with_negatives_are_exact_with_both_kept(distance, own, build, draw, gradients):
    exact = Method(predictor=Mlp(hidden=8), distance=distance)
    expected = of(exact, build, draw, gradients)
    found = of(exact.but(gradient=decomposed(own=own)), build, draw, gradients)
    for part, other in zip(found, expected, strict=True):
        assert_same(part, other)


def test_without_r_e_a_triplet_pushes_from_the_centre(build, draw, gradients):
    """Its o_e is -o_z, so that -Z_a . sg(Z_b - o_z) remains: every image is a negative once."""
    method = Method(predictor=Identity(), distance="triplet", gradient=decomposed(residual=False))
    learner = build(method)
    nodes = learner(draw())
    a, b = (torch.stack(rows(z)) for z in nodes.z)
    terms = [-(x * (y - y.mean(0)).detach()).sum(1).mean() for x, y in ((a, b), (b, a))]
    torch.testing.assert_close(nodes.loss, sum(terms) / 2)
    assert_same(gradients(nodes.loss, learner), gradients(sum(terms) / 2, learner))
