"""RAFT is BYOL' with the predictor's sign turned, through the whole of training (Shi et al.)."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.errors import UsageError
from stopgrad.method import Method
from stopgrad.parts.pairing import raft_pairs
from stopgrad.parts.predictors import Identity, Linear, Mlp
from stopgrad.parts.target import Ema
from stopgrad.theory.raft import losses, negated

A, B = 0.8, 0.3
PREDICTORS = {
    "linear": Linear(),
    "linear with bias": Linear(bias=True),
    "mlp": Mlp(hidden=8),
    "mlp without normalisation": Mlp(hidden=8, bn=False),
}
positive = st.floats(0.05, 5)
seeds = st.integers(0, 2**31)


def method(a, b, predictor=None):
    """BYOL' for b < 0."""
    return Method(
        target=Ema(tau=0.9),
        predictor=predictor or Identity(),
        pairing=raft_pairs(a, b),
        distance="squared-l2",
    )


def twins(build, predictor, a=A, b=B):
    """A learner by BYOL', and the same by RAFT with the predictor's sign turned."""
    prime = build(method(a, -b, predictor))
    raft = copy.deepcopy(prime)
    raft.method, raft.predictor = method(a, b, predictor), negated(prime.predictor)
    return prime, raft


@pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=PREDICTORS)
@pytest.mark.parametrize(("a", "b"), [(1, 1), (A, B), (0.1, 4)])
def test_raft_of_the_negated_predictor_is_byol_prime_less_4b(predictor, a, b, build, draw, gradients):
    prime, raft = twins(build, predictor, a, b)
    both = [learner(draw()).loss for learner in (prime, raft)]
    assert both[1].item() == pytest.approx(both[0].item() - 4 * b, abs=1e-12)
    expected, found = (gradients(loss, learner) for loss, learner in zip(both, (prime, raft), strict=True))
    last = [name for name in found if name.startswith("predictor.")][-1].rpartition(".")[0]
    for name, gradient in found.items():
        sign = -1 if name.startswith(last) else 1
        torch.testing.assert_close(gradient, sign * expected[name], rtol=1e-9, atol=1e-12, msg=name)


@given(positive, positive, seeds)
def test_the_identity_holds_for_any_vectors(a, b, seed):
    generator = torch.Generator().manual_seed(seed)
    z, p, t = torch.randn(3, 2, 7, 5, dtype=torch.float64, generator=generator)
    prime, raft = method(a, -b).loss(z, p, t), method(a, b).loss(z, p, t)
    terms = losses(*p, *t)
    torch.testing.assert_close((prime, raft), (terms.byol_prime(a, b), terms.raft(a, b)))
    assert float(method(a, b).loss(z, -p, t)) == pytest.approx(float(prime) - 4 * b, abs=1e-12 * (1 + a + b))


def train(learner, draw, steps=50):
    """The weights after Adam's steps on fresh batches, the target's among them."""
    optimizer = torch.optim.Adam([w for w in learner.parameters() if w.requires_grad], lr=3e-3)
    for step in range(steps):
        nodes = learner(draw(seed=step))
        optimizer.zero_grad()
        nodes.loss.backward()
        optimizer.step()
        learner.after_step(nodes, step / steps)
    return {name: w.detach() for name, w in learner.named_parameters()}


def distance(first, second):
    """The largest difference of any weight outside the predictor."""
    return max(float((first[n] - second[n]).abs().max()) for n in first if not n.startswith("predictor."))


@pytest.mark.parametrize("predictor", [Linear(), Mlp(hidden=8)], ids=lambda p: p.kind)
def test_both_train_the_same_encoder_and_target(predictor, build, draw):
    prime, raft = twins(build, predictor)
    before = {name: w.detach().clone() for name, w in prime.named_parameters()}
    first, second = train(prime, draw), train(raft, draw)
    assert distance(first, before) > 0.03
    assert distance(first, second) < 1e-9
    mirrored = dict(negated(raft.predictor).named_parameters(prefix="predictor"))
    for name, weight in mirrored.items():
        torch.testing.assert_close(weight, first[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("predictor", [Linear(), Identity()], ids=lambda p: p.kind)
def test_from_one_start_without_a_sign_to_turn_they_part(predictor, build, draw):
    first, second = (train(build(method(A, b, predictor)), draw, steps=10) for b in (-B, B))
    assert distance(first, second) > 0.01


def test_no_predictor_has_no_twin(build):
    with pytest.raises(UsageError, match="predictor"):
        twins(build, Identity())


byol = Method(target=Ema(), distance="squared-l2")


@given(positive, positive, seeds, st.floats(0.01, 2), st.integers(2, 6))
def test_byol_prime_bounds_byol(a, b, seed, spread, dim):
    """Pair by pair, for the symmetrised L_BYOL."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(dim, dtype=torch.float64, generator=generator)
    rows = base + spread * torch.randn(6, 1, dim, dtype=torch.float64, generator=generator)
    z, p, t = rows.chunk(3)
    bound = (1 / a + 1 / b) * method(a, -b).loss(z, p, t)
    assert byol.loss(z, p, t) <= bound * (1 + 1e-12)
