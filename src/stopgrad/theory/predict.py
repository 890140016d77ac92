"""What the theory says of a method before it runs: does it collapse, what survives, how long, and why.

The method is a sentence of the project's parts on a linear network: one linear layer W without bias, the
Euclidean distance, small steps of plain SGD. On data whose Sigma_d = X and Sigma_s = X + X' commute, weights
that start along their eigenvectors stay there, and each pair of eigenvalues (l_d, l_s) is a mode with the
weights p of the predictor, w of the encoder and w_a of the target, s = w^2 (tian2021, section 3, appendix D):

    linear predictor     p' = alpha_p w A - eta p,  w' = p A - eta w,  A = w_a l_d - p w l_s
    target               w_a = w, or w_a' = beta (w - w_a) with beta = (1 - Ema.tau) / lr
    no predictor         p = 1
    no stop-gradient     w' has p w l_d - w l_s besides, and w_a = w
    DirectPred           p from the spectrum of E[z z^T] (below); if straight-through, w' = A - eta w

What decides (l' = l_s - l_d, the mode's noise):

- Linear predictor. In the time l_d t it is the isotropic mode of :mod:`stopgrad.theory.modes` with
  sigma2 = l'/l_d, eta/l_d and beta/l_d. p ends at the far root of l_s p^2 - l_d p + eta = 0 or at 0; beyond
  eta = l_d^2 / (4 l_s) there is no root and every start dies. Which it is has a closed form for eta = 0
  (:mod:`stopgrad.theory.basins`); otherwise the mode is followed until it is bound for one of them.
- No predictor: w decays at the rate l' + eta, without stop-gradient at 2 l' + eta.
- No stop-gradient: w decays at l_s - |l_d| + eta or faster (Theorem 2). Where that is 0 and l_d > 0,
  w^2 - (1 - p)^2 / alpha_p is conserved, and the mode ends at p = 1 exactly if it is positive.
- DirectPred. The eigenvalues of Fhat = E[z z^T] are f_j = l_s,j s_j. As the authors' code has it,
  p_j = sqrt(f_j / f_max) + eps is 1 + eps for the largest mode at any size, so that the Euclidean distance
  shrinks it for ever: with a target that is the online network max_j f_j falls at
  2 min_j ((1 + eps) ((1 + eps) l_s - l_d) + eta) or faster, and everything dies; a slower target does not
  save it, as max_j l_s max(w^2, w_a^2) never grows. (A distance that normalises lengths, as the authors'
  does, does not feel this.) As the text has it, p_j = sqrt(f_j) + eps f_max, fixed points are at
  l_s p^2 - l_d p + eta = 0 again; a small mode has p = eps f_max and grows where that lies between its two
  roots. Which fixed point is reached is found by integration, until every mode rests or has fallen for good.

Data that do not commute have no modes. What is then still exact is said (no predictor; no stop-gradient; a
weight decay above lambda_max(X Sigma_s^{-1} X) / 4, since <W_p W, W_a X> - <W_p W, W_p W Sigma_s> is at most
<W_a X, W_a X Sigma_s^{-1}> / 4), and nothing else: where theory does not reach the answer is `NoClosedForm`.

Where the paper errs: its Eq. 57, see :mod:`stopgrad.theory.flow`.

Shapes: n modes, n1 inputs, n2 outputs, N times, G settings compared; arrays (n,) or (G, n). All float64.
"""

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.linalg
import torch
from scipy.integrate import LSODA
from scipy.special import wrightomega
from torch import nn

from stopgrad.catalog import lookup
from stopgrad.errors import UsageError, unknown
from stopgrad.method import Method, Supervised
from stopgrad.parts.distances import DISTANCES, Euclidean
from stopgrad.parts.gradient import Exact, StraightThrough
from stopgrad.parts.pairing import CROSS_VIEW
from stopgrad.parts.predictors import Identity, Linear, Mlp, Spectral
from stopgrad.parts.target import Ema, Same
from stopgrad.theory.basins import collapses
from stopgrad.theory.domain import NONNEGATIVE, POSITIVE, REAL, matrix, reals
from stopgrad.theory.fixed_points import roots
from stopgrad.theory.flow import check_views
from stopgrad.theory.modes import Modes

# Shares of the largest that count as rounding
ROUNDING = 1e-10
# Share of its end within which a mode has arrived; a dying one arrives at this share of its start
NEAR = 0.1
# E[W W^T] of a square linear layer as PyTorch draws it
S0 = 1 / 3
# Times looked at, spread evenly over the logarithm of these multiples of the fastest mode's time
LOOKS, FIRST, LAST = 1600, 1e-3, 1e12
# Largest ln w, and ln(w_a / w) of either sign, that is told apart from more
STEEP = 50.0
# Of the integration
MAX_STEPS = 100_000
# Taken for 0
TINY = 1e-150
# Settings compared at once in a search, and how often the interval is narrowed that much
GRID, ROUNDS = 17, 3
# Factors of e by which a mode of DirectPred has fallen for good
FALLEN = 100.0

# Settings of the predictors that theory reaches which may have any value
KNOWN: dict[type, tuple[str, ...]] = {
    Identity: (),
    Linear: ("symmetric", "init"),
    Spectral: ("eps", "eps_form", "exponent", "offset", "floor", "solver", "rho", "freq"),
}

ASSUMPTIONS = (
    "For one linear layer without bias, weights that start along the data's eigenvectors, and plain SGD with "
    "small steps; eta decays encoder and predictor alike."
)


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
        share = reals("tolerance", tolerance, NONNEGATIVE).item()
        found = _decoupled(*_supported(X, X_prime))
        if found.dropped > share:
            raise UsageError(
                f"X_prime: does not commute with X, {found.dropped:.3g} of them is off the joint eigenbasis; "
                f"tolerance allows {share:g}"
            )
        return found


@dataclass(frozen=True)
class ModePrediction:
    """How one mode ends.

    Attributes:
        l_d, l_s: the data's eigenvalues.
        survives: whether s stays away from 0.
        p, s: the ends of the predictor's eigenvalue (1 without a predictor) and of the weight's square w^2.
        time: when p and w both first come within a tenth of their ends, or, of a mode that dies, when the
            weights of online and target network first are both below a tenth of the start; good to about
            1e-4. inf: never, from a start on the very edge between two basins.
        steps: time / lr.
    """

    l_d: float
    l_s: float
    survives: bool
    p: float
    s: float
    time: float
    steps: float

    def to_dict(self) -> dict[str, Any]:
        """The fields; what is infinite is None."""
        return {name: None if value == np.inf else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Prediction:
    """What becomes of a method.

    Attributes:
        collapses: whether every mode dies.
        modes: how each ends; none where the data do not commute and collapse is certain all the same.
        dimension: how many survive.
        cause: of a collapse, the name of what brings it about: "stop_gradient", "predictor", "eps_form",
            "eta", "alpha_p", "ema" or "s0"; the first in this order whose change alone prevents it. Where no
            single change does, what theory names.
        remedy: for each of these names that prevents the collapse alone, the nearest value that does: "ema"
            is `Ema.tau`, "s0" the present one times a factor. An edge is met from the side that does not
            collapse, to 1e-3.
        rate: r with ||W(t)||_F <= e^{-r t} ||W(0)||_F for every start; None where theory has none.
        finished: whether every mode arrives within the steps of the run; None if these were not given, or
            there are no modes.
        notes: what the answer rests on, with sources.
    """

    collapses: bool
    modes: tuple[ModePrediction, ...]
    dimension: int
    cause: str | None
    remedy: dict[str, Any]
    rate: float | None
    finished: bool | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them, with ``closed_form``: true."""
        rest = {**vars(self), "modes": [mode.to_dict() for mode in self.modes], "notes": list(self.notes)}
        return {"closed_form": True, **rest}


@dataclass(frozen=True)
class NoClosedForm:
    """The answer where theory does not reach.

    Attributes:
        reason: the part or argument, and why.
    """

    reason: str

    def to_dict(self) -> dict[str, Any]:
        """``closed_form``: false, and the reason."""
        return {"closed_form": False, "reason": self.reason}


def predict(
    method: Method | Supervised,
    statistics: DataStatistics | HasMoments,
    *,
    lr: float,
    alpha_p: float = 1.0,
    eta: float = 0.0,
    p0: Any = None,
    s0: Any = S0,
    steps: int | None = None,
    network: nn.Module | None = None,
    search: bool = True,
) -> Prediction | NoClosedForm:
    """What becomes of a method on such data.

    Args:
        method: the parts; see the module's head for those that theory reaches.
        statistics: the data, as modes or as matrices ``X`` and ``X_prime``.
        lr: learning rate of the encoder, > 0; time is lr * steps.
        alpha_p: the predictor's learning rate over the encoder's, > 0; used by a learned predictor.
        eta: weight decay of encoder and predictor alike, >= 0: weights shrink by lr eta a step (PyTorch's
            ``weight_decay`` for the encoder, that over alpha_p for the predictor's own group).
        p0: start of a learned predictor's eigenvalues; a number or one for each mode. By default what its
            ``init`` draws on average: 1 for "identity", else 0.
        s0: start of w^2, >= 0; likewise. By default what PyTorch draws on average for n2 = n1, 1/3. The
            target starts as a copy of the online network.
        steps: of the run, >= 1.
        network: encoder and projector, to be judged whether the theory is about them; None: the theory's.
        search: whether to look for the remedies of a collapse, which takes up to some tens of seconds where
            p0 is far above l_d / l_s and eta small, else a few. Without, ``cause`` is what theory names.

    Returns:
        The prediction, or `NoClosedForm` with the reason.

    Raises:
        UsageError: naming the argument that is outside its domain.

    Example:
        >>> method = Method(predictor=Linear(), distance="euclidean")
        >>> found = predict(method, DataStatistics([1.0, 0.2], [1.5, 1.0]), lr=0.01, eta=0.02)
        >>> [mode.survives for mode in found.modes], round(found.modes[0].p, 3)
        ([True, False], 0.646)
    """
    lr = reals("lr", lr, POSITIVE).item()
    alpha_p, eta = reals("alpha_p", alpha_p).item(), reals("eta", eta).item()
    if steps is not None:
        reals("steps", steps, POSITIVE)
    try:
        kind = _reached(method, network)
        data = _data(statistics)
        modes = len(data.l_d if isinstance(data, DataStatistics) else data[0])
        if p0 is None:
            p0 = float(isinstance(kind.predictor, Linear) and kind.predictor.init == "identity")
        p0, s0 = _per_mode("p0", p0, modes), _per_mode("s0", s0, modes)
        if isinstance(data, DataStatistics):
            return _of_modes(_Setting(kind, data, lr, alpha_p, eta, p0, s0, _ema(kind)), steps, search)
        return _of_matrices(kind, *data, lr, eta, float((p0**2).max() + alpha_p * s0.max()))
    except _Beyond as reason:
        return NoClosedForm(str(reason))


def run(
    name: str,
    statistics: DataStatistics | HasMoments,
    *,
    lr: float,
    alpha_p: float = 1.0,
    eta: float = 0.0,
    ema: float | None = None,
    distance: str | None = None,
    p0: Any = None,
    s0: Any = S0,
    steps: int | None = None,
) -> dict[str, Any]:
    """:func:`predict` for a method of the catalogue, as ``stopgrad theory predict --json`` prints it.

    Args:
        name: of the method.
        statistics, lr, alpha_p, eta, p0, s0, steps: see :func:`predict`.
        ema: in place of the method's own `Ema.tau`, in [0, 1].
        distance: in place of the method's own.

    Raises:
        UsageError: for an unknown name, or an argument outside its domain.
    """
    method = lookup(name).method
    if isinstance(method, Method) and ema is not None:
        if not isinstance(method.target, Ema):
            raise UsageError(f"ema: the target of '{name}' is the online network, it takes none")
        if not 0 <= ema <= 1:
            raise UsageError(f"ema: {ema:g} is outside its domain [0, 1]")
        method = method.but(target=method.target.but(tau=ema))
    if isinstance(method, Method) and distance is not None:
        if distance not in DISTANCES:
            raise unknown("distance", distance, list(DISTANCES))
        method = method.but(distance=distance)
    found = predict(method, statistics, lr=lr, alpha_p=alpha_p, eta=eta, p0=p0, s0=s0, steps=steps)
    return found.to_dict()


class _Beyond(Exception):
    """Theory does not reach; the message is the reason."""


def _reached(method: Method | Supervised, network: nn.Module | None) -> Method:
    """The method, if it is one that the module's equations are about."""
    if isinstance(method, Supervised):
        raise _Beyond("method: it learns from labels; the theory is of pairs of views")
    for name, wrong in (
        ("predictor", _beyond_predictor(method)),
        ("distance", _beyond_distance(method)),
        ("pairing", _beyond_pairing(method)),
        ("target", _beyond_target(method)),
        ("gradient", _beyond_gradient(method)),
        ("network", _beyond_network(network)),
    ):
        if wrong is not None:
            raise _Beyond(f"{name}: {wrong}")
    return method


def _beyond_predictor(method: Method) -> str | None:
    predictor = method.predictor
    if isinstance(predictor, Mlp):
        return "an MLP is not linear, and its averages over the data depend on more than X and X'"
    known = next((fields for kind, fields in KNOWN.items() if type(predictor) is kind), None)
    if known is None:
        return f"'{predictor.kind}' is none whose modes are known; those of identity, linear and spectral are"
    for name, setting in type(predictor).model_fields.items():
        if name not in known and getattr(predictor, name) != setting.default:
            return f"{name} = {getattr(predictor, name)!r} is not in the equations of the modes"
    if isinstance(predictor, Spectral) and predictor.rho == "mean":
        return "rho = 'mean' lags further and further behind the network; the modes are of Fhat = E[z z^T]"
    return None


def _beyond_distance(method: Method) -> str | None:
    kind = method.distance.kind
    if isinstance(method.distance, Euclidean):
        return None
    if method.distance.normalises:
        return (
            f"'{kind}' divides by each sample's length, so that its averages do not close in "
            "X and X' (without weight decay it keeps tr(W W^T)); 'euclidean' is what the modes are of"
        )
    return f"'{kind}' is more than a square of a difference; 'euclidean' is what the modes are of"


def _beyond_pairing(method: Method) -> str | None:
    if set(method.pairing) != set(CROSS_VIEW) or len(method.pairing) != len(CROSS_VIEW):
        return f"the modes are of {' + '.join(map(str, CROSS_VIEW))}"
    return None


def _beyond_target(method: Method) -> str | None:
    if isinstance(method.target, Same):
        return None
    if not isinstance(method.target, Ema):
        return f"'{method.target.kind}' is neither the network nor a moving average of its weights"
    if method.target.init != "copy":
        return f"init = '{method.target.init}', and the modes are of a target that starts as the network"
    if method.target.centring is not None:
        return "centring takes the mean from the keys, which is not in the equations of the modes"
    if method.target.schedule != "constant":
        return "fixed points and basins are those of a constant moving average, not of a schedule"
    if method.target.tau == 1:
        return "tau = 1 never moves the target, and learns what a random network does"
    return None


def _beyond_gradient(method: Method) -> str | None:
    if isinstance(method.gradient, Exact) or isinstance(method.predictor, Identity):
        return None
    if not isinstance(method.gradient, StraightThrough):
        return f"the modes are of the exact gradient and of straight-through, not of '{method.gradient.kind}'"
    if not isinstance(method.predictor, Spectral):
        return "'straight-through' gives a learned predictor no gradient; it is of predictors in closed form"
    return None if method.stops_gradient else "'straight-through' is of targets with stop-gradient"


def _beyond_network(network: nn.Module | None) -> str | None:
    if network is None:
        return None
    leaves = [module for module in network.modules() if not list(module.children())]
    layers = [module for module in leaves if not isinstance(module, nn.Identity | nn.Flatten)]
    for layer in layers:
        if not isinstance(layer, nn.Linear):
            return f"it holds {type(layer).__name__}; the theory is of one linear layer without bias"
    if len(layers) != 1 or layers[0].bias is not None:
        return "the theory is of one linear layer without bias, not of several or of one with a bias"
    return None


def _ema(method: Method) -> float:
    return method.target.tau if isinstance(method.target, Ema) else float("nan")


def _per_mode(name: str, value: Any, modes: int) -> np.ndarray:
    """One number for each mode. (n,)"""
    numbers = reals(name, value)
    if numbers.ndim > 1 or numbers.numel() not in (1, modes):
        raise UsageError(f"{name}: has shape {tuple(numbers.shape)}, the data have {modes} modes")
    return numbers.numpy() * np.ones(modes)


def _data(statistics: Any) -> DataStatistics | tuple[np.ndarray, np.ndarray]:
    """Modes, or matrices that do not commute."""
    if isinstance(statistics, DataStatistics):
        return statistics
    if not (hasattr(statistics, "X") and hasattr(statistics, "X_prime")):
        raise UsageError(
            "statistics: DataStatistics, or an object with the matrices X and X_prime, is needed"
        )
    matrices = _supported(statistics.X, statistics.X_prime)
    found = _decoupled(*matrices)
    return found if found.dropped <= ROUNDING else matrices


def _supported(X: Any, X_prime: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both matrices, checked, within the directions in which the data vary at all."""
    X, X_prime = (matrix(name, m, symmetric=True) for name, m in (("X", X), ("X_prime", X_prime)))
    if X.shape != X_prime.shape:
        raise UsageError(f"X_prime: has shape {X_prime.shape}, X has {X.shape}")
    check_views(X, X_prime)
    values, vectors = np.linalg.eigh(X + X_prime)
    kept = vectors[:, values > ROUNDING * values[-1]]
    if values[-1] <= 0:
        raise UsageError("X: with X_prime it is 0, the data do not vary")
    return kept.T @ X @ kept, kept.T @ X_prime @ kept


def _decoupled(X: np.ndarray, X_prime: np.ndarray) -> DataStatistics:
    """Diagonals of both matrices in a basis that is the joint eigenbasis if there is one."""
    sigma_s = X + X_prime
    # a generic combination has the eigenvectors of both, also where one of them has equal eigenvalues
    golden = (np.sqrt(5) - 1) / 2
    _, vectors = np.linalg.eigh(sigma_s / np.linalg.norm(sigma_s) + golden * X / (np.linalg.norm(X) or 1.0))
    turned = [vectors.T @ m @ vectors for m in (X, X_prime)]
    l_d, noise = (np.diagonal(m) for m in turned)
    gaps = [np.linalg.norm(m - np.diag(np.diagonal(m))) / np.linalg.norm(sigma_s) for m in turned]
    l_s = l_d + noise.clip(min=0)
    order = np.argsort(-l_d / l_s, kind="stable")
    return DataStatistics(l_d[order], l_s[order], float(max(gaps)))


@dataclass(frozen=True, eq=False)
class _Setting:
    """All that decides; alpha_p, eta, ema may be (G, 1) and s0 (G, n) where G settings are compared."""

    method: Method
    data: DataStatistics
    lr: float
    alpha_p: Any
    eta: Any
    p0: np.ndarray
    s0: Any
    ema: Any

    @property
    def l_d(self) -> np.ndarray:
        return self.data.l_d

    @property
    def l_s(self) -> np.ndarray:
        return self.data.l_s

    @property
    def beta(self) -> Any:
        return (1 - self.ema) / self.lr

    @cached_property
    def follows(self) -> bool:
        """Whether the target is a network of its own."""
        return isinstance(self.method.target, Ema)

    @cached_property
    def stops(self) -> bool:
        return self.method.stops_gradient

    def again(self, name: str, value: Any) -> Prediction | NoClosedForm:
        """The prediction for one other value, or one other part."""
        numbers = {key: getattr(self, key) for key in ("lr", "alpha_p", "eta", "p0", "s0")}
        if name in numbers:
            return predict(self.method, self.data, **{**numbers, name: value}, search=False)
        return predict(_with_part(self.method, name, value), self.data, **numbers, search=False)


def _with_part(method: Method, name: str, value: Any) -> Method:
    """The method with what a remedy's name stands for set to its value."""
    if name == "ema":
        return method.but(target=Ema(tau=value))
    if name == "stop_gradient":
        return method.but(target=Same(stop_gradient=value))
    if name == "predictor":
        return method.but(predictor=Linear())
    return method.but(predictor=method.predictor.but(eps_form=value))


class _State(NamedTuple):
    """Modes at one time, or at N times: p, w and w_a, each (..., n) or (N, ..., n)."""

    p: np.ndarray
    w: np.ndarray
    w_a: np.ndarray


class _Case(ABC):
    """A kind of method on decoupled modes.

    The unknowns of a mode are ln w and, where the target is a network of its own, ln(w_a / w), so that
    weights may fall by any factor and rise again. Modes that swing (:attr:`swings`) have w and w_a
    themselves.
    """

    note: str
    fallback: str
    """Cause of a collapse that no single change prevents."""
    parts: tuple[tuple[str, Any], ...] = ()
    """Other parts to try as a remedy: name and value."""
    numbers: tuple[str, ...] = ()
    """Numbers to look for a remedy in; `parts` and these are in the order of `Prediction.cause`."""
    power = 1
    """Of p in the pull on w: 0 for the straight-through gradient."""
    coupled = False
    """Whether modes act on each other."""

    def __init__(self, setting: _Setting):
        self.x = x = setting
        arrays = (x.l_d, x.alpha_p, x.eta, x.s0, x.ema)
        self.shape = np.broadcast_shapes(*(np.shape(value) for value in arrays))
        self.w0 = np.broadcast_to(np.sqrt(x.s0), self.shape)

    @abstractmethod
    def survivors(self) -> np.ndarray:
        """Whether each mode's s stays away from 0. (..., n)"""

    @abstractmethod
    def ends(self, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p and s at the end. (n,) each"""

    @property
    def rate(self) -> float | None:
        """That of `Prediction`."""
        return None

    @property
    def start(self) -> np.ndarray:
        """p at the start. (..., n)"""
        return self.eigenvalues(self.w0)

    def eigenvalues(self, w: np.ndarray) -> np.ndarray:
        """p where it is not learned: 1 without a predictor. (..., n)"""
        return np.ones_like(w)

    @cached_property
    def swings(self) -> np.ndarray:
        """Modes whose weights may pass through 0; all of them die. (..., n)"""
        return np.broadcast_to(self.x.follows & (self.x.l_d < 0), self.shape)

    def speed(self, p: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Bound on the rates at which departures from a state decay. (..., n)"""
        x = self.x
        return np.asarray(x.l_s * (np.maximum(np.abs(p), p**2) + (not x.stops)) + x.eta)

    def unknowns(self) -> np.ndarray:
        """At the start. (..., n, K)"""
        logs = np.log(np.where(self.w0 > 0, self.w0, 1.0))
        unknowns = [np.where(self.swings, self.w0, logs), np.where(self.swings, self.w0, 0.0)]
        return np.stack(unknowns[: 2 if self.x.follows else 1], axis=-1)

    def read(self, t: Any, y: np.ndarray) -> _State:
        """What the unknowns y (..., n, K) stand for at the time t."""
        w, w_a = self._weights(y)
        return _State(self.eigenvalues(w), w, w_a)

    def slopes(self, t: float, y: np.ndarray) -> np.ndarray:
        """Derivatives of the unknowns. (..., n, K)"""
        x, (p, w, w_a) = self.x, self.read(t, y)
        force, ahead = p**self.power, self._ahead(y)
        pull = force * (np.exp(ahead) * x.l_d - p * x.l_s)
        back = 0.0 if x.stops else p * x.l_d - x.l_s
        swinging = force * (w_a * x.l_d - p * w * x.l_s) - x.eta * w
        return self._slopes(swinging, pull + back - x.eta, ahead, w, w_a)

    @property
    def plain(self) -> np.ndarray:
        """Modes whose unknowns are no logarithms. (..., n)"""
        return self.swings

    @property
    def scale(self) -> np.ndarray:
        """Size below which an unknown no longer matters; 1 for logarithms. (..., n)"""
        return np.where(self.swings & (self.w0 > 0), self.w0, 1.0)

    def course(self, done: Callable[[_State], bool], looks: int = LOOKS) -> tuple[np.ndarray, _State]:
        """Times (N,) and states from the start until ``done``, or until nothing can happen any more.

        By LSODA, which turns implicit where fast modes rest and slow ones move; error 1e-9 a step, relative
        (not of logarithms) or in units of `scale`.
        """
        x, y0 = self.x, self.unknowns()
        fastest = (self.speed(self.start, x.s0) + x.l_s + (x.beta if x.follows else 0.0)).max()
        decays = np.ravel(x.eta)[np.ravel(x.eta) > 0]
        end = max(LAST / fastest, 1e3 / decays.min(initial=np.inf))
        t = np.geomspace(FIRST / fastest, end, looks)
        errors = (1e-9 * self.scale, np.where(self.plain, 1e-9, 1e-12))
        atol, rtol = (np.broadcast_to(error[..., None], y0.shape).reshape(-1) for error in errors)
        band = y0.shape[-1] * (y0.shape[-2] if self.coupled else 1) - 1

        def rates(t: float, y: np.ndarray) -> np.ndarray:
            return self.slopes(t, y.reshape(y0.shape)).reshape(-1)

        def solver_at(now: float, y: np.ndarray, step: float) -> LSODA:
            return LSODA(rates, now, y, end, first_step=step, rtol=rtol, atol=atol, lband=band, uband=band)

        def end_at(now: float, y: np.ndarray) -> bool:
            return now >= end or done(self.read(now, y.reshape(y0.shape)))

        # its own first step is far too long where all slopes are 0 at first
        solver, size = solver_at(0.0, y0.reshape(-1), t[0]), t[0]
        states, seen = [y0.reshape(-1)], 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a step that fails warns
            for _ in range(MAX_STEPS):
                if end_at(solver.t, solver.y):
                    times = np.array([0.0, *t[:seen], solver.t])
                    path = np.array([*states, solver.y]).reshape(-1, *y0.shape)
                    return times, self.read(times.reshape(-1, *(1 for _ in self.shape)), path)
                before, old = solver.t, solver.y
                solver.step()
                if solver.status == "failed" or self._leapt(
                    old.reshape(y0.shape), solver.y.reshape(y0.shape)
                ):
                    size = min(size, (solver.t - before) or size) / 50
                    if size < 1e-15 * max(before, t[0]):
                        break
                    solver = solver_at(before, old, size)
                    continue
                size = solver.t - before
                reached = int(np.searchsorted(t, solver.t, side="right"))
                if reached > seen:
                    states.extend(solver.dense_output()(t[seen:reached]).T)
                    seen = reached
        raise _Beyond(f"p0: the modes could not be followed beyond t = {solver.t:g}")

    def _leapt(self, old: np.ndarray, new: np.ndarray) -> bool:
        """Whether a weight that was tiny for long rose past 1 in a step too long for LSODA to notice."""
        u, rise = new[..., 0], new[..., 0] - old[..., 0]
        return not np.isfinite(new).all() or bool((~self.plain & (u > -3) & (rise > 2)).any())

    def _weights(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """w and w_a. (..., n) each"""
        first, last = y[..., 0], y[..., -1]
        w = np.exp(np.minimum(first, STEEP)) * (self.w0 > 0)
        w_a = w * np.exp(self._ahead(y)) if self.x.follows else w
        if not self.swings.any():
            return w, w_a
        return np.where(self.swings, first, w), np.where(self.swings, last, w_a)

    def _ahead(self, y: np.ndarray) -> np.ndarray:
        """ln(w_a / w); meaningless for modes that swing. (..., n)"""
        return np.clip(y[..., -1], -STEEP, STEEP) if self.x.follows else np.zeros(y.shape[:-1])

    def _slopes(
        self, swinging: np.ndarray, falling: np.ndarray, ahead: np.ndarray, w: np.ndarray, w_a: np.ndarray
    ) -> np.ndarray:
        """The unknowns' from w' of modes that swing and (ln w)' of those that do not. (..., n, K)"""
        slopes = np.empty((*self.shape, 2 if self.x.follows else 1))
        slopes[..., 0] = np.where(self.swings, swinging, falling)
        if self.x.follows:
            beta = self.x.beta
            slopes[..., 1] = np.where(self.swings, beta * (w - w_a), beta * np.expm1(-ahead) - falling)
        return slopes


class _Learned(_Case):
    """Linear predictor with stop-gradient.

    The conserved e^{2 eta t} (s - p^2 / alpha_p) = c gives the larger of w and p / sqrt(alpha_p) from the
    other: where c > 0 the unknowns are p and w_a, elsewhere those of the base, so that nothing cancels.

    Fates for eta > 0 are found here and not by :func:`stopgrad.theory.basins.collapses`, whose explicit
    steps take long where a slow decay goes with a fast target.
    """

    note = (
        "Linear predictor: the modes of tian2021, section 3, Eqs. 11-17. A mode can survive only for "
        "eta <= l_d^2 / (4 l_s), and then ends at the far root of l_s p^2 - l_d p + eta = 0."
    )

    def __init__(self, setting: _Setting):
        super().__init__(setting)
        x = setting
        self.numbers = ("eta", "alpha_p", *(("ema",) if x.follows else ()), "s0")
        self.fallback = "eta" if np.any(x.s0) else "s0"
        self.c = np.broadcast_to(x.s0 - x.p0**2 / x.alpha_p, self.shape)
        self.against = np.broadcast_to(x.p0 * np.sign(x.l_d) < 0, self.shape)
        self.upper = (self.c > 0) | ((self.c == 0) & ~self.against)
        near, far = (root.numpy() for root in roots(x.eta / x.l_s, 0.0, x.l_d / x.l_s))
        self.near, self.far = np.broadcast_to(near, self.shape), np.broadcast_to(far, self.shape)

    @property
    def rate(self) -> float | None:
        return self.x.eta - self.edge if self.x.eta > self.edge and not self.x.follows else None

    @property
    def edge(self) -> float:
        """The largest weight decay at which a mode has a fixed point besides 0."""
        return float((self.x.l_d**2 / (4 * self.x.l_s)).max())

    @property
    def start(self) -> np.ndarray:
        return np.broadcast_to(self.x.p0, self.shape)

    @cached_property
    def swings(self) -> np.ndarray:
        return self.x.follows & self.against & ~self.upper

    @property
    def plain(self) -> np.ndarray:
        return self.upper | self.swings

    @property
    def scale(self) -> np.ndarray:
        size = np.maximum(np.abs(self.x.p0), np.sqrt(self.x.alpha_p) * self.w0)
        near = np.where(np.nan_to_num(self.near) != 0, np.abs(self.near), size)
        least = np.where(size > TINY, np.minimum(size, near), 1.0)
        return np.where(self.upper, least * np.minimum(1.0, 1 / np.sqrt(self.x.alpha_p)), super().scale)

    def speed(self, p: np.ndarray, s: np.ndarray) -> np.ndarray:
        return super().speed(p, s) + self.x.l_s * self.x.alpha_p * s

    def unknowns(self) -> np.ndarray:
        first = super().unknowns()
        above = np.stack([self.start, self.w0], axis=-1)[..., : first.shape[-1]]
        return np.where(self.upper[..., None], above, first)

    def read(self, t: Any, y: np.ndarray) -> _State:
        x, upper = self.x, self.upper
        left = np.abs(self.c) * np.exp(-2 * x.eta * t)
        above = np.sqrt(y[..., 0] ** 2 / x.alpha_p + left)
        if upper.all():
            return _State(y[..., 0], above, y[..., -1] if x.follows else above)
        w, w_a = self._weights(y)
        w = np.where(upper, above, w)
        p = np.where(upper, y[..., 0], np.sign(x.p0) * np.sqrt(x.alpha_p * (w**2 + left)))
        return _State(p, w, np.where(upper, y[..., -1], w_a) if x.follows else w)

    def slopes(self, t: float, y: np.ndarray) -> np.ndarray:
        x, (p, w, w_a) = self.x, self.read(t, y)
        whole = w_a * x.l_d - p * w * x.l_s
        above = np.empty(y.shape)
        above[..., 0] = x.alpha_p * w * whole - x.eta * p
        if x.follows:
            above[..., 1] = x.beta * (w - w_a)
        if self.upper.all():
            return above
        # p may be tiny and w_a / w huge, their product is neither
        ahead = self._ahead(y)
        product = np.exp(np.minimum(np.log(np.abs(p) + 1e-300) + ahead, STEEP))
        falling = np.sign(p) * product * x.l_d - p**2 * x.l_s - x.eta
        below = self._slopes(p * whole - x.eta * w, falling, ahead, w, w_a)
        return np.where(self.upper[..., None], above, below)

    def survivors(self) -> np.ndarray:
        x = self.x
        still = np.broadcast_to(x.eta == 0, self.shape)
        alive = still & self._without_decay() if still.any() else np.zeros(self.shape, dtype=bool)
        open_ = ~still & ~np.isnan(self.far) & (self.upper | ~self.against) & (self.w0 > 0)
        if open_.any():
            _, path = self.course(lambda now: bool((~open_ | (self._fate(now) != 0)).all()), looks=2)
            # what has not decided itself by then started on the edge, and rests at the near root
            alive |= open_ & (self._fate(_State(*(row[-1] for row in path))) >= 0)
        return alive

    @cached_property
    def _lag(self) -> tuple[Any, np.ndarray]:
        """A share theta of w below which w_a never falls again, and the near root if it were w_a.

        At w_a = theta w its slope is at least beta (1 - theta) - theta (theta^2 l_d^2 / (4 l_s) - eta); this
        is the root. 1 where the target is the online network. (..., n) each
        """
        x = self.x
        if not x.follows:
            return 1.0, self.near
        low, high = np.zeros(self.shape), np.ones(self.shape)
        for _ in range(50):
            theta = (low + high) / 2
            up = x.beta * (1 - theta) > theta * ((theta * x.l_d) ** 2 / (4 * x.l_s) - x.eta)
            low, high = np.where(up, theta, low), np.where(up, high, theta)
        return low, roots(x.eta / x.l_s, 0.0, low * x.l_d / x.l_s)[0].numpy()

    def _fate(self, now: _State) -> np.ndarray:
        """-1: bound to die, 1: bound to survive, 0: not known, for eta > 0. (..., n)

        Whatever is smaller than the near root dies, and whatever is at the far root stays. Where c >= 0,
        p^2 <= alpha_p w^2, so that p cannot fall below the near root again, with w_a >= theta w.
        """
        root, near, far = np.sqrt(self.x.alpha_p), np.abs(self.near), np.abs(self.far)
        p, w, w_a = np.sign(self.x.l_d) * now.p, np.abs(now.w), np.abs(now.w_a)
        sizes = np.stack([np.abs(p), root * w, root * w_a])
        theta, held = self._lag
        climbed = (self.c >= 0) & (p >= np.abs(held)) & (w_a >= theta * w)
        arrived = np.abs(sizes - far).max(axis=0) <= np.maximum(1e-3 * (far - near), 1e-6 * far)
        small = sizes.max(axis=0) < near
        return np.where(small, -1, np.where(climbed | arrived, 1, 0))

    def _without_decay(self) -> np.ndarray:
        """The closed form for eta = 0; a target that follows ends as the online network. (..., n)"""
        x = self.x
        rates = np.broadcast_to(x.alpha_p, self.shape).copy()
        modes = Modes(p0=x.p0, s0=x.s0, alpha_p=rates, eta=0.0, sigma2=0.0, fixed_tau=x.l_d / x.l_s)
        return np.asarray(~collapses(modes).numpy())

    def ends(self, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = self.x
        left = self.c * (x.eta == 0)
        dead = np.sign(x.p0) * np.sqrt((-x.alpha_p * left).clip(min=0)) + 0.0  # no -0.0
        return np.where(alive, self.far, dead), np.where(alive, self.far**2 / x.alpha_p + left, 0.0)


class _Unstopped(_Case):
    """Linear predictor without stop-gradient; p is an unknown too."""

    note = (
        "No stop-gradient: w decays at l_s - |l_d| + eta or faster, whatever the predictor does (tian2021, "
        "Theorem 2); where that is 0, the sign of s - (1 - p)^2 / alpha_p, which is conserved, decides."
    )
    fallback = "stop_gradient"
    numbers = ("eta", "alpha_p", "s0")
    parts = (("stop_gradient", True),)

    @property
    def rate(self) -> float | None:
        return float(self._fall.min())

    @property
    def _fall(self) -> np.ndarray:
        return self.x.l_s - np.abs(self.x.l_d) + self.x.eta

    @property
    def start(self) -> np.ndarray:
        return np.broadcast_to(self.x.p0, self.shape)

    @property
    def conserved(self) -> np.ndarray:
        """s - (1 - p)^2 / alpha_p at the start, p in the sign of l_d. (..., n)"""
        return self.x.s0 - (self.x.p0 - np.sign(self.x.l_d)) ** 2 / self.x.alpha_p

    def speed(self, p: np.ndarray, s: np.ndarray) -> np.ndarray:
        return super().speed(p, s) + self.x.l_s * self.x.alpha_p * s

    def unknowns(self) -> np.ndarray:
        return np.stack([super().unknowns()[..., 0], self.start], axis=-1)

    def read(self, t: Any, y: np.ndarray) -> _State:
        w, _ = self._weights(y[..., :1])
        return _State(y[..., 1], w, w)

    def slopes(self, t: float, y: np.ndarray) -> np.ndarray:
        x, (p, w, _) = self.x, self.read(t, y)
        falls = 2 * p * x.l_d - (p**2 + 1) * x.l_s - x.eta
        return np.stack([falls, x.alpha_p * w**2 * (x.l_d - p * x.l_s) - x.eta * p], axis=-1)

    def survivors(self) -> np.ndarray:
        return np.asarray((self._fall == 0) & (self.conserved > 0))

    def ends(self, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For eta = 0 p stops where s = 0 on s = (x^2 + a ln x^2) / alpha_p + const, x = p - rho.

        rho = l_d / l_s, a = 1 - rho^2; from ds/dp. The Wright omega function inverts x^2 + a ln x^2.
        """
        x = self.x
        rho = x.l_d / x.l_s
        a, gap = 1 - rho**2, (x.p0 - rho) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            square = a * wrightomega((gap - x.alpha_p * x.s0) / a + np.log(gap / a))
        square = np.where(a > 0, square, (gap - x.alpha_p * x.s0).clip(min=0))
        dead = np.where(x.eta == 0, rho + np.sign(x.p0 - rho) * np.sqrt(square), 0.0)
        return np.where(alive, np.sign(x.l_d), dead), np.where(alive, self.conserved, 0.0)


class _Bare(_Case):
    """No predictor, with or without stop-gradient."""

    note = (
        "No predictor: W' = -W (X' + eta I), without stop-gradient -W (2 X' + eta I) (tian2021, section 2; "
        "its Eq. 57 multiplies from the wrong side)."
    )
    fallback = "predictor"
    numbers = ("eta",)
    parts = (("predictor", "linear"),)

    @property
    def fall(self) -> np.ndarray:
        """Rate at which w decays; beside a target of its own only its sign counts. (..., n)"""
        return (1 if self.x.stops else 2) * (self.x.l_s - self.x.l_d) + self.x.eta

    @property
    def rate(self) -> float | None:
        return None if self.x.follows else float(self.fall.min())

    def survivors(self) -> np.ndarray:
        return np.asarray((self.fall == 0) & (self.w0 > 0))

    def ends(self, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.start, np.where(alive, self.x.s0, 0.0)


class _Spectral(_Case):
    """DirectPred; its modes act on each other through the largest."""

    fallback = "eta"
    coupled = True

    def __init__(self, setting: _Setting):
        super().__init__(setting)
        rule = setting.method.predictor
        assert isinstance(rule, Spectral)
        self.rule = rule
        self.power = 1 if isinstance(setting.method.gradient, Exact) else 0
        if not setting.stops:
            self.note, self.fallback, self.parts = _Unstopped.note, "stop_gradient", _Unstopped.parts
        elif rule.eps_form == "code":
            self.note = (
                "DirectPred as the authors' code has it: the largest mode has the same p at any size, and "
                "the Euclidean distance shrinks it at p (p l_s - l_d) + eta (derived here from tian2021, "
                "Algorithm 1); a distance that normalises lengths does not feel it."
            )
            self.fallback, self.parts = "eps_form", (("eps_form", "text"),)
        else:
            ends = "l_s p^2 - l_d p + eta = 0" if self.power else "p = (l_d - eta) / l_s"
            self.note = (
                f"DirectPred as the text has it (tian2021, section 4): fixed points at {ends}; the one that "
                "is reached was found by integration."
            )
            self.numbers = ("eta", "s0")

    @property
    def rate(self) -> float | None:
        x = self.x
        return None if x.stops else float((x.l_s - np.abs(x.l_d)).min() + x.eta)

    def eigenvalues(self, w: np.ndarray) -> np.ndarray:
        return self.rule.eigenvalues(torch.from_numpy(self.x.l_s * w**2)).numpy()

    def certain(self) -> bool:
        """Whether a theorem says that every mode dies.

        Raises:
            _Beyond: where there is none, and no fixed points either.
        """
        x = self.x
        if self.rate is not None:
            if self.rate > 0:
                return True
            raise _Beyond("target: without stop-gradient, noise and weight decay DirectPred has no known end")
        if self.rule.eps_form == "text":
            return False
        top = float(self.rule.eigenvalues(torch.ones(1, dtype=torch.float64)))
        if (top**self.power * (top * x.l_s - np.abs(x.l_d)) + x.eta > 0).all():
            return True
        raise _Beyond(
            f"predictor: its largest eigenvalue is {top:g} at any size, so that a mode with l_d / l_s above "
            "it may grow without end; modes have no fixed points then"
        )

    def settled(self) -> _State:
        """Where modes rest; those that do not have fallen by any factor. (..., n)"""
        _, path = self.course(lambda now: bool((np.abs(now.w) < np.exp(-FALLEN) * self.w0).all()), looks=2)
        return _State(*(row[-1] for row in path))

    def survivors(self) -> np.ndarray:
        if self.certain():
            return np.zeros(self.shape, dtype=bool)
        return np.asarray((np.abs(self.settled().w) > np.exp(-FALLEN) * self.w0) & ~self.swings)

    def ends(self, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        end = self.settled()
        return end.p, np.where(alive, end.w**2, 0.0)


def _rate(noise: float, shared: float, eta: float) -> float:
    """Theorem 2's rate. For X with a negative eigenvalue J is still a sum of squares, and eta is left."""
    return float((noise if shared >= 0 else 0.0) + eta)


def _case(setting: _Setting) -> _Case:
    predictor = setting.method.predictor
    if isinstance(predictor, Spectral):
        if not setting.s0.all():
            raise UsageError("s0: 0 leaves a mode at rest for ever; DirectPred needs starts above 0")
        return _Spectral(setting)
    if isinstance(predictor, Identity):
        return _Bare(setting)
    return _Learned(setting) if setting.stops else _Unstopped(setting)


def _of_modes(setting: _Setting, steps: int | None, search: bool) -> Prediction:
    """The prediction for data that commute; with ``search``, with cause and remedy of a collapse."""
    case = _case(setting)
    _check_steps(setting.lr, case.speed(case.start, setting.s0).max())
    alive = case.survivors()
    p, s = case.ends(alive)
    _check_steps(setting.lr, case.speed(p, s).max())
    times = _arrivals(case, alive, p, s)
    columns = (setting.l_d, setting.l_s, alive, p, s, times, times / setting.lr)
    modes = tuple(ModePrediction(*row) for row in zip(*(c.tolist() for c in columns), strict=True))
    dead = not alive.any()
    remedy = _remedies(case) if search and dead else {}
    notes = [ASSUMPTIONS, case.note]
    if setting.data.dropped > ROUNDING:
        notes.append(f"Data: {setting.data.dropped:.2g} of them is off the modes and was left out.")
    return Prediction(
        collapses=dead,
        modes=modes,
        dimension=int(alive.sum()),
        cause=next(iter(remedy), case.fallback) if dead else None,
        remedy=remedy,
        rate=case.rate if case.rate else None,
        finished=None if steps is None else bool((times <= setting.lr * steps).all()),
        notes=tuple(notes),
    )


def _check_steps(lr: float, fastest: float) -> None:
    """Beyond lr * rate = 1 a step overshoots, and SGD is not near the flow; beyond 2 it diverges."""
    if lr * fastest > 1:
        raise _Beyond(
            f"lr: {lr:g} is too large for the flow to stand for SGD, a mode moves at the rate {fastest:.3g}: "
            f"theory needs lr <= {1 / fastest:.3g}, or data scaled down"
        )


def _arrivals(case: _Case, alive: np.ndarray, p: np.ndarray, s: np.ndarray) -> np.ndarray:
    """When each mode arrives, see `ModePrediction.time`. (n,)"""
    goal = np.where(p != 0, np.abs(p), np.abs(case.start))

    def away(now: _State) -> np.ndarray:
        """Distances of two weights from their ends, each 1 on arrival. (2, ..., n)"""
        w, end = np.abs(now.w), np.sqrt(s)
        living = np.stack([_ratio(np.abs(now.p - p), goal), _ratio(np.abs(w - end), end)])
        dying = np.stack([_ratio(w, case.w0), _ratio(np.abs(now.w_a), case.w0)])
        return np.where(alive, living, dying) / NEAR

    t, path = case.course(lambda now: bool((away(now) < 0.99).all()))
    distances = away(path)
    there = np.all(distances <= 1, axis=0)
    later = np.argmax(there, axis=0).clip(min=1)
    mode = np.arange(len(p))
    before, after = (np.log(distances[:, i, mode].clip(min=1e-30)) for i in (later - 1, later))
    # each by itself, as the larger of both has a bend where they cross; the last to arrive decides
    share = np.divide(
        before, before - after, out=np.zeros_like(before), where=(before > 0) & (before != after)
    ).max(axis=0)
    times = t[later - 1] + share * (t[later] - t[later - 1])
    return np.where(there[0], 0.0, np.where(there.any(axis=0), times, np.inf))


def _ratio(value: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """value / unit; 0 where the unit is 0, as then nothing moves. (N, n)"""
    unit = np.broadcast_to(np.where(unit > TINY, unit, 0.0), value.shape)
    return np.divide(value, unit, out=np.zeros_like(value), where=unit > 0)


def _remedies(case: _Case) -> dict[str, Any]:
    """What prevents a collapse, each alone and each tried out."""
    found = dict(case.parts)
    for name in case.numbers:
        with contextlib.suppress(_Beyond):
            value = _nearest_value(case, name)
            found |= {} if value is None else {name: value}
    tried = {name: case.x.again(name, value) for name, value in found.items()}
    saved = [
        name for name, result in tried.items() if isinstance(result, Prediction) and not result.collapses
    ]
    return {name: found[name] for name in saved}


def _nearest_value(case: _Case, name: str) -> Any:
    """The nearest value of a number with which some mode survives, or None."""
    x = case.x

    def safe(values: np.ndarray) -> np.ndarray:
        column = values[:, None]
        changed: dict[str, Any] = {name: x.s0 * column if name == "s0" else column}
        alive: np.ndarray = type(case)(replace(x, **changed)).survivors()
        return np.asarray(alive.any(axis=-1))

    if name == "eta":
        path = np.append(x.eta * np.geomspace(1, 1e-4, GRID), 0.0)
        if isinstance(case, _Learned) and case.edge < x.eta:
            path = np.sort(np.append(path, case.edge))[::-1]
        return _nearest(path, safe) if x.eta > 0 else None
    if name == "alpha_p":
        return _nearest(x.alpha_p * np.geomspace(1, 1e6, GRID), safe)
    if name == "s0":
        factor = _nearest(np.geomspace(1, 1e6, GRID), safe)
        return None if factor is None else _plain(x.s0 * factor)
    slower = _nearest(1 - (1 - x.ema) * np.geomspace(1, 1e-4, GRID), safe)
    faster = _nearest(1 - np.geomspace(1 - x.ema, 1, GRID), safe)
    both = [value for value in (slower, faster) if value is not None]
    return min(both, key=lambda value: abs(np.log((1 - value) / (1 - x.ema))), default=None)


def _nearest(path: np.ndarray, safe: Callable[[np.ndarray], np.ndarray]) -> float | None:
    """The first value along a path that is safe, where its beginning is not.

    Found between the path's points to 1/4000 of their distance, on the safe side.
    """
    for _ in range(1 + ROUNDS):
        right = safe(path)
        if not right.any():
            return None
        first = max(int(np.argmax(right)), 1)
        path = np.linspace(path[first - 1], path[first], GRID)
    return float(path[-1])


def _plain(values: np.ndarray) -> float | list[float]:
    return float(values[0]) if np.ptp(values) == 0 else [float(value) for value in values]


def _of_matrices(
    method: Method, X: np.ndarray, X_prime: np.ndarray, lr: float, eta: float, start: float
) -> Prediction:
    """Collapses that are certain for data that do not commute; ``start`` is p0^2 + alpha_p s0."""
    sigma_s = X + X_prime
    low, noise = (_lowest(m, sigma_s) for m in (X, X_prime))
    bare, stops = isinstance(method.predictor, Identity), method.stops_gradient
    ema = isinstance(method.target, Ema)
    certain, rate = False, None
    if bare:
        certain, cause, note = noise + eta > 0 and not (ema and low < 0), "predictor", _Bare.note
        rate = None if ema else (1 if stops else 2) * noise + eta
    elif isinstance(method.predictor, Linear) and not stops:
        rate, cause, note = _rate(noise, low, eta), "stop_gradient", _Unstopped.note
        certain = rate > 0
    elif isinstance(method.predictor, Linear):
        edge = float(scipy.linalg.eigvalsh(X @ np.linalg.solve(sigma_s, X))[-1]) / 4
        certain, cause, rate = eta > edge, "eta", None if ema else eta - edge
        note = f"eta is above lambda_max(X Sigma_s^-1 X) / 4 = {edge:.6g}: no pull can make up for it."
    if not certain:
        raise _Beyond(
            "statistics: X and X' do not commute, so that there are no modes to follow; "
            "DataStatistics.from_matrices with a tolerance drops what does not commute"
        )
    largest = float(np.linalg.eigvalsh(sigma_s)[-1])
    _check_steps(lr, largest * ((1.0 if bare else start) + (not stops)) + eta)
    return Prediction(True, (), 0, cause, {}, rate, None, (ASSUMPTIONS, note))


def _lowest(symmetric: np.ndarray, scale: np.ndarray) -> float:
    """The smallest eigenvalue, 0 if that is rounding."""
    value = float(np.linalg.eigvalsh(symmetric)[0])
    return value if abs(value) > ROUNDING * np.abs(scale).max() else 0.0
