"""Theorem 2: without stop-gradient the encoder decays, whatever the predictor does."""

from typing import Any

import numpy as np

from stopgrad.theory.domain import check_views, matrix, number, of_shape
from stopgrad.theory.linear_algebra import lowest_eigenvalue


def theorem2_matrix(W_p: Any, X: Any, X_prime: Any, eta: float) -> np.ndarray:
    """H with d vec(W)/dt = -H vec(W) without stop-gradient (tian2021, Theorem 2, W_a = W).

        H = X' (x) (W_p^T W_p + I) + X (x) (W_p - I)^T (W_p - I) + eta I

    Args:
        W_p: the predictor. (n2, n2)
        X, X_prime: see `Flow`. (n1, n1)
        eta: weight decay of W, >= 0.

    Returns:
        H for vec(W) that stacks the columns of W. (n1 n2, n1 n2)

    Raises:
        UsageError: naming the argument that is outside its domain.
    """
    W_p, X = matrix("W_p", W_p, square=True), matrix("X", X, symmetric=True)
    X_prime = of_shape("X_prime", matrix("X_prime", X_prime, symmetric=True), X.shape)
    check_views(X, X_prime)
    one = np.eye(len(W_p))
    away = W_p - one
    pulls = np.kron(X_prime, W_p.T @ W_p + one) + np.kron(X, away.T @ away)
    return pulls + number("eta", eta) * np.eye(len(pulls))


def theorem2_rate(X_prime: Any, eta: float) -> float:
    """lambda_min(X') + eta, below which no eigenvalue of H lies whatever W_p does (X without negative ones).

    Collapse is automatic where it is positive: ||W(t)|| <= e^{-rate t} ||W(0)||.

    Raises:
        UsageError: naming the argument that is outside its domain.
    """
    X_prime = matrix("X_prime", X_prime, symmetric=True)
    check_views(np.zeros_like(X_prime), X_prime)
    return max(lowest_eigenvalue(X_prime), 0.0) + number("eta", eta)
