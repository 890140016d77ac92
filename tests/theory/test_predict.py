"""Predictions against the matrix equations, the modes' own solvers, and integrations written down here."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import nn

from stopgrad.catalog import lookup
from stopgrad.errors import UsageError
from stopgrad.method import Method
from stopgrad.parts.gradient import StraightThrough
from stopgrad.parts.pairing import Pair
from stopgrad.parts.predictors import Identity, Linear, Mlp, Spectral
from stopgrad.parts.target import Ema, Expectation, Memory, Same
from stopgrad.theory.basins import collapses
from stopgrad.theory.modes import Modes
from stopgrad.theory.predict import DataStatistics, NoClosedForm, Prediction, predict, run
from stopgrad.theory.statistics import Moments, gaussian_views

LR = 1e-3
SIMSIAM = Method(predictor=Linear(), distance="euclidean")
BYOL = SIMSIAM.but(target=Ema(tau=1 - 0.4 * LR))  # beta = 0.4
UNSTOPPED = SIMSIAM.but(target=Same(stop_gradient=False))
TEXT, CODE = Spectral(eps_form="text"), Spectral(eps_form="code")
DATA = DataStatistics([1.0, 0.5, 0.2], [1.5, 0.8, 1.0])


def found(method, data=DATA, **numbers) -> Prediction:
    prediction = predict(method, data, **{"lr": LR, **numbers})
    assert isinstance(prediction, Prediction), prediction
    return prediction


def rotation(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


class Matrices:
    """The matrix equations of a method, on data in a random basis, from a start in another."""

    def __init__(self, method, data, *, alpha_p=1.0, eta=0.0, p0=0.0, s0=1 / 3):
        n = len(data.l_d)
        self.method, self.alpha_p, self.eta, self.n = method, alpha_p, eta, n
        self.V, self.U = rotation(n, 1), rotation(n, 2)
        self.X = self.V @ np.diag(data.l_d) @ self.V.T
        self.sigma_s = self.V @ np.diag(data.l_s) @ self.V.T
        W_p, W = (self.U @ np.diag(v * np.ones(n)) for v in (p0, np.sqrt(s0)))
        self.start = [W @ self.V.T, W_p @ self.U.T, W @ self.V.T]

    def rates(self, _, y):
        W, W_p, W_a = y.reshape(3, self.n, self.n)
        predictor, same = self.method.predictor, isinstance(self.method.target, Same)
        W_a = W if same else W_a
        if isinstance(predictor, Identity):
            W_p = np.eye(self.n)
        if isinstance(predictor, Spectral):
            W_p = predictor.weight(torch.from_numpy(W @ self.sigma_s @ W.T)).numpy()
        gap = W_a @ self.X - W_p @ W @ self.sigma_s
        back = np.eye(self.n) if isinstance(self.method.gradient, StraightThrough) else W_p.T
        dW = back @ gap - self.eta * W
        if same and not self.method.target.stop_gradient:
            dW += W_p @ W @ self.X - W @ self.sigma_s
        dW_p = self.alpha_p * gap @ W.T - self.eta * W_p
        beta = 0.0 if same else (1 - self.method.target.tau) / LR
        return np.concatenate([dW.ravel(), dW_p.ravel(), beta * (W - W_a).ravel()])

    def at(self, t):
        """Singular values along the data's eigenvectors: p (n,) and w (n,), w_a (n,), at a time."""
        y = solve_ivp(self.rates, (0, t), np.concatenate([m.ravel() for m in self.start]), "DOP853",
                      rtol=1e-9, atol=1e-13).y[:, -1]  # fmt: skip
        W, W_p, W_a = y.reshape(3, self.n, self.n)
        turned = (self.U.T @ W @ self.V, self.U.T @ W_p @ self.U, self.U.T @ W_a @ self.V)
        for matrix in turned:  # modes stay apart
            assert np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-6
        w, p, w_a = (np.diag(matrix) for matrix in turned)
        return p, w, w if isinstance(self.method.target, Same) else w_a


@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        (SIMSIAM, {"eta": 0.05}),
        (SIMSIAM, {"eta": 0.05, "alpha_p": 4.0, "p0": -0.3}),
        (BYOL, {"eta": 0.05}),
        (BYOL, {"eta": 0.05, "p0": -0.7}),
        (UNSTOPPED, {"eta": 0.05, "p0": 0.4}),
        (SIMSIAM.but(predictor=Identity()), {"eta": 0.05}),
        (UNSTOPPED.but(predictor=Identity()), {"eta": 0.05}),
        (BYOL.but(predictor=Identity()), {"eta": 0.05}),
        (SIMSIAM.but(predictor=TEXT), {"eta": 0.05}),
        (BYOL.but(predictor=TEXT), {"eta": 0.05}),
        (SIMSIAM.but(predictor=TEXT, gradient="straight-through"), {"eta": 0.05}),
        (SIMSIAM.but(predictor=CODE), {"eta": 0.05}),
        (BYOL.but(predictor=CODE, gradient="straight-through"), {"eta": 0.05}),
        (UNSTOPPED.but(predictor=TEXT), {"eta": 0.05}),
    ],
)
def test_predictions_are_what_the_matrices_do(method, numbers):
    prediction = found(method, **numbers)
    matrices = Matrices(method, DATA, **numbers)
    p, w, _ = matrices.at(250.0)
    for i, mode in enumerate(prediction.modes):
        if mode.survives:
            assert (p[i], w[i] ** 2) == pytest.approx((mode.p, mode.s), rel=1e-4) or not learned(method)
            assert w[i] ** 2 == pytest.approx(mode.s, rel=1e-4)
        else:
            assert abs(w[i]) < 2e-4
            assert mode.s == 0
    assert prediction.collapses == (np.abs(w).max() < 2e-4)
    assert prediction.dimension == (np.abs(w) > 2e-4).sum()
    slowest = max(prediction.modes, key=lambda mode: mode.time)
    p, w, w_a = matrices.at(slowest.time)
    i = prediction.modes.index(slowest)
    if slowest.survives:
        gap = abs(w[i] / np.sqrt(slowest.s) - 1)
        gap = max(gap, abs(p[i] / slowest.p - 1)) if learned(method) else gap
    else:
        gap = max(abs(w[i]), abs(w_a[i])) * np.sqrt(3)
    assert gap == pytest.approx(0.1, rel=2e-3)


def learned(method):
    return isinstance(method.predictor, Linear)


def triplet(l_d, l_s, alpha_p, beta, eta, p0, s0, t):
    """p, w and w_a over time; beta None: the target is the online network."""

    def rates(_, y):
        p, w = y[:2]
        w_a = w if beta is None else y[2]
        pull = w_a * l_d - p * w * l_s
        return [alpha_p * pull * w - eta * p, p * pull - eta * w, (beta or 0) * (w - w_a)]

    start = [p0, np.sqrt(s0), np.sqrt(s0)]
    return solve_ivp(rates, (0, t[-1]), start, "DOP853", t, rtol=1e-9, atol=1e-13).y


@settings(max_examples=40, deadline=None)
@given(
    l_d=st.sampled_from([-0.6, 0.0, 0.3, 0.7, 1.0]),
    eta=st.floats(0.04, 0.3),
    p0=st.floats(-1.5, 1.5),
    s0=st.floats(0.001, 1.0),
    alpha_p=st.floats(0.3, 5.0),
    beta=st.one_of(st.none(), st.floats(0.1, 3.0)),
)
@example(l_d=0.7, eta=0.28125, p0=-1.296875, s0=1.0, alpha_p=0.5, beta=1.0625)  # w and w_a cross at 0.1
def test_modes_end_as_integration_ends(l_d, eta, p0, s0, alpha_p, beta):
    assume(abs(eta - l_d**2 / 4) > 0.003)  # where roots meet, modes creep
    method = SIMSIAM if beta is None else SIMSIAM.but(target=Ema(tau=1 - beta * LR))
    numbers = {"alpha_p": alpha_p, "eta": eta, "p0": p0, "s0": s0}
    (mode,) = found(method, DataStatistics([l_d], [1.0]), search=False, **numbers).modes
    assume(mode.time < 300)
    t = np.array([0.0, mode.time, 500.0]) if mode.time else np.array([0.0, 1e-9, 500.0])
    p, w, w_a = triplet(l_d, 1.0, alpha_p, beta, eta, p0, s0, t)
    assert mode.survives == (abs(w[-1]) > 1e-3)
    assert (p[-1], w[-1] ** 2) == pytest.approx((mode.p, mode.s), rel=1e-3, abs=1e-4)
    if mode.survives and mode.time:
        gap = max(abs(p[1] / mode.p - 1), abs(abs(w[1]) / np.sqrt(mode.s) - 1))
        assert gap == pytest.approx(0.1, rel=5e-3)
    elif mode.time:
        size = max(abs(w[1]), 0 if beta is None else abs(w_a[1]))
        assert size == pytest.approx(0.1 * np.sqrt(s0), rel=5e-3)


@settings(max_examples=25, deadline=None)
@given(
    noise=st.floats(0.0, 3.0),
    eta=st.one_of(st.just(0.0), st.floats(0.02, 0.4)),
    p0=st.floats(-2.0, 2.0),
    s0=st.floats(0.0, 1.0),
    alpha_p=st.floats(0.1, 10.0),
    beta=st.one_of(st.none(), st.floats(0.1, 3.0)),
)
def test_fates_are_those_of_the_basins(noise, eta, p0, s0, alpha_p, beta):
    method = SIMSIAM if beta is None else SIMSIAM.but(target=Ema(tau=1 - beta * LR))
    numbers = {"alpha_p": alpha_p, "eta": eta, "p0": p0, "s0": s0}
    prediction = found(method, DataStatistics([1.0], [1 + noise]), search=False, **numbers)
    target = {"fixed_tau": 1.0} if beta is None else {"beta": beta, "tau0": 1.0}
    assert prediction.collapses == collapses(Modes(sigma2=noise, **numbers, **target)).item()


@pytest.mark.parametrize("method", [SIMSIAM, BYOL])
def test_weight_decay_has_a_threshold(method):
    edge = max(1.0 / (4 * 1.5), 0.25 / (4 * 0.8), 0.04 / 4)
    assert not found(method, eta=edge * (1 - 1e-4)).collapses
    above = found(method, eta=edge * (1 + 1e-4))
    assert above.collapses
    assert above.cause == "eta"
    assert above.remedy["eta"] == pytest.approx(edge, rel=1e-3)
    assert (above.rate is None) == (method is BYOL)


def test_the_remedy_of_the_online_target_is_the_threshold_itself():
    assert found(SIMSIAM, eta=0.5).remedy == {"eta": 1.0 / (4 * 1.5)}


def test_rate_bounds_the_decay():
    prediction = found(SIMSIAM, eta=0.25, p0=0.5)
    matrices = Matrices(SIMSIAM, DATA, eta=0.25, p0=0.5)
    assert prediction.rate == pytest.approx(0.25 - 1 / 6)
    for t in (1.0, 5.0, 20.0):
        assert np.linalg.norm(matrices.at(t)[1]) <= np.exp(-prediction.rate * t) * 1.0000001


CAUSES = {
    "eta": (SIMSIAM, {"eta": 0.3}),
    "alpha_p": (SIMSIAM, {"eta": 0.01, "p0": -1.0}),
    "slow target": (BYOL, {"eta": 0.02, "p0": -1.0}),
    "no decay": (SIMSIAM, {"p0": 1.5, "alpha_p": 0.5}),
    "text": (SIMSIAM.but(predictor=TEXT), {"eta": 0.1, "s0": 2e-4}),
}
BEYOND = {"eta": 1.005, "alpha_p": 0.995, "s0": 0.995}


@pytest.mark.parametrize("case", CAUSES)
def test_remedies_prevent_the_collapse_and_are_the_nearest(case):
    method, numbers = CAUSES[case]
    data = DataStatistics([1.0, 0.5], [1.5, 0.8])
    prediction = found(method, data, **numbers)
    assert prediction.collapses
    assert prediction.remedy
    assert prediction.cause == next(iter(prediction.remedy))
    for name, value in prediction.remedy.items():
        nearer = {**numbers, name: value * BEYOND[name]}
        assert not found(method, data, **{**numbers, name: value}, search=False).collapses
        assert found(method, data, **nearer, search=False).collapses


def test_a_slower_target_can_be_a_remedy():
    method, numbers = SIMSIAM.but(target=Ema(tau=1 - LR)), {"eta": 0.15, "p0": 0.1, "s0": 0.05}
    data = DataStatistics([1.0], [1.2])
    tau = found(method, data, **numbers).remedy["ema"]
    assert tau > 1 - LR
    for slower, collapses_ in ((1.0, False), (0.995, True)):
        changed = method.but(target=Ema(tau=1 - LR + slower * (tau - 1 + LR)))
        assert found(changed, data, **numbers, search=False).collapses == collapses_


def test_without_predictor_or_stop_gradient_the_part_is_the_cause():
    bare = found(SIMSIAM.but(predictor=Identity()), eta=0.05)
    assert (bare.collapses, bare.cause, bare.remedy) == (True, "predictor", {"predictor": "linear"})
    assert bare.rate == pytest.approx(0.3 + 0.05)
    unstopped = found(UNSTOPPED, eta=0.05)
    assert (unstopped.collapses, unstopped.cause) == (True, "stop_gradient")
    assert unstopped.remedy == {"stop_gradient": True}
    neither = found(UNSTOPPED.but(predictor=Identity()), eta=0.05)
    assert (neither.collapses, neither.cause, neither.remedy) == (True, "predictor", {})
    code = found(SIMSIAM.but(predictor=CODE), eta=0.05)
    assert (code.collapses, code.cause, code.remedy) == (True, "eps_form", {"eps_form": "text"})


def test_a_start_at_zero_is_a_cause_without_remedy():
    prediction = found(SIMSIAM, s0=0.0, p0=0.5)
    assert (prediction.collapses, prediction.cause, prediction.remedy) == (True, "s0", {})
    assert all(mode.time == 0 for mode in prediction.modes)


def test_times_without_predictor_have_a_closed_form():
    noise = DATA.l_s - DATA.l_d
    for method, times in (
        (SIMSIAM, np.log(10) / (noise + 0.05)),
        (UNSTOPPED, np.log(10) / (2 * noise + 0.05)),
    ):
        prediction = found(method.but(predictor=Identity()), eta=0.05)
        assert [mode.time for mode in prediction.modes] == pytest.approx(times, rel=1e-4)
        assert [mode.steps for mode in prediction.modes] == pytest.approx(times / LR, rel=1e-4)
    slow = found(BYOL.but(predictor=Identity()), eta=0.05)
    for mode in slow.modes:
        flow = np.array([[-mode.l_s - 0.05, mode.l_d], [0.4, -0.4]])
        assert max(scipy.linalg.expm(flow * mode.time) @ [1, 1]) == pytest.approx(0.1, rel=1e-3)


def test_noiseless_modes_keep_their_size_without_predictor():
    data = DataStatistics([1.0, 0.5], [1.0, 0.8])
    for target in (Same(), Same(stop_gradient=False), Ema(tau=0.99)):
        method = SIMSIAM.but(predictor=Identity(), target=target)
        prediction = found(method, data)
        assert [(mode.survives, mode.s) for mode in prediction.modes] == [
            (True, pytest.approx(1 / 3)), (False, 0)
        ]  # fmt: skip
        decayed = found(method, data, eta=0.1)
        assert decayed.remedy["eta"] == 0.0


@pytest.mark.parametrize("l_d", [1.0, -1.0])
def test_noiseless_modes_without_stop_gradient_keep_a_difference(l_d):
    data, p0, alpha_p = DataStatistics([l_d], [1.0]), 0.2, 2.0
    edge = (l_d - p0) ** 2 / alpha_p
    alive = found(UNSTOPPED, data, p0=p0, alpha_p=alpha_p, s0=edge * 1.1)
    (mode,) = alive.modes
    assert (mode.survives, mode.p, mode.s) == (True, l_d, pytest.approx(0.1 * edge))
    dead = found(UNSTOPPED, data, p0=p0, alpha_p=alpha_p, s0=edge * 0.9)
    (mode,) = dead.modes
    assert mode.p == pytest.approx(l_d - np.sign(l_d - p0) * np.sqrt(0.1 * edge * alpha_p))
    assert set(dead.remedy) >= {"alpha_p", "s0"}
    assert dead.remedy["s0"] == pytest.approx(edge, rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(rho=st.floats(-0.9, 0.9), p0=st.floats(-2, 2), s0=st.floats(0.01, 2.0), alpha_p=st.floats(0.3, 3.0))
def test_without_stop_gradient_and_decay_p_ends_where_the_closed_form_says(rho, p0, s0, alpha_p):
    def rates(_, y):
        p, w = y
        return [alpha_p * w * w * (rho - p), -w * (p * p + 1 - 2 * p * rho)]

    (mode,) = found(
        UNSTOPPED, DataStatistics([rho], [1.0]), p0=p0, s0=s0, alpha_p=alpha_p, search=False
    ).modes
    end = solve_ivp(rates, (0, 300), [p0, np.sqrt(s0)], "DOP853", rtol=1e-10, atol=1e-13).y[:, -1]
    assert (mode.survives, mode.p) == (False, pytest.approx(end[0], abs=1e-6))


@pytest.mark.parametrize(
    ("p0", "eta", "survives"),
    [(1.0, 1e-4, True), (1.0, 1e-3, True), (1.3, 1e-3, True), (2.0, 1e-3, False), (2.0, 1e-4, False)],
)
@pytest.mark.parametrize("method", [SIMSIAM, SIMSIAM.but(target=Ema(tau=0.9))])
def test_weights_may_fall_below_any_number_and_rise_again(method, p0, eta, survives):
    """Where p starts far above, w falls until decay has brought p down: here by up to e^13000."""
    prediction = found(method, DataStatistics([1.0], [1.5]), p0=p0, s0=0.01, eta=eta, search=False)

    def rates(_, y):  # w_a = w: a fast target is near it
        p, u = y
        return [np.exp(2 * u) * (1 - 1.5 * p) - eta * p, p * (1 - 1.5 * p) - eta]

    y = solve_ivp(rates, (0, 20 / eta), [p0, np.log(0.1)], "LSODA", rtol=1e-10, atol=1e-12).y
    assert y[1].min() < -80
    assert (y[1, -1] > -1) == survives
    assert prediction.modes[0].survives == survives


def test_codes_largest_mode_shrinks_at_the_rate_of_the_note():
    data = DataStatistics([1.0], [1.2])
    (mode,) = found(SIMSIAM.but(predictor=CODE), data, eta=0.01).modes
    assert mode.time == pytest.approx(np.log(10) / (1.1 * (1.1 * 1.2 - 1.0) + 0.01), rel=1e-4)
    assert mode.p == pytest.approx(1.1)


def test_text_lifts_weak_modes_by_eps_and_kills_them_with_too_much():
    """With p = eps f_max a small mode grows where that lies between the roots of l_s p^2 - l_d p + eta."""
    data, eta = DataStatistics([1.0, 0.5], [1.5, 1.0]), 0.01
    alive = {}
    for eps in (0.0, 0.1, 1.0, 30.0):
        method = SIMSIAM.but(predictor=Spectral(eps_form="text", eps=eps))
        prediction = found(method, data, eta=eta, s0=[0.3, 1e-8])
        alive[eps] = prediction.modes[1].survives
        top = prediction.modes[0]
        small = max(eps * 1.5 * top.s, 1e-4)
        assert alive[eps] == (small * (0.5 - small) > eta)
        for mode in prediction.modes:
            if mode.survives:
                p = np.sqrt(mode.l_s * mode.s) + eps * 1.5 * top.s
                assert p == pytest.approx(mode.p)
                assert mode.l_s * p**2 - mode.l_d * p + eta == pytest.approx(0, abs=1e-8)
    assert list(alive.values()) == [False, True, True, False]


def test_statistics_from_matrices():
    V = rotation(3, 5)
    l_d, l_s = np.array([0.9, 0.9, 0.2]), np.array([1.0, 1.5, 0.5])
    X, X_prime = V @ np.diag(l_d) @ V.T, V @ np.diag(l_s - l_d) @ V.T
    data = DataStatistics.from_matrices(X, X_prime)
    assert data.l_d == pytest.approx(l_d)
    assert data.l_s == pytest.approx(l_s)
    assert data.dropped < 1e-12
    # an input that never varies is no mode, and no reason to collapse
    wide = [np.pad(m, (0, 1)) for m in (X, X_prime)]
    assert len(DataStatistics.from_matrices(*wide).l_d) == 3
    rate = found(SIMSIAM.but(predictor=Identity()), SimpleNamespace(X=wide[0], X_prime=wide[1])).rate
    assert rate == pytest.approx(0.1)


def test_sampled_statistics_need_a_tolerance():
    x1, x2 = gaussian_views(np.diag([1.0, 0.4]), np.diag([0.5, 0.1]), 4000, seed=0)
    moments = Moments.empty(2)
    moments.update(x1, x2)
    answer = predict(SIMSIAM, moments, lr=LR, eta=0.02)
    assert isinstance(answer, NoClosedForm)
    assert answer.reason.startswith("statistics: ")
    data = DataStatistics.from_matrices(moments.X, moments.X_prime, tolerance=0.05)
    assert 1e-4 < data.dropped < 0.05
    prediction = found(SIMSIAM, data, eta=0.02)
    assert prediction.dimension == 2
    assert "left out" in prediction.notes[-1]
    with pytest.raises(UsageError, match="does not commute"):
        DataStatistics.from_matrices(moments.X, moments.X_prime, tolerance=1e-6)


def skew_data(seed=3):
    A, B = (np.random.default_rng(seed + i).normal(size=(3, 3)) for i in range(2))
    return SimpleNamespace(X=A @ A.T / 3, X_prime=B @ B.T / 3 + 0.05 * np.eye(3))


@pytest.mark.parametrize(
    ("method", "eta"),
    [
        (SIMSIAM, 0.9),
        (SIMSIAM.but(predictor=Identity()), 0.0),
        (UNSTOPPED.but(predictor=Identity()), 0.0),
        (UNSTOPPED, 0.0),
        (BYOL, 0.9),
        (BYOL.but(predictor=Identity()), 0.0),
    ],
)
def test_collapses_that_are_certain_without_commuting(method, eta):
    data = skew_data()
    prediction = found(method, data, eta=eta)
    assert (prediction.collapses, prediction.modes, prediction.dimension) == (True, (), 0)
    matrices = Matrices(method, DATA, eta=eta)
    matrices.X, matrices.sigma_s = data.X, data.X + data.X_prime
    matrices.start[1] = np.random.default_rng(0).normal(size=(3, 3))
    t = np.linspace(0, 60, 20)
    path = solve_ivp(matrices.rates, (0, 60), np.concatenate([m.ravel() for m in matrices.start]), "DOP853",
                     t, rtol=1e-9, atol=1e-13).y  # fmt: skip
    norm = np.linalg.norm(path[:9], axis=0)
    if prediction.rate is None:
        assert norm[-1] < 0.05 * norm[0]
    else:
        assert (norm <= np.exp(-prediction.rate * t) * norm[0] * (1 + 1e-6) + 1e-9).all()


def test_below_the_bound_data_that_do_not_commute_have_no_closed_form():
    data = skew_data()
    edge = scipy.linalg.eigvalsh(data.X @ np.linalg.inv(data.X + data.X_prime) @ data.X)[-1] / 4
    assert found(SIMSIAM, data, eta=1.001 * edge).rate == pytest.approx(0.001 * edge)
    assert isinstance(predict(SIMSIAM, data, lr=LR, eta=0.999 * edge), NoClosedForm)


@pytest.mark.parametrize(
    ("method", "part"),
    [
        (SIMSIAM.but(predictor=Mlp()), "predictor"),
        (SIMSIAM.but(predictor=Linear(bias=True)), "predictor"),
        (SIMSIAM.but(predictor=Spectral(rho="mean")), "predictor"),
        (SIMSIAM.but(predictor=Spectral(noise=1.0)), "predictor"),
        (SIMSIAM.but(predictor=Spectral(eps=0.0, offset=0.9)), "predictor"),
        (SIMSIAM.but(distance="cosine"), "distance"),
        (SIMSIAM.but(distance="squared-l2"), "distance"),
        (SIMSIAM.but(pairing=(Pair(query="p1", key="t1"), Pair(query="p2", key="t2"))), "pairing"),
        (SIMSIAM.but(pairing=(Pair(query="p1", key="t2"),)), "pairing"),
        (SIMSIAM.but(target=Ema(tau=0.99, schedule="cosine")), "target"),
        (SIMSIAM.but(target=Ema(tau=1.0)), "target"),
        (SIMSIAM.but(target=Ema(init="zero")), "target"),
        (SIMSIAM.but(target=Ema(init="independent")), "target"),
        (SIMSIAM.but(target=Ema(centring=0.9)), "target"),
        (SIMSIAM.but(target=Memory()), "target"),
        (SIMSIAM.but(target=Expectation()), "target"),
        (SIMSIAM.but(gradient="straight-through"), "gradient"),
        (UNSTOPPED.but(gradient="straight-through", predictor=TEXT), "gradient"),
        (lookup("supervised").method, "method"),
        (lookup("byol").method, "predictor"),
        (lookup("directpred").method, "distance"),
    ],
)
def test_where_theory_does_not_reach_it_says_so(method, part):
    answer = predict(method, DATA, lr=LR)
    assert isinstance(answer, NoClosedForm)
    assert answer.reason.startswith(f"{part}: ")
    assert "\n" not in answer.reason
    assert answer.to_dict() == {"closed_form": False, "reason": answer.reason}


@pytest.mark.parametrize(
    ("network", "reaches"),
    [
        (nn.Sequential(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))), True),
        (nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)), False),
        (nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)), False),
        (nn.Linear(3, 3), False),
        (nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU()), False),
    ],
)
def test_the_network_must_be_the_theorys(network, reaches):
    answer = predict(SIMSIAM, DATA, lr=LR, network=network)
    assert isinstance(answer, Prediction) == reaches
    if isinstance(answer, NoClosedForm):
        assert answer.reason.startswith("network: ")


def test_steps_that_overshoot_are_not_described():
    answer = predict(SIMSIAM, DataStatistics([100.0], [150.0]), lr=0.05)
    assert isinstance(answer, NoClosedForm)
    assert answer.reason.startswith("lr: ")
    assert isinstance(predict(SIMSIAM, DataStatistics([100.0], [150.0]), lr=1e-3), Prediction)


def test_steps_of_the_run_decide_whether_it_is_finished():
    modes = found(SIMSIAM, eta=0.02).modes
    needed = int(max(mode.steps for mode in modes)) + 1
    assert found(SIMSIAM, eta=0.02, steps=needed).finished is True
    assert found(SIMSIAM, eta=0.02, steps=needed - 2).finished is False
    assert found(SIMSIAM, eta=0.02).finished is None


def test_a_predictor_at_the_identity_starts_at_one():
    method = SIMSIAM.but(predictor=Linear(init="identity"))
    assert found(method, eta=0.02) == found(SIMSIAM, eta=0.02, p0=1.0)
    assert found(SIMSIAM, eta=0.02) == found(SIMSIAM, eta=0.02, p0=0.0)


def test_run_changes_the_catalogues_parts():
    answer = run("byol-lp", DATA, lr=LR, eta=0.02, ema=0.99, distance="euclidean", steps=10**6)
    again = found(lookup("byol-lp").method.but(distance="euclidean", target=Ema(tau=0.99)), eta=0.02,
                  steps=10**6)  # fmt: skip
    assert answer == again.to_dict()
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert answer["closed_form"] is True
    assert run("byol-lp", DATA, lr=LR)["closed_form"] is False


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: predict(SIMSIAM, DATA, lr=0), "lr"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, eta=-1), "eta"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, alpha_p=0), "alpha_p"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, s0=-1), "s0"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, p0=[0.0, 1.0]), "p0"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, steps=0), "steps"),
        (lambda: predict(SIMSIAM, np.eye(2), lr=LR), "statistics"),
        (lambda: predict(SIMSIAM.but(predictor=TEXT), DATA, lr=LR, s0=0.0), "s0"),
        (lambda: DataStatistics([2.0], [1.0]), "l_d"),
        (lambda: DataStatistics([0.5], [0.0]), "l_s"),
        (lambda: DataStatistics([0.5, 0.1], [1.0]), "l_d"),
        (lambda: DataStatistics([], []), "l_d"),
        (lambda: DataStatistics.from_matrices(np.eye(2), np.eye(3)), "X_prime"),
        (lambda: DataStatistics.from_matrices(np.eye(2), -np.eye(2)), "X_prime"),
        (lambda: DataStatistics.from_matrices(np.zeros((2, 2)), np.zeros((2, 2))), "X"),
        (lambda: run("byolp", DATA, lr=LR), "method"),
        (lambda: run("simsiam", DATA, lr=LR, ema=0.9), "ema"),
        (lambda: run("byol-lp", DATA, lr=LR, ema=2.0), "ema"),
        (lambda: run("byol-lp", DATA, lr=LR, distance="l2"), "distance"),
    ],
)
def test_bad_input_is_one_line_that_names_it(call, says):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(f"{says}:")
    assert "\n" not in str(error.value)
