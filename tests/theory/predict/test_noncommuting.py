"""Collapses that are certain for data that do not commute."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
from scipy.integrate import solve_ivp

from stopgrad.method import Method
from stopgrad.parts.predictors import Identity, Linear
from stopgrad.parts.target import Ema, Same
from stopgrad.theory.predict import NoClosedForm, predict

LR = 1e-3
SIMSIAM = Method(predictor=Linear(), distance="euclidean")
BYOL = SIMSIAM.but(target=Ema(tau=1 - 0.4 * LR))  # beta = 0.4
UNSTOPPED = SIMSIAM.but(target=Same(stop_gradient=False))


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
def test_collapses_that_are_certain_without_commuting(found, matrices_of, method, eta):
    data = skew_data()
    prediction = found(method, data, eta=eta)
    assert (prediction.collapses, prediction.modes, prediction.dimension) == (True, (), 0)
    matrices = matrices_of(method, eta=eta)
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


def test_below_the_bound_data_that_do_not_commute_have_no_closed_form(found):
    data = skew_data()
    edge = scipy.linalg.eigvalsh(data.X @ np.linalg.inv(data.X + data.X_prime) @ data.X)[-1] / 4
    assert found(SIMSIAM, data, eta=1.001 * edge).rate == pytest.approx(0.001 * edge)
    assert isinstance(predict(SIMSIAM, data, lr=LR, eta=0.999 * edge), NoClosedForm)
