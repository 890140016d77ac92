"""The way of the modes: against the isotropic mode's own solver, the matrix equations and the ends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.errors import UsageError
from stopgrad.method import Method
from stopgrad.parts.gradient import StraightThrough
from stopgrad.parts.predictors import Linear, Mlp, Spectral
from stopgrad.parts.target import Ema
from stopgrad.theory.modes import Modes
from stopgrad.theory.predict import Course, DataStatistics, NoClosedForm, course, predict

from .conftest import DATA, LR

SIMSIAM = Method(predictor=Linear(), distance="euclidean")
BYOL = SIMSIAM.but(target=Ema(tau=1 - 0.4 * LR))  # beta = 0.4
TIMES = np.array([0.0, 0.3, 1.0, 4.0, 20.0])


@settings(max_examples=15)
@given(
    p0=st.floats(-0.5, 1.5), s0=st.floats(0.01, 1.0), eta=st.floats(0, 0.1), alpha_p=st.floats(0.3, 4),
    l_s=st.floats(1.0, 2.0), follows=st.booleans(),
)  # fmt: skip
def test_it_is_the_modes_own_trajectory(p0, s0, eta, alpha_p, l_s, follows):
    method = BYOL if follows else SIMSIAM
    found = course(method, DataStatistics([1.0], [l_s]), TIMES, lr=LR, alpha_p=alpha_p, eta=eta, p0=p0, s0=s0)
    assert isinstance(found, Course)
    own = {"fixed_tau": None} if follows else {"fixed_tau": 1.0}
    modes = Modes(p0=p0, s0=s0, tau0=1.0, alpha_p=alpha_p, beta=0.4, eta=eta, sigma2=l_s - 1, **own)
    exact = modes.trajectory(TIMES)
    np.testing.assert_allclose(found.p[:, 0], exact.p, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.s[:, 0], exact.s, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", [Method().gradient, StraightThrough()])
def test_of_directpred_it_is_that_of_the_matrices(gradient, matrices_of):
    method = BYOL.but(predictor=Spectral(eps_form="text"), gradient=gradient)
    found = course(method, DATA, TIMES, lr=LR, eta=0.02)
    exact = matrices_of(method, eta=0.02)
    for i in (1, 3):
        np.testing.assert_allclose(found.s[i], exact.at(TIMES[i])[1] ** 2, rtol=1e-5)
    f = torch.from_numpy(DATA.l_s * found.s[-1])
    np.testing.assert_allclose(found.p[-1], method.predictor.eigenvalues(f).numpy(), rtol=1e-12)


def test_it_ends_where_the_prediction_says(found):
    path = course(BYOL, DATA, [0, 1e3, 1e4], lr=LR, eta=0.03, p0=0.4)
    ends = found(BYOL, eta=0.03, p0=0.4).modes
    np.testing.assert_allclose(path.p[-1], [mode.p for mode in ends], atol=1e-6)
    np.testing.assert_allclose(path.s[-1], [mode.s for mode in ends], atol=1e-6)


def test_where_theory_does_not_reach_it_gives_the_same_reason():
    for method, lr in ((BYOL.but(predictor=Mlp()), LR), (BYOL, 2.0)):
        found = course(method, DATA, [0, 1], lr=lr, p0=1.0)
        assert isinstance(found, NoClosedForm)
        assert found == predict(method, DATA, lr=lr, p0=1.0)


@pytest.mark.parametrize("times", [[0.0], [0, 1, 1], [1, 2], [0, 2, 1], [0, -1]])
def test_times_increase_from_zero(times):
    with pytest.raises(UsageError, match=r"^t:"):
        course(BYOL, DATA, times, lr=LR)
