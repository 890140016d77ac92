"""The flow under the paper's three assumptions (tian2021, section 3.1 and appendix B.1).

The data are isotropic, X = I and X' = sigma2 I; the target is a fixed multiple of the encoder, W_a = tau W;
the predictor's gradient is symmetrised. What is left of W is F = W X W^T. With kappa = 1 + sigma2 and
{A, B} = A B + B A (Eq. 7):

    W_p' = -(alpha_p / 2) kappa {W_p, F} + alpha_p tau F - eta W_p
    F'   = -kappa {W_p^2, F} + tau {W_p, F} - 2 eta F

Theorem 3: the commutator L = F W_p - W_p F obeys L' = -L K - K L with

    K = kappa ((alpha_p / 2) F + W_p^2 - (tau / kappa) W_p) + (3 / 2) eta I

so that ||L(t)||_F <= e^{-2 l0 t} ||L(0)||_F where l0 is the INFIMUM of lambda_min(K) over [0, t].

Where the paper errs: its appendix has the maximum in place of the infimum, which is false: lambda_min(K) may
be positive at some time while the norm grows at others (``tests/theory/test_reduced.py`` has a start).

Where W_p and F commute, each pair of eigenvalues (p, s) is a mode of :mod:`stopgrad.theory.modes` with tau
held.

Shapes: W_p, F, K, L (n2, n2); N times. All numbers float64.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stopgrad.errors import UsageError
from stopgrad.theory.domain import increasing, matrix, number
from stopgrad.theory.linear_algebra import alignments
from stopgrad.theory.matrix_solver import Blocks, integrate


@dataclass(frozen=True, eq=False)
class Reduced:
    """The reduced system: where it starts, and its hyper-parameters.

    Attributes:
        W_p: start of the predictor; symmetric, unless ``symmetric`` is False. (n2, n2)
        F: start of W X W^T, symmetric, no negative eigenvalue. (n2, n2)
        tau: the target's share of the encoder; 1 for SimSiam.
        alpha_p: the predictor's learning rate over the encoder's, > 0.
        eta: weight decay of encoder and predictor alike, >= 0.
        sigma2: variance of the views about their image, >= 0.
        symmetric: whether the predictor's gradient is symmetrised (Assumption 3). Without it the system is
            that of Eqs. 62 and 63, to which Theorem 3 does not apply.

    Raises:
        UsageError: naming the argument that is outside its domain.
    """

    W_p: Any
    F: Any
    tau: float = 1.0
    alpha_p: float = 1.0
    eta: float = 0.04
    sigma2: float = 0.5
    symmetric: bool = True

    def __post_init__(self) -> None:
        for name in ("tau", "alpha_p", "eta", "sigma2"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        F, W_p = matrix("F", self.F, symmetric=True), matrix("W_p", self.W_p, symmetric=self.symmetric)
        if W_p.shape != F.shape:
            raise UsageError(f"W_p: has shape {W_p.shape}, F needs {F.shape}")
        low = np.linalg.eigvalsh(F)[0]
        if low < -1e-10 * np.abs(F).max():
            raise UsageError(f"F: has the eigenvalue {low:g}; it is W X W^T and may have no negative one")
        object.__setattr__(self, "F", F)
        object.__setattr__(self, "W_p", W_p)

    @property
    def kappa(self) -> float:
        """1 + sigma2."""
        return 1 + self.sigma2

    def rates(self, W_p: np.ndarray, F: np.ndarray) -> Blocks:
        """W_p' and F'."""
        pull = self.tau * F - self.kappa * W_p @ F
        push = W_p.T @ pull
        pull = (pull + pull.T) / 2 if self.symmetric else pull
        return self.alpha_p * pull - self.eta * W_p, push + push.T - 2 * self.eta * F

    def trajectory(self, times: Any, *, rtol: float = 1e-12) -> "ReducedTrajectory":
        """The course of the system.

        Args:
            times: increasing from 0. (N,)
            rtol: error allowed in a step, relative to the largest entry of each matrix.

        Raises:
            UsageError: if the times do not increase from 0.
        """
        t = increasing(times)
        W_p, F = integrate(lambda state: self.rates(*state), (self.W_p, self.F), t, rtol)
        return ReducedTrajectory(self, t, W_p, F)


@dataclass(frozen=True, eq=False)
class ReducedTrajectory:
    """The course of the reduced system.

    Attributes:
        reduced: what was followed.
        t: times. (N,)
        W_p, F: the matrices. (N, n2, n2)
    """

    reduced: Reduced
    t: np.ndarray
    W_p: np.ndarray
    F: np.ndarray

    @property
    def commutator(self) -> np.ndarray:
        """L = F W_p - W_p F. (N, n2, n2)"""
        return self.F @ self.W_p - self.W_p @ self.F

    @property
    def commutator_norm(self) -> np.ndarray:
        """||L||_F. (N,)"""
        return np.linalg.norm(self.commutator, axis=(1, 2))

    @property
    def K(self) -> np.ndarray:
        """Theorem 3's K. (N, n2, n2)"""
        return alignment_matrix(self.W_p, self.F, self.reduced)

    @cached_property
    def lowest_K(self) -> np.ndarray:
        """lambda_min(K). (N,)"""
        return np.linalg.eigvalsh(self.K)[:, 0]

    @property
    def theorem3_bound(self) -> np.ndarray:
        """e^{-2 l0 t} ||L(0)||_F, l0 the lowest lambda_min(K) at the times up to t. (N,)

        The theorem's infimum is over all instants, so the times are to be fine where lambda_min(K) is
        lowest. Where l0 is negative the bound still holds; it then limits a growth.
        """
        lowest = np.minimum.accumulate(self.lowest_K)
        return np.exp(-2 * lowest * self.t) * self.commutator_norm[0]

    @property
    def eigenvalues_F(self) -> np.ndarray:
        """Eigenvalues of F in increasing order. (N, n2)"""
        return np.linalg.eigvalsh(self.F)

    @property
    def eigenvalues_W_p(self) -> np.ndarray:
        """Eigenvalues of the symmetric part of W_p in increasing order. (N, n2)"""
        return np.linalg.eigvalsh((self.W_p + np.swapaxes(self.W_p, 1, 2)) / 2)

    @property
    def alignment(self) -> np.ndarray:
        """Mean |cos| of the angle between u and W_p u over the eigenvectors u of F, in [0, 1]. (N,)"""
        return alignments(self.F, self.W_p).mean(axis=1)


def alignment_matrix(W_p: np.ndarray, F: np.ndarray, reduced: Reduced) -> np.ndarray:
    """K of Theorem 3 (tian2021, Eq. 9): eigenspaces turn towards each other where it is positive definite.

    Args:
        W_p, F: symmetric. (..., n2, n2)
        reduced: the hyper-parameters.

    Returns:
        K; its eigenvalues are those of :func:`stopgrad.theory.modes.alignment` where W_p and F commute.
        (..., n2, n2)

    Raises:
        UsageError: if the predictor's gradient is not symmetrised.
    """
    if not reduced.symmetric:
        raise UsageError("K: Theorem 3 is about symmetric predictors, with symmetric=True")
    decay = 1.5 * reduced.eta * np.eye(W_p.shape[-1])
    return reduced.kappa * (reduced.alpha_p / 2 * F + W_p @ W_p) - reduced.tau * W_p + decay
