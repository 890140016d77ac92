"""Rates against autograd through the project's own parts; expectations against closed forms and samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gamma, hyp2f1

from stopgrad.errors import UsageError
from stopgrad.parts.distances import DISTANCES
from stopgrad.parts.gradient import straight_through
from stopgrad.parts.predictors import DirectPred
from stopgrad.theory.representation import (
    Siamese,
    euclidean_rates,
    expected_cosine,
    halvagal2023_fig4,
    halvagal2023_fig5,
    power,
    rates,
)

LOSSES = ("euclidean", "cosine")
VARIANTS = ("plain", "no-stop-gradient", "no-predictor", "isoloss")


def loss_of_parts(z1, z2, w_p, loss, variant):
    p = z1 if variant == "no-predictor" else z1 @ w_p.T
    if variant == "isoloss":
        p = straight_through(z1, p)
    return DISTANCES[loss]()(p, z2 if variant == "no-stop-gradient" else z2.detach())


def exact_views(n, q, k, seed=0, pairs=400):
    """Views whose first and second moments are exactly those of the population. (pairs, n) each"""
    g = np.random.default_rng(seed).normal(size=(pairs // 2, 3 * n))
    g = np.concatenate([g, -g])
    g = g @ np.linalg.inv(np.linalg.cholesky(g.T @ g / len(g))).T
    x, e1, e2 = np.split(g, 3, axis=1)
    return x + q**0.5 * e1, x + k**0.5 * e2


def random_w(m, n, seed=0):
    return np.random.default_rng(seed).normal(size=(m, n)) / n**0.5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_rates_are_the_gradients_of_the_parts(loss, variant):
    rng = np.random.default_rng(3)
    z1, z2, lam = rng.normal(size=(7, 4)), rng.normal(size=(7, 4)), rng.uniform(0.2, 2, 4)
    a, b = (torch.tensor(z, requires_grad=True) for z in (z1, z2))
    loss_of_parts(a, b, torch.diag(torch.tensor(lam)), loss, variant).backward()
    by_z1, by_z2 = rates(z1, z2, lam, loss, variant)
    assert np.allclose(by_z1, -7 * a.grad.numpy(), atol=1e-14)
    expected = -7 * b.grad.numpy() if variant == "no-stop-gradient" else 0
    assert np.allclose(by_z2, expected, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_lambda_times_isoloss_is_the_plain_gradient(loss):
    rng = np.random.default_rng(4)
    z1, z2, lam = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.uniform(0.2, 2, 3)
    plain, _ = rates(z1, z2, lam, loss, "plain")
    iso, _ = rates(z1, z2, lam, loss, "isoloss")
    assert np.allclose(lam * iso, plain, rtol=1e-13)
    assert np.abs(iso - plain).max() > 0.01


def test_cosine_rate_is_the_sum_over_the_other_modes():
    rng = np.random.default_rng(5)
    z1, z2, lam = rng.normal(size=4), rng.normal(size=4), rng.uniform(0.2, 2, 4)
    norm = np.linalg.norm(lam * z1) ** 3 * np.linalg.norm(z2)
    others = lambda m: (k for k in range(4) if k != m)  # noqa: E731
    expected = [
        lam[m]
        / norm
        * sum(lam[k] * z1[k] * (lam[k] * z1[k] * z2[m] - lam[m] * z1[m] * z2[k]) for k in others(m))
        for m in range(4)
    ]
    assert np.allclose(rates(z1[None], z2[None], lam, "cosine")[0][0], expected)


def test_equal_views_without_a_predictor_do_not_move():
    z = np.random.default_rng(0).normal(size=(5, 3))
    for loss in LOSSES:
        assert np.abs(rates(z, z, np.ones(3), loss, "no-predictor")[0]).max() < 1e-12


def test_pairs_of_length_zero_have_no_gradient():
    z = np.array([[0.0, 0.0], [1.0, 2.0]])
    for variant in VARIANTS:
        by_z1, by_z2 = rates(z, z[::-1], [0.5, 1.5], "cosine", variant)
        assert (by_z1 == 0).all()
        assert (by_z2 == 0).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    q=st.floats(0, 1),
    k=st.floats(0, 1),
    variant=st.sampled_from(VARIANTS),
    exponent=st.sampled_from([0.5, 1.0]),
)
def test_expected_euclidean_flow_is_the_gradient_of_views_with_exact_moments(q, k, variant, exponent):
    w = random_w(3, 5)
    x1, x2 = exact_views(5, q, k)
    siamese = Siamese("euclidean", variant, power(exponent), q, k)
    values, basis = np.linalg.eigh(w @ w.T)
    zhat = basis.T @ w
    expected = euclidean_rates(zhat.T, values**exponent, variant, sigma2_query=q, sigma2_key=k).T
    assert np.allclose(basis.T @ siamese.update(w, x1, x2), expected, atol=1e-12)
    assert np.allclose(siamese.spectrum_rates(values), 2 * (zhat * expected).sum(axis=1), atol=1e-12)


def test_euclidean_rates_of_clean_views_are_those_of_the_paper():
    z, lam = np.array([0.7, -1.2]), np.array([0.4, 1.7])
    assert np.allclose(euclidean_rates(z, lam), lam * (1 - lam) * z)
    assert np.allclose(euclidean_rates(z, lam, "isoloss"), (1 - lam) * z)
    assert np.allclose(euclidean_rates(z, lam, "no-stop-gradient"), -((1 - lam) ** 2) * z)
    assert (euclidean_rates(z, lam, "no-predictor") == 0).all()
    assert np.allclose(euclidean_rates(z, lam, "no-predictor", sigma2_query=0.3), -0.3 * z)


@pytest.mark.parametrize("m", [1, 2, 3, 7, 32])
@pytest.mark.parametrize(("q", "k"), [(0.0, 0.0), (0.3, 0.1), (4.0, 9.0)])
def test_expected_cosine_of_equal_modes_in_closed_form(m, q, k):
    rho = 1 / math.sqrt((1 + q) * (1 + k))
    expected = 2 / m * (gamma((m + 1) / 2) / gamma(m / 2)) ** 2 * rho * hyp2f1(0.5, 0.5, m / 2 + 1, rho**2)
    found = expected_cosine(np.full(m, 1.7), np.full(m, 0.3), sigma2_query=q, sigma2_key=k)
    assert found.value == pytest.approx(expected, abs=1e-10)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(s=st.tuples(*[st.floats(0.01, 3)] * 2), lam=st.tuples(*[st.floats(0.05, 3)] * 2))
def test_expected_cosine_of_two_clean_modes_is_an_integral_over_the_angle(s, lam):
    s, lam = np.array(s), np.array(lam)
    angle = np.arange(4000) * np.pi / 2000
    z = np.sqrt(s)[:, None] * np.stack([np.cos(angle), np.sin(angle)])
    cosine = (lam @ z**2) / np.sqrt((lam**2 @ z**2) * (z**2).sum(axis=0))
    found = expected_cosine(s, lam)
    assert found.value == pytest.approx(cosine.mean(), rel=1e-9)
    p = lam[:, None] * z
    by_lam = (z * (z / np.sqrt((p**2).sum(0) * (z**2).sum(0)) - cosine * p / (p**2).sum(0))).mean(axis=1)
    assert np.allclose(found.by_lam, by_lam, atol=1e-9 / lam.min())


@pytest.mark.parametrize(("q", "k"), [(0.0, 0.01), (0.4, 0.2)])
def test_derivatives_of_the_expected_cosine(q, k):
    s, lam = np.array([0.3, 1.1, 2.0, 0.01]), np.array([0.5, 1.2, 0.3, 0.9])
    noise = {"sigma2_query": q, "sigma2_key": k}
    found = expected_cosine(s, lam, **noise)
    for m in range(4):
        h = 1e-5 * np.eye(4)[m]
        slope = (
            expected_cosine(s, lam + h, **noise).value - expected_cosine(s, lam - h, **noise).value
        ) / 2e-5
        assert found.by_lam[m] == pytest.approx(slope, abs=1e-8)
    # scaling one argument changes nothing
    assert abs(lam @ found.by_lam) < 1e-12
    assert abs(found.by_mu.sum()) < 1e-12
    # swapping the two views turns mu into lam: cos(D z1, z2) with s, lam = cos(z2', D' z1') with scaled modes
    swapped = expected_cosine(s * lam**2, 1 / lam, sigma2_query=k, sigma2_key=q)
    assert swapped.value == pytest.approx(found.value, rel=1e-12)
    assert np.allclose(found.by_mu, swapped.by_lam / lam, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_flow_is_the_mean_of_gradient_descent(loss, variant):
    siamese = Siamese(loss, variant, power(0.5), 0.2, 0.1)
    w0 = random_w(3, 4, 1)
    course = siamese.descend(w0, steps=100, learning_rate=0.02, batch=4000, every=50, seed=1)
    flow = siamese.flow(w0, course.t)
    assert np.allclose(course.s, flow.s, rtol=0.03, atol=0.01)
    assert np.abs(course.w - flow.w).max() < 0.03
    if (loss, variant) != ("cosine", "no-predictor"):
        assert np.abs(flow.w[-1] - w0).max() > 0.05


def test_flow_keeps_singular_vectors_and_starts_at_the_weights():
    w0 = random_w(5, 3, 2)
    course = Siamese("cosine").flow(w0, [0.0, 2.0])
    assert np.allclose(course.w[0], w0, atol=1e-12)
    assert np.allclose(np.linalg.eigvalsh(course.w[1] @ course.w[1].T), course.s[1], atol=1e-12)
    left, _, right = np.linalg.svd(w0, full_matrices=False)
    turned = left.T @ course.w[1] @ right.T
    assert np.abs(turned - np.diag(np.diag(turned))).max() < 1e-12


@pytest.mark.parametrize("variant", ["plain", "no-stop-gradient", "no-predictor"])
def test_cosine_flow_conserves_the_trace(variant):
    course = Siamese("cosine", variant, sigma2_query=0.1).flow(random_w(4, 6), [0.0, 3.0, 10.0])
    assert np.allclose(course.s.sum(axis=1), course.s[0].sum(), rtol=1e-9)
    assert np.abs(course.s[-1] - course.s[0]).max() > 0.01


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_cosine_isoloss_conserves_another_sum(exponent):
    course = Siamese("cosine", "isoloss", power(exponent)).flow(random_w(4, 6), [0.0, 3.0, 60.0])
    total = (course.s ** (1 + exponent)).sum(axis=1)
    assert np.allclose(total, total[0], rtol=1e-9)
    assert np.allclose(course.s[-1], (total[0] / 4) ** (1 / (1 + exponent)), rtol=1e-3)
    assert abs(course.s[-1].sum() / course.s[0].sum() - 1) > 0.01


def test_without_stop_gradient_modes_die_and_their_sum_stays():
    course = Siamese("cosine", "no-stop-gradient").flow(random_w(4, 15, 1), [0.0, 30.0])
    assert course.s[-1].sum() == pytest.approx(course.s[0].sum(), rel=1e-9)
    assert course.s[0, 0] > 0.1
    assert course.s[-1, 1] < 1e-6
    assert course.s[-1, 2] > 0.5


def test_euclidean_ends():
    w0 = random_w(3, 6)
    assert np.allclose(Siamese().flow(w0, [0.0, 60.0]).s[-1], 1, atol=1e-6)
    noisy = Siamese(predictor=power(0.5), sigma2_query=0.5).flow(w0, [0.0, 60.0])
    assert np.allclose(noisy.s[-1], (1 / 1.5) ** 2, atol=1e-6)
    assert Siamese("euclidean", "no-stop-gradient").flow(w0, [0.0, 600.0]).s.sum(axis=1)[-1] < 1e-2
    still = Siamese("euclidean", "no-predictor").flow(w0, [0.0, 5.0])
    assert np.allclose(still.s[1], still.s[0])
    decaying = Siamese("euclidean", "no-predictor", sigma2_query=0.2).flow(w0, [0.0, 5.0])
    assert np.allclose(decaying.s[1], decaying.s[0] * np.exp(-2 * 0.2 * 5), rtol=1e-8)


def test_zero_weights_stay():
    for loss in LOSSES:
        assert (Siamese(loss).flow(np.zeros((2, 3)), [0.0, 1.0]).w == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_update_is_the_gradient_of_a_network_with_directpred(loss, variant, activation):
    w = random_w(3, 5, 4)
    x1, x2 = exact_views(5, 0.3, 0.2, seed=4, pairs=60)
    weight = torch.tensor(w, requires_grad=True)
    z1, z2 = (torch.tensor(x) @ weight.T for x in (x1, x2))
    if activation == "relu":
        z1, z2 = z1.relu(), z2.relu()
    predictor = DirectPred(3, eps=0.0, eps_form="text", rho=0.0).double()
    predictor.after_step([z1])
    loss_of_parts(z1, z2, predictor.linear.weight, loss, variant).backward()
    found = Siamese(loss, variant, power(0.5)).update(
        w, x1, x2, activation=activation, correlation="representation"
    )
    assert np.allclose(found, -weight.grad.numpy(), atol=1e-12)
    change = (w * found).sum()
    if loss == "cosine":
        assert (abs(change) < 1e-12) == (variant != "isoloss")


def test_figure_4_ends_at_one_or_at_the_initial_mean():
    found = halvagal2023_fig4(points=4)
    for i in range(3):
        euclidean, cosine = found["euclidean"][i], found["cosine"][i]
        assert euclidean.t[-1] == 15
        assert (euclidean.s[0] == cosine.s[0]).all()
        assert abs(euclidean.s[-1] - 1).max() < 0.02
        spread = np.ptp(cosine.s, axis=1)
        assert spread[-1] < 0.1 * spread[0]
        assert cosine.s[-1].mean() == pytest.approx(cosine.s[0].mean(), rel=1e-8)
    assert found["cosine"][1].s[0] == pytest.approx(4 * found["cosine"][0].s[0])


def test_figure_5_panels():
    found = halvagal2023_fig5(steps=200, batch=60)
    assert set(found) == {(loss, variant) for loss in LOSSES for variant in VARIANTS}
    start = found["euclidean", "plain"].s[0]
    end = {key: course.s[-1] for key, course in found.items()}
    assert all(course.s.shape == (21, 10) for course in found.values())
    assert np.abs(end["euclidean", "isoloss"] - 1).mean() < 0.6 * np.abs(start - 1).mean()
    assert end["euclidean", "no-stop-gradient"].sum() < 0.7 * start.sum()
    assert end["euclidean", "no-predictor"] == pytest.approx(start, rel=0.05)
    assert end["cosine", "isoloss"].sum() > 1.05 * start.sum()
    for variant in ("plain", "no-stop-gradient", "no-predictor"):
        assert end["cosine", variant].sum() == pytest.approx(start.sum(), rel=0.01)


def test_relu_needs_the_correlation_of_the_weights_to_behave_like_a_linear_network():
    w0 = random_w(6, 9, 3)
    ends = {
        correlation: Siamese("cosine")
        .descend(w0, 500, 0.05, 100, activation="relu", correlation=correlation, every=500)
        .s
        for correlation in ("weights", "representation")
    }
    spread = {name: s[-1].std() / s[0].std() for name, s in ends.items()}
    assert spread["weights"] < 0.7
    assert spread["representation"] > 0.85


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: rates([[1.0]], [[1.0, 2.0]], [1.0]), "z1"),
        (lambda: rates([[1.0]], [[1.0]], [1.0], "l1"), "loss"),
        (lambda: rates([[1.0]], [[1.0]], [1.0], "cosine", "none"), "variant"),
        (lambda: euclidean_rates(1.0, 1.0, sigma2_query=-1), "sigma2_query"),
        (lambda: expected_cosine([1.0, -1.0], [1.0, 1.0]), "s"),
        (lambda: expected_cosine([1.0, 0.0], [0.0, 1.0]), "s, lam"),
        (lambda: expected_cosine([1.0, 1.0], [1.0]), "s, lam"),
        (lambda: Siamese("l1"), "loss"),
        (lambda: Siamese(sigma2_key=-0.1), "sigma2_key"),
        (lambda: Siamese().spectrum_rates([[1.0]]), "s"),
        (lambda: Siamese().flow([[1.0]], [1.0, 2.0]), "t"),
        (lambda: Siamese().flow([1.0], [0.0]), "w0"),
        (lambda: Siamese().descend([[1.0]], steps=0), "steps"),
        (lambda: Siamese().descend([[1.0]], learning_rate=0), "learning_rate"),
        (lambda: Siamese().descend([[1.0]], activation="tanh"), "activation"),
        (lambda: Siamese().descend([[1.0]], correlation="none"), "correlation"),
        (lambda: power(0), "exponent"),
    ],
)
def test_bad_input_is_one_line_that_names_the_argument(call, named):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(named)
    assert "\n" not in str(error.value)
