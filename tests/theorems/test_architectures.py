"""The architectures of Zhang et al. 2022 against their pseudocode, written out: Algorithms 2, 3 and 4."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from stopgrad.method import Method
from stopgrad.parts.pairing import CROSS_VIEW, INVERSE, MIRROR, SYMMETRIC
from stopgrad.parts.predictors import Identity, Linear, Mlp


def d(p, z):
    """Algorithm 3's D: negative cosine similarity with a stop-gradient on z."""
    return -(normalize(p, dim=1) * normalize(z.detach(), dim=1)).sum(dim=1).mean()


def d_cosine(z, p):
    """Algorithm 2's D_cosine: without one."""
    return -(normalize(z, dim=1) * normalize(p, dim=1)).sum(dim=1).mean()


def mirror(f, h, h_inv, x_a, x_b):
    z_a, z_b = f(x_a), f(x_b)
    p_b, p_a = h(z_b.detach()), h(z_a.detach())
    return {"L": d_cosine(z_a, p_b) / 2 + d_cosine(z_b, p_a) / 2}


def symmetric(f, h, h_inv, x_a, x_b):
    p_a, p_b = h(f(x_a)), h(f(x_b))
    return {"L": d(p_a, p_b) / 2 + d(p_b, p_a) / 2}


def inverse(f, h, h_inv, x_a, x_b):
    """With the 1/2 that they leave out before the second half of L_enc."""
    z_a, z_b = f(x_a), f(x_b)
    p_a, p_b = h(z_a), h(z_b)
    d_p_a, d_p_b = h(z_a.detach()), h(z_b.detach())
    inv_p_a, inv_p_b = h_inv(p_a.detach()), h_inv(p_b.detach())
    return {
        "L_pred": d(d_p_a, z_b) / 2 + d(d_p_b, z_a) / 2,
        "L_inv_pred": d(inv_p_a, z_a) / 2 + d(inv_p_b, z_b) / 2,
        "L_enc": d(p_a, h_inv(p_b)) / 2 + d(p_b, h_inv(p_a)) / 2,
    }


def simsiam(f, h, h_inv, x_a, x_b):
    z_a, z_b = f(x_a), f(x_b)
    return {"L": d(h(z_a), z_b) / 2 + d(h(z_b), z_a) / 2}


ALGORITHMS = {
    "simsiam": (CROSS_VIEW, simsiam),
    "mirror": (MIRROR, mirror),
    "symmetric": (SYMMETRIC, symmetric),
    "inverse": (INVERSE, inverse),
}


def by_hand(algorithm, learner, views):
    """The losses of the pseudocode for a copy of the learner's networks, and that copy."""
    own = copy.deepcopy(learner)
    return algorithm(own.online, own.predictor, own.inverse, *views), own


@pytest.mark.parametrize("predictor", [Linear(), Mlp(hidden=8)], ids=lambda p: p.kind)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_is_the_algorithm(name, predictor, build, draw, gradients):
    pairing, algorithm = ALGORITHMS[name]
    learner = build(Method(predictor=predictor, pairing=pairing), final_bn="plain")
    losses, own = by_hand(algorithm, learner, draw())
    expected = sum(losses.values())
    loss = learner(draw()).loss
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-13)
    found, by_pseudocode = gradients(loss, learner), gradients(expected, own)
    assert found.keys() == by_pseudocode.keys()
    assert any(key.startswith("inverse.") for key in found) == (name == "inverse")
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, by_pseudocode[key], rtol=1e-9, atol=1e-13, msg=key)
        assert gradient.abs().max() > 1e-6, f"{key} learns nothing"


def test_mirror_trains_the_encoder_past_the_predictor(build, draw, gradients):
    """The encoder through z alone, the predictor from sg(z) alone."""
    learner = build(Method(predictor=Mlp(hidden=8), pairing=MIRROR))
    z_a, z_b = (learner.online(x) for x in draw())
    p_a, p_b = (learner.predictor(z).detach() for z in (z_a, z_b))
    encoder = gradients(d_cosine(z_a, p_b) / 2 + d_cosine(z_b, p_a) / 2, learner)
    p_a, p_b = (learner.predictor(z.detach()) for z in (z_a, z_b))
    predictor = gradients(d_cosine(z_a.detach(), p_b) / 2 + d_cosine(z_b.detach(), p_a) / 2, learner)
    for key, gradient in gradients(learner(draw()).loss, learner).items():
        alone, other = (predictor, encoder) if key.startswith("predictor.") else (encoder, predictor)
        torch.testing.assert_close(gradient, alone[key], rtol=1e-9, atol=1e-13, msg=key)
        assert not other[key].any()


def test_each_network_learns_from_its_own_losses(build, draw, gradients):
    """h_inv from L_inv_pred alone, h from L_pred and L_enc, the encoder from L_enc alone."""
    learner = build(Method(predictor=Mlp(hidden=8), pairing=INVERSE), final_bn="plain")
    losses, own = by_hand(inverse, learner, draw())
    parts = {name: gradients(loss, own) for name, loss in losses.items()}
    sources = {"inverse": {"L_inv_pred"}, "predictor": {"L_pred", "L_enc"}}
    for key, gradient in gradients(learner(draw()).loss, learner).items():
        expected = sources.get(key.partition(".")[0], {"L_enc"})
        assert {name for name, part in parts.items() if part[key].abs().max() > 1e-12} == expected, key
        torch.testing.assert_close(
            gradient, sum(parts[name][key] for name in expected), rtol=1e-9, atol=1e-13
        )


def test_the_symmetric_predictor_is_the_naive_network_with_a_deeper_projector(build, draw, gradients):
    """Why it collapses like one (their section 2.3)."""
    learner = build(Method(predictor=Linear(), pairing=SYMMETRIC))
    naive = copy.deepcopy(learner)
    naive.method = Method(predictor=Identity())
    naive.projector = torch.nn.Sequential(naive.projector, naive.predictor)
    naive.predictor = torch.nn.Identity()
    found, expected = (list(gradients(x(draw()).loss, x).values()) for x in (learner, naive))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
