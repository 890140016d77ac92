import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.errors import UsageError
from stopgrad.theory.fixed_points import collapse_unavoidable, fixed_points, jacobian, roots
from stopgrad.theory.modes import Modes, slopes

positive = st.floats(0.05, 3)


def rates(p, s, alpha_p, eta, sigma2, tau):
    mode = Modes(p0=p, s0=s, alpha_p=alpha_p, eta=eta, sigma2=sigma2, fixed_tau=tau)
    return [v.item() for v in slopes(mode.p0, mode.s0, mode.fixed_tau, mode)[:2]]


@given(positive, st.floats(0, 1), st.floats(0, 2), st.floats(-2, 2))
def test_nothing_moves_at_a_fixed_point(alpha_p, eta, sigma2, tau):
    for point in fixed_points(alpha_p, eta, sigma2, tau):
        assert rates(point.p, point.s, alpha_p, eta, sigma2, tau) == pytest.approx([0, 0], abs=1e-12)


@given(positive, st.floats(0, 1), st.floats(0, 2), st.floats(-2, 2), st.floats(-1, 1), st.floats(0, 1))
def test_the_jacobian_is_the_derivative_of_the_rates(alpha_p, eta, sigma2, tau, p, s):
    h = 1e-6
    s += h
    numeric = np.array([
        [
            (a - b) / (2 * h)
            for a, b in zip(rates(p + h * (j == 0), s + h * (j == 1), alpha_p, eta, sigma2, tau),
                            rates(p - h * (j == 0), s - h * (j == 1), alpha_p, eta, sigma2, tau), strict=True)
        ]
        for j in range(2)
    ]).T  # fmt: skip
    np.testing.assert_allclose(jacobian(p, s, alpha_p, eta, sigma2, tau), numeric, atol=1e-7)


@given(positive, st.floats(0.01, 0.99), st.floats(0, 2), positive)
def test_stability_is_that_of_the_eigenvalues_and_these_have_a_closed_form(alpha_p, share, sigma2, tau):
    kappa = 1 + sigma2
    eta = share * tau**2 / (4 * kappa)
    zero, saddle, sink = fixed_points(alpha_p, eta, sigma2, tau)
    assert (zero.stable, saddle.stable, sink.stable) == (True, False, True)
    assert zero.eigenvalues == pytest.approx((-2 * eta, -eta))
    for point in (saddle, sink):
        along = point.p * (tau - 2 * kappa * point.p)
        assert point.eigenvalues == pytest.approx(sorted((-2 * eta, along)), rel=1e-9, abs=1e-12)
        assert point.stable == (max(point.eigenvalues) < 0)


@given(st.floats(0, 2), positive, st.booleans())
def test_collapse_is_unavoidable_exactly_beyond_the_threshold(sigma2, tau, beyond):
    eta = tau**2 / (4 * (1 + sigma2)) * (1 + (1e-9 if beyond else -1e-9))
    assert bool(collapse_unavoidable(eta, sigma2, tau)) == beyond
    assert len(fixed_points(1.0, eta, sigma2, tau)) == (1 if beyond else 3)


def test_at_the_threshold_the_double_root_attracts_from_one_side():
    zero, double = fixed_points(1.0, 0.25, 0.0, 1.0)
    assert (zero.stable, double.stable) == (True, False)
    assert double.p == 0.5


def test_without_decay_the_origin_repels_and_the_line_attracts():
    zero, line = fixed_points(2.0, 0.0, 0.5, 0.9)
    assert (zero.p, zero.s, zero.stable) == (0, 0, False)
    assert line.p == pytest.approx(0.6)
    assert line.s == pytest.approx(0.18)
    assert line.stable
    near = Modes(p0=0.55, s0=0.2, alpha_p=2.0, eta=0.0, sigma2=0.5, fixed_tau=0.9).final(200.0)
    assert near.p.item() == pytest.approx(0.6, abs=1e-8)


def test_the_near_root_keeps_its_digits_when_decay_is_slight():
    near, far = roots(1e-14, 0.0, 1.0)
    assert near.item() == pytest.approx(1e-14 * (1 + 1e-14), rel=1e-15)
    assert far.item() == pytest.approx(1.0)
    assert torch.isnan(torch.stack(roots(1.0, 0.0, 1.0))).all()


@pytest.mark.parametrize(
    "change", [{"alpha_p": -1.0}, {"eta": -1.0}, {"sigma2": -0.5}, {"tau": float("nan")}]
)
def test_an_argument_outside_its_domain_is_named(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        fixed_points(**{"alpha_p": 1.0, "eta": 0.1, "sigma2": 0.5, "tau": 1.0, **change})
