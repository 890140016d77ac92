from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from stopgrad.errors import UsageError
from stopgrad.theory import solver
from stopgrad.theory.basins import collapses, separatrix
from stopgrad.theory.fixed_points import roots
from stopgrad.theory.modes import Modes


def integrated(mode: Modes) -> bool:
    """Collapse by direct integration in p, w and w_a, which knows nothing of basins or invariants."""
    names = ("alpha_p", "beta", "eta", "sigma2", "p0", "s0", "tau0")
    alpha_p, beta, eta, sigma2, p0, s0, tau0 = (float(getattr(mode, name)) for name in names)
    held = None if mode.fixed_tau is None else float(mode.fixed_tau)

    if s0 == 0:
        return True  # w = 0 does not move

    def rates(t, y):
        p, w = y[0], y[1]
        target = held * w if held is not None else y[2]
        pull = target - (1 + sigma2) * p * w
        return [alpha_p * w * pull - eta * p, p * pull - eta * w, beta * (w - y[2])]

    def dead(t, y):
        # a small w comes back as long as p pulls it up by more than it decays
        pulled = y[0] * (1 if held is None else held) - eta if eta else -1
        return max(abs(y[1]) - 1e-14, abs(y[2]) - 1e-14 if held is None else -1, pulled)

    dead.terminal = True
    start = [p0, np.sqrt(s0), tau0 * np.sqrt(s0)]
    small = [1e-22, 1e-100, 1e-100]
    end = solve_ivp(rates, (0, 4e3), start, "LSODA", events=dead, rtol=1e-11, atol=small)
    return bool(end.y[1, -1] ** 2 < 1e-10)


@st.composite
def starts(draw: st.DrawFn) -> dict[str, float]:
    return {
        "p0": draw(st.floats(-2, 2)), "s0": draw(st.floats(0, 2)), "alpha_p": draw(st.floats(0.2, 5)),
        "sigma2": draw(st.floats(0, 1)),
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(starts(), st.floats(0.02, 0.4), st.floats(0.3, 1.5))
def test_with_decay_and_a_held_target_as_integrated(start, eta, tau):
    assume(abs(eta * (1 + start["sigma2"]) / tau**2 - 0.25) > 1e-3)  # there it is too slow to integrate
    mode = Modes(**start, eta=eta, fixed_tau=tau)
    assert bool(collapses(mode)) == integrated(mode)


@settings(max_examples=20, deadline=None)
@given(starts(), st.floats(0.02, 0.3), st.floats(0.05, 1), st.floats(0, 1.5))
def test_with_decay_and_a_moving_target_as_integrated(start, eta, beta, tau0):
    assume(abs(eta * (1 + start["sigma2"]) - 0.25) > 1e-3)
    mode = Modes(**start, eta=eta, beta=beta, tau0=tau0)
    assert bool(collapses(mode)) == integrated(mode)


@settings(max_examples=30, deadline=None)
@given(starts(), st.one_of(st.none(), st.floats(0.3, 1.5)))
def test_without_decay_the_closed_form_is_as_integrated(start, tau):
    c = start["s0"] - start["p0"] ** 2 / start["alpha_p"]
    end, kappa = tau or 1.0, 1 + start["sigma2"]
    edge = np.sqrt(max(-start["alpha_p"] * c, 0)) - end / kappa
    if abs(c) < 0.02 or (c < 0 < start["p0"] and abs(edge) < 0.02) or start["s0"] < 1e-3:
        return  # too slow to integrate; the next test covers the edges
    mode = Modes(**start, eta=0.0, beta=0.3, tau0=0.5, fixed_tau=tau)
    assert bool(collapses(mode)) == integrated(mode)
    assert bool(collapses(mode)) == (c <= 0 and (start["p0"] < 0 or edge >= 0))


def test_without_decay_at_the_edges_of_the_closed_form():
    def fate(p0, s0):
        return bool(collapses(Modes(p0=p0, s0=s0, eta=0.0, sigma2=0.0, fixed_tau=1.0)))

    assert fate(-0.5, 0.25)  # on the parabola, p < 0: s decays as 1 / t^2
    assert not fate(0.5, 0.25)
    assert not fate(-0.5, 0.2500001)  # c > 0: s cannot fall below c
    assert fate(1.25, 0.5625)  # sqrt(-c) = 1 = tau / kappa exactly
    assert not fate(1.25, 0.5626)
    assert fate(0.3, 0.0)


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.2, 0.249, 0.25])
def test_the_edge_of_the_basin_is_the_stable_manifold(eps):
    """Two methods that share nothing: backwards from the saddle, and regions that no solution leaves."""
    x, q = separatrix(eps)
    assert x[0] == pytest.approx(-2)
    assert x[-1] == pytest.approx(3)
    assert (np.diff(x) > 0).all()
    assert (q > 0).all()
    x, q = x[::5], q[::5]
    for share, fate in ((1 - 1e-6, True), (1 + 1e-6, False)):
        modes = Modes(p0=x, s0=q * share, alpha_p=1.0, eta=eps, sigma2=0.0, fixed_tau=1.0)
        assert (collapses(modes) == fate).all()


def test_at_the_double_root_a_moving_target_is_followed_no_longer_than_it_takes(monkeypatch):
    """There nothing leaves the fixed point at an exponential rate.

    On c = 0 with tau(0) = 1 the region p >= p-, tau >= 1 is not left: at tau = 1, tau' = kappa (p - p-)^2,
    and at p = p-, p' >= 0. Where p, w and w_a are all below p-, everything collapses.
    """
    steps, advance = [], solver._advance
    monkeypatch.setattr(solver, "_advance", lambda *given: steps.append(None) or advance(*given))
    for sigma2, beta in ((0.0, 0.1), (1.5, 1.0), (1.5, 3.0)):
        edge = 0.5 / (1 + sigma2)
        p0 = edge * np.array([0.1, 0.5, 0.9, 1.001, 1.1, 2.0, 4.0])
        modes = Modes(p0=p0, s0=p0**2, tau0=1.0, alpha_p=1.0, beta=beta, eta=edge / 2, sigma2=sigma2)
        assert (collapses(modes).numpy() == (p0 < edge)).all()
    assert len(steps) < 10_000


@given(st.floats(0.2, 5), st.floats(0.02, 0.24), st.floats(0, 1), st.floats(0.2, 2))
@settings(max_examples=20, deadline=None)
def test_rescaled_the_edge_depends_on_eps_alone(alpha_p, eps, sigma2, tau):
    x, q = separatrix(eps, (-1.0, 2.0))
    x, q, kappa = x[::7], q[::7], 1 + sigma2
    for share, fate in ((1 - 1e-6, True), (1 + 1e-6, False)):
        s0 = share * q * tau**2 / (kappa**2 * alpha_p)
        modes = Modes(
            p0=x * tau / kappa, s0=s0, alpha_p=alpha_p, eta=eps * tau**2 / kappa, sigma2=sigma2, fixed_tau=tau
        )
        assert (collapses(modes) == fate).all()


def test_ten_thousand_settings_keep_their_fate_along_their_course(random):
    """The regions are consistent: whatever is said of a start is said of its later states too."""
    count = 10_000
    decay = np.where(random.random(count) < 0.1, 0.0, random.uniform(0.001, 0.4, count))
    modes = Modes(
        p0=random.uniform(-2, 2, count), s0=random.uniform(0, 2, count),
        alpha_p=random.uniform(0.2, 5, count), eta=decay, sigma2=random.uniform(0, 1, count),
        fixed_tau=random.uniform(0.2, 1.5, count),
    )  # fmt: skip
    early, late = collapses(modes), collapses(modes.at(modes.final(3.0)))
    assert 0.2 < early.double().mean() < 0.8
    assert (
        early == late
    ).double().mean() >= 1 - 2 / count  # a state within rounding of the edge may change sides
    end = modes.final(2e3)
    slow = (modes.eta > 0) & (modes.eta < 0.01)
    assert ((end.s < 1e-6) == early)[~slow & (modes.eta > 0)].double().mean() > 1 - 2 / count


@pytest.mark.slow
def test_ten_thousand_settings_as_integrated(random):
    for i in range(10_000):
        eta = 0.0 if i % 10 == 0 else random.uniform(0.02, 0.4)
        start = {
            "p0": random.uniform(-2, 2),
            "alpha_p": random.uniform(0.2, 5),
            "sigma2": random.uniform(0, 1),
        }
        kappa, tau = 1 + start["sigma2"], random.uniform(0.2, 1.5)
        s0, eps = random.uniform(0, 2), eta * kappa / tau**2
        if i % 4 == 1 and eps < 0.24:  # near the edge
            x, q = separatrix(eps)
            x, q = x[q > 1e-9], q[q > 1e-9]
            j = random.integers(len(x))
            start["p0"], side = x[j] * tau / kappa, 1 + random.choice([-1e-5, 1e-5])
            s0 = side * q[j] * tau**2 / kappa**2 / start["alpha_p"]
        mode = Modes(**start, s0=s0, eta=eta, fixed_tau=tau)
        if eta == 0 and mode.c.abs() < 0.02:
            continue  # s moves as 1 / t^2: no integration ends
        assert bool(collapses(mode)) == integrated(mode), mode


def test_beyond_the_threshold_everything_collapses(random):
    modes = Modes(
        p0=random.uniform(-2, 2, 500), s0=random.uniform(0, 2, 500), eta=0.26, sigma2=0.0, fixed_tau=1.0
    )
    assert collapses(modes).all()
    assert collapses(replace(modes, fixed_tau=None, beta=0.5)).all()


def test_a_mirrored_start_shares_its_fate(random):
    """(p, tau) -> (-p, -tau) maps solutions to solutions."""
    p0, s0 = random.uniform(-2, 2, 300), random.uniform(0, 2, 300)
    one = collapses(Modes(p0=p0, s0=s0, eta=0.1, fixed_tau=1.0))
    assert (one == collapses(Modes(p0=-p0, s0=s0, eta=0.1, fixed_tau=-1.0))).all()
    assert 0 < one.sum() < 300


def test_a_target_that_never_moves():
    def fate(**start):
        return bool(collapses(Modes(beta=0.0, sigma2=0.0, **start)))

    for p0, tau0, eta in (
        (0.3, 1.0, 0.3),
        (-0.3, 1.0, 0.3),
        (0.3, 0.5, 0.3),
        (-0.9, 0.5, 0.0),
        (-0.9, 0.0, 0.0),
    ):
        start = {"p0": p0, "s0": 0.2, "tau0": tau0, "eta": eta}
        end = Modes(beta=0.0, sigma2=0.0, **start).final(2000.0)
        assert fate(**start) == (end.s.item() < 1e-9), start


def test_against_a_target_that_never_moves_a_start_with_opposite_weights_falls_straight_into_the_origin():
    """P(0) = -w(0) and c = 0: the stable line of a saddle, though the target pulls harder than decay."""
    for p0, fate in ((-0.5, True), (0.5, False)):
        mode = Modes(p0=p0, s0=0.25, tau0=1.0, beta=0.0, eta=0.1, sigma2=0.0)
        assert bool(collapses(mode)) == fate
        assert (mode.final(100.0).s.item() < 1e-9) == fate


def test_the_saddle_itself_escapes():
    near, _ = roots(0.1, 0.0, 1.0)
    assert not collapses(Modes(p0=near, s0=near**2, eta=0.1, sigma2=0.0, fixed_tau=1.0))
    assert collapses(Modes(p0=near - 1e-9, s0=near**2, eta=0.1, sigma2=0.0, fixed_tau=1.0))


def test_shapes_are_kept():
    found = collapses(Modes(p0=torch.linspace(-1, 1, 4)[:, None], s0=torch.linspace(0, 1, 3), fixed_tau=1.0))
    assert found.shape == (4, 3)
    assert found.dtype == torch.bool


def test_the_edge_has_a_domain():
    for eps in (0.0, 0.26, float("nan")):
        with pytest.raises(UsageError, match="eps"):
            separatrix(eps)
