"""A learned predictor against the triplet's own integration and the basins of its mode."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from stopgrad.method import Method
from stopgrad.parts.predictors import Linear
from stopgrad.parts.target import Ema
from stopgrad.theory.basins import collapses
from stopgrad.theory.modes import Modes
from stopgrad.theory.predict import DataStatistics

LR = 1e-3
SIMSIAM = Method(predictor=Linear(), distance="euclidean")
BYOL = SIMSIAM.but(target=Ema(tau=1 - 0.4 * LR))  # beta = 0.4


def triplet(l_d, l_s, alpha_p, beta, eta, p0, s0, t):
    """p, w and w_a over time; beta None: the target is the online network."""

    def rates(_, y):
        p, w = y[:2]
        w_a = w if beta is None else y[2]
        pull = w_a * l_d - p * w * l_s
        return [alpha_p * pull * w - eta * p, p * pull - eta * w, (beta or 0) * (w - w_a)]

    start = [p0, np.sqrt(s0), np.sqrt(s0)]
    return solve_ivp(rates, (0, t[-1]), start, "DOP853", t, rtol=1e-9, atol=1e-13).y


@settings(max_examples=40)
@given(
    l_d=st.sampled_from([-0.6, 0.0, 0.3, 0.7, 1.0]),
    eta=st.floats(0.04, 0.3),
    p0=st.floats(-1.5, 1.5),
    s0=st.floats(0.001, 1.0),
    alpha_p=st.floats(0.3, 5.0),
    beta=st.one_of(st.none(), st.floats(0.1, 3.0)),
)
@example(l_d=0.7, eta=0.28125, p0=-1.296875, s0=1.0, alpha_p=0.5, beta=1.0625)  # w and w_a cross at 0.1
def test_modes_end_as_integration_ends(found, l_d, eta, p0, s0, alpha_p, beta):
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


@settings(max_examples=25)
@given(
    noise=st.floats(0.0, 3.0),
    eta=st.one_of(st.just(0.0), st.floats(0.02, 0.4)),
    p0=st.floats(-2.0, 2.0),
    s0=st.floats(0.0, 1.0),
    alpha_p=st.floats(0.1, 10.0),
    beta=st.one_of(st.none(), st.floats(0.1, 3.0)),
)
def test_fates_are_those_of_the_basins(found, noise, eta, p0, s0, alpha_p, beta):
    method = SIMSIAM if beta is None else SIMSIAM.but(target=Ema(tau=1 - beta * LR))
    numbers = {"alpha_p": alpha_p, "eta": eta, "p0": p0, "s0": s0}
    prediction = found(method, DataStatistics([1.0], [1 + noise]), search=False, **numbers)
    target = {"fixed_tau": 1.0} if beta is None else {"beta": beta, "tau0": 1.0}
    assert prediction.collapses == collapses(Modes(sigma2=noise, **numbers, **target)).item()


@pytest.mark.parametrize("method", [SIMSIAM, BYOL])
def test_weight_decay_has_a_threshold(found, method):
    edge = max(1.0 / (4 * 1.5), 0.25 / (4 * 0.8), 0.04 / 4)
    assert not found(method, eta=edge * (1 - 1e-4)).collapses
    above = found(method, eta=edge * (1 + 1e-4))
    assert above.collapses
    assert above.cause == "eta"
    assert above.remedy["eta"] == pytest.approx(edge, rel=1e-3)
    assert (above.rate is None) == (method is BYOL)


def test_rate_bounds_the_decay(found, matrices_of):
    prediction = found(SIMSIAM, eta=0.25, p0=0.5)
    matrices = matrices_of(SIMSIAM, eta=0.25, p0=0.5)
    assert prediction.rate == pytest.approx(0.25 - 1 / 6)
    for t in (1.0, 5.0, 20.0):
        assert np.linalg.norm(matrices.at(t)[1]) <= np.exp(-prediction.rate * t) * 1.0000001


@pytest.mark.parametrize(
    ("p0", "eta", "survives"),
    [(1.0, 1e-4, True), (1.0, 1e-3, True), (1.3, 1e-3, True), (2.0, 1e-3, False), (2.0, 1e-4, False)],
)
@pytest.mark.parametrize("method", [SIMSIAM, SIMSIAM.but(target=Ema(tau=0.9))])
def test_weights_may_fall_below_any_number_and_rise_again(found, method, p0, eta, survives):
    """Where p starts far above, w falls until decay has brought p down: here by up to e^13000."""
    prediction = found(method, DataStatistics([1.0], [1.5]), p0=p0, s0=0.01, eta=eta, search=False)

    def rates(_, y):  # w_a = w: a fast target is near it
        p, u = y
        return [np.exp(2 * u) * (1 - 1.5 * p) - eta * p, p * (1 - 1.5 * p) - eta]

    y = solve_ivp(rates, (0, 20 / eta), [p0, np.log(0.1)], "LSODA", rtol=1e-10, atol=1e-12).y
    assert y[1].min() < -80
    assert (y[1, -1] > -1) == survives
    assert prediction.modes[0].survives == survives
