"""Losses with negatives: their gradients in closed form, their limits, their relations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.diagnostics import unit
from stopgrad.parts.distances import (
    DISTANCES,
    InfoNce,
    NtXent,
    SimpleContrastive,
    Triplet,
    cosine,
)
from stopgrad.parts.gradient import Decomposed
from stopgrad.theory import decomposition

B = 11  # a prime, so that every step goes round the whole batch
PULLING = [kind() for kind in DISTANCES.values() if kind().pull(*[torch.ones(2, 2)] * 3) is not None]


def nodes(seed, dtype=torch.float64):
    """Query, key and the node of the query's kind in the key's view."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, 4, dtype=dtype, generator=generator) + 0.5 for _ in range(3)]


def gradient(loss, query, key):
    query = query.clone().requires_grad_()
    return torch.autograd.grad(loss(query, key), query)[0]


def tangential(pull, query):
    """What a pull on the normalised query does to the raw one, as a gradient of the mean over B."""
    direction = unit(query)
    along = (pull * direction).sum(dim=1, keepdim=True) * direction
    return -(pull - along) / query.norm(dim=1, keepdim=True) / len(query)


def test_all_of_the_papers_decompositions_are_there():
    assert {d.kind for d in PULLING} >= {"cosine", "infonce", "triplet", "simple-contrastive"}


@pytest.mark.parametrize("distance", PULLING, ids=lambda d: d.kind)
@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_pull_is_minus_the_gradient_by_the_normalised_query(distance, seed):
    query, key, basic = nodes(seed)
    expected = tangential(distance.pull(query, key, basic).full, query)
    assert (gradient(distance, query, key) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("distance", [InfoNce(temperature=0.3), Triplet(), SimpleContrastive()])
def test_pull_is_the_derivative_along_the_query_too_where_lengths_are_let_free(distance, monkeypatch):
    query, key, basic = nodes(0)
    query, key = unit(query), unit(key)
    pull = distance.pull(query, key, basic).full
    monkeypatch.setattr("stopgrad.parts.distances.contrastive.unit", lambda x: x)
    assert (B * gradient(distance, query, key) + pull).abs().max() < 1e-10


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.05, 50))
def test_infonce_pulls_as_the_theory_says(seed, temperature):
    query, key, basic = nodes(seed)
    pull = InfoNce(temperature=temperature).pull(query, key, basic)
    theory = decomposition.infonce(query, key, temperature)
    assert torch.allclose(temperature * pull.basic, theory.basic, atol=1e-12)
    assert torch.allclose(temperature * pull.extra, theory.extra, atol=1e-12)


def test_triplet_pulls_as_the_theory_says():
    query, key, basic = nodes(0)
    pull = Triplet().pull(query, key, basic)
    theory = decomposition.triplet(key, torch.stack([key[i - 1] for i in range(B)]))
    assert torch.equal(pull.basic, theory.basic)
    assert torch.equal(pull.extra, theory.extra)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.05, 5))
def test_infonce_with_both_parts_is_itself_and_without_r_e_has_one_extra_gradient_for_all(seed, temperature):
    query, key, basic = nodes(seed)
    distance = InfoNce(temperature=temperature)

    def term(**kept):
        return gradient(lambda q, k: Decomposed(**kept).term(distance, q, k, basic), query, key)

    assert torch.allclose(term(), gradient(distance, query, key), atol=1e-12)
    weights = decomposition.infonce_weights(query, key, temperature)
    o_e = -(weights @ unit(key)).mean(dim=0)
    expected = tangential((unit(key) + o_e) / temperature, query)
    assert torch.allclose(term(residual=False), expected, atol=1e-12)
    assert torch.allclose(
        term(center=False, residual=False), gradient(cosine, query, key) / temperature, atol=1e-12
    )


def test_pull_is_not_rounded_by_autocast_or_half_precision():
    query, key, basic = nodes(0, torch.float32)
    for distance in PULLING:
        exact = distance.pull(query, key, basic)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(distance.pull(query, key, basic).extra, exact.extra)
        half = distance.pull(*(x.bfloat16() for x in (query, key, basic)))
        assert half.full.dtype == torch.float32


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_a_high_temperature_makes_infonce_the_simple_contrastive_loss(seed):
    query, key, _ = nodes(seed)
    hot = 1e7
    scaled = gradient(InfoNce(temperature=hot), query, key) * hot * B / (B - 1)
    assert (scaled - gradient(SimpleContrastive(), query, key)).abs().max() < 1e-6
    value = (InfoNce(temperature=hot)(query, key).item() - math.log(B)) * hot * B / (B - 1)
    assert value == pytest.approx(SimpleContrastive()(query, key).item(), abs=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_the_triplets_mean_over_all_negatives_is_the_simple_contrastive_loss(seed):
    query, key, _ = nodes(seed)
    total = 0.0
    for step in range(1, B):  # a ring on which the image before i is image i - step
        ring = [step * j % B for j in range(B)]
        total += Triplet()(query[ring], key[ring]).item()
    assert total / (B - 1) == pytest.approx(SimpleContrastive()(query, key).item(), abs=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), shift=st.integers(0, B))
def test_triplet_sees_the_order_of_the_images_as_a_ring(seed, shift):
    query, key, _ = nodes(seed)
    rolled = Triplet()(query.roll(shift, 0), key.roll(shift, 0)).item()
    assert rolled == pytest.approx(Triplet()(query, key).item(), abs=1e-12)
    swapped = [1, 0, *range(2, B)]
    assert Triplet()(query[swapped], key[swapped]).item() != pytest.approx(rolled, abs=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.05, 5))
def test_nt_xent_is_symmetric_and_has_more_negatives_than_infonce(seed, temperature):
    query, key, _ = nodes(seed)
    loss = NtXent(temperature=temperature)
    assert loss(query, key).item() == pytest.approx(loss(key, query).item(), rel=1e-12)
    both = [InfoNce(temperature=temperature)(*order).item() for order in ((query, key), (key, query))]
    assert loss(query, key).item() > sum(both) / 2


def test_full_collapse_costs_the_logarithm_of_the_candidates():
    x = torch.ones(B, 4, dtype=torch.float64)
    assert InfoNce()(x, x).item() == pytest.approx(math.log(B))
    assert NtXent()(x, x).item() == pytest.approx(math.log(2 * B - 1))
    assert SimpleContrastive()(x, x).item() == pytest.approx(0, abs=1e-12)
