"""The bound, the sign identity for the project's predictors through training, and the fixed encoders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stopgrad.errors import UsageError
from stopgrad.parts.predictors import Identity, Linear, Mlp, Spectral
from stopgrad.theory.nonisotropic import additive_scrambling, fixed_point
from stopgrad.theory.raft import bound_constant, fixed_encoders, losses, negated


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


positive = st.floats(0.05, 5)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(a=positive, b=positive, seed=st.integers(0, 10_000), near=st.floats(0.01, 2))
def test_bound_holds_for_every_pair(a, b, seed, near):
    base = draw(1, 1, 3, seed=seed)
    p1, p2, t1, t2 = base + near * draw(4, 1, 3, seed=seed + 1)
    terms = losses(p1, p2, t1, t2)
    assert terms.byol <= bound_constant(a, b) * terms.byol_prime(a, b) * (1 + 1e-12)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.0, 0.1), (0.3, 2.0)])
def test_bound_is_sharp(a, b):
    # nearly collinear: p1 - p2 = -2 x, p2 - t2 and p1 - t1 in the ratio a / b of it
    angles = 1e-3 * np.array([-1, 1, -1 - 2 * a / b, 1 + 2 * a / b])
    rows = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], 1))[:, None]
    terms = losses(*rows)
    ratio = float(terms.byol / terms.byol_prime(a, b))
    assert ratio == pytest.approx(bound_constant(a, b), rel=1e-4)
    if (a, b) == (1.0, 0.1):
        assert ratio > a + b


def predictors():
    torch.manual_seed(0)
    built = [parts.build(4) for parts in (Linear(), Mlp(hidden=6), Spectral())]
    built.append(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
    return [predictor.double().requires_grad_(False) for predictor in built]


@pytest.mark.parametrize("predictor", predictors(), ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.7, 0.2)])
def test_raft_of_the_negated_predictor_is_byol_prime_less_4b(predictor, a, b):
    z1, z2, t1, t2 = draw(4, 9, 4)
    twin = negated(predictor)
    byol = losses(predictor(z1), predictor(z2), t1, t2).byol_prime(a, b)
    raft = losses(twin(z1), twin(z2), t1, t2).raft(a, b)
    assert float(raft) == pytest.approx(float(byol) - 4 * b, abs=1e-12)
    assert (twin(z1) + predictor(z1)).abs().max() < 1e-12


def test_both_train_the_same_encoder():
    torch.manual_seed(1)
    encoder = nn.Linear(5, 4).double()
    predictor = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    ends = []
    for name in ("byol_prime", "raft"):
        copies = (
            nn.Linear(5, 4).double(),
            negated(predictor) if name == "raft" else negated(negated(predictor)),
        )
        copies[0].load_state_dict(encoder.state_dict())
        optimizer = torch.optim.SGD([p for c in copies for p in c.parameters()], 0.1, momentum=0.9)
        for step in range(20):
            x1, x2, t1, t2 = draw(4, 6, 5, seed=step)
            terms = losses(copies[1](copies[0](x1)), copies[1](copies[0](x2)), t1[:, :4], t2[:, :4])
            optimizer.zero_grad()
            getattr(terms, name)(0.8, 0.3).backward()
            optimizer.step()
        ends.append(copies)
    assert torch.allclose(ends[0][0].weight, ends[1][0].weight, atol=1e-12)
    assert torch.allclose(ends[0][1][2].weight, -ends[1][1][2].weight, atol=1e-12)
    assert not torch.allclose(ends[0][0].weight, encoder.weight)


def test_without_a_linear_end_there_is_no_twin():
    for predictor in (Identity().build(4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))):
        with pytest.raises(UsageError, match="predictor"):
            negated(predictor)


def test_fixed_encoders_exist_for_shared_eigenvalues_only():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4, 4))
    sigma_d, sigma_s = additive_scrambling(base @ base.T, np.diag([1.0, 2, 3, 4]))
    w_p, w = fixed_point(sigma_d, sigma_s, (0, 2), rng.normal(size=(2, 2)))
    basis = fixed_encoders(w_p, sigma_d, sigma_s)
    assert basis.shape == (2, 2, 4)
    for theta in basis:
        assert np.abs(w_p @ theta - theta @ sigma_d @ np.linalg.inv(sigma_s)).max() < 1e-10
    rest = w - sum((w * theta).sum() * theta for theta in basis)
    assert np.abs(rest).max() < 1e-10
    assert len(fixed_encoders(w_p + 0.01 * np.eye(2), sigma_d, sigma_s)) == 0
    # W = I and views without noise: every encoder is fixed
    assert len(fixed_encoders(np.eye(2), sigma_s, sigma_s)) == 8


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: bound_constant(0, 1), "a"),
        (lambda: bound_constant(1, -1), "b"),
        (lambda: fixed_encoders(np.eye(2), np.eye(2), np.eye(3)), "b"),
        (lambda: fixed_encoders(np.eye(2), np.eye(2), np.ones((2, 2))), "a"),
        (lambda: fixed_encoders([[1, 2]], np.eye(2), np.eye(2)), "w"),
    ],
)
def test_bad_input_is_one_line_that_names_the_argument(call, named):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(named)
    assert "\n" not in str(error.value)
