import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import cumulative_simpson, solve_ivp

from stopgrad.errors import UsageError
from stopgrad.theory.modes import Modes, alignment, slopes, tau_closed_form

CASES = [
    {"p0": 0.3, "s0": 0.2, "tau0": 0.5, "alpha_p": 2.0, "beta": 0.4, "eta": 0.04, "sigma2": 0.5},  # c > 0
    {"p0": -0.5, "s0": 0.1, "tau0": 0.3, "alpha_p": 1.0, "beta": 0.3, "eta": 0.1, "sigma2": 0.2},  # c < 0
    {"p0": 0.05, "s0": 0.5, "tau0": 0.1, "alpha_p": 5.0, "beta": 0.8, "eta": 0.2, "sigma2": 1.0},
    {"p0": 1.2, "s0": 0.01, "tau0": 1.0, "alpha_p": 1.0, "beta": 0.5, "eta": 0.02, "sigma2": 0.1},
    {
        "p0": -0.4,
        "s0": 0.05,
        "tau0": 0.9,
        "alpha_p": 0.5,
        "beta": 0.6,
        "eta": 0.0,
        "sigma2": 0.3,
    },  # w crosses 0
    {"p0": 0.3, "s0": 0.045, "tau0": 0.5, "alpha_p": 2.0, "beta": 0.4, "eta": 0.04, "sigma2": 0.5},  # c = 0
    {"p0": 0.4, "s0": 0.3, "fixed_tau": 0.8, "alpha_p": 2.0, "eta": 0.01, "sigma2": 0.4},
    {"p0": 0.6, "s0": 0.01, "fixed_tau": 0.7, "alpha_p": 0.3, "eta": 0.0, "sigma2": 0.4},
]
TIMES = np.linspace(0, 12, 7)


def precise(case: dict[str, float], times: np.ndarray) -> np.ndarray:
    """p, s and tau by Taylor series in 30 digits, in p, w and w_a. (N, 3)"""
    held = case.get("fixed_tau")
    alpha_p, eta, kappa = mpmath.mpf(case["alpha_p"]), mpmath.mpf(case["eta"]), 1 + mpmath.mpf(case["sigma2"])

    def rates(t, y):
        p, w = y[0], y[1]
        pull = (y[2] if held is None else held * w) - kappa * p * w
        moved = [] if held is not None else [case["beta"] * (w - y[2])]
        return [alpha_p * w * pull - eta * p, p * pull - eta * w, *moved]

    with mpmath.workdps(30):
        w0 = mpmath.sqrt(case["s0"])
        start = [mpmath.mpf(case["p0"]), w0] + ([] if held is not None else [case["tau0"] * w0])
        solution = mpmath.odefun(rates, 0, start, tol=mpmath.mpf(10) ** -18)
        rows = [solution(t) for t in times]
        return np.array([[y[0], y[1] ** 2, held if held is not None else y[2] / y[1]] for y in rows], float)


@pytest.mark.parametrize("case", CASES)
def test_a_course_and_an_end_agree_with_a_solution_in_30_digits(case):
    expected = precise(case, TIMES)
    mode = Modes(**case)
    course = mode.trajectory(TIMES)
    found = torch.stack([course.p, course.s, course.tau], 1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    end = mode.final(TIMES[-1])
    np.testing.assert_allclose([end.p, end.s, end.tau], expected[-1], rtol=1e-8)


unit = st.floats(0, 1)


@st.composite
def modes(draw: st.DrawFn, held: bool | None = None) -> Modes:
    held = draw(st.booleans()) if held is None else held
    return Modes(
        p0=draw(st.floats(-1.5, 1.5)), s0=draw(unit), tau0=draw(unit), alpha_p=draw(st.floats(0.1, 10)),
        beta=draw(unit), eta=draw(st.floats(0, 0.5)), sigma2=draw(st.floats(0, 2)),
        fixed_tau=draw(st.floats(0, 1.5)) if held else None,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(modes())
def test_the_integral_holds_along_a_course(mode):
    course = mode.trajectory(np.linspace(0, 20, 11))
    assert course.invariant_drift <= 1e-14
    grown = torch.exp(2 * mode.eta * course.t) * (course.s - course.p**2 / mode.alpha_p)
    terms = torch.exp(2 * mode.eta * course.t) * (course.s + course.p**2 / mode.alpha_p)
    assert ((grown - mode.c).abs() <= 1e-14 * terms).all()


@settings(max_examples=15, deadline=None)
@given(modes())
def test_the_unknowns_of_the_solver_obey_the_equations_of_the_paper(mode):
    """Finite differences of a course against p', s' and tau' in p, s and tau."""
    step = 1e-4
    course = mode.trajectory([0.0, 2 - step, 2.0, 2 + step])
    if course.s[2] < 1e-6 or course.tau[2].abs() > 10:  # tau has a pole where w passes through 0
        return
    expected = slopes(course.p[2], course.s[2], course.tau[2], mode)
    for values, slope in zip((course.p, course.s, course.tau), expected, strict=True):
        assert (values[3] - values[1]).item() / (2 * step) == pytest.approx(slope.item(), rel=1e-4, abs=1e-6)


def test_many_modes_at_once_equal_scipy_one_by_one(random):
    count = 40
    values = {
        "p0": random.uniform(0.05, 1, count), "s0": random.uniform(0.01, 1, count),
        "tau0": random.uniform(0, 1, count), "alpha_p": random.uniform(0.2, 5, count),
        "beta": random.uniform(0.05, 1, count), "eta": random.uniform(0, 0.3, count),
        "sigma2": random.uniform(0, 1, count),
    }  # fmt: skip
    many = Modes(**values)
    end = many.final(30.0)
    for i in range(count):
        one = Modes(**{name: value[i] for name, value in values.items()})

        def naive(t, y, one=one):
            return [float(v) for v in slopes(*map(torch.tensor, y), one)]

        y0 = [values[name][i] for name in ("p0", "s0", "tau0")]
        expected = solve_ivp(naive, (0, 30), y0, "LSODA", rtol=1e-10, atol=1e-14).y[:, -1]
        np.testing.assert_allclose([end.p[i], end.s[i], end.tau[i]], expected, rtol=1e-6, atol=1e-10)


def test_a_grid_keeps_its_shape_and_takes_an_end_for_each():
    mode = Modes(p0=[[0.2], [0.4]], s0=[0.1, 0.2, 0.3])
    end = mode.final([1.0, 2.0, 3.0])
    assert end.p.shape == (2, 3)
    alone = Modes(p0=0.4, s0=0.2).final(2.0)
    assert end.p[1, 1].item() == pytest.approx(alone.p.item(), rel=1e-12)


def test_the_smallest_k_is_the_smallest_of_a_fine_course():
    for eta, beta in ((0.01, 0.3), (0.04, 0.4), (0.12, 0.4), (0.02, 0.9)):
        mode = Modes(p0=0.3, s0=0.1, tau0=0.5, eta=eta, beta=beta)
        fine = mode.trajectory(np.linspace(0, 40, 40_001))
        lowest = mode.final(40.0, lowest_k=True).lowest_k
        assert lowest is not None
        assert lowest.item() == pytest.approx(fine.k.min().item(), abs=1e-7)


def test_k_has_no_bound_where_tau_goes_through_infinity():
    """p < 0 < tau and c < 0: w passes through 0, and -tau p through -infinity."""
    mode = Modes(p0=-0.4, s0=0.05, tau0=0.9, alpha_p=0.5, beta=0.6, eta=0.0, sigma2=0.3)
    course = mode.trajectory(np.linspace(0, 12, 4001))
    assert course.tau.min() < -10
    assert course.tau.max() > 10
    assert mode.final(12.0, lowest_k=True).lowest_k == -np.inf
    before = mode.trajectory(np.linspace(0, 0.1, 101))
    lowest = mode.final(0.1, lowest_k=True).lowest_k
    assert lowest.item() == pytest.approx(before.k.min().item(), rel=1e-6)


def test_alpha_p_cancels_in_k_on_the_parabola_alone():
    p, tau, eta, sigma2 = 0.4, 0.9, 0.05, 0.3
    on = [alignment(p, p * p / alpha_p, tau, alpha_p, eta, sigma2) for alpha_p in (0.5, 1, 4)]
    assert on == pytest.approx([on[0]] * 3, rel=1e-14)
    off = [alignment(p, 0.5, tau, alpha_p, eta, sigma2) for alpha_p in (0.5, 1, 4)]
    assert off == sorted(off)
    assert off[0] < off[1] < off[2]


@given(st.floats(0.05, 2), st.floats(0, 2), st.booleans())
def test_k_is_positive_everywhere_on_the_parabola_exactly_in_the_window(tau, sigma2, inside):
    """k > 0 for all p iff eta (1 + sigma2) / tau^2 > 1/9; Tian et al. 2021, section 3.3."""
    eta = (1 / 9 + (1e-6 if inside else -1e-6)) * tau**2 / (1 + sigma2)
    p = tau / (3 * (1 + sigma2))  # where k is lowest
    near = p * np.linspace(0.5, 1.5, 101)
    k = alignment(near, near**2, tau, 1.0, eta, sigma2)
    assert (k.min() > 0) == inside


def test_tau_in_closed_form():
    mode = Modes(p0=0.3, s0=0.2, tau0=0.4, beta=0.7, eta=0.05)
    course = mode.trajectory(np.linspace(0, 20, 801))
    found = tau_closed_form(course.t, course.s.sqrt(), 0.7, 0.4)
    np.testing.assert_allclose(found, course.tau, rtol=1e-7)


def test_from_a_start_on_the_parabola_tau_is_equation_15():
    """c = 0 and tau(0) = 0: tau p = beta e^{-beta t} int p e^{beta t}, the paper's own case."""
    mode = Modes(p0=0.3, s0=0.09, tau0=0.0, beta=0.7, eta=0.05)
    course = mode.trajectory(np.linspace(0, 10, 2001))
    t, p = course.t.numpy(), course.p.numpy()
    grown = cumulative_simpson(p * np.exp(0.7 * t), x=t, initial=0)
    np.testing.assert_allclose(0.7 * np.exp(-0.7 * t) * grown / p, course.tau, atol=1e-9)


def test_a_mode_of_no_data_has_no_tau_and_forgets_its_predictor():
    course = Modes(p0=0.5, s0=0.0, eta=0.1).trajectory([0.0, 3.0])
    assert course.s.tolist() == [0, 0]
    assert course.tau.isnan().all()
    assert course.p[1].item() == pytest.approx(0.5 * np.exp(-0.3), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"alpha_p": 0.0}, "alpha_p"), ({"beta": -1.0}, "beta"), ({"eta": -0.1}, "eta"),
        ({"sigma2": -0.1}, "sigma2"), ({"s0": -1e-9}, "s0"), ({"p0": float("nan")}, "p0"),
        ({"tau0": float("inf")}, "tau0"), ({"fixed_tau": "x"}, "fixed_tau"), ({"eta": [0.1, -0.1]}, "eta"),
        ({"eta": []}, "eta"), ({"eta": [0.1, 0.2], "beta": [0.1, 0.2, 0.3]}, "beta (3,), eta (2,)"),
    ],
)  # fmt: skip
def test_an_argument_outside_its_domain_is_named(change, name):
    arguments = {"p0": 0.3, "s0": 0.1, **change}
    with pytest.raises(UsageError, match=name.replace("(", r"\(").replace(")", r"\)")) as error:
        Modes(**arguments)
    assert "\n" not in str(error.value)


def test_times_must_increase_and_a_course_is_of_one_mode():
    with pytest.raises(UsageError, match="t: must increase from 0"):
        Modes(p0=0.3, s0=0.1).trajectory([0.0, 2.0, 1.0])
    with pytest.raises(UsageError, match="one mode at a time"):
        Modes(p0=[0.3, 0.4], s0=0.1).trajectory([0.0, 1.0])
