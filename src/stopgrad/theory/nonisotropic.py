"""Data and views that are not isotropic (tian2021, appendix D).

Sigma_s = E[x1 x1^T] is the correlation of one view, Sigma_d = E[x1 x2^T] that of two views of an image. Both
are symmetric, and Sigma_s - Sigma_d, the covariance of the views about their image, is positive
semidefinite.

Fixed points without weight decay are W_a = W and W_p W = W Sigma_d Sigma_s^{-1}: the rows of W span left
eigenvectors of Sigma_d Sigma_s^{-1}, W_p carries their eigenvalues rho, and W_p -> S W_p S^{-1}, W -> S W
maps solutions to solutions for any invertible S. Any subset of eigenvectors will do, but not any lasts
(:func:`growth_rates`). For data that commute and orthogonal S the rates at which departures grow are, for
each mode i that W has taken and each mode j,

    rho_i l_s,j (rho_j - rho_i) - [j is taken] alpha_p w_j^2 l_s,j

so that a direction that is left out grows if its rho exceeds one that is taken: only the largest last, and
these too only if the weights w_j are not too small. Numerically this holds for data that do not commute as
well; a skew S lets other choices last.

Where the paper errs. Under multiplicative scrambling Sigma_s is not Sigma_x, and Sigma_d Sigma_s^{-1} = P_c
holds always, not only where P_c and Sigma_x commute.

For data that commute a row decouples into a mode, the triplet of :mod:`stopgrad.theory.triplet`.

Shapes: n1 inputs, n2 outputs; W (n2, n1), W_p (n2, n2), Sigma (n1, n1). All float64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg

from stopgrad.errors import UsageError
from stopgrad.theory.domain import ROUNDING, matrix, reals
from stopgrad.theory.linear_algebra import joint_eigenbasis


def additive_scrambling(sigma_x: Any, sigma_n: Any) -> tuple[np.ndarray, np.ndarray]:
    """Views x + noise: Sigma_d = Sigma_x, Sigma_s = Sigma_x + Sigma_n.

    Args:
        sigma_x: correlation of the data, symmetric. (n1, n1)
        sigma_n: covariance of the noise, symmetric. (n1, n1)

    Returns:
        Sigma_d and Sigma_s.

    Raises:
        UsageError: for matrices that are not symmetric, positive semidefinite and of one shape.
    """
    data, noise = _correlation("sigma_x", sigma_x), _correlation("sigma_n", sigma_n)
    _same_shape("sigma_n", noise, "sigma_x", data)
    return data, data + noise


def multiplicative_scrambling(sigma_x: Any, u: Any) -> tuple[np.ndarray, np.ndarray]:
    """Views A x with A = P_c + U B U^T, P_c = I - U U^T and the entries of B standard normal.

    Sigma_d = P_c Sigma_x P_c and Sigma_s = Sigma_d + tr(U^T Sigma_x U) U U^T, so that
    Sigma_d Sigma_s^{-1} = P_c wherever Sigma_s is invertible: what is not scrambled is learned whatever its
    variance.

    Args:
        sigma_x: correlation of the data, symmetric. (n1, n1)
        u: orthonormal columns that span the scrambled subspace. (n1, k)

    Returns:
        Sigma_d and Sigma_s.

    Raises:
        UsageError: for a sigma_x that is not symmetric positive semidefinite, or columns of u that are not
            orthonormal.
    """
    data, u = _correlation("sigma_x", sigma_x), matrix("u", u)
    if len(u) != len(data):
        raise UsageError(f"u: has {len(u)} rows, sigma_x has {len(data)}")
    if np.abs(u.T @ u - np.eye(u.shape[1])).max() > ROUNDING:
        raise UsageError("u: its columns must be orthonormal")
    kept = np.eye(len(data)) - u @ u.T
    sigma_d = kept @ data @ kept
    return sigma_d, sigma_d + np.trace(u.T @ data @ u) * u @ u.T


def learnable_modes(sigma_d: Any, sigma_s: Any) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and left eigenvectors of Sigma_d Sigma_s^{-1}.

    Args:
        sigma_d: correlation of two views, symmetric. (n1, n1)
        sigma_s: correlation of one view, symmetric positive definite. (n1, n1)

    Returns:
        The eigenvalues rho, descending, in [0, 1] for the statistics of any views (n1,), and the
        eigenvectors v in the rows of a matrix (n1, n1), with v^T Sigma_s v = 1. Without a predictor (W_p = I)
        only the modes with rho = 1 do not collapse.

    Raises:
        UsageError: if Sigma_s is singular, or a matrix is not what it must be.
    """
    sigma_d, sigma_s = _statistics(sigma_d, sigma_s)
    values, vectors = scipy.linalg.eigh(sigma_d, sigma_s)
    return values[::-1].copy(), vectors.T[::-1].copy()


def fixed_point(
    sigma_d: Any, sigma_s: Any, modes: Sequence[int], mixing: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """A fixed point W_p, W (= W_a) without weight decay that has taken up the given modes.

    Args:
        sigma_d, sigma_s: see :func:`learnable_modes`.
        modes: places of the n2 modes in the order of :func:`learnable_modes`, each once.
        mixing: the invertible S (n2, n2) of the symmetry; the identity by default.

    Returns:
        W_p = S diag(rho) S^{-1} (n2, n2) and W = S V (n2, n1).

    Raises:
        UsageError: if a mode does not exist or comes twice, or S is singular or of the wrong shape.
    """
    values, vectors = learnable_modes(sigma_d, sigma_s)
    chosen = list(modes)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= mode < len(values) for mode in chosen):
        raise UsageError(f"modes: {chosen} must be different numbers in [0, {len(values)})")
    s = np.eye(len(chosen)) if mixing is None else matrix("mixing", mixing, square=True)
    if len(s) != len(chosen) or np.linalg.cond(s) > 1 / ROUNDING:
        raise UsageError(f"mixing: must be an invertible matrix of shape ({len(chosen)}, {len(chosen)})")
    return s * values[chosen] @ np.linalg.inv(s), s @ vectors[chosen]


def residual(w_p: Any, w: Any, sigma_d: Any, sigma_s: Any) -> np.ndarray:
    """R = W Sigma_d - W_p W Sigma_s, which is 0 at fixed points. (n2, n1)

    With W_a = W and no weight decay the flow is W' = W_p^T R and W_p' = alpha_p R W^T.

    Raises:
        UsageError: for shapes that do not go together.
    """
    w_p, w, sigma_d, sigma_s = _network(w_p, w, sigma_d, sigma_s)
    return w @ sigma_d - w_p @ w @ sigma_s


def growth_rates(w_p: Any, w: Any, sigma_d: Any, sigma_s: Any, alpha_p: float = 1.0) -> np.ndarray:
    """Rates at which small departures from a fixed point grow (real part > 0) or decay, for W_a = W.

    Departures along the family of fixed points, which do neither, are left out: near a fixed point the
    residual obeys R' = -alpha_p R W^T W Sigma_s - W_p W_p^T R Sigma_s + W_p^T R Sigma_d, and these are the
    eigenvalues of that map.

    Args:
        w_p, w: a fixed point, see :func:`fixed_point`.
        sigma_d, sigma_s: see :func:`learnable_modes`.
        alpha_p: the predictor's learning rate over the encoder's, > 0.

    Returns:
        n1 n2 complex rates in descending order of their real parts.

    Raises:
        UsageError: for shapes that do not go together, alpha_p <= 0, or weights that are no fixed point.
    """
    w_p, w, sigma_d, sigma_s = _network(w_p, w, sigma_d, sigma_s)
    alpha_p = reals("alpha_p", alpha_p).item()
    gap = np.abs(w @ sigma_d - w_p @ w @ sigma_s).max()
    if gap > 1e-8 * max(np.abs(w @ sigma_d).max(), np.abs(w @ sigma_s).max()):
        raise UsageError(f"w_p, w: no fixed point, the residual is {gap:g}")
    same = np.eye(len(w_p))
    # row-major: vec(A R B) = kron(A, B^T) vec(R)
    operator = (
        np.kron(w_p.T, sigma_d) - np.kron(w_p @ w_p.T, sigma_s) - alpha_p * np.kron(same, sigma_s @ w.T @ w)
    )
    rates = np.linalg.eigvals(operator)
    return rates[np.argsort(-rates.real)]


def decoupled_modes(sigma_d: Any, sigma_s: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """l_d, l_s (n1,) and the common eigenvectors, in rows (n1, n1), of matrices that commute.

    In descending order of rho = l_d / l_s. Each row is the mode of a
    :class:`stopgrad.theory.triplet.Triplet`.

    Raises:
        UsageError: if Sigma_d and Sigma_s do not commute, or are not what they must be.
    """
    sigma_d, sigma_s = _statistics(sigma_d, sigma_s)
    gap = np.abs(sigma_d @ sigma_s - sigma_s @ sigma_d).max()
    if gap > ROUNDING * np.abs(sigma_d).max() * np.abs(sigma_s).max() * len(sigma_d):
        raise UsageError(f"sigma_d: must commute with sigma_s to decouple, the commutator is {gap:g}")
    vectors = joint_eigenbasis(sigma_d, sigma_s)
    l_d, l_s = (np.einsum("ij,ik,kj->j", vectors, sigma, vectors) for sigma in (sigma_d, sigma_s))
    order = np.argsort(-l_d / l_s, kind="stable")
    return l_d[order], l_s[order], vectors.T[order]


def _correlation(name: str, value: Any) -> np.ndarray:
    sigma = matrix(name, value, symmetric=True)
    if np.linalg.eigvalsh(sigma)[0] < -ROUNDING * np.abs(sigma).max():
        raise UsageError(f"{name}: must be positive semidefinite")
    return sigma


def _same_shape(name: str, a: np.ndarray, other: str, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise UsageError(f"{name}: has shape {a.shape}, {other} has {b.shape}")


def _statistics(sigma_d: Any, sigma_s: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sigma_d and an invertible Sigma_s, checked."""
    sigma_d, sigma_s = matrix("sigma_d", sigma_d, symmetric=True), _correlation("sigma_s", sigma_s)
    _same_shape("sigma_d", sigma_d, "sigma_s", sigma_s)
    if np.linalg.eigvalsh(sigma_s)[0] <= ROUNDING * np.abs(sigma_s).max():
        raise UsageError("sigma_s: must be invertible; leave out inputs that never vary")
    return sigma_d, sigma_s


def _network(
    w_p: Any, w: Any, sigma_d: Any, sigma_s: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    w_p, w = matrix("w_p", w_p, square=True), matrix("w", w)
    sigma_d, sigma_s = _statistics(sigma_d, sigma_s)
    if w.shape != (len(w_p), len(sigma_d)):
        raise UsageError(f"w: has shape {w.shape}, w_p and sigma_d need {(len(w_p), len(sigma_d))}")
    return w_p, w, sigma_d, sigma_s
