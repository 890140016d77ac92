"""Symmetric matrices, their eigenvectors and square roots, in NumPy."""

import numpy as np


def lowest_eigenvalue(symmetric: np.ndarray) -> float:
    """The lowest eigenvalue of a symmetric matrix."""
    return float(np.linalg.eigvalsh(symmetric)[0])


def transposed(matrices: np.ndarray) -> np.ndarray:
    """Each matrix transposed. (..., n, n)"""
    return np.swapaxes(matrices, -1, -2)


def symmetric_part(matrices: np.ndarray) -> np.ndarray:
    """(A + A^T) / 2 of each matrix. (..., n, n)"""
    return (matrices + transposed(matrices)) / 2


def square_root(covariance: np.ndarray) -> np.ndarray:
    """R with R R^T the covariance, singular or not. (n, n)"""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(min=0))


def joint_eigenbasis(sigma_d: np.ndarray, sigma_s: np.ndarray) -> np.ndarray:
    """The common eigenvectors, in columns, of symmetric matrices that commute; a basis near to it of others.

    Those of a generic combination, which has the eigenvectors of both, also where one of them has equal
    eigenvalues. (n, n)
    """
    golden = (np.sqrt(5) - 1) / 2
    size_d, size_s = np.linalg.norm(sigma_d) or 1.0, np.linalg.norm(sigma_s)
    return np.linalg.eigh(sigma_s / size_s + golden * sigma_d / size_d)[1]


def alignments(F: np.ndarray, W_p: np.ndarray) -> np.ndarray:
    """|cos| of the angle between u and W_p u for the eigenvectors u of F; 1 where W_p u = 0. (N, n2)

    Args:
        F: symmetric matrices. (N, n2, n2)
        W_p: matrices. (N, n2, n2)
    """
    vectors = np.linalg.eigh(F)[1]
    images = W_p @ vectors
    sizes = np.linalg.norm(images, axis=1)
    overlaps = np.abs(np.sum(vectors * images, axis=1))
    return np.divide(overlaps, sizes, out=np.ones_like(sizes), where=sizes > 0).clip(max=1.0)
