"""The reduced system: Theorem 3, its limits, and what it reduces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from stopgrad.errors import UsageError
from stopgrad.theory import modes
from stopgrad.theory.flow import Flow
from stopgrad.theory.modes import Modes
from stopgrad.theory.reduced import Reduced, alignment_matrix

TIMES = np.linspace(0, 5, 26)
few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**31)


def some_reduced(seed=0, n=3, **changes):
    random = np.random.default_rng(seed)
    W, W_p = 0.5 * random.standard_normal((n, n)), 0.5 * random.standard_normal((n, n))
    free = not changes.get("symmetric", True)
    start = {"W_p": W_p if free else W_p + W_p.T, "F": W @ W.T,
             "tau": 0.9, "alpha_p": 1.6, "eta": 0.05, "sigma2": 0.4}  # fmt: skip
    return Reduced(**{**start, **changes})


def test_rates_are_the_papers():
    r = some_reduced(1)
    W_p, F, kappa = r.W_p, r.F, 1.4
    dW_p, dF = r.rates(W_p, F)
    both = W_p @ F + F @ W_p
    squares = W_p @ W_p @ F + F @ W_p @ W_p
    np.testing.assert_allclose(dW_p, -0.8 * kappa * both + 1.6 * 0.9 * F - 0.05 * W_p, rtol=1e-12)
    np.testing.assert_allclose(dF, -kappa * squares + 0.9 * both - 0.1 * F, rtol=1e-12, atol=1e-14)


@few
@given(seed=seeds, n=st.integers(1, 5), eta=st.floats(0, 1), tau=st.floats(-1, 2))
def test_the_commutator_obeys_theorem_3(seed, n, eta, tau):
    r = some_reduced(seed, n, eta=eta, tau=tau)
    dW_p, dF = r.rates(r.W_p, r.F)
    L, K = r.F @ r.W_p - r.W_p @ r.F, alignment_matrix(r.W_p, r.F, r)
    dL = dF @ r.W_p + r.F @ dW_p - dW_p @ r.F - r.W_p @ dF
    np.testing.assert_allclose(dL, -L @ K - K @ L, atol=1e-10)


def test_the_commutators_slope_along_the_trajectory_is_theorem_3s():
    step = 1e-4
    path = some_reduced(2).trajectory([0, 1 - step, 1, 1 + step])
    L, K = path.commutator, path.K
    slope = (L[3] - L[1]) / (2 * step)
    assert np.abs(slope).max() > 1e-3
    np.testing.assert_allclose(slope, -L[2] @ K[2] - K[2] @ L[2], atol=1e-7 * np.abs(slope).max())


@few
@given(seed=seeds, n=st.integers(2, 4), eta=st.floats(0, 0.4), tau=st.floats(0, 2))
def test_the_bound_with_the_infimum_holds(seed, n, eta, tau):
    path = some_reduced(seed, n, eta=eta, tau=tau).trajectory(np.linspace(0, 6, 601))
    slack = 1e-9 * path.commutator_norm.max()
    assert (path.commutator_norm <= path.theorem3_bound * (1 + 1e-6) + slack).all()


def test_a_positive_infimum_aligns_and_the_bound_is_not_idle():
    path = some_reduced(3, eta=0.4).trajectory(np.linspace(0, 10, 401))
    assert path.lowest_K.min() > 0.05
    assert path.commutator_norm[-1] < path.theorem3_bound[-1] < 0.4 * path.commutator_norm[0]
    # tight where K is a multiple of the identity: there is but one mode, twice
    turn = np.array([[0.0, 1e-6], [1e-6, 0.0]])
    even = Reduced(0.5 * np.eye(2) + turn, np.eye(2) + np.diag([1e-6, -1e-6]), eta=0.1).trajectory([0, 1e-3])
    assert even.commutator_norm[1] == pytest.approx(even.theorem3_bound[1], rel=1e-6)


def test_the_maximum_of_the_appendix_bounds_nothing():
    start = Reduced([[0.06, 0.06], [0.06, 0.28]], [[0.01, 0.008], [0.008, 0.025]], 1.0, 1.0, 0.02, 0.0)
    path = start.trajectory(np.linspace(0, 40, 401))
    assert path.lowest_K.max() > 0.3
    claimed = np.exp(-2 * path.lowest_K.max() * path.t) * path.commutator_norm[0]
    grown = path.commutator_norm.argmax()
    assert path.commutator_norm[grown] > 2.5 * path.commutator_norm[0] > 2.5 * claimed[grown]
    assert (path.commutator_norm <= path.theorem3_bound * (1 + 1e-9)).all()


@few
@given(seed=seeds, tau=st.floats(0.2, 1.5), alpha_p=st.floats(0.2, 5), eta=st.floats(0, 0.3))
def test_aligned_starts_decouple_into_modes(seed, tau, alpha_p, eta):
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.standard_normal((3, 3)))[0]
    p, s = random.uniform(-0.5, 1, 3), random.uniform(0.05, 1, 3)
    W_p, F = (turn * p) @ turn.T, (turn * s) @ turn.T
    start = Reduced((W_p + W_p.T) / 2, (F + F.T) / 2, tau, alpha_p, eta, 0.3)
    path = start.trajectory(TIMES)
    of_path = {"p": turn.T @ path.W_p @ turn, "s": turn.T @ path.F @ turn, "k": turn.T @ path.K @ turn}
    for j in range(3):
        mode = Modes(p[j], s[j], 1.0, alpha_p, 0.4, eta, 0.3, tau).trajectory(TIMES)
        for name, values in of_path.items():
            np.testing.assert_allclose(values[:, j, j], getattr(mode, name), atol=1e-9)
    assert path.commutator_norm.max() < 1e-9
    k = modes.alignment(p, s, tau, alpha_p, eta, 0.3)
    np.testing.assert_allclose(np.linalg.eigvalsh(path.K[0]), np.sort(k), atol=1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
def test_simsiam_on_isotropic_data_is_the_matrix_flow(symmetric):
    random = np.random.default_rng(4)
    W, W_p = 0.6 * random.standard_normal((3, 5)), 0.5 * random.standard_normal((3, 3))
    W_p = W_p + W_p.T if symmetric else W_p
    predictor = "symmetric" if symmetric else "linear"
    flow = Flow(np.eye(5), 0.4 * np.eye(5), W, W_p, alpha_p=1.6, eta=0.05, predictor=predictor, target="same")
    full = flow.trajectory(TIMES)
    path = Reduced(W_p, W @ W.T, 1.0, 1.6, 0.05, 0.4, symmetric).trajectory(TIMES)
    np.testing.assert_allclose(path.W_p, full.W_p, atol=1e-9)
    np.testing.assert_allclose(path.F, full.F, atol=1e-9)
    for name in ("commutator_norm", "eigenvalues_F", "eigenvalues_W_p"):
        np.testing.assert_allclose(getattr(path, name), getattr(full, name), atol=1e-8)
    np.testing.assert_allclose(path.alignment, full.alignment, atol=1e-6)


def test_a_proportional_target_is_the_encoders_own_flow():
    """W' and W_p' with W_a = tau W put in by hand, another solver, against what is left of W."""
    r = some_reduced(5)
    W = np.linalg.cholesky(r.F)

    def slopes(_, y):
        W, W_p = y.reshape(2, 3, 3)
        residual = r.tau * W - r.kappa * W_p @ W
        pull = residual @ W.T
        dW_p = r.alpha_p * (pull + pull.T) / 2 - r.eta * W_p
        return np.stack([W_p.T @ residual - r.eta * W, dW_p]).ravel()

    y0 = np.stack([W, r.W_p]).ravel()
    other = solve_ivp(slopes, (0, 5), y0, "LSODA", TIMES, rtol=1e-11, atol=1e-13).y.T.reshape(-1, 2, 3, 3)
    path = r.trajectory(TIMES)
    np.testing.assert_allclose(path.F, other[:, 0] @ other[:, 0].swapaxes(1, 2), atol=1e-8)
    np.testing.assert_allclose(path.W_p, other[:, 1], atol=1e-8)


def test_without_symmetrisation_the_skew_part_vanishes():
    path = some_reduced(6, symmetric=False, eta=0.1).trajectory([0, 60])
    skew = np.linalg.norm(path.W_p - path.W_p.swapaxes(1, 2), axis=(1, 2))
    assert skew[1] < 1e-2 * skew[0]
    with pytest.raises(UsageError, match=r"^K: "):
        _ = path.K


BAD = {
    "W_p": [[[1, 2], [0, 1]], np.eye(3), [[np.nan, 0], [0, 1]], [1.0]],
    "F": [[[1, 2], [0, 1]], [[1, 0], [0, -0.1]], np.ones((2, 3))],
    "tau": [np.nan, "x", [1.0]],
    "alpha_p": [0, -1],
    "eta": [-0.1, None],
    "sigma2": [-0.5],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_bad_input_is_one_line_that_names_the_argument(name, value):
    good = {"W_p": np.eye(2), "F": np.eye(2)}
    Reduced(**good)
    with pytest.raises(UsageError, match=rf"^{name}: ") as error:
        Reduced(**{**good, name: value})
    assert "\n" not in str(error.value)


def test_a_free_predictor_need_not_be_symmetric():
    start = [[1.0, 2.0], [0.0, 1.0]]
    assert (Reduced(start, np.eye(2), symmetric=False).trajectory([0]).W_p[0] == start).all()
