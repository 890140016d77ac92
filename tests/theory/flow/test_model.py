"""The matrix flow: gradients against autograd, trajectories against closed forms, Theorems 1 and 2."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from stopgrad.errors import UsageError
from stopgrad.theory.flow import (
    Flow,
    theorem2_matrix,
    theorem2_rate,
)
from stopgrad.theory.modes import Modes

TIMES = np.linspace(0, 5, 21)
PREDICTORS = ("linear", "symmetric", "none", "frozen", "optimal")
# (target, stop_gradient)
TARGETS = (("ema", True), ("same", True), ("same", False))
few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**31)


def covariance(random, n, scale):
    root = random.standard_normal((n, n))
    return scale * root @ root.T / n


def some_flow(seed=0, n1=4, n2=3, **changes):
    random = np.random.default_rng(seed)
    W_p = 0.5 * random.standard_normal((n2, n2))
    start = {
        "X": covariance(random, n1, 1.0),
        "X_prime": covariance(random, n1, 0.3),
        "W": 0.5 * random.standard_normal((n2, n1)),
        "W_p": W_p + W_p.T if changes.get("predictor") == "symmetric" else W_p,
        "W_a": 0.5 * random.standard_normal((n2, n1)),
        "alpha_p": 1.7, "beta": 0.6, "eta": 0.05,
    }  # fmt: skip
    return Flow(**{**start, **changes})


def norms(matrices):
    return np.linalg.norm(matrices, axis=(1, 2))


def finite_population(seed, count, n1):
    """Views in both orders, so that averages over them are exact moments of exchangeable views."""
    random = np.random.default_rng(seed)
    first = random.standard_normal((count, n1)) @ random.standard_normal((n1, n1))
    second = first + 0.7 * random.standard_normal((count, n1))
    x1, x2 = np.concatenate([first, second]), np.concatenate([second, first])
    X, sigma_s = x1.T @ x2 / len(x1), x1.T @ x1 / len(x1)
    return x1, x2, (X + X.T) / 2, sigma_s - (X + X.T) / 2


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize(("target", "stop_gradient"), TARGETS)
def test_rates_are_minus_the_gradients_of_the_loss(predictor, target, stop_gradient):
    x1, x2, X, X_prime = finite_population(3, 20, 4)
    flow = some_flow(
        1, X=X, X_prime=X_prime, predictor=predictor, target=target, stop_gradient=stop_gradient, eta_p=0.11
    )
    W, W_p, W_a = (torch.tensor(block, requires_grad=True) for block in flow.start)
    views = torch.from_numpy(x1), torch.from_numpy(x2)
    keys = views[1] @ (W if target == "same" else W_a).T
    keys = keys.detach() if stop_gradient else keys
    loss = 0.5 * (views[0] @ W.T @ W_p.T - keys).square().sum(dim=1).mean()
    loss.backward()
    dW, dW_p, dW_a = flow.rates(*flow.start)
    np.testing.assert_allclose(dW, -W.grad - flow.eta * W.detach(), rtol=1e-10)
    if predictor == "linear":
        np.testing.assert_allclose(dW_p, -1.7 * W_p.grad - 0.11 * W_p.detach(), rtol=1e-10)
    elif predictor == "symmetric":
        descent = -(W_p.grad + W_p.grad.T) / 2
        np.testing.assert_allclose(dW_p, 1.7 * descent - 0.11 * W_p.detach(), rtol=1e-10)
    else:
        assert not dW_p.any()
    if predictor == "optimal":
        assert W_p.grad.abs().max() < 1e-12
    expected = flow.beta * (W - W_a).detach() if target == "ema" else torch.zeros_like(W)
    np.testing.assert_allclose(dW_a, expected, rtol=1e-10)


def test_the_trajectory_solves_the_equations_as_another_solver_does():
    flow = some_flow(2, n1=3, n2=2)
    X, sigma_s = flow.X, flow.X + flow.X_prime

    def slopes(_, y):
        W, W_a = y[:6].reshape(2, 3), y[6:12].reshape(2, 3)
        W_p = y[12:].reshape(2, 2)
        dW_p = 1.7 * (-W_p @ W @ sigma_s + W_a @ X) @ W.T - 0.05 * W_p
        dW = W_p.T @ (-W_p @ W @ sigma_s + W_a @ X) - 0.05 * W
        return np.concatenate([part.ravel() for part in (dW, 0.6 * (W - W_a), dW_p)])

    y0 = np.concatenate([flow.W.ravel(), flow.W_a.ravel(), flow.W_p.ravel()])
    other = solve_ivp(slopes, (0, 5), y0, "LSODA", TIMES, rtol=1e-11, atol=1e-13).y.T
    mine = flow.trajectory(TIMES)
    np.testing.assert_allclose(mine.W, other[:, :6].reshape(-1, 2, 3), atol=1e-8)
    np.testing.assert_allclose(mine.W_a, other[:, 6:12].reshape(-1, 2, 3), atol=1e-8)
    np.testing.assert_allclose(mine.W_p, other[:, 12:].reshape(-1, 2, 2), atol=1e-8)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_without_predictor_the_encoder_decays_as_the_closed_form(stop_gradient):
    flow = some_flow(4, predictor="none", target="same", stop_gradient=stop_gradient)
    pull = (1 if stop_gradient else 2) * flow.X_prime + flow.eta * np.eye(4)
    expected = [flow.W @ expm(-t * pull) for t in TIMES]
    np.testing.assert_allclose(flow.trajectory(TIMES).W, expected, rtol=1e-9, atol=1e-11)


def test_without_predictor_a_moving_target_only_delays_the_collapse():
    flow = some_flow(5, predictor="none")
    one = np.eye(4)
    system = np.block([[-flow.X - flow.X_prime - 0.05 * one, 0.6 * one], [flow.X, -0.6 * one]])
    together = np.concatenate([flow.W, flow.W_a], axis=1)
    path = flow.trajectory(TIMES)
    expected = np.stack([together @ expm(t * system) for t in TIMES])
    np.testing.assert_allclose(np.concatenate([path.W, path.W_a], axis=2), expected, rtol=1e-9, atol=1e-11)
    assert np.abs(expm(2000 * system)).max() < 1e-6


def test_a_frozen_predictor_without_stop_gradient_follows_theorem_2_exactly():
    flow = some_flow(6, predictor="frozen", target="same", stop_gradient=False)
    H = theorem2_matrix(flow.W_p, flow.X, flow.X_prime, flow.eta)
    path = flow.trajectory(TIMES)
    for t, W in zip(TIMES, path.W, strict=True):
        expected = (expm(-t * H) @ flow.W.ravel(order="F")).reshape(flow.W.shape, order="F")
        np.testing.assert_allclose(W, expected, rtol=1e-8, atol=1e-11)
    assert (path.W_p == flow.W_p).all()


@few
@given(seed=seeds, eta=st.floats(0, 0.5), target=st.sampled_from(["ema", "same"]), n2=st.integers(1, 6))
def test_an_optimal_predictor_lets_nothing_grow(seed, eta, target, n2):
    flow = some_flow(seed, n2=n2, predictor="optimal", target=target, eta=eta)
    path = flow.trajectory(TIMES)
    decay = np.exp(-2 * eta * TIMES)[:, None, None]
    expected = decay * (flow.W @ flow.W.T)
    np.testing.assert_allclose(path.W @ path.W.swapaxes(1, 2), expected, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("n2", [3, 6])
def test_the_optimal_predictor_is_the_least_squares_solution_of_least_norm(n2):
    x1, x2, X, X_prime = finite_population(8, 30, 4)
    flow = some_flow(8, n2=n2, X=X, X_prime=X_prime, predictor="optimal")
    W, W_p, W_a = flow.start
    expected = np.linalg.lstsq(x1 @ W.T, x2 @ W_a.T, rcond=1e-10)[0].T
    np.testing.assert_allclose(W_p, expected, atol=1e-10)


@pytest.mark.parametrize("target", ["ema", "same"])
def test_one_neuron_is_a_mode(target):
    t = np.linspace(0, 30, 31)
    flow = Flow([[1.0]], [[0.3]], [[0.4]], [[0.2]], [[0.1]], 1.5, 0.5, 0.03, target=target)
    fixed = 1.0 if target == "same" else None
    mode = Modes(0.2, 0.16, 0.25, 1.5, 0.5, 0.03, 0.3, fixed).trajectory(t)
    path = flow.trajectory(t)
    np.testing.assert_allclose(path.W_p[:, 0, 0], mode.p, rtol=1e-9)
    np.testing.assert_allclose(path.F[:, 0, 0], mode.s, rtol=1e-9)
    np.testing.assert_allclose(path.W_a[:, 0, 0] / path.W[:, 0, 0], mode.tau, rtol=1e-9)


@few
@given(
    seed=seeds, name=st.sampled_from(TARGETS), predictor=st.sampled_from(["linear", "symmetric", "optimal"])
)
def test_the_flow_turns_with_its_representation(seed, name, predictor):
    target, stop_gradient = name
    flow = some_flow(seed, predictor=predictor, target=target, stop_gradient=stop_gradient)
    turn = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((3, 3)))[0]
    turned_W_p = turn @ flow.W_p @ turn.T
    turned = replace(flow, W=turn @ flow.W, W_p=(turned_W_p + turned_W_p.T) / 2 if predictor == "symmetric"
                     else turned_W_p, W_a=turn @ flow.W_a)  # fmt: skip
    path, other = flow.trajectory(TIMES), turned.trajectory(TIMES)
    np.testing.assert_allclose(other.W, turn @ path.W, atol=1e-9)
    np.testing.assert_allclose(other.W_p, turn @ path.W_p @ turn.T, atol=1e-8)
    np.testing.assert_allclose(other.eigenvalues_F, path.eigenvalues_F, atol=1e-8)
    np.testing.assert_allclose(other.commutator_norm, path.commutator_norm, atol=1e-8)


@few
@given(
    seed=seeds, target=st.sampled_from(["ema", "same"]), eta=st.floats(0, 1), alpha_p=st.floats(0.1, 10),
    n2=st.integers(1, 6),
)  # fmt: skip
def test_theorem_1_holds_where_it_applies(seed, target, eta, alpha_p, n2):
    flow = some_flow(seed, n2=n2, target=target, eta=eta, alpha_p=alpha_p)
    drift = flow.trajectory(np.linspace(0, 15, 31)).theorem1_drift
    assert drift.shape == (31,)
    assert drift.max() < 1e-9


def test_theorem_1_is_about_one_decay_on_both_layers():
    flow = some_flow(9, alpha_p=4.0, eta=0.1)
    group = replace(flow, eta_p=0.4)  # a parameter group with alpha_p times the learning rate
    assert flow.decay_p == 0.1
    assert group.trajectory(TIMES).theorem1_drift is None
    gap = replace(group.trajectory(TIMES), flow=flow).theorem1_drift
    assert gap[1:].min() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [{"predictor": name} for name in PREDICTORS[1:]]
    + [{"eta_p": 0.2}, {"target": "same", "stop_gradient": False}],
)
def test_theorem_1_is_silent_elsewhere(changes):
    path = some_flow(10, **changes).trajectory(TIMES)
    assert path.theorem1_drift is None
    assert path.to_dict()["theorem1_drift"] is None


@few
@given(seed=seeds, n2=st.integers(1, 4), eta=st.floats(0, 1))
def test_theorem_2_gives_the_rates_and_bounds_every_eigenvalue(seed, n2, eta):
    flow = some_flow(seed, n2=n2, eta=eta, target="same", stop_gradient=False)
    H = theorem2_matrix(flow.W_p, flow.X, flow.X_prime, eta)
    dW = flow.rates(*flow.start)[0]
    np.testing.assert_allclose(-H @ flow.W.ravel(order="F"), dW.ravel(order="F"), atol=1e-12)
    assert np.linalg.eigvalsh(H)[0] >= theorem2_rate(flow.X_prime, eta) - 1e-12


def test_theorem_2_leaves_one_way_out():
    singular = np.diag([0.0, 1.0])
    assert theorem2_rate(singular, 0.0) == 0
    H = theorem2_matrix(np.eye(2), np.eye(2), singular, 0.0)
    assert np.linalg.eigvalsh(H)[0] == 0
    flow = Flow(np.eye(2), singular, np.eye(2), np.eye(2), eta=0, target="same", stop_gradient=False,
                predictor="frozen")  # fmt: skip
    np.testing.assert_allclose(flow.trajectory([0, 50]).W[1], np.diag([1, 0]), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    seed=seeds, name=st.sampled_from(TARGETS), predictor=st.sampled_from(PREDICTORS), eta=st.floats(0, 0.5)
)
def test_the_collapse_rate_bounds_the_encoder(seed, name, predictor, eta):
    target, stop_gradient = name
    flow = some_flow(seed, predictor=predictor, target=target, stop_gradient=stop_gradient, eta=eta)
    rate = flow.collapse_rate
    if not stop_gradient or (predictor == "none" and target == "same"):
        assert rate == pytest.approx(eta + np.linalg.eigvalsh(flow.X_prime)[0])
    size = flow.trajectory(TIMES).norm_W
    if rate:
        assert (size <= size[0] * np.exp(-rate * TIMES) * (1 + 1e-9)).all()


def test_stop_gradient_and_predictor_together_keep_the_encoder_alive():
    alive = some_flow(11, W_p=np.eye(3), target="same", eta=0.01)
    assert alive.collapse_rate == 0
    assert alive.trajectory([0, 60]).norm_W[1] > 0.5
    for changes in ({"stop_gradient": False}, {"predictor": "none"}):
        dead = replace(alive, **changes)
        assert dead.collapse_rate > 0
        assert dead.trajectory([0, 1000]).norm_W[1] < 1e-3


def test_views_with_negative_correlation_bound_the_rate_by_eta():
    flow = Flow(-0.4 * np.eye(2), np.eye(2), np.eye(2), -np.eye(2), eta=0.1, target="same",
                stop_gradient=False, predictor="frozen")  # fmt: skip
    assert flow.collapse_rate == 0.1
    H = theorem2_matrix(flow.W_p, flow.X, flow.X_prime, 0.1)
    assert 0.1 <= np.linalg.eigvalsh(H)[0] < theorem2_rate(flow.X_prime, 0.1)


def test_dense_output_is_as_exact_as_the_steps():
    flow = some_flow(12)
    fine = flow.trajectory(np.linspace(0, 5, 501))
    for i in (37, 250, 499):
        np.testing.assert_allclose(fine.W[i], flow.trajectory([0, fine.t[i]]).W[1], rtol=0, atol=1e-10)


def test_a_collapsed_encoder_is_followed_far_down():
    flow = some_flow(13, predictor="none", target="same", eta=2.0)
    W = flow.trajectory([0.0, 40.0]).W[1]
    expected = flow.W @ expm(-40 * (flow.X_prime + 2 * np.eye(4)))
    assert np.abs(expected).max() < 1e-35
    np.testing.assert_allclose(W, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_times_may_repeat_and_may_be_the_start_alone():
    flow = some_flow(14)
    path = flow.trajectory([0, 0, 1, 1])
    assert (path.W[0] == flow.W).all()
    assert (path.W[0] == path.W[1]).all()
    assert (path.W[2] == path.W[3]).all()
    assert (path.W[1] != path.W[2]).any()
    assert flow.trajectory([0.0]).W.shape == (1, 3, 4)


def test_diagnostics_are_what_they_say():
    path = some_flow(15, n1=3, n2=4).trajectory([0, 2])
    W, W_p = path.W[1], path.W_p[1]
    F = W @ path.flow.X @ W.T
    np.testing.assert_allclose(path.eigenvalues_F[1], np.linalg.eigvalsh(F), atol=1e-14)
    part = np.linalg.eigvals((W_p + W_p.T) / 2).real
    np.testing.assert_allclose(path.eigenvalues_W_p[1], np.sort(part), atol=1e-13)
    assert path.commutator_norm[1] == pytest.approx(np.sqrt(((F @ W_p - W_p @ F) ** 2).sum()))
    for name in ("W", "W_p", "W_a"):
        np.testing.assert_allclose(getattr(path, f"norm_{name}"), norms(getattr(path, name)))
    cosines = [abs(u @ W_p @ u) / np.linalg.norm(W_p @ u) for u in np.linalg.eigh(F)[1].T]
    np.testing.assert_allclose(path.alignments[1], cosines)
    assert path.alignment[1] == pytest.approx(np.mean(cosines))
    overlap = (W * path.W_a[1]).sum() / np.sqrt((W**2).sum() * (path.W_a[1] ** 2).sum())
    assert path.target_cosine[1] == pytest.approx(overlap)


def test_alignment_is_one_where_eigenspaces_are_shared():
    flow = Flow(np.diag([3.0, 2.0, 1.0]), np.eye(3), np.eye(3), np.diag([-1.0, 0.5, 0.0]))
    assert flow.trajectory([0]).alignment[0] == 1
    turned = replace(flow, W_p=np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]]))
    np.testing.assert_allclose(turned.trajectory([0]).alignments[0], [1, 0, 0], atol=1e-15)


def test_assumption_1_holds_along_a_proportional_target():
    flow = some_flow(16, predictor="none", X_prime=np.zeros((4, 4)), X=np.eye(4))
    path = replace(flow, W_a=0.3 * flow.W).trajectory(TIMES)
    np.testing.assert_allclose(path.target_cosine, 1, atol=1e-12)
    assert np.isnan(replace(flow, W_a=0 * flow.W).trajectory(TIMES).target_cosine[0])


BAD = {
    "X": [
        [[1, 2], [0, 1]], [[np.nan, 0], [0, 1]], [[1, 0]], [1, 0], "one", np.eye(3), [[-1, 0], [0, -1]],
        [[1, 0], [0]],
    ],
    "X_prime": [[[1, 2], [0, 1]], [[1, 0], [0, -0.1]], np.eye(3), [[np.inf, 0], [0, 1]]],
    "W": [[], [[np.nan, 0]], [[[1.0, 2.0]]], None],
    "W_p": [np.eye(3), np.ones((2, 1)), None, [[1, np.inf], [0, 1]]],
    "W_a": [np.ones((2, 3)), [[np.nan, 0], [0, 0]]],
    "alpha_p": [0, -1, np.nan, "much", None, [1.0, 2.0]],
    "beta": [-0.1, np.inf],
    "eta": [-1e-9, np.nan],
    "eta_p": [-1],
    "predictor": ["liner", None, 3],
    "target": ["online"],
    "stop_gradient": [0, "no", None],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_bad_input_is_one_line_that_names_the_argument(name, value):
    good = {"X": np.eye(2), "X_prime": 0.5 * np.eye(2), "W": np.eye(2), "W_p": np.eye(2)}
    Flow(**good)
    with pytest.raises(UsageError, match=rf"^{name}: ") as error:
        Flow(**{**good, name: value})
    assert "\n" not in str(error.value)


def test_a_symmetric_predictor_starts_symmetric():
    with pytest.raises(UsageError, match=r"^W_p: must be symmetric"):
        some_flow(0, predictor="symmetric", W_p=np.triu(np.ones((3, 3))))


def test_a_target_that_lags_stops_the_gradient():
    with pytest.raises(UsageError, match=r"^stop_gradient: .*'same'"):
        some_flow(0, stop_gradient=False)


@pytest.mark.parametrize("times", [[1, 2], [0, 2, 1], [0, np.nan], [], ["a"], [0, -1]])
def test_bad_times_are_named(times):
    with pytest.raises(UsageError, match=r"^t: "):
        some_flow().trajectory(times)


def test_a_flow_beyond_the_range_of_numbers_says_so():
    growing = Flow([[1.0]], [[0.0]], [[1e300]], [[0.5]], eta=0, predictor="frozen", target="same")
    with pytest.raises(UsageError, match=r"^t: the flow leaves the range of float64 near t = [67]"):
        growing.trajectory([0, 1e4])


@pytest.mark.parametrize("name", ["X", "X_prime"])
def test_theorem_2_checks_its_arguments(name):
    bad = {"X": np.eye(2), "X_prime": np.eye(2), name: -np.eye(2)}
    with pytest.raises(UsageError, match=rf"^{name}: "):
        theorem2_matrix(np.eye(2), **bad, eta=0)
    with pytest.raises(UsageError, match=r"^X_prime: "):
        theorem2_rate(-np.eye(2), 0)


def test_what_a_flow_does_not_use_may_stay_for_an_ablation():
    flow = some_flow(17)
    for changes in ({"predictor": "none"}, {"predictor": "optimal"}, {"target": "same"}):
        assert replace(flow, **changes).trajectory([0, 1]).W.shape == (2, 3, 4)
    assert all((a == b).all() for a, b in itertools.pairwise([flow.W_p, replace(flow, eta=1).W_p]))
