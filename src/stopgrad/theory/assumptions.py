"""Whether what the modes assume holds for matrices that start anywhere (tian2021, appendix B, Figs. 7, 8, 9).

Data are isotropic, X = I and X' = sigma2 I. Starts are drawn: the paper says neither sizes nor scales.

Shapes: n inputs and outputs; T times; R runs.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import expm

from stopgrad.theory.flow import Flow
from stopgrad.theory.reduced import Reduced

RTOL = 1e-8


def random_starts(n: int, scale: float, runs: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs W, W_p, normal with standard deviation scale / sqrt(n), a seed each. (n, n) each"""
    size = scale / n**0.5
    found = []
    for run in range(runs):
        W, W_p = size * np.random.default_rng(seed + run).standard_normal((2, n, n))
        found.append((W, W_p))
    return found


def target_cosines(
    starts: Sequence[tuple[np.ndarray, np.ndarray]], t: np.ndarray, eta: float, beta: float, sigma2: float
) -> np.ndarray:
    """Cosine of W_a and W at the times after the first, for starts W, W_p and W_a = 0. (R, T - 1)"""
    runs = []
    for W, W_p in starts:
        same = np.eye(len(W))
        flow = Flow(same, sigma2 * same, W, W_p, np.zeros_like(W), beta=beta, eta=eta)
        runs.append(flow.trajectory(t, rtol=RTOL).target_cosine[1:])
    return np.stack(runs)


def predictor_parts(
    W_p: np.ndarray, t: np.ndarray, eta: float, tau: float, sigma2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Norms of W_p's symmetric and antisymmetric part, from F = W_p^T W_p. (T,) each"""
    start = Reduced(W_p, W_p.T @ W_p, tau=tau, eta=eta, sigma2=sigma2, symmetric=False)
    path = start.trajectory(t, rtol=RTOL).W_p
    turned = np.swapaxes(path, 1, 2)
    return np.linalg.norm(path + turned, axis=(1, 2)) / 2, np.linalg.norm(path - turned, axis=(1, 2)) / 2


def nearly_aligned(
    n: int, p_range: tuple[float, float], angle: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """W_p diagonal, and F with its squared eigenvalues and eigenvectors turned at random. (n, n) each"""
    random = np.random.default_rng(seed)
    p = random.uniform(*p_range, n)
    turn = random.standard_normal((n, n))
    vectors = expm(angle * (turn - turn.T))
    F = (vectors * p**2) @ vectors.T
    return np.diag(p), (F + F.T) / 2


def commutator_growth(
    W_p: np.ndarray, F: np.ndarray, t: np.ndarray, eta: float, tau: float, sigma2: float
) -> np.ndarray:
    """||F W_p - W_p F|| over its value at t = 0. (T,)"""
    norm = Reduced(W_p, F, tau=tau, eta=eta, sigma2=sigma2).trajectory(t, rtol=RTOL).commutator_norm
    return norm / norm[0]
