"""The data as modes: what varies in them, and the eigenbasis that Sigma_d and Sigma_s share.

Shapes: n modes, n1 inputs.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stopgrad.errors import UsageError
from stopgrad.theory.domain import NONNEGATIVE, POSITIVE, REAL, ROUNDING, check_views, matrix, reals
from stopgrad.theory.linear_algebra import joint_eigenbasis


class HasMoments(Protocol):
    """Data statistics as matrices, such as `stopgrad.theory.statistics.Moments`."""

    @property
    def X(self) -> Any:
        """Sigma_d = E[x1 x2^T]. (n1, n1)"""

    @property
    def X_prime(self) -> Any:
        """Sigma_s - Sigma_d. (n1, n1)"""


@dataclass(frozen=True, eq=False)
class DataStatistics:
    """Eigenvalues of data whose Sigma_d and Sigma_s commute.

    Attributes:
        l_d: of Sigma_d = E[x1 x2^T], what two views of an image share. (n,)
        l_s: of Sigma_s = E[x x^T], of one view; > 0 and >= |l_d|. (n,)
        dropped: the share of the matrices that was off their joint eigenbasis and left out.

    Raises:
        UsageError: naming the argument that is outside its domain.
    """

    l_d: Any
    l_s: Any
    dropped: float = 0.0

    def __post_init__(self) -> None:
        l_d = reals("l_d", self.l_d, REAL).reshape(-1).numpy()
        l_s = reals("l_s", self.l_s, POSITIVE).reshape(-1).numpy()
        if l_d.shape != l_s.shape:
            raise UsageError(f"l_d: has {len(l_d)} values, l_s has {len(l_s)}")
        if (np.abs(l_d) > (1 + ROUNDING) * l_s).any():
            raise UsageError("l_d: must not exceed l_s, two views agree no better than one with itself")
        object.__setattr__(self, "l_d", l_d)
        object.__setattr__(self, "l_s", np.where(l_s - l_d < ROUNDING * l_s, l_d, l_s))

    @classmethod
    def from_matrices(cls, X: Any, X_prime: Any, tolerance: float = ROUNDING) -> "DataStatistics":
        """The modes of matrices, in descending order of l_d / l_s; inputs that never vary are left out.

        Args:
            X: E[x1 x2^T], symmetric. (n1, n1)
            X_prime: the views' covariance about their image, symmetric, no negative eigenvalue. (n1, n1)
            tolerance: the share (Frobenius norm) of either matrix that may lie off their joint eigenbasis and
                be dropped, in [0, 1]. What is estimated from a sample never commutes exactly.

        Raises:
            UsageError: for matrices that no two views have, or that commute less well than that.
        """
        return joint_modes(X, X_prime, tolerance)[0]


def joint_modes(X: Any, X_prime: Any, tolerance: float = ROUNDING) -> tuple[DataStatistics, np.ndarray]:
    """The modes of `DataStatistics.from_matrices`, and their directions, a column each. (n1, n)

    Raises:
        UsageError: as there.
    """
    share = reals("tolerance", tolerance, NONNEGATIVE).item()
    *varying, within = _varying(X, X_prime)
    found, vectors = _decoupled(*varying)
    if found.dropped > share:
        raise UsageError(
            f"X_prime: does not commute with X, {found.dropped:.3g} of them is off the joint eigenbasis; "
            f"tolerance allows {share:g}"
        )
    return found, within @ vectors


def modes_or_matrices(statistics: Any) -> DataStatistics | tuple[np.ndarray, np.ndarray]:
    """Modes, or X and X' within what varies, (n, n) each, where these do not commute."""
    if isinstance(statistics, DataStatistics):
        return statistics
    if not (hasattr(statistics, "X") and hasattr(statistics, "X_prime")):
        raise UsageError(
            "statistics: DataStatistics, or an object with the matrices X and X_prime, is needed"
        )
    X, X_prime, _ = _varying(statistics.X, statistics.X_prime)
    found, _ = _decoupled(X, X_prime)
    return found if found.dropped <= ROUNDING else (X, X_prime)


def _varying(X: Any, X_prime: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both matrices, checked, within the directions in which the data vary at all, and these, (n1, n)."""
    X, X_prime = (matrix(name, m, symmetric=True) for name, m in (("X", X), ("X_prime", X_prime)))
    if X.shape != X_prime.shape:
        raise UsageError(f"X_prime: has shape {X_prime.shape}, X has {X.shape}")
    check_views(X, X_prime)
    values, vectors = np.linalg.eigh(X + X_prime)
    kept = vectors[:, values > ROUNDING * values[-1]]
    if values[-1] <= 0:
        raise UsageError("X: with X_prime it is 0, the data do not vary")
    return kept.T @ X @ kept, kept.T @ X_prime @ kept, kept


def _decoupled(X: np.ndarray, X_prime: np.ndarray) -> tuple[DataStatistics, np.ndarray]:
    """Diagonals of both matrices in a basis that is the joint eigenbasis if there is one, and its columns."""
    sigma_s = X + X_prime
    vectors = joint_eigenbasis(X, sigma_s)
    turned = [vectors.T @ m @ vectors for m in (X, X_prime)]
    l_d, noise = (np.diagonal(m) for m in turned)
    gaps = [np.linalg.norm(m - np.diag(np.diagonal(m))) / np.linalg.norm(sigma_s) for m in turned]
    l_s = l_d + noise.clip(min=0)
    order = np.argsort(-l_d / l_s, kind="stable")
    return DataStatistics(l_d[order], l_s[order], float(max(gaps))), vectors[:, order]
