"""Fixed points and scrambling against the flow itself and random views."""

from itertools import combinations

import numpy as np
import pytest
import torch

from stopgrad.errors import UsageError
from stopgrad.theory.nonisotropic import (
    additive_scrambling,
    decoupled_modes,
    fixed_point,
    growth_rates,
    learnable_modes,
    multiplicative_scrambling,
    residual,
)
from stopgrad.theory.triplet import slopes


def random_spd(n, seed):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T / n + 0.1 * np.eye(n)


def random_views(n, seed):
    return additive_scrambling(random_spd(n, seed), random_spd(n, seed + 1000))


def loss_gradients(w_p, w, sigma_d, sigma_s):
    """Minus the gradients of 1/2 E||W_p W x1 - sg(W x2)||^2 by autograd, from the moments of the views."""
    w_p, w = torch.tensor(w_p, requires_grad=True), torch.tensor(w, requires_grad=True)
    sigma_d, sigma_s = torch.tensor(sigma_d), torch.tensor(sigma_s)
    online, target = w_p @ w, w.detach()
    loss = 0.5 * torch.trace(online @ sigma_s @ online.T) - torch.trace(online @ sigma_d @ target.T)
    loss.backward()
    return -w_p.grad.numpy(), -w.grad.numpy()


@pytest.mark.parametrize("seed", range(4))
def test_fixed_points_stop_the_flow_under_the_whole_symmetry_group(seed):
    sigma_d, sigma_s = random_views(6, seed)
    mixing = np.random.default_rng(seed).normal(size=(3, 3))
    w_p, w = fixed_point(sigma_d, sigma_s, (0, 2, 5), mixing)
    for gradient in loss_gradients(w_p, w, sigma_d, sigma_s):
        assert np.abs(gradient).max() < 1e-9
    assert np.abs(w_p @ w - w @ sigma_d @ np.linalg.inv(sigma_s)).max() < 1e-10
    values, _ = learnable_modes(sigma_d, sigma_s)
    assert np.allclose(np.sort(np.linalg.eigvals(w_p).real), np.sort(values[[0, 2, 5]]))


def test_flow_follows_the_residual_away_from_fixed_points():
    sigma_d, sigma_s = random_views(4, 7)
    rng = np.random.default_rng(7)
    w_p, w = rng.normal(size=(2, 2)), rng.normal(size=(2, 4))
    r = residual(w_p, w, sigma_d, sigma_s)
    by_w_p, by_w = loss_gradients(w_p, w, sigma_d, sigma_s)
    assert np.allclose(by_w_p, r @ w.T)
    assert np.allclose(by_w, w_p.T @ r)


def test_modes_are_left_eigenvectors_in_the_unit_interval():
    sigma_d, sigma_s = random_views(7, 3)
    values, vectors = learnable_modes(sigma_d, sigma_s)
    assert np.allclose(vectors @ sigma_d @ np.linalg.inv(sigma_s), values[:, None] * vectors)
    assert (np.diff(values) <= 0).all()
    assert values[0] <= 1
    assert values[-1] >= 0
    assert np.allclose(vectors @ sigma_s @ vectors.T, np.eye(7))


@pytest.mark.parametrize("seed", range(3))
def test_growth_rates_in_closed_form_for_data_that_commute(seed):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    l_d, noise, alpha_p = rng.uniform(0.2, 2, 5), rng.uniform(0.2, 2, 5), 1.7
    sigma_d, sigma_s = additive_scrambling(basis * l_d @ basis.T, basis * noise @ basis.T)
    found_d, found_s, rows = decoupled_modes(sigma_d, sigma_s)
    rho, taken, weights = found_d / found_s, (0, 3), np.array([0.7, 1.9])
    w = weights[:, None] * rows[list(taken)]
    expected = [
        rho[i] * found_s[j] * (rho[j] - rho[i])
        - (alpha_p * weights[taken.index(j)] ** 2 * found_s[j] if j in taken else 0)
        for i in taken
        for j in range(5)
    ]
    rates = growth_rates(np.diag(rho[list(taken)]), w, sigma_d, sigma_s, alpha_p)
    assert np.allclose(rates.real, np.sort(expected)[::-1])
    assert np.abs(rates.imag).max() < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_with_large_weights_only_the_largest_modes_last(seed):
    sigma_d, sigma_s = random_views(5, seed)
    for modes in combinations(range(5), 2):
        w_p, w = fixed_point(sigma_d, sigma_s, modes, 8 * np.eye(2))
        assert (growth_rates(w_p, w, sigma_d, sigma_s, 3.0)[0].real > 1e-9) == (modes != (0, 1))


@pytest.mark.parametrize("mixing", [np.eye(3), [[1.0, 0.5, 0.0], [-2.0, 1.0, 0.3], [0.7, 0.0, 1.5]]])
def test_growth_rates_are_the_eigenvalues_of_the_flow_beside_the_zeros_of_its_family(mixing):
    sigma_d, sigma_s = random_views(4, 11)
    w_p, w = fixed_point(sigma_d, sigma_s, (1, 2, 0), mixing)
    alpha_p, d, s = 1.3, torch.tensor(sigma_d), torch.tensor(sigma_s)

    def flow(y):
        w_p, w = y[:9].reshape(3, 3), y[9:].reshape(3, 4)
        r = w @ d - w_p @ w @ s
        return torch.cat([(alpha_p * r @ w.T).flatten(), (w_p.T @ r).flatten()])

    jacobian = torch.func.jacrev(flow)(torch.tensor(np.concatenate([w_p.ravel(), w.ravel()])))
    found = growth_rates(w_p, w, sigma_d, sigma_s, alpha_p)
    expected = torch.linalg.eigvals(jacobian)
    expected = expected[expected.abs() > 1e-5].numpy()
    assert np.abs(np.sort_complex(found) - np.sort_complex(expected)).max() < 1e-6


def test_additive_scrambling_against_random_views():
    rng = np.random.default_rng(6)
    sigma_x, sigma_n = random_spd(3, 8), random_spd(3, 9)
    sigma_d, sigma_s = additive_scrambling(sigma_x, sigma_n)
    x, e1, e2 = (rng.normal(size=(400_000, 3)) @ np.linalg.cholesky(a).T for a in (sigma_x, sigma_n, sigma_n))
    assert np.abs((x + e1).T @ (x + e1) / len(x) - sigma_s).max() < 0.02
    assert np.abs((x + e1).T @ (x + e2) / len(x) - sigma_d).max() < 0.02


@pytest.mark.parametrize("commuting", [True, False])
def test_multiplicative_scrambling_against_random_views(commuting):
    rng = np.random.default_rng(5)
    n, k, draws = 4, 2, 400_000
    u = np.eye(n)[:, :k] if commuting else np.linalg.qr(rng.normal(size=(n, k)))[0]
    sigma_x = np.diag([1.0, 2.0, 3.0, 0.5]) if commuting else random_spd(n, 5)
    sigma_d, sigma_s = multiplicative_scrambling(sigma_x, u)
    kept = np.eye(n) - u @ u.T
    x = rng.normal(size=(draws, n)) @ np.linalg.cholesky(sigma_x).T
    views = [x @ kept + np.einsum("ik,bkl,bl->bi", u, rng.normal(size=(draws, k, k)), x @ u) for _ in "ab"]
    assert np.abs(views[0].T @ views[0] / draws - sigma_s).max() < 0.05
    assert np.abs(views[0].T @ views[1] / draws - sigma_d).max() < 0.05
    assert np.allclose(sigma_d @ np.linalg.inv(sigma_s), kept)
    assert np.abs(sigma_s - sigma_x).max() > 0.1


def test_without_a_predictor_only_unscrambled_modes_stay():
    u = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 2)))[0]
    sigma_d, sigma_s = multiplicative_scrambling(random_spd(5, 2), u)
    values, vectors = learnable_modes(sigma_d, sigma_s)
    assert np.allclose(values, [1, 1, 1, 0, 0])
    assert np.abs(residual(np.eye(3), vectors[:3], sigma_d, sigma_s)).max() < 1e-10
    assert learnable_modes(*random_views(5, 2))[0][0] < 1


@pytest.mark.parametrize(
    ("of_d", "of_s"), [([1.0, 1.0, 0.5], [1.2, 3.0, 0.9]), ([1.0, 0.7, 0.5], [1.2, 1.2, 0.9])]
)
def test_decoupled_rows_follow_the_triplet(of_d, of_s):
    # one of the two has equal eigenvalues, so that its own eigenvectors are not those of the other
    basis = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    sigma_d, sigma_s = basis * of_d @ basis.T, basis * of_s @ basis.T
    l_d, l_s, rows = decoupled_modes(sigma_d, sigma_s)
    assert np.allclose(np.sort(l_d), np.sort(of_d))
    assert (np.diff(l_d / l_s) <= 0).all()
    w, w_p = np.array([0.4, -0.8]), np.array([0.3, 0.9])
    by_w_p, by_w = loss_gradients(np.diag(w_p), w[:, None] * rows[:2], sigma_d, sigma_s)
    for i in range(2):
        change = slopes(w_p[i], w[i], w[i], l_d=l_d[i], l_s=l_s[i])
        assert np.allclose(np.diag(change[0] * np.eye(2)[i]), by_w_p * np.outer(np.eye(2)[i], np.eye(2)[i]))
        assert np.allclose(change[1] * rows[i], by_w[i])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: additive_scrambling(np.diag([1.0, -1.0]), np.eye(2)), "sigma_x"),
        (lambda: additive_scrambling(np.eye(2), np.eye(3)), "sigma_n"),
        (lambda: multiplicative_scrambling(np.eye(2), [[2.0], [0.0]]), "u"),
        (lambda: multiplicative_scrambling(np.eye(2), np.eye(3)), "u"),
        (lambda: learnable_modes(np.eye(2), np.diag([1.0, 0.0])), "sigma_s"),
        (lambda: learnable_modes([[0, 1], [0, 0]], np.eye(2)), "sigma_d"),
        (lambda: fixed_point(np.eye(2), np.eye(2), (0, 0)), "modes"),
        (lambda: fixed_point(np.eye(2), np.eye(2), (0, 2)), "modes"),
        (lambda: fixed_point(np.eye(2), np.eye(2), (0, 1), [[1, 1], [1, 1]]), "mixing"),
        (lambda: decoupled_modes([[2.0, 1], [1, 2]], np.diag([1.0, 2])), "sigma_d"),
        (lambda: growth_rates(np.eye(1), [[1.0, 2.0]], np.eye(2), 2 * np.eye(2)), "w_p"),
        (lambda: residual(np.eye(2), [[1.0, 2.0]], np.eye(2), np.eye(2)), "w:"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_names_the_argument(call, named):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(named)
    assert "\n" not in str(error.value)
