"""The regimes' inequalities against what they speak of: fixed points, k on the parabola, and basins."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stopgrad.errors import UsageError
from stopgrad.theory.basins import collapses
from stopgrad.theory.fixed_points import fixed_points
from stopgrad.theory.modes import Modes, alignment
from stopgrad.theory.regimes import WINDOW, regime

NUMBERS = {
    "eta": st.floats(1e-4, 1.0), "sigma2": st.floats(0, 5), "tau": st.floats(0.05, 2), "p0": st.floats(-1, 2),
    "s0": st.floats(0.01, 3), "alpha_p": st.floats(0.1, 10),
}  # fmt: skip


@given(**NUMBERS)
def test_the_name_is_what_fixed_points_and_k_say(eta, sigma2, tau, p0, s0, alpha_p):
    share = eta * (1 + sigma2) / tau**2
    assume(min(abs(share / edge - 1) for edge in WINDOW) > 1e-3)
    found = regime(Modes(p0, s0, alpha_p=alpha_p, eta=eta, sigma2=sigma2, fixed_tau=tau))
    p = np.linspace(-1, 3, 4001) * tau / (1 + sigma2)
    positive = bool((alignment(p, p**2 / alpha_p, tau, alpha_p, eta, sigma2) > 0).all())
    kept = len(fixed_points(alpha_p, eta, sigma2, tau)) > 1
    assert (
        found.name
        == {(False, True): "unavoidable", (True, True): "window", (True, False): "turning-away"}[
            kept, positive
        ]
    )


@given(eta=st.floats(1e-3, 0.02), sigma2=st.floats(0, 1), tau=st.floats(0.8, 2))
def test_k_is_negative_in_the_interval_that_is_named(eta, sigma2, tau):
    text = regime(Modes(0.3, 0.2, eta=eta, sigma2=sigma2, fixed_tau=tau)).text
    low, high = map(float, re.findall(r"from (\S+) to (\S+)\.$", text)[0])
    near, far = (point.p for point in fixed_points(1.0, eta, sigma2, tau)[1:])
    assert near < low < high < far

    def k(p):
        return alignment(p, p**2, tau, 1.0, eta, sigma2)

    assert k((low + high) / 2) < 0
    assert k(low * 0.99) > 0 > k(low * 1.01)  # the text has three digits
    assert k(high * 1.01) > 0 > k(high * 0.99)


STARTS = [(0.3, 0.2), (-0.9, 0.1), (0.02, 0.001), (1.0, 0.0)]
ETAS = [0.0, 0.03, 0.1, 0.3]


@pytest.mark.parametrize("target", [{"fixed_tau": 1.0}, {"beta": 0.3}])
def test_the_fate_is_where_the_solution_goes(target):
    settings = [(p0, s0, eta) for p0, s0 in STARTS for eta in ETAS]
    p0, s0, eta = zip(*settings, strict=True)
    ends = Modes(p0, s0, eta=eta, **target).final(3e4)
    for (p0, s0, eta), p, s in zip(settings, ends.p, ends.s, strict=True):
        mode = Modes(p0, s0, eta=eta, **target)
        found = regime(mode)
        assert found.collapses == bool(collapses(mode)) == bool(s < 1e-3), mode
        if not found.collapses:
            named = re.findall(r"p goes to (?:[^=,]*= )?([\d.]*\d)", found.fate)
            assert p.item() == pytest.approx(float(named[0]), rel=1e-2), mode


def test_a_target_that_never_moves_is_no_regime_of_fixed_points():
    assert regime(Modes(0.3, 0.2, beta=0.0)).name == "frozen-target"


def test_several_modes_are_refused():
    with pytest.raises(UsageError, match="one mode"):
        regime(Modes([0.1, 0.2], 0.3))


def test_a_regime_has_its_name_without_the_fate():
    mode = Modes(p0=0.3, s0=0.2, eta=0.001)
    whole, name = regime(mode), regime(mode, fate=False)
    assert (name.name, name.text) == (whole.name, whole.text)
    assert (name.collapses, name.fate) == (None, "")
