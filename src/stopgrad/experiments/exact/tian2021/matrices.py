"""What Tian et al. 2021 draw of the matrices (appendix B, Figs. 7 to 9), as numbers.

Data are isotropic, X = I and X' = sigma2 I, sigma = 0.03 as in the paper. It says nothing of sizes and
scales of the starts: they are ours.

Legend: n inputs and outputs, W, W_p, F (n, n); T times, the first of them 0; R starts.
"""

from collections.abc import Sequence

import numpy as np

from stopgrad.experiments.schema import Result
from stopgrad.theory.assumptions import (
    commutator_growth,
    nearly_aligned,
    predictor_parts,
    random_starts,
    target_cosines,
)
from stopgrad.theory.reduced import Reduced

SIGMA2 = 0.0009
LEARNING_RATE = 0.01
"""What gamma_a counts in: beta = (1 - gamma_a) / 0.01, as in the caption of Fig. 5."""


def figure7(
    gamma: float,
    etas: Sequence[float] = (0.0, 0.01, 0.1),
    scale: float = 0.3,
    n: int = 4,
    runs: int = 10,
    t_end: float = 20.0,
) -> Result:
    """Fig. 7: whether W_a is a multiple of W (Assumption 1), from W_a(0) = 0.

    Entries of W and W_p start normal with standard deviation ``scale`` / sqrt(n). Numbers over ``etas`` and
    ``runs`` starts: ``lowest``, the smallest cosine of W_a and W at any time, and ``lowest_mean``, the
    smallest of the means over the starts, which is what the figure draws.
    """
    starts = random_starts(n, scale, runs, seed=0)
    t = _times(t_end, 30)
    beta = (1 - gamma) / LEARNING_RATE
    cosines = np.stack([target_cosines(starts, t, eta, beta, SIGMA2) for eta in etas])
    means = cosines.mean(axis=1)
    numbers = {"lowest": float(cosines.min()), "lowest_mean": float(means.min())}
    return Result(numbers, {"t": t[1:].tolist(), "eta": list(etas), "mean": means.tolist()})


def figure8(
    eta: float, taus: Sequence[float] = (0.2, 0.6, 1.0), n: int = 8, t_end: float = 1000.0, seed: int = 0
) -> Result:
    """Fig. 8: symmetric part A and antisymmetric part B of a predictor whose gradient is left as it is.

    W_p starts normal with standard deviation 1 / sqrt(n), F at W_p^T W_p, the fixed ``taus`` in increasing
    order. Numbers: ``antisymmetric``, the largest ||B(t_end)|| / ||B(0)|| over ``taus``, and
    ``symmetric_first`` and ``symmetric_last``, ||A(t_end)|| / ||A(0)|| at the smallest and the largest tau.
    """
    W_p = np.random.default_rng(seed).standard_normal((n, n)) / n**0.5
    t = _times(t_end, 60)
    parts = [predictor_parts(W_p, t, eta, tau, SIGMA2) for tau in taus]
    left = [[float(norm[-1] / norm[0]) for norm in pair] for pair in parts]
    numbers = {
        "antisymmetric": max(odd for _, odd in left),
        "symmetric_first": left[0][0],
        "symmetric_last": left[-1][0],
    }
    series = {"symmetric": [a.tolist() for a, _ in parts], "antisymmetric": [b.tolist() for _, b in parts]}
    return Result(numbers, {"t": t.tolist(), "tau": list(taus), **series})


def figure9(
    eta: float, tau: float, n: int = 8, angle: float = 0.01, t_end: float = 300.0, seed: int = 0
) -> Result:
    """Fig. 9: the commutator of F and W_p, from eigenspaces that nearly agree and small eigenvalues.

    Those of W_p start in [0.02, 0.1], those of F at their squares, eigenvectors turned by about ``angle``.
    Numbers: ``growth``, the largest norm over that at the start; ``left``, the last one over it;
    ``lowest_K``, the smallest eigenvalue of Theorem 3's K on the way.
    """
    W_p, F = nearly_aligned(n, (0.02, 0.1), angle, seed)
    t = _times(t_end, 200)
    norm = commutator_growth(W_p, F, t, eta, tau, SIGMA2)
    path = Reduced(W_p, F, tau=tau, eta=eta, sigma2=SIGMA2).trajectory(t, rtol=1e-8)
    numbers = {
        "growth": float(norm.max()),
        "left": float(norm[-1]),
        "lowest_K": float(path.lowest_K.min()),
    }
    return Result(numbers, {"t": t.tolist(), "norm": norm.tolist()})


def _times(t_end: float, points: int) -> np.ndarray:
    """0, and times evenly spaced in the logarithm from 0.01 on. (points + 1,)"""
    return np.concatenate([[0.0], np.geomspace(0.01, t_end, points)])
