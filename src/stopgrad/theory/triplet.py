"""One decoupled mode of data that commute: predictor, online and target weight (tian2021, appendix D).

With the eigenvalues l_d of Sigma_d and l_s of Sigma_s (:mod:`stopgrad.theory.nonisotropic`):

    w_p' = alpha_p (w_a l_d - w_p w l_s) w - eta w_p
    w'   = w_p (w_a l_d - w_p w l_s) - eta w
    w_a' = beta (w - w_a)

It keeps e^{2 eta t} (w^2 - w_p^2 / alpha_p), and it is the isotropic mode of `stopgrad.theory.modes` with
s = w^2, tau = w_a / w, sigma2 = l_s / l_d - 1, eta / l_d and beta / l_d in the time l_d t (the paper says so
for l_d = 1).

Where the paper errs. The origin is no repeller: with eta = 0 a start with w_p < 0 and w^2 <= w_p^2 / alpha_p
collapses, to w = w_a = 0 and w_p = -sqrt(w_p^2 - alpha_p w^2), which is the origin in case of equality. Tied
weights w = w_p stay tied for alpha_p = 1 only; in general w_p = sqrt(alpha_p) w does. Figure 10's right panel
holds w_p at 1, not w^2.

Shapes: N times or grid points. All float64.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.theory.domain import NONNEGATIVE, POSITIVE, REAL, increasing, reals, together
from stopgrad.theory.fixed_points import roots
from stopgrad.theory.modes import Modes


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
        times = increasing(t)
        if self.w0.numel() != 1:
            raise UsageError(f"trajectory: of one triplet at a time, these are {self.w0.numel()}")
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
