"""Without stop-gradient: what is conserved, and where p ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from stopgrad.method import Method
from stopgrad.parts.predictors import Linear
from stopgrad.parts.target import Same
from stopgrad.theory.predict import DataStatistics

UNSTOPPED = Method(predictor=Linear(), distance="euclidean", target=Same(stop_gradient=False))


@pytest.mark.parametrize("l_d", [1.0, -1.0])
def test_noiseless_modes_without_stop_gradient_keep_a_difference(found, l_d):
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


@settings(max_examples=15)
@given(rho=st.floats(-0.9, 0.9), p0=st.floats(-2, 2), s0=st.floats(0.01, 2.0), alpha_p=st.floats(0.3, 3.0))
def test_without_stop_gradient_and_decay_p_ends_where_the_closed_form_says(found, rho, p0, s0, alpha_p):
    def rates(_, y):
        p, w = y
        return [alpha_p * w * w * (rho - p), -w * (p * p + 1 - 2 * p * rho)]

    (mode,) = found(
        UNSTOPPED, DataStatistics([rho], [1.0]), p0=p0, s0=s0, alpha_p=alpha_p, search=False
    ).modes
    end = solve_ivp(rates, (0, 300), [p0, np.sqrt(s0)], "DOP853", rtol=1e-10, atol=1e-13).y[:, -1]
    assert (mode.survives, mode.p) == (False, pytest.approx(end[0], abs=1e-6))
