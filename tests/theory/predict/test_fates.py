"""Fates, ends and times of all kinds of methods against the matrix equations."""

import numpy as np
import pytest

from stopgrad.method import Method
from stopgrad.parts.predictors import Identity, Linear, Spectral
from stopgrad.parts.target import Ema, Same

LR = 1e-3
SIMSIAM = Method(predictor=Linear(), distance="euclidean")
BYOL = SIMSIAM.but(target=Ema(tau=1 - 0.4 * LR))  # beta = 0.4
UNSTOPPED = SIMSIAM.but(target=Same(stop_gradient=False))
TEXT, CODE = Spectral(eps_form="text"), Spectral(eps_form="code")


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
def test_predictions_are_what_the_matrices_do(found, matrices_of, method, numbers):
    prediction = found(method, **numbers)
    matrices = matrices_of(method, **numbers)
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


def test_steps_of_the_run_decide_whether_it_is_finished(found):
    modes = found(SIMSIAM, eta=0.02).modes
    needed = int(max(mode.steps for mode in modes)) + 1
    assert found(SIMSIAM, eta=0.02, steps=needed).finished is True
    assert found(SIMSIAM, eta=0.02, steps=needed - 2).finished is False
    assert found(SIMSIAM, eta=0.02).finished is None
