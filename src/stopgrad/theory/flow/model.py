"""The model, and the course that it takes.

Shapes: X, X' (n1, n1); W, W_a (n2, n1); W_p (n2, n2); N times. All numbers float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from stopgrad.errors import UsageError, unknown
from stopgrad.theory.domain import check_views, increasing, matrix, number, of_shape
from stopgrad.theory.flow.theorem2 import theorem2_rate
from stopgrad.theory.linear_algebra import (
    alignments,
    lowest_eigenvalue,
    square_root,
    symmetric_part,
    transposed,
)
from stopgrad.theory.matrix_solver import Blocks, integrate

PredictorName = Literal["linear", "symmetric", "none", "frozen", "optimal"]
TargetName = Literal["ema", "same"]

# Singular values below this share of the largest are taken for 0 in the optimal predictor
RANK = 1e-12


@dataclass(frozen=True, eq=False)
class Flow:
    """The model: its data, where it starts, and its hyper-parameters.

    Attributes:
        X: E[x1 x2^T], symmetric; the covariance of the images' mean views (Sigma_d). (n1, n1)
        X_prime: Sigma_s - Sigma_d, the views' covariance about their image; symmetric, no negative
            eigenvalue. (n1, n1)
        W: the encoder's start. (n2, n1)
        W_p: the start of a learned or frozen predictor; not used otherwise. (n2, n2)
        W_a: the start of a target "ema", by default W; not used otherwise. (n2, n1)
        alpha_p: the predictor's learning rate over the encoder's, > 0.
        beta: rate at which a target "ema" follows, >= 0; 1 - gamma_a = alpha beta for learning rate alpha.
        eta: weight decay, >= 0: the weights shrink by alpha eta a step, as with PyTorch's ``weight_decay``.
        eta_p: the predictor's weight decay, >= 0, by default eta.
        stop_gradient: whether the target is a constant for the gradient; only the target "same" can do
            without.
        predictor: "linear" is learned; "symmetric" too, its gradient symmetrised; "frozen" stays at its
            start; "optimal" is the least-squares solution at every instant (the smallest one where there
            are many); "none" is the identity.
        target: "ema" follows W; "same" is W.

    Raises:
        UsageError: naming the argument that is outside its domain.
    """

    X: Any
    X_prime: Any
    W: Any
    W_p: Any = None
    W_a: Any = None
    alpha_p: float = 1.0
    beta: float = 0.4
    eta: float = 0.04
    eta_p: float | None = None
    stop_gradient: bool = True
    predictor: PredictorName = "linear"
    target: TargetName = "ema"

    def __post_init__(self) -> None:
        for name, known in (("predictor", PredictorName), ("target", TargetName)):
            if getattr(self, name) not in get_args(known):
                raise unknown(name, str(getattr(self, name)), list(get_args(known)))
        if not isinstance(self.stop_gradient, bool):
            raise UsageError(f"stop_gradient: {self.stop_gradient!r} is neither true nor false")
        if not self.stop_gradient and self.target == "ema":
            raise UsageError(
                "stop_gradient: false needs the target 'same': a gradient into a slow copy reaches no weight"
            )
        for name in ("alpha_p", "beta", "eta") if self.eta_p is None else ("alpha_p", "beta", "eta", "eta_p"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        for name, value in self._matrices().items():
            object.__setattr__(self, name, value)

    def _matrices(self) -> dict[str, np.ndarray]:
        """The matrices that are used, checked."""
        found = {name: matrix(name, getattr(self, name), symmetric=True) for name in ("X", "X_prime")}
        found["W"] = matrix("W", self.W)
        rows, columns = found["W"].shape
        for name in ("X", "X_prime"):
            of_shape(name, found[name], (columns, columns))
        if self.predictor in ("linear", "symmetric", "frozen"):
            if self.W_p is None:
                raise UsageError(f"W_p: the start of a predictor '{self.predictor}' is needed")
            found["W_p"] = matrix("W_p", self.W_p, symmetric=self.predictor == "symmetric")
            of_shape("W_p", found["W_p"], (rows, rows))
        if self.target == "ema":
            found["W_a"] = found["W"] if self.W_a is None else matrix("W_a", self.W_a)
            of_shape("W_a", found["W_a"], (rows, columns))
        check_views(found["X"], found["X_prime"])
        return found

    @property
    def decay_p(self) -> float:
        """The predictor's weight decay: eta_p, or eta where that is not given."""
        return self.eta if self.eta_p is None else self.eta_p

    @property
    def sigma_s(self) -> np.ndarray:
        """E[x1 x1^T] = X + X'. (n1, n1)"""
        return self.X + self.X_prime

    @property
    def start(self) -> Blocks:
        """W, W_p and W_a at t = 0."""
        return self._whole(self._unknowns)

    @property
    def _unknowns(self) -> Blocks:
        """The matrices that move on their own, at t = 0."""
        learned = (self.W_p,) if self._learned else ()
        return (self.W, *learned, *((self.W_a,) if self.target == "ema" else ()))

    @property
    def _learned(self) -> bool:
        return self.predictor in ("linear", "symmetric")

    def _whole(self, unknowns: Sequence[np.ndarray]) -> Blocks:
        """W, W_p and W_a from the unknowns."""
        W = unknowns[0]
        W_a = unknowns[-1] if self.target == "ema" else W
        if self._learned:
            return W, unknowns[1], W_a
        if self.predictor == "optimal":
            return W, self.optimal_predictor(W, W_a), W_a
        return W, self.W_p if self.predictor == "frozen" else np.eye(len(W)), W_a

    @cached_property
    def _root(self) -> np.ndarray:
        return square_root(self.sigma_s)

    def optimal_predictor(self, W: np.ndarray, W_a: np.ndarray) -> np.ndarray:
        """The W_p of least norm that minimises J for a given encoder and target. (n2, n2)"""
        inverse = np.linalg.pinv(W @ self._root, rcond=RANK)
        return W_a @ self.X @ W.T @ inverse.T @ inverse

    def rates(self, W: np.ndarray, W_p: np.ndarray, W_a: np.ndarray) -> Blocks:
        """W', W_p' and W_a'; 0 for what does not move on its own."""
        residual = W_a @ self.X - W_p @ W @ self.sigma_s
        dW = W_p.T @ residual - self.eta * W
        if not self.stop_gradient:
            dW += W_p @ W @ self.X - W @ self.sigma_s
        dW_p = np.zeros_like(W_p)
        if self._learned:
            pull = residual @ W.T
            pull = (pull + pull.T) / 2 if self.predictor == "symmetric" else pull
            dW_p = self.alpha_p * pull - self.decay_p * W_p
        dW_a = self.beta * (W - W_a) if self.target == "ema" else np.zeros_like(W)
        return dW, dW_p, dW_a

    def trajectory(self, times: Any, *, rtol: float = 1e-12) -> "FlowTrajectory":
        """The course of the flow.

        Args:
            times: increasing from 0. (N,)
            rtol: error allowed in a step, relative to the largest entry of each matrix.

        Raises:
            UsageError: if the times do not increase from 0, or the flow leaves the range of float64.
        """

        def rates(unknowns: Blocks) -> Blocks:
            dW, dW_p, dW_a = self.rates(*self._whole(unknowns))
            return (dW, *((dW_p,) if self._learned else ()), *((dW_a,) if self.target == "ema" else ()))

        t = increasing(times)
        blocks = integrate(rates, self._unknowns, t, rtol)
        states = [self._whole(unknowns) for unknowns in zip(*blocks, strict=True)]
        W, W_p, W_a = (np.stack(matrices) for matrices in zip(*states, strict=True))
        return FlowTrajectory(self, t, W, W_p, W_a)

    @property
    def balanced(self) -> bool:
        """Whether Theorem 1 applies: a freely learned predictor, stop-gradient, the same decay on both."""
        return self.predictor == "linear" and self.stop_gradient and self.decay_p == self.eta

    @property
    def collapse_rate(self) -> float:
        """A rate r such that ||W(t)||_F <= e^{-r t} ||W(0)||_F for every start; 0 where none is known.

        Collapse is certain where it is positive. Without stop-gradient it is that of Theorem 2; without a
        predictor, target "same", W' = -W (X' + eta I); with an optimal predictor,
        W W^T = e^{-2 eta t} W(0) W(0)^T, so that nothing ever grows and with eta = 0 nothing is lost.
        """
        if not self.stop_gradient:
            # X with a negative eigenvalue still leaves H - eta I without one, J being a sum of squares
            return theorem2_rate(self.X_prime, self.eta) if lowest_eigenvalue(self.X) >= 0 else self.eta
        if self.predictor == "none" and self.target == "same":
            return theorem2_rate(self.X_prime, self.eta)
        return self.eta if self.predictor == "optimal" else 0.0


@dataclass(frozen=True, eq=False)
class FlowTrajectory:
    """The course of a flow, or of a network trained beside it (:mod:`stopgrad.theory.sgd`).

    Attributes:
        flow: what was followed.
        t: times. (N,)
        W, W_p, W_a: the matrices. (N, n2, n1), (N, n2, n2), (N, n2, n1)
    """

    flow: Flow
    t: np.ndarray
    W: np.ndarray
    W_p: np.ndarray
    W_a: np.ndarray

    @property
    def norm_W(self) -> np.ndarray:
        """||W||_F. (N,)"""
        return np.linalg.norm(self.W, axis=(1, 2))

    @property
    def norm_W_p(self) -> np.ndarray:
        """||W_p||_F. (N,)"""
        return np.linalg.norm(self.W_p, axis=(1, 2))

    @property
    def norm_W_a(self) -> np.ndarray:
        """||W_a||_F. (N,)"""
        return np.linalg.norm(self.W_a, axis=(1, 2))

    @cached_property
    def F(self) -> np.ndarray:
        """W X W^T, symmetric. (N, n2, n2)"""
        return symmetric_part(self.W @ self.flow.X @ transposed(self.W))

    @property
    def eigenvalues_F(self) -> np.ndarray:
        """Eigenvalues of F in increasing order. (N, n2)"""
        return np.linalg.eigvalsh(self.F)

    @property
    def eigenvalues_W_p(self) -> np.ndarray:
        """Eigenvalues of the symmetric part of W_p in increasing order. (N, n2)"""
        return np.linalg.eigvalsh(symmetric_part(self.W_p))

    @property
    def commutator_norm(self) -> np.ndarray:
        """||F W_p - W_p F||_F. (N,)"""
        return np.linalg.norm(self.F @ self.W_p - self.W_p @ self.F, axis=(1, 2))

    @property
    def alignments(self) -> np.ndarray:
        """|cos| of the angle between u and W_p u for the eigenvectors u of F, in its eigenvalues' order.

        1 where u is an eigenvector of W_p too. Between equal eigenvalues of F, such as the zeros of n2 > n1,
        u is arbitrary. Source: tian2021, Fig. 2. (N, n2)
        """
        return alignments(self.F, self.W_p)

    @property
    def alignment(self) -> np.ndarray:
        """The mean of :attr:`alignments` over the eigenvectors, in [0, 1]. (N,)"""
        return self.alignments.mean(axis=1)

    @property
    def target_cosine(self) -> np.ndarray:
        """<W_a, W> / (||W_a|| ||W||): 1 where W_a = tau W, as Assumption 1 has it; nan where W_a = 0. (N,)"""
        with np.errstate(invalid="ignore"):
            return np.sum(self.W * self.W_a, axis=(1, 2)) / (self.norm_W * self.norm_W_a)

    @property
    def theorem1_drift(self) -> np.ndarray | None:
        """How far Theorem 1 is missed; None where it does not apply (:attr:`Flow.balanced`). (N,)

        The norm of W W^T - W_p^T W_p / alpha_p - e^{-2 eta t} C with C from t = 0, relative to the sum of
        the norms of the first two terms.
        """
        if not self.flow.balanced:
            return None
        outer, inner = self.W @ transposed(self.W), transposed(self.W_p) @ self.W_p / self.flow.alpha_p
        decay = np.exp(-2 * self.flow.eta * self.t)[:, None, None]
        gap = outer - inner - decay * (outer[0] - inner[0])
        size = np.linalg.norm(outer, axis=(1, 2)) + np.linalg.norm(inner, axis=(1, 2))
        return np.linalg.norm(gap, axis=(1, 2)) / size.clip(min=np.finfo(np.float64).tiny)

    def to_dict(self) -> dict[str, Any]:
        """The times and diagnostics as lists; ``theorem1_drift`` is None where Theorem 1 does not apply."""
        names = (
            "t", "norm_W", "norm_W_p", "norm_W_a", "theorem1_drift", "eigenvalues_W_p", "eigenvalues_F",
            "commutator_norm", "alignment",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        return {name: None if value is None else value.tolist() for name, value in values.items()}
