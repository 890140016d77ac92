"""The trained twin: one step is the flow's Euler step, many steps are the flow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stopgrad.errors import UsageError
from stopgrad.parts.distances import Euclidean
from stopgrad.parts.predictors import Identity, Linear
from stopgrad.parts.target import Ema, Same
from stopgrad.theory.flow import Flow
from stopgrad.theory.sgd import learner_of, method_of, optimizer_of, train
from stopgrad.theory.statistics import Moments, gaussian_views
from stopgrad.training.optimizer import OptimizerSettings, PredictorOptimizerSettings, build_optimizer

SAMPLES = 2**16


def rotated(values, seed):
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    matrix = (turn * np.array(values)) @ turn.T
    return (matrix + matrix.T) / 2


def some_flow(seed=0, n2=4, **changes):
    random = np.random.default_rng(seed)
    W_p = 0.4 * np.eye(n2) + 0.1 * random.standard_normal((n2, n2))
    W = 0.7 * random.standard_normal((n2, 4))
    start = {"X": rotated([3, 2, 1.5, 1], 1), "X_prime": rotated([0.6, 0.4, 0.3, 0.2], 2), "W": W,
             "W_p": (W_p + W_p.T) / 2, "W_a": 0.8 * W, "beta": 0.5, "eta": 0.05}  # fmt: skip
    return Flow(**{**start, **changes})


def of_sample(flow, x1, x2):
    """The flow of the sample's own moments."""
    moments = Moments.empty(x1.shape[1])
    moments.update(x1, x2)
    return replace(flow, X=moments.X, X_prime=moments.X_prime)


def misses(path, flow):
    """Largest relative difference of any eigenvalue of F and W_p from the flow's, at any time."""
    exact = flow.trajectory(path.t)
    mine = replace(path, flow=flow)
    return max(
        np.abs(getattr(mine, name) / getattr(exact, name) - 1).max()
        for name in ("eigenvalues_F", "eigenvalues_W_p")
    )


@pytest.mark.parametrize("predictor", ["linear", "symmetric", "none", "frozen"])
@pytest.mark.parametrize(("target", "stop_gradient"), [("ema", True), ("same", True), ("same", False)])
def test_a_step_is_eulers_step_of_the_samples_flow(predictor, target, stop_gradient):
    lr = 0.02
    flow = some_flow(
        3, 3, predictor=predictor, target=target, stop_gradient=stop_gradient, alpha_p=2.5, eta_p=0.3
    )
    x1, x2 = gaussian_views(flow.X, flow.X_prime, 50, 0)
    W, W_p, W_a = of_sample(flow, x1, x2).start
    dW, dW_p, _ = of_sample(flow, x1, x2).rates(W, W_p, W_a)
    path = train(flow, x1, x2, lr, lr=lr, points=2)
    np.testing.assert_allclose(path.t, [0, lr])
    np.testing.assert_allclose(path.W, [W, W + lr * dW], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(path.W_p, [W_p, W_p + lr * dW_p], rtol=1e-12, atol=1e-14)
    moved = path.W[1] if target == "same" else W_a + lr * flow.beta * (path.W[1] - W_a)
    np.testing.assert_allclose(path.W_a, [W_a, moved], rtol=1e-12, atol=1e-14)


# BYOL; SimSiam with a fast symmetric predictor; no stop-gradient, the decay of a parameter group
SETTINGS = {
    "byol": {"alpha_p": 1.0},
    "simsiam-symmetric": {"alpha_p": 4.0, "target": "same", "predictor": "symmetric", "eta": 0.1},
    "no-stop-gradient": {"alpha_p": 2.0, "target": "same", "stop_gradient": False, "eta_p": 0.1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_trained_network_follows_the_population_within_two_percent(name):
    flow = some_flow(5, **SETTINGS[name])
    x1, x2 = gaussian_views(flow.X, flow.X_prime, SAMPLES, seed=0)
    path = train(flow, x1, x2, 0.8, lr=1e-3, batch_size=SAMPLES // 16, points=17)
    exact = flow.trajectory(path.t)
    travelled = np.abs(exact.eigenvalues_F[-1] / exact.eigenvalues_F[0] - 1)
    assert travelled.max() > 0.2
    assert misses(path, flow) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_so_does_one_trained_for_long_and_its_own_moments_better(name):
    flow = some_flow(5, **SETTINGS[name])
    x1, x2 = gaussian_views(flow.X, flow.X_prime, SAMPLES, seed=0)
    path = train(flow, x1, x2, 3.0, lr=1e-3, batch_size=SAMPLES // 16)
    assert misses(path, of_sample(flow, x1, x2)) < 0.01
    # where eigenvalues decay for long (here 200 times), the error that the sample makes in their rate adds up
    assert misses(path, flow) < (0.1 if name == "no-stop-gradient" else 0.02)


def test_on_the_samples_own_moments_only_the_steps_are_left_and_shrink_with_lr():
    flow = some_flow(6)
    x1, x2 = gaussian_views(flow.X, flow.X_prime, 64, seed=0)
    own = of_sample(flow, x1, x2)
    coarse, fine = (misses(train(flow, x1, x2, 0.5, lr=lr, points=6), own) for lr in (1e-2, 1e-3))
    assert fine < 2e-3
    assert 8 < coarse / fine < 12
    assert misses(train(flow, x1, x2, 0.5, lr=1e-3, points=6), flow) > 10 * fine


def test_batches_follow_each_other_in_the_order_of_the_pairs():
    flow = some_flow(7)
    x1, x2 = gaussian_views(flow.X, flow.X_prime, 7, seed=0)
    start = flow
    for first in (0, 3, 0):
        rows = slice(first, first + 3)
        step = train(start, x1[rows], x2[rows], 0.01, lr=0.01, points=2)
        start = replace(flow, W=step.W[1], W_p=step.W_p[1], W_a=step.W_a[1])
    path = train(flow, x1, x2, 0.03, lr=0.01, batch_size=3, points=2)
    np.testing.assert_allclose(path.W[1], start.W, rtol=1e-13)
    np.testing.assert_allclose(path.W_a[1], start.W_a, rtol=1e-13)


def test_the_times_are_whole_steps():
    flow = some_flow(8)
    x1, x2 = gaussian_views(flow.X, flow.X_prime, 4, seed=0)
    np.testing.assert_allclose(
        train(flow, x1, x2, 0.01, lr=1e-3, points=5).t, np.array([0, 2, 5, 8, 10]) / 1e3
    )
    assert len(train(flow, x1, x2, 0.003, lr=1e-3, points=50).t) == 4


@pytest.mark.parametrize("decay", ["theory", "group"])
@pytest.mark.parametrize("target", ["ema", "same"])
def test_the_optimiser_is_the_trainers(decay, target):
    alpha_p, eta, lr = 3.0, 0.2, 0.01
    flow = some_flow(
        9, alpha_p=alpha_p, eta=eta, target=target, eta_p=alpha_p * eta if decay == "group" else None
    )
    learner = learner_of(flow, lr)
    own = PredictorOptimizerSettings(lr_scale=alpha_p, decay=decay)
    trainers = build_optimizer(
        OptimizerSettings(lr=lr, momentum=0, weight_decay=eta, predictor=own), learner
    ).param_groups
    mine = optimizer_of(flow, learner, lr).param_groups
    assert len(mine) == len(trainers) == 2
    for one, other in zip(mine, trainers, strict=True):
        assert [id(w) for w in one["params"]] == [id(w) for w in other["params"]]
        assert one["lr"] == pytest.approx(other["lr"])
        assert one["weight_decay"] == pytest.approx(other["weight_decay"])
        assert one["momentum"] == other["momentum"] == 0


def test_the_method_is_made_of_the_packages_parts():
    byol = method_of(some_flow(), 1e-3)
    assert (byol.target, byol.predictor, byol.distance) == (Ema(tau=0.9995), Linear(), Euclidean())
    naive = method_of(some_flow(target="same", stop_gradient=False, predictor="none"), 1e-3)
    assert (naive.target, naive.predictor) == (Same(stop_gradient=False), Identity())
    assert method_of(some_flow(predictor="symmetric"), 1e-3).predictor == Linear(symmetric=True)


def test_the_flow_it_was_made_from_is_left_alone():
    flow = some_flow(10)
    before = [block.copy() for block in flow.start]
    x1, x2 = gaussian_views(flow.X, flow.X_prime, 8, seed=0)
    path = train(flow, x1, x2, 0.1, lr=0.01)
    assert all((old == new).all() for old, new in zip(before, flow.start, strict=True))
    assert np.abs(path.W[1] - path.W[0]).max() > 0


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"predictor": "optimal"}, {}, "predictor: 'optimal' has no part"),
        ({"beta": 300.0}, {"lr": 0.01}, "lr: 0.01 is above 1 / beta"),
        ({}, {"lr": 0}, "lr: 0 is outside"),
        ({}, {"t_end": -1}, "t_end: -1 is outside"),
        ({}, {"batch_size": 9}, "batch_size: 9 is outside its domain \\[1, 8\\]"),
        ({}, {"batch_size": 0}, "batch_size: 0 is outside"),
        ({}, {"points": 1}, "points: 1 is outside"),
        ({}, {"x1": torch.ones(8, 3)}, "views: of shape \\(B, 4\\) are needed"),
        ({}, {"x1": torch.ones(7, 4)}, "views: x1 has shape \\(7, 4\\), x2 has \\(8, 4\\)"),
    ],
)
def test_bad_input_is_one_line_that_names_the_argument(changes, options, message):
    arguments = {"x1": torch.ones(8, 4), "x2": torch.ones(8, 4), "t_end": 0.01, **options}
    with pytest.raises(UsageError, match=f"^{message}") as error:
        train(some_flow(**changes), **arguments)
    assert "\n" not in str(error.value)
