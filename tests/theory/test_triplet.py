"""The triplet against the isotropic modes and differences, and the panels of Figure 10 against its flow."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.errors import UsageError
from stopgrad.theory.basins import collapses
from stopgrad.theory.triplet import (
    Triplet,
    slopes,
    tian2021_fig10,
    triplet_fixed_points,
    triplet_jacobian,
    triplet_stability,
)

reasonable = st.floats(0.1, 2.0)


@settings(max_examples=12, derandomize=True)
@given(
    w_p=st.floats(-1.5, 1.5), w=st.floats(0.1, 1.5), w_a=st.floats(-1.5, 1.5), l_d=reasonable,
    noise=st.floats(0.0, 2.0), alpha_p=reasonable, beta=reasonable, eta=st.floats(0.0, 0.2),
    sign=st.sampled_from([-1, 1]),
)  # fmt: skip
def test_triplet_is_an_isotropic_mode(w_p, w, w_a, l_d, noise, alpha_p, beta, eta, sign):
    triplet = Triplet(w_p, sign * w, sign * w_a, l_d, l_d + noise, alpha_p, beta, eta)
    t = np.linspace(0, 5, 6)
    course = triplet.trajectory(t)
    modes, scale = triplet.as_isotropic()
    mode = modes.trajectory(t * scale.item())
    assert np.allclose(course.w_p, mode.p.numpy(), rtol=1e-8, atol=1e-10)
    assert np.allclose(course.w**2, mode.s.numpy(), rtol=1e-8, atol=1e-10)
    assert np.allclose(course.w_a, (mode.tau * torch.as_tensor(course.w)).numpy(), rtol=1e-7, atol=1e-9)
    assert course.invariant_drift < 1e-10


def test_simsiam_triplet_is_a_mode_with_tau_held():
    triplet = Triplet(0.2, 0.5, l_d=0.7, l_s=1.3, alpha_p=2.0, eta=0.03)
    t = np.linspace(0, 30, 4)
    course = triplet.trajectory(t)
    modes, scale = triplet.as_isotropic()
    mode = modes.trajectory(t * scale.item())
    assert np.allclose(course.w_p, mode.p.numpy(), rtol=1e-9)
    assert (course.w_a == course.w).all()


@settings(max_examples=15, derandomize=True)
@given(
    w_p=st.floats(0.4, 1.5), share=st.floats(0.01, 0.9), w_a=st.floats(-1.5, 1.5), alpha_p=reasonable,
    beta=reasonable,
)  # fmt: skip
def test_a_predictor_of_the_wrong_sign_collapses(w_p, share, w_a, alpha_p, beta):
    w = share * w_p / np.sqrt(alpha_p)
    triplet = Triplet(-w_p, w, w_a, alpha_p=alpha_p, beta=beta)
    course = triplet.trajectory([0.0, 300.0])
    assert abs(course.w[-1]) < 1e-6
    assert abs(course.w_a[-1]) < 1e-6
    assert course.w_p[-1] == pytest.approx(-np.sqrt(w_p**2 - alpha_p * w**2), rel=1e-6)
    assert bool(collapses(triplet.as_isotropic()[0]))


def test_just_off_the_basin_the_triplet_escapes_the_origin():
    course = Triplet(-0.5, 0.51, 0.5).trajectory([0.0, 2e3])
    assert course.w_p[-1] == pytest.approx(0.5)
    assert abs(course.w[-1]) > 0.1
    course = Triplet(-0.5, 0.5, 0.5).trajectory([0.0, 2e3])
    assert max(abs(course.w_p[-1]), abs(course.w[-1]), abs(course.w_a[-1])) < 1e-3


def test_jacobian_against_differences():
    numbers = {"l_d": 0.6, "l_s": 1.4, "alpha_p": 2.5, "beta": 0.3, "eta": 0.05}
    point, h = np.array([0.4, -0.7, 0.9]), 1e-6
    columns = [
        (np.array(slopes(*(point + h * e), **numbers)) - np.array(slopes(*(point - h * e), **numbers)))
        / (2 * h)
        for e in np.eye(3)
    ]
    assert np.allclose(triplet_jacobian(*point, **numbers), np.stack(columns, axis=1), atol=1e-8)


def test_lines_of_fixed_points_attract_where_the_formulas_say():
    numbers = {"l_d": 0.5, "l_s": 1.25, "alpha_p": 2.0, "beta": 0.7}
    ratio = 0.5 / 1.25
    for w in (-1.2, 0.3, 2.0):
        point = triplet_stability(ratio, w, w, **numbers)
        assert point.stable
        # mu^2 + (alpha_p l_s w^2 + l_d^2 / l_s + beta) mu + alpha_p l_s w^2 beta = 0, and 0
        pull = 2.0 * 1.25 * w**2
        expected = [*np.roots([1, pull + 0.25 / 1.25 + 0.7, pull * 0.7]), 0.0]
        assert np.allclose(np.sort_complex(point.eigenvalues), np.sort_complex(expected), atol=1e-9)
    for w_p, stable in ((-0.5, True), (0.1, False), (ratio, False), (0.0, False), (0.8, True)):
        assert triplet_stability(w_p, 0.0, 0.0, **numbers).stable == stable


def test_fixed_points_with_decay_and_their_fate():
    numbers = {"l_d": 0.6, "l_s": 1.1, "alpha_p": 2.0, "beta": 0.5, "eta": 0.05}
    points = triplet_fixed_points(**numbers)
    assert [p.stable for p in points] == [True, False, False, True, True]
    for point in points:
        assert np.abs(slopes(point.w_p, point.w, point.w_a, **numbers)).max() < 1e-15
        shift = [value * (1 + 1e-6) for value in point[:3]]
        end = Triplet(*shift, **numbers).trajectory([0.0, 400.0])
        back = abs(end.w_p[-1] - point.w_p) < 1e-9
        assert back == point.stable
    assert len(triplet_fixed_points(**{**numbers, "eta": 0.09})) == 1  # beyond l_d^2 / (4 l_s) = 0.0818


def test_tied_weights_stay_tied_on_the_right_ray():
    tied = Triplet(0.3, 0.3, 0.1).trajectory([0.0, 1.0, 5.0])
    assert np.allclose(tied.w, tied.w_p, rtol=1e-10)
    loose = Triplet(0.3, 0.3, 0.1, alpha_p=3.0).trajectory([0.0, 1.0, 5.0])
    assert abs(loose.w[-1] - loose.w_p[-1]) > 0.01
    ray = Triplet(0.3, 0.3 / np.sqrt(3), 0.1, alpha_p=3.0).trajectory([0.0, 1.0, 5.0])
    assert np.allclose(ray.w_p, np.sqrt(3) * ray.w, rtol=1e-10)


def test_figure_10_panels_are_the_flow():
    left, middle, right = tian2021_fig10(points=9)
    numbers = {"l_d": 0.5, "l_s": 1.0}
    for plane, change in (
        (left, lambda x, y: slopes(y, x, 1.0, **numbers)[1::-1]),
        (middle, lambda x, y: slopes(x, x, y, **numbers)[1:]),
        (right, lambda x, y: slopes(1.0, x, y, **numbers)[1:]),
    ):
        for i, j in ((0, 3), (5, 8), (2, 2)):
            dx, dy = change(plane.x[j], plane.y[i])
            assert np.allclose(np.array([plane.dx[i, j], plane.dy[i, j]]) * np.hypot(dx, dy), [dx, dy])
        length = np.hypot(plane.dx, plane.dy)
        assert np.allclose(length[length > 0], 1)
        for x, y, _ in plane.points:
            assert np.abs(change(x, y)).max() < 1e-12
    x, y = left.curves["w_p w = w_a l_d / l_s"]
    assert np.nanmax(np.abs(slopes(y, x, 1.0, **numbers)[:2])) < 1e-12
    for plane, w_p in ((middle, lambda x: x), (right, lambda x: 1.0)):
        x, y = plane.curves["w' = 0"]
        assert np.abs(slopes(w_p(x), x, y, **numbers)[1]).max() < 1e-12
    assert [len(plane.points) for plane in (left, middle, right)] == [1, 2, 1]


def test_tied_panel_lies_on_the_invariant_ray_for_any_alpha_p():
    (_, middle, _) = tian2021_fig10(l_d=0.8, alpha_p=4.0, points=4)
    numbers = {"l_d": 0.8, "l_s": 1.0, "alpha_p": 4.0}
    w, w_a, stable = middle.points[1]
    assert stable
    assert np.abs(slopes(2 * w, w, w_a, **numbers)).max() < 1e-12
    w, w_a = middle.curves["w' = 0"]
    assert np.abs(slopes(2 * w, w, w_a, **numbers)[1]).max() < 1e-12
    dw, dw_a = slopes(2 * middle.x[3], middle.x[3], middle.y[0], **numbers)[1:]
    assert np.allclose(np.array([dw, dw_a]) / np.hypot(dw, dw_a), [middle.dx[0, 3], middle.dy[0, 3]])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Triplet(0.1, 0.1, l_d=2.0, l_s=1.0), "l_d"),
        (lambda: Triplet(0.1, 0.1, alpha_p=0.0), "alpha_p"),
        (lambda: Triplet(0.1, float("nan")), "w0"),
        (lambda: Triplet(0.1, 0.0, 1.0).as_isotropic(), "w0"),
        (lambda: Triplet(0.1, 1.0, 1.0, l_d=0.0).as_isotropic(), "l_d"),
        (lambda: Triplet([0.1, 0.2], 1.0).trajectory([0, 1]), "trajectory"),
        (lambda: Triplet(0.1, 1.0).trajectory([1, 2]), "t:"),
        (lambda: triplet_fixed_points(l_d=0.5, l_s=1, alpha_p=1, beta=1, eta=0), "eta"),
        (lambda: triplet_stability(0.3, 1, 1, l_d=0.5, l_s=1, alpha_p=1, beta=1), "w_p"),
        (lambda: triplet_stability(0.5, 1, 1, l_d=0.5, l_s=1, alpha_p=1, beta=0), "beta"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_names_the_argument(call, named):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(named)
    assert "\n" not in str(error.value)
