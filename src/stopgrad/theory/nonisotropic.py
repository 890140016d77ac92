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

For data that commute a row decouples into the triplet w_p, w, w_a with the eigenvalues l_d and l_s:

    w_p' = alpha_p (w_a l_d - w_p w l_s) w - eta w_p
    w'   = w_p (w_a l_d - w_p w l_s) - eta w
    w_a' = beta (w - w_a)

It keeps e^{2 eta t} (w^2 - w_p^2 / alpha_p), and it is the isotropic mode of `stopgrad.theory.modes` with
s = w^2, tau = w_a / w, sigma2 = l_s / l_d - 1, eta / l_d and beta / l_d in the time l_d t (the paper says so
for l_d = 1).

Where the paper errs. Under multiplicative scrambling Sigma_s is not Sigma_x, and Sigma_d Sigma_s^{-1} = P_c
holds always, not only where P_c and Sigma_x commute. The origin is no repeller: with eta = 0 a start with
w_p < 0 and w^2 <= w_p^2 / alpha_p collapses, to w = w_a = 0 and w_p = -sqrt(w_p^2 - alpha_p w^2), which is
the origin in case of equality. Tied weights w = w_p stay tied for alpha_p = 1 only; in general
w_p = sqrt(alpha_p) w does. Figure 10's right panel holds w_p at 1, not w^2.

Shapes: n1 inputs, n2 outputs; W (n2, n1), W_p (n2, n2), Sigma (n1, n1). All float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.integrate import solve_ivp
from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.theory.domain import NONNEGATIVE, POSITIVE, REAL, matrix, reals, together
from stopgrad.theory.fixed_points import roots
from stopgrad.theory.modes import Modes

# Rounding allowed when a matrix is asked to have a property, as a share of its largest entry
ROUNDING = 1e-10


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

    In descending order of rho = l_d / l_s. Each row is the mode of a :class:`Triplet`.

    Raises:
        UsageError: if Sigma_d and Sigma_s do not commute, or are not what they must be.
    """
    sigma_d, sigma_s = _statistics(sigma_d, sigma_s)
    gap = np.abs(sigma_d @ sigma_s - sigma_s @ sigma_d).max()
    if gap > ROUNDING * np.abs(sigma_d).max() * np.abs(sigma_s).max() * len(sigma_d):
        raise UsageError(f"sigma_d: must commute with sigma_s to decouple, the commutator is {gap:g}")
    # A generic combination has the eigenvectors of both, also where one of them has equal eigenvalues
    _, vectors = np.linalg.eigh(
        sigma_s / np.linalg.norm(sigma_s) + (np.sqrt(5) - 1) / 2 * sigma_d / (np.linalg.norm(sigma_d) or 1.0)
    )
    l_d, l_s = (np.einsum("ij,ik,kj->j", vectors, sigma, vectors) for sigma in (sigma_d, sigma_s))
    order = np.argsort(-l_d / l_s, kind="stable")
    return l_d[order], l_s[order], vectors.T[order]


@dataclass(frozen=True)
class Triplet:
    """One decoupled mode of data that commute: predictor, online and target weight (tian2021, Eqs. 104-106).

    Arguments are numbers or arrays, broadcast to one shape.

    Attributes:
        w_p0, w0: the start of predictor and online network.
        w_a0: the start of the target network; None: the target is the online network, as in SimSiam.
        l_d: eigenvalue of Sigma_d, >= 0.
        l_s: eigenvalue of Sigma_s, > 0 and >= l_d.
        alpha_p: the predictor's learning rate over the encoder's, > 0.
        beta: the target network's rate of following, >= 0; 0 holds w_a. Not used in SimSiam.
        eta: weight decay of encoder and predictor alike, >= 0.

    Raises:
        UsageError: naming the argument that is outside its domain.
    """

    w_p0: Any
    w0: Any
    w_a0: Any = None
    l_d: Any = 0.5
    l_s: Any = 1.0
    alpha_p: Any = 1.0
    beta: Any = 1.0
    eta: Any = 0.0

    def __post_init__(self) -> None:
        names = ["w_p0", "w0", "l_d", "l_s", "alpha_p", "beta", "eta"]
        names += [] if self.w_a0 is None else ["w_a0"]
        for name, value in _domain(**{name: getattr(self, name) for name in names}).items():
            object.__setattr__(self, name, value)

    @property
    def c(self) -> Tensor:
        """The conserved quantity, w(0)^2 - w_p(0)^2 / alpha_p = e^{2 eta t} (w^2 - w_p^2 / alpha_p)."""
        return self.w0**2 - self.w_p0**2 / self.alpha_p

    def as_isotropic(self) -> tuple[Modes, Tensor]:
        """The mode of `stopgrad.theory.modes` that this is, and the scale of time.

        Returns:
            Modes with p = w_p, s = w^2 and tau = w_a / w, and l_d: their time is l_d times this one's, so
            that ``modes.final(l_d * t)`` is the state at t.

        Raises:
            UsageError: where l_d = 0, or w = 0 while w_a is not 0 (tau is infinite).
        """
        if bool((self.l_d == 0).any()):
            raise UsageError("l_d: an isotropic mode needs l_d > 0")
        target: dict[str, Any] = {"fixed_tau": 1.0}
        if self.w_a0 is not None:
            if bool(((self.w0 == 0) & (self.w_a0 != 0)).any()):
                raise UsageError("w0: with w0 = 0 and w_a0 not 0 there is no tau = w_a / w")
            tau = self.w_a0 / self.w0.where(self.w0 != 0, 1.0)
            target = {"tau0": tau, "beta": self.beta / self.l_d}
        modes = Modes(
            p0=self.w_p0, s0=self.w0**2, alpha_p=self.alpha_p, eta=self.eta / self.l_d,
            sigma2=self.l_s / self.l_d - 1, **target,
        )  # fmt: skip
        return modes, self.l_d

    def trajectory(self, t: Any, *, rtol: float = 1e-12) -> "TripletTrajectory":
        """The course of ONE triplet, by `scipy.integrate.solve_ivp` (DOP853, absolute error 1e-15 a step).

        Args:
            t: times, increasing from 0, shape (N,).
            rtol: relative error allowed in a step.

        Raises:
            UsageError: if there is more than one triplet, or the times do not increase from 0.
        """
        times = reals("t", t, NONNEGATIVE).reshape(-1).numpy()
        if self.w0.numel() != 1:
            raise UsageError(f"trajectory: of one triplet at a time, these are {self.w0.numel()}")
        if times[0] != 0 or (np.diff(times) < 0).any():
            raise UsageError("t: must increase from 0")
        numbers = {name: getattr(self, name).item() for name in ("l_d", "l_s", "alpha_p", "beta", "eta")}
        start = [value.item() for value in (self.w_p0, self.w0, self.w_a0) if value is not None]

        def rates(_: float, y: np.ndarray) -> tuple[float, ...]:
            return slopes(y[0], y[1], y[-1], **numbers)[: len(y)]

        y = solve_ivp(rates, (0.0, times[-1]), start, "DOP853", times, rtol=rtol, atol=1e-15).y
        return TripletTrajectory(self, times, y[0], y[1], y[-1])


@dataclass(frozen=True)
class TripletTrajectory:
    """The course of one triplet; t, w_p, w and w_a are of shape (N,)."""

    triplet: Triplet
    t: np.ndarray
    w_p: np.ndarray
    w: np.ndarray
    w_a: np.ndarray

    @property
    def invariant_drift(self) -> float:
        """Largest |e^{2 eta t} (w^2 - w_p^2 / alpha_p) - c|, relative to the two terms of the difference."""
        eta, alpha_p, c = (value.item() for value in (self.triplet.eta, self.triplet.alpha_p, self.triplet.c))
        weight, square = self.w**2, self.w_p**2 / alpha_p
        gap = weight - square - c * np.exp(-2 * eta * self.t)
        return float((np.abs(gap) / np.maximum(weight + square, np.finfo(float).tiny)).max())


def slopes(
    w_p: Any, w: Any, w_a: Any, *, l_d: Any, l_s: Any, alpha_p: Any = 1.0, beta: Any = 1.0, eta: Any = 0.0
) -> tuple[Any, Any, Any]:
    """w_p', w' and w_a' of numbers or arrays (tian2021, Eqs. 104-106, with weight decay).

    For SimSiam give w as w_a and leave the last.
    """
    pull = w_a * l_d - w_p * w * l_s
    return alpha_p * pull * w - eta * w_p, w_p * pull - eta * w, beta * (w - w_a)


class TripletPoint(NamedTuple):
    """A fixed point of (w_p, w, w_a).

    ``stable``: whether what starts near it stays near it; ``eigenvalues``: of the Jacobian there, in
    descending order of their real parts.
    """

    w_p: float
    w: float
    w_a: float
    stable: bool
    eigenvalues: tuple[complex, complex, complex]


def triplet_jacobian(
    w_p: float, w: float, w_a: float, *, l_d: float, l_s: float, alpha_p: float, beta: float, eta: float = 0.0
) -> np.ndarray:
    """Derivatives of (w_p', w', w_a') by (w_p, w, w_a). (3, 3)"""
    pull = w_a * l_d - w_p * w * l_s
    by_w = pull - w_p * w * l_s
    return np.array([
        [-alpha_p * l_s * w**2 - eta, alpha_p * by_w, alpha_p * l_d * w],
        [by_w, -(w_p**2) * l_s - eta, w_p * l_d],
        [0.0, beta, -beta],
    ])  # fmt: skip


def triplet_stability(
    w_p: float, w: float, w_a: float, *, l_d: float, l_s: float, alpha_p: float, beta: float, eta: float = 0.0
) -> TripletPoint:
    """A fixed point with its stability.

    With eta = 0 the fixed points are two lines, w = w_a = 0 with any w_p, and w_p = l_d / l_s with any
    w = w_a; stable means then that the line attracts. The lines' crossing and the origin, where the Jacobian
    cannot tell, are not stable: their neighbourhoods hold starts that leave.

    Args:
        w_p, w, w_a: the point.
        l_d, l_s, alpha_p, beta, eta: see :class:`Triplet`, with l_d > 0 and beta > 0.

    Raises:
        UsageError: if an argument is outside its domain or the point is not fixed.
    """
    numbers = _single(l_d=l_d, l_s=l_s, alpha_p=alpha_p, beta=beta, eta=eta)
    size = max(abs(w_p), abs(w), abs(w_a))
    if max(map(abs, slopes(w_p, w, w_a, **numbers))) > 1e-8 * max(size, size**3):
        raise UsageError(f"w_p, w, w_a: ({w_p:g}, {w:g}, {w_a:g}) is no fixed point")
    jacobian = triplet_jacobian(w_p, w, w_a, **numbers)
    values = sorted(np.linalg.eigvals(jacobian).tolist(), key=lambda z: -z.real)
    # along the line of fixed points nothing moves
    deciding = values[0] if numbers["eta"] > 0 else values[1]
    stable = deciding.real < -1e-9 * np.abs(jacobian).max()
    return TripletPoint(
        w_p, w, w_a, bool(stable), (complex(values[0]), complex(values[1]), complex(values[2]))
    )


def triplet_fixed_points(
    *, l_d: float, l_s: float, alpha_p: float, beta: float, eta: float
) -> list[TripletPoint]:
    """All fixed points for eta > 0: the origin, and w_p = p+-, w = w_a = +- w_p / sqrt(alpha_p).

    p+- are the roots of l_s p^2 - l_d p + eta = 0; there are none for eta > l_d^2 / (4 l_s), where everything
    collapses.

    Raises:
        UsageError: if an argument is outside its domain; for eta = 0 see :func:`triplet_stability`.
    """
    numbers = _single(l_d=l_d, l_s=l_s, alpha_p=alpha_p, beta=beta, eta=eta)
    if numbers["eta"] == 0:
        raise UsageError("eta: 0 gives whole lines of fixed points; needs eta > 0")
    near, far = (root.item() for root in roots(eta / l_d, l_s / l_d - 1, 1.0))
    points = [(0.0, 0.0)]
    points += [(p, sign * p / alpha_p**0.5) for p in sorted({near, far}) if p == p for sign in (1, -1)]
    return [triplet_stability(w_p, w, w, **numbers) for w_p, w in points]


class Plane(NamedTuple):
    """One panel of Figure 10 of tian2021: a flow in a plane.

    Attributes:
        axes: names of the horizontal and the vertical coordinate.
        x, y: the grid, (N,) each.
        dx, dy: direction of the flow, of unit length (0 where nothing moves), [i, j] at y[i] and x[j]. (N, N)
        curves: named curves of shape (2, K), x over y.
        points: fixed points x, y and whether they are stable.
    """

    axes: tuple[str, str]
    x: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    curves: dict[str, np.ndarray]
    points: tuple[tuple[float, float, bool], ...]


def tian2021_fig10(
    l_d: float = 0.5, l_s: float = 1.0, alpha_p: float = 1.0, beta: float = 1.0, points: int = 21
) -> tuple[Plane, Plane, Plane]:
    """The three panels of Figure 10 of tian2021, at its parameters by default; the plotted range is ours.

    Left: w and w_p with the target held at w_a = 1; all but the starts on w_p = -sqrt(alpha_p) w leave the
    origin. Middle: w and w_a on the invariant w_p = sqrt(alpha_p) w; the origin repels w > 0 and attracts
    w < 0. Right: w and w_a without a predictor, w_p = 1; everything collapses.

    Args:
        l_d, l_s: eigenvalues of Sigma_d and Sigma_s, 0 < l_d < l_s.
        alpha_p, beta: see :class:`Triplet`; beta > 0.
        points: grid points along an axis.

    Raises:
        UsageError: if an argument is outside its domain.
    """
    numbers = _single(l_d=l_d, l_s=l_s, alpha_p=alpha_p, beta=beta, eta=0.0)
    ratio, root = l_d / l_s, alpha_p**0.5
    wide, narrow = np.linspace(-2, 2, points), np.linspace(-1, 1, points)
    branch = np.geomspace(ratio / 2, 2, 100)
    hyperbola = np.stack([branch, ratio / branch])

    w, w_p = np.meshgrid(wide, wide)
    change = slopes(w_p, w, 1.0, **numbers)
    left = Plane(
        ("w", "w_p"), wide, wide, *_unit(change[1], change[0]),
        {"w_p w = w_a l_d / l_s": np.concatenate([-hyperbola[:, ::-1], [[np.nan]] * 2, hyperbola], axis=1)},
        ((0.0, 0.0, False),),
    )  # fmt: skip

    w, w_a = np.meshgrid(narrow, narrow)
    change = slopes(root * w, w, w_a, **numbers)
    fine = np.linspace(-1, 1, 200)
    rest = ratio / root
    middle = Plane(
        ("w", "w_a"), narrow, narrow, *_unit(change[1], change[2]),
        {"w_a' = 0": np.stack([fine, fine]), "w' = 0": np.stack([fine, fine**2 * root / ratio])},
        ((0.0, 0.0, False), (rest, rest, True)),
    )  # fmt: skip

    change = slopes(1.0, w, w_a, **numbers)
    right = Plane(
        ("w", "w_a"), narrow, narrow, *_unit(change[1], change[2]),
        {"w_a' = 0": np.stack([fine, fine]), "w' = 0": np.stack([fine, fine / ratio])},
        ((0.0, 0.0, True),),
    )  # fmt: skip
    return left, middle, right


def _unit(dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = np.hypot(dx, dy)
    length = np.where(length > 0, length, 1.0)
    return dx / length, dy / length


def _domain(**values: Any) -> dict[str, Tensor]:
    """The arguments of a triplet, checked and broadcast to one shape."""
    domains = {"w_p0": REAL, "w0": REAL, "w_a0": REAL, "l_d": NONNEGATIVE, "l_s": POSITIVE}
    checked = together(**{name: reals(name, value, domains.get(name)) for name, value in values.items()})
    if bool((checked["l_d"] > checked["l_s"]).any()):
        raise UsageError("l_d: must not exceed l_s, two views agree no better than one with itself")
    return checked


def _single(**values: float) -> dict[str, float]:
    """The same of single numbers, for fixed points: l_d > 0 and beta > 0."""
    for name in ("l_d", "beta"):
        reals(name, values[name], POSITIVE)
    return {name: value.item() for name, value in _domain(**values).items()}


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
