"""What reaches the query: values, gradients and settings of each rule; its theorems are in tests/theorems."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stopgrad.diagnostics import unit
from stopgrad.method import Method
from stopgrad.parts.distances import DISTANCES, Cosine, Euclidean, SquaredL2
from stopgrad.parts.gradient import (
    Decomposed,
    Exact,
    GradientSettings,
    StraightThrough,
    Tangential,
    straight_through,
    tangential,
)

RULES = [Exact(), StraightThrough(), Tangential(), Decomposed()]
seeds = st.integers(0, 2**31)


def nodes(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, 4, dtype=torch.float64, generator=generator)


@given(seeds)
def test_straight_through_is_the_prediction_with_the_gradient_of_the_projection(seed):
    z, p, upstream = nodes(seed, 3)
    z.requires_grad_()
    p.requires_grad_()
    value = straight_through(z, p)
    torch.testing.assert_close(value, p, rtol=0, atol=1e-14)
    by_z, by_p = torch.autograd.grad((value * upstream).sum(), (z, p), allow_unused=True)
    assert torch.equal(by_z, upstream)
    assert by_p is None


@given(seeds)
def test_tangential_is_a_projection(seed):
    x, upstream = nodes(seed, 2)
    x = unit(x).requires_grad_()
    once, twice = (
        torch.autograd.grad((rows * upstream).sum(), x)[0]
        for rows in (tangential(x), tangential(tangential(x)))
    )
    torch.testing.assert_close(once, twice)
    along = (upstream * x).sum(1, keepdim=True) * x
    torch.testing.assert_close(once + along, upstream)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("distance", [Cosine(), SquaredL2(), Euclidean()], ids=lambda d: d.kind)
@given(seed=seeds)
def test_no_rule_changes_the_number(rule, distance, seed):
    """But the decomposed one where it leaves something out."""
    query, key, basic = nodes(seed, 3)
    if (isinstance(rule, Decomposed) and distance.pull(query, key, basic) is None) or (
        isinstance(rule, Tangential) and not distance.normalises
    ):
        return
    torch.testing.assert_close(rule.term(distance, query, key, basic), distance(query, key))


@given(seeds)
def test_what_is_left_out_is_missing_from_the_gradient(seed):
    """By the raw query, through its normalisation."""
    query, key, basic = nodes(seed, 3)
    query.requires_grad_()
    keys, basics = unit(key), unit(basic)
    o_e = (keys - basics).mean(0)
    targets = {
        (True, True): keys,
        (True, False): basics + o_e,
        (False, True): keys - o_e,
        (False, False): basics,
    }
    for (center, residual), target in targets.items():
        term = Decomposed(center=center, residual=residual).term(Cosine(), query, key, basic)
        (found,) = torch.autograd.grad(term, query)
        across = target - (target * unit(query)).sum(1, keepdim=True) * unit(query)
        expected = -across / query.norm(dim=1, keepdim=True) / len(query)
        torch.testing.assert_close(found, expected.detach())


def test_names_stand_for_settings():
    read = TypeAdapter(GradientSettings).validate_python
    for rule in RULES:
        assert read(rule.kind) == read({"kind": rule.kind}) == rule
        assert type(rule).model_validate(rule.model_dump()) == rule
    with pytest.raises(ValidationError, match="'exact', 'straight-through', 'tangential', 'decomposed'"):
        read("approximate")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("kind", DISTANCES)
def test_a_rule_without_meaning_for_a_distance_is_refused_by_name(rule, kind):
    """Tangents are of a sphere, and o_e of a gradient that has an extra part."""
    distance = DISTANCES[kind]()
    probe = torch.eye(2)
    meaningless = (isinstance(rule, Tangential) and not distance.normalises) or (
        isinstance(rule, Decomposed) and distance.pull(probe, probe, probe) is None
    )
    if not meaningless:
        assert Method(gradient=rule, distance=distance).gradient == rule
        return
    with pytest.raises(ValidationError, match=f"gradient: '{rule.kind}' .* '{kind}'"):
        Method(gradient=rule, distance=distance)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Exact(), ""),
        (StraightThrough(), "z_v + sg(p_v - z_v)"),
        (Tangential(), "tangential part only"),
        (Decomposed(), "sg(basic gradient + o_e + r_e)"),
        (Decomposed(center=False), "sg(basic gradient + r_e)"),
        (Decomposed(residual=False, predictor_loss="separate"), "sg(basic gradient + o_e)>"),
        (Decomposed(center=False, residual=False), "sg(basic gradient)"),
        (Decomposed(predictor_loss="separate"), "the predictor learns from the exact loss"),
    ],
)
def test_it_says_what_is_not_exact(rule, words):
    text = rule.explain()
    assert words in text
    assert text == "" or (text.startswith(" Gradient: ") and text.endswith("."))
    assert Method(gradient=rule).explain().endswith(text)
    assert ("learns from the exact loss" in text) == (getattr(rule, "predictor_loss", "") == "separate")


def test_a_method_without_pairs_is_refused():
    with pytest.raises(ValidationError, match="pairing: needs at least one pair"):
        Method(pairing=())


def test_straight_through_keeps_a_small_prediction_beside_a_large_projection():
    z, p = torch.full((2, 3), 256.0, dtype=torch.bfloat16), torch.full((2, 3), 0.3, dtype=torch.bfloat16)
    torch.testing.assert_close(straight_through(z, p), p.float(), rtol=1e-4, atol=0)
