"""Gradient flow of the two-layer linear model (tian2021, section 2 and appendix A).

An encoder W, a predictor W_p and a target W_a see two views x1, x2 of an image. With X = E[x1 x2^T] and
X' = E[x1 x1^T] - X, the loss J = 1/2 E || W_p W x1 - sg(W_a x2) ||^2 and weight decay, its gradient flow is

    W_p' = alpha_p (W_a X - W_p W (X + X')) W^T - eta_p W_p
    W'   = W_p^T (W_a X - W_p W (X + X')) - eta W
    W_a' = beta (W - W_a)        or W_a = W (SimSiam)

Averaging the loss over both orders of the views changes nothing. Without stop-gradient (W_a = W) the target
too receives a gradient, which adds W_p W X - W (X + X') to W'.

Two conventions for the predictor's weight decay. In the theory both layers decay at the same rate,
eta_p = eta (the default). A parameter group with alpha_p times the learning rate and the same
``weight_decay`` has eta_p = alpha_p eta instead; Theorem 1 does not hold for it.

Where the paper errs: its Eq. 57 multiplies X' + eta I from the wrong side; without a predictor it reads
W' = -W (X' + eta I). E[f f^T] = W (X + X') W^T is the correlation of the predictor's input, which is
(1 + sigma^2) F, not F = W X W^T, for isotropic data, and no multiple of F in general. Theorem 2 as proved
speaks of X with no negative eigenvalue, which two views of a population always have when they are drawn
independently; a finite sample's X may have some (:mod:`stopgrad.theory.statistics`).

Shapes: X, X' (n1, n1); W, W_a (n2, n1); W_p (n2, n2); N times. All numbers float64.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from scipy.integrate import DOP853

from stopgrad.errors import UsageError, nearest, unknown
from stopgrad.theory.domain import NONNEGATIVE, matrix, reals

PredictorName = Literal["linear", "symmetric", "none", "frozen", "optimal"]
TargetName = Literal["ema", "same"]

# Eigenvalues this far below 0, as a share of the largest entry, are taken for rounding
ROUNDING = 1e-10
# Singular values below this share of the largest are taken for 0 in the optimal predictor
RANK = 1e-12
MAX_STEPS = 1_000_000

Blocks = tuple[np.ndarray, ...]


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
            _of_shape(name, found[name], (columns, columns))
        if self.predictor in ("linear", "symmetric", "frozen"):
            if self.W_p is None:
                raise UsageError(f"W_p: the start of a predictor '{self.predictor}' is needed")
            found["W_p"] = matrix("W_p", self.W_p, symmetric=self.predictor == "symmetric")
            _of_shape("W_p", found["W_p"], (rows, rows))
        if self.target == "ema":
            found["W_a"] = found["W"] if self.W_a is None else matrix("W_a", self.W_a)
            _of_shape("W_a", found["W_a"], (rows, columns))
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
            return theorem2_rate(self.X_prime, self.eta) if _lowest(self.X) >= 0 else self.eta
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
        return _symmetric(self.W @ self.flow.X @ _t(self.W))

    @property
    def eigenvalues_F(self) -> np.ndarray:
        """Eigenvalues of F in increasing order. (N, n2)"""
        return np.linalg.eigvalsh(self.F)

    @property
    def eigenvalues_W_p(self) -> np.ndarray:
        """Eigenvalues of the symmetric part of W_p in increasing order. (N, n2)"""
        return np.linalg.eigvalsh(_symmetric(self.W_p))

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
        outer, inner = self.W @ _t(self.W), _t(self.W_p) @ self.W_p / self.flow.alpha_p
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
    X_prime = _of_shape("X_prime", matrix("X_prime", X_prime, symmetric=True), X.shape)
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
    return max(_lowest(X_prime), 0.0) + number("eta", eta)


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


def check_views(X: np.ndarray, X_prime: np.ndarray) -> None:
    """Whether two exchangeable views have these moments: X' and 2 X + X' are covariances, of x1 -+ x2.

    Raises:
        UsageError: naming the matrix that is the cause.
    """
    slack = ROUNDING * max(np.abs(X).max(), np.abs(X_prime).max())
    if (low := _lowest(X_prime)) < -slack:
        raise UsageError(f"X_prime: has the eigenvalue {low:g}; a covariance, it may have no negative one")
    if (low := _lowest(2 * X + X_prime)) < -slack:
        raise UsageError(
            f"X: no two views have it, 2 X + X_prime has the eigenvalue {low:g}, which must be >= 0"
        )


def square_root(covariance: np.ndarray) -> np.ndarray:
    """R with R R^T the covariance, singular or not. (n, n)"""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(min=0))


def number(name: str, value: Any) -> float:
    """One number of the domain that ``name`` has.

    Raises:
        UsageError: naming the argument.
    """
    numbers = reals(name, value)
    if numbers.ndim:
        raise UsageError(f"{name}: one number is needed, this has shape {tuple(numbers.shape)}")
    return numbers.item()


def increasing(times: Any) -> np.ndarray:
    """Times that increase from 0. (N,)

    Raises:
        UsageError: if they do not.
    """
    t = reals("t", times, NONNEGATIVE).reshape(-1).numpy()
    if t[0] != 0 or (np.diff(t) < 0).any():
        raise UsageError("t: must increase from 0")
    return t


def integrate(rates: Callable[[Blocks], Blocks], start: Blocks, t: np.ndarray, rtol: float) -> Blocks:
    """Solve an autonomous system of matrices by `scipy.integrate.DOP853`, with its dense output at ``t``.

    The error of a step is bounded relative to the largest entry of each matrix as it is then, so that a
    matrix that decays by many orders of magnitude, or an entry that passes through 0, is followed as well
    as any other.

    Args:
        rates: the matrices' derivatives from the matrices.
        start: the matrices at t = 0.
        t: times, increasing from 0. (N,)
        rtol: the bound.

    Returns:
        Each matrix at the times, with a first axis of N.

    Raises:
        UsageError: if the solution leaves the range of float64.
        ArithmeticError: if it takes more than ``MAX_STEPS`` steps.
    """
    sizes = [block.size for block in start]
    cuts = np.cumsum(sizes)[:-1]

    def split(y: np.ndarray) -> Blocks:
        return tuple(part.reshape(block.shape) for part, block in zip(np.split(y, cuts), start, strict=True))

    def slopes(_: float, y: np.ndarray) -> np.ndarray:
        return np.concatenate([slope.reshape(-1) for slope in rates(split(y))])

    def bounds(y: np.ndarray) -> np.ndarray:
        largest = np.array([np.abs(part).max() for part in np.split(y, cuts)])
        # a matrix that is 0, such as a target's start, has no scale of its own yet
        largest[largest == 0] = 1e-8 * largest.max() + 1e-300
        return rtol * np.repeat(largest, sizes)

    y0 = np.concatenate([block.reshape(-1) for block in start])
    out = np.tile(y0, (len(t), 1))
    done, steps = int(np.searchsorted(t, 0.0, side="right")), 0
    with np.errstate(over="ignore", invalid="ignore"):
        solver = DOP853(slopes, 0.0, y0, t[-1], rtol=rtol, atol=bounds(y0))
        while done < len(t):
            solver.atol = bounds(solver.y)
            solver.step()
            steps += 1
            if solver.status == "failed" or not np.isfinite(solver.y).all():
                raise UsageError(
                    f"t: the flow leaves the range of float64 near t = {solver.t:g}; end before it"
                )
            if steps > MAX_STEPS:
                raise ArithmeticError(f"the solver is stuck after {steps} steps near t = {solver.t:g}")
            reached = int(np.searchsorted(t, solver.t, side="right"))
            if reached > done:
                out[done:reached] = solver.dense_output()(t[done:reached]).T
                done = reached
    parts = np.split(out, cuts, axis=1)
    return tuple(part.reshape(-1, *block.shape) for part, block in zip(parts, start, strict=True))


def from_config(config: Mapping[str, Any] | str | Path) -> tuple[Flow, np.ndarray]:
    """A flow and its times from a YAML file, or from a mapping of the same keys.

    Keys: the fields of `Flow`, ``t_end`` (> 0) and ``points`` (>= 2, by default 101). A matrix is a nested
    list, the path of a ``.npy`` file, or of an array in an ``.npz`` file, ``file.npz:name`` (the name may be
    left out where there is only one); paths are relative to the YAML's folder. W, W_p and W_a may also be
    drawn: ``{random: {shape: [n2, n1], scale: 0.1, seed: 0}}`` has independent normal entries of standard
    deviation ``scale``; equal seeds give different matrices different numbers.

    Raises:
        UsageError: one line, for an unknown key, a file that cannot be read, or a value outside its domain.
    """
    folder = Path() if isinstance(config, Mapping) else Path(config).parent
    given = dict(config) if isinstance(config, Mapping) else _read_yaml(Path(config))
    known = [*Flow.__dataclass_fields__, "t_end", "points"]
    for key in given:
        if key not in known:
            raise UsageError(f"config: unknown key '{key}'{nearest(str(key), known)}")
    for key in ("X", "X_prime", "W", "t_end"):
        if given.get(key) is None:
            raise UsageError(f"{key}: missing; the flow needs it")
    t_end, points = number("t_end", _real(given.pop("t_end"))), given.pop("points", 101)
    if t_end == 0:
        raise UsageError("t_end: 0 is outside its domain (0, inf)")
    if not isinstance(points, int) or isinstance(points, bool) or points < 2:
        raise UsageError(f"points: {points!r} is no whole number >= 2")
    for name in ("X", "X_prime", "W", "W_p", "W_a"):
        if given.get(name) is not None:
            given[name] = _matrix(name, given[name], folder)
    for name in ("alpha_p", "beta", "eta", "eta_p"):
        if name in given:
            given[name] = _real(given[name])
    return Flow(**given), np.linspace(0, t_end, points)


def run_config(config: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """The trajectory that :func:`from_config` describes, as ``stopgrad theory flow --json`` prints it.

    Raises:
        UsageError: as :func:`from_config` and :meth:`Flow.trajectory`.
    """
    flow, times = from_config(config)
    return flow.trajectory(times).to_dict()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise UsageError(f"--config {path}: not YAML{f' in line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: holds no mapping of names to values")
    return content


def _real(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for a string, because it has no point."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _matrix(name: str, value: Any, folder: Path) -> np.ndarray:
    if isinstance(value, str):
        return matrix(name, _load(name, value, folder))
    if isinstance(value, Mapping):
        if name.startswith("X"):
            raise UsageError(f"{name}: a nested list or the path of an array is needed, not a mapping")
        return _random(name, value)
    return matrix(name, value)


def _random(name: str, value: Mapping[str, Any]) -> np.ndarray:
    given = value.get("random")
    if set(value) != {"random"} or not isinstance(given, Mapping):
        raise UsageError(
            f"{name}: a mapping must have the form {{random: {{shape: [n2, n1], scale: 0.1, seed: 0}}}}"
        )
    for key in given:
        if key not in ("shape", "scale", "seed"):
            raise UsageError(
                f"{name}.random: unknown key '{key}'{nearest(str(key), ['shape', 'scale', 'seed'])}"
            )
    shape, seed = given.get("shape"), given.get("seed", 0)
    sizes = shape if isinstance(shape, list | tuple) else []
    if len(sizes) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise UsageError(f"{name}.random.shape: {shape!r} is no pair of positive whole numbers")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"{name}.random.seed: {seed!r} is no whole number >= 0")
    scale = reals(f"{name}.random.scale", _real(given.get("scale", 0.1)), NONNEGATIVE).item()
    random = np.random.default_rng([seed, ("W", "W_p", "W_a").index(name)])
    return scale * random.standard_normal(tuple(sizes))


def _load(name: str, text: str, folder: Path) -> np.ndarray:
    file, colon, key = text.rpartition(":")
    if not (colon and file.endswith(".npz")):
        file, key = text, ""
    path = folder / file
    if path.suffix not in (".npy", ".npz"):
        raise UsageError(f"{name}: {text!r} is neither a matrix nor the path of a .npy or .npz file")
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return content[_only(name, path, list(content.files), key)]
    except OSError as error:
        raise UsageError(f"{name}: {path}: {error.strerror or 'is no array file'}") from None
    except UsageError:
        raise
    except Exception:  # what a damaged archive raises depends on where it is damaged
        raise UsageError(f"{name}: {path}: is no array file, or one that needs pickle") from None


def _only(name: str, path: Path, keys: list[str], key: str) -> str:
    if not key and len(keys) == 1:
        return keys[0]
    if key not in keys:
        wanted = f"no array '{key}'" if key else f"{len(keys)} arrays, name one as {path.name}:NAME"
        raise UsageError(f"{name}: {path}: holds {wanted}. Known: {', '.join(keys)}")
    return key


def _of_shape(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if value.shape != shape:
        raise UsageError(f"{name}: has shape {value.shape}, the other matrices need {shape}")
    return value


def _lowest(symmetric: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(symmetric)[0])


def _t(matrices: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrices, -1, -2)


def _symmetric(matrices: np.ndarray) -> np.ndarray:
    return (matrices + _t(matrices)) / 2
