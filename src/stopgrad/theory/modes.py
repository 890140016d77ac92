"""The decoupled eigenmode of a linear predictor and its data (tian2021, section 3, Eqs. 11-17).

One mode has the predictor's eigenvalue p, the eigenvalue s of the correlation F = W X W^T of its input, and
tau, the target network's share of the online one (W_a = tau W). With kappa = 1 + sigma2:

    p'   = alpha_p s (tau - kappa p) - eta p
    s'   = 2 p s (tau - kappa p) - 2 eta s
    s tau' = beta (1 - tau) s - tau s' / 2

How it is solved here. Let w be the mode's weight, s = w^2, w_a = tau w that of the target network, and
P = p / sqrt(alpha_p). Then P' = sqrt(alpha_p) w A - eta P, w' = sqrt(alpha_p) P A - eta w and
w_a' = beta (w - w_a) with A = w_a - kappa p w, which is regular at w = 0, where tau is not: for p < 0 a
moving target makes w pass through 0, and tau through infinity. The exact integral
w^2 - P^2 = c e^{-2 eta t} makes one of w and P a function of the other: the one that cannot pass through 0 is
z = sqrt(y^2 + |c| e^{-2 eta t}) of the other, y (z = w for c >= 0; z = |P| for c < 0, where P keeps its
sign). Both cases read

    y' = g z A - eta y,   A = w_a - kappa g y z,   g = sqrt(alpha_p), with the sign of p where c < 0

so that the integral holds to rounding, nothing cancels, and a mode has one unknown (tau fixed) or two.

Where the paper errs: the integral's constant is c = s(0) - p(0)^2 / alpha_p (the main text has the opposite
sign), and Eq. 15 for tau is the case c = 0, tau(0) = 0.

Shapes: every argument is a number or an array; all are broadcast to one shape, float64.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.theory import solver
from stopgrad.theory.domain import NONNEGATIVE, reals, together


@dataclass(frozen=True)
class Modes:
    """A batch of modes: hyper-parameters and where each starts.

    Attributes:
        alpha_p: the predictor's learning rate over the encoder's, > 0.
        beta: the target network's rate of following, >= 0; not used where tau is fixed.
        eta: weight decay of encoder and predictor alike, >= 0.
        sigma2: variance of the views about their image, in units of the data's own, >= 0.
        p0, s0, tau0: the start; s0 >= 0.
        fixed_tau: hold tau at this value (1: the target is the online network, as in SimSiam); None: tau
            moves, from tau0.

    Raises:
        UsageError: naming the argument that is outside its domain.
    """

    p0: Any
    s0: Any
    tau0: Any = 0.0
    alpha_p: Any = 1.0
    beta: Any = 0.4
    eta: Any = 0.04
    sigma2: Any = 0.5
    fixed_tau: Any = None
    _state: tuple[solver.State, solver.State] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = ["p0", "s0", "tau0", "alpha_p", "beta", "eta", "sigma2"]
        names += [] if self.fixed_tau is None else ["fixed_tau"]
        for name, value in together(**{name: reals(name, getattr(self, name)) for name in names}).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_state", self._chart())

    @property
    def kappa(self) -> Tensor:
        """1 + sigma2."""
        return 1 + self.sigma2

    @property
    def c(self) -> Tensor:
        """The integral's constant, s(0) - p(0)^2 / alpha_p."""
        return self.s0 - self.p0**2 / self.alpha_p

    @property
    def held(self) -> bool:
        """Whether tau is fixed."""
        return self.fixed_tau is not None

    def _chart(self) -> tuple[solver.State, solver.State]:
        """Unknowns (y, and w_a where tau moves) and parameters, flat, as the solver takes them."""
        big, weight = self.p0 / self.alpha_p.sqrt(), self.s0.sqrt()
        upper = self.c >= 0
        g = torch.where(upper | (big > 0), 1.0, -1.0).to(big) * self.alpha_p.sqrt()
        y = torch.where(upper, big, weight)
        last = self.fixed_tau if self.held else self.beta
        parameters = (g, self.kappa, self.eta, self.c.abs(), upper, last)
        unknowns = (y,) if self.held else (y, self.tau0 * weight)
        return _flat(unknowns), _flat(parameters)

    @property
    def rates(self) -> solver.Rates:
        """Right-hand side in the unknowns of :meth:`state`."""
        return _rates_held if self.held else _rates_free

    def state(self) -> tuple[solver.State, solver.State]:
        """Initial unknowns and parameters for :func:`stopgrad.theory.solver.solve`, each flat, (B,)."""
        return self._state

    def final(
        self,
        t_end: Any,
        *,
        rtol: float = 1e-8,
        lowest_k: bool = False,
        compiled: bool | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> "Final":
        """State of every mode at ``t_end``, all solved at once.

        Args:
            t_end: end time, >= 0; broadcast with the modes.
            rtol: relative error allowed in a step.
            lowest_k: find the smallest k(t) over [0, t_end] too, which takes longer.
            compiled: see :func:`stopgrad.theory.solver.solve`.
            progress: called with the number of modes finished since its last call.

        Raises:
            UsageError: if ``t_end`` is outside its domain.
        """
        end = together(t_end=reals("t_end", t_end).to(self.p0.device), p0=self.p0)["t_end"]
        modes = self.expand(end.shape)
        y, parameters = modes.state()
        solution = solver.solve(
            self.rates, y, parameters, *_flat((end,)),
            rtol=rtol, watch=_k if lowest_k else None, compiled=compiled, progress=progress,
        )  # fmt: skip
        p, s, tau = (value.reshape(end.shape) for value in observe(solution.t, solution.y, parameters))
        lowest = None if solution.lowest is None else solution.lowest.reshape(end.shape)
        return Final(p, s, tau, lowest)

    def expand(self, shape: torch.Size) -> "Modes":
        """The same modes, repeated to a shape that they broadcast to."""
        return self if self.p0.shape == shape else self._with(lambda value: value.expand(shape))

    def at(self, final: "Final") -> "Modes":
        """The same modes, starting where they ended."""
        p0, s0 = final.p, final.s
        tau0 = torch.where(s0 > 0, final.tau, 0.0)
        return replace(self.expand(p0.shape), p0=p0, s0=s0, tau0=tau0)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Modes":
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return Modes(**{name: None if value is None else change(value) for name, value in values.items()})

    def trajectory(self, t: Any, *, rtol: float = 1e-12) -> "Trajectory":
        """The course of ONE mode, by `scipy.integrate.solve_ivp` (DOP853).

        Args:
            t: times, increasing from 0, shape (N,).
            rtol: relative error allowed in a step.

        Raises:
            UsageError: if there is more than one mode, or the times do not increase from 0.
        """
        times = reals("t", t, NONNEGATIVE).reshape(-1)
        if self.p0.numel() != 1:
            raise UsageError(f"trajectory: of one mode at a time, these are {self.p0.numel()}; use final()")
        if times[0] != 0 or bool((times.diff() < 0).any()):
            raise UsageError("t: must increase from 0")
        y0, parameters = self.state()

        y = solver.course(self.rates, y0, parameters, times, rtol=rtol)
        p, s, tau = observe(times, y, parameters)
        return Trajectory(self, times, p, s, tau)


@dataclass(frozen=True)
class Final:
    """State of modes at the end; every field has their shape.

    Attributes:
        p, s: the predictor's and the data's eigenvalue.
        tau: the target's share; nan where s is 0 and tau moves.
        lowest_k: the smallest k(t) on the way, if it was asked for; -inf where w passed through 0, and tau
            through infinity.
    """

    p: Tensor
    s: Tensor
    tau: Tensor
    lowest_k: Tensor | None = None


@dataclass(frozen=True)
class Trajectory:
    """The course of one mode; t, p, s, tau are of shape (N,)."""

    modes: Modes
    t: Tensor
    p: Tensor
    s: Tensor
    tau: Tensor

    @property
    def k(self) -> Tensor:
        """Eigenvalue of K that belongs to the mode, see :func:`alignment`. (N,)"""
        return alignment(self.p, self.s, self.tau, self.modes.alpha_p, self.modes.eta, self.modes.sigma2)

    @property
    def end(self) -> Final:
        """The last state, in the shape of ``modes``."""
        return Final(*(value[-1].reshape(self.modes.p0.shape) for value in (self.p, self.s, self.tau)))

    @property
    def invariant_drift(self) -> float:
        """Largest |e^{2 eta t} (s - p^2 / alpha_p) - c|, relative to the two terms of the difference."""
        square = self.p**2 / self.modes.alpha_p
        gap = self.s - square - self.modes.c * torch.exp(-2 * self.modes.eta * self.t)
        return (gap.abs() / (self.s + square).clamp(min=torch.finfo(self.s.dtype).tiny)).max().item()


def slopes(p: Tensor, s: Tensor, tau: Tensor, modes: Modes) -> tuple[Tensor, Tensor, Tensor]:
    """p', s' and tau' as in the paper (tian2021, Eqs. 11-13); tau' is 0 where tau is held."""
    pull = tau - modes.kappa * p
    dp = modes.alpha_p * s * pull - modes.eta * p
    log_s = 2 * (p * pull - modes.eta)
    dtau = torch.zeros_like(tau) if modes.held else modes.beta * (1 - tau) - tau * log_s / 2
    return dp, s * log_s, dtau


def alignment(p: Any, s: Any, tau: Any, alpha_p: Any, eta: Any, sigma2: Any) -> Any:
    """k, the mode's eigenvalue of K (tian2021, Theorem 3 and Eq. 17).

    Where it stays positive, the eigenspaces of predictor and data turn towards each other; for two modes the
    sum of their k is what must be positive. On the parabola alpha_p s = p^2 it does not depend on alpha_p:
    Observation 6 of the paper (a larger alpha_p helps alignment) holds only off it.
    """
    return (1 + sigma2) * (alpha_p * s / 2 + p**2) - tau * p + 1.5 * eta


def tau_closed_form(t: Any, weight: Any, beta: float, tau0: float) -> np.ndarray:
    """tau(t) for a weight w(t) = sqrt(s(t)) that is given (tian2021, Eq. 15, with c and tau(0) of any value).

        tau = (tau_0 w_0 e^{-beta t} + beta int_0^t w(t') e^{-beta (t - t')} dt') / w(t)

    Args:
        t: times, increasing from 0. (N,)
        weight: w at these times, not 0. (N,)
        beta: the target's rate, >= 0.
        tau0: tau(0).

    Returns:
        tau at these times; the integral is that of the cubic spline through w, so fine times are needed. (N,)
    """
    times, values = np.asarray(t, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    # from time to time, so that e^{beta t} cannot overflow
    spline = CubicSpline(times, values)
    nodes, shares = np.polynomial.legendre.leggauss(8)
    target = np.empty_like(values)
    target[0] = tau0 * values[0]
    for i, (start, stop) in enumerate(pairwise(times)):
        inside = start + (nodes + 1) / 2 * (stop - start)
        grown = (shares * spline(inside) * np.exp(-beta * (stop - inside))).sum() * (stop - start) / 2
        target[i + 1] = target[i] * np.exp(-beta * (stop - start)) + beta * grown
    return target / values


def _flat(values: solver.State) -> solver.State:
    return tuple(value.reshape(-1).contiguous() for value in values)


def observe(t: Tensor, y: solver.State, parameters: solver.State) -> tuple[Tensor, Tensor, Tensor]:
    """p, s and tau from the solver's unknowns."""
    g, _, eta, c, upper, last = parameters[:6]
    z_square = y[0] ** 2 + c * torch.exp(-2 * eta * t)
    weight = torch.where(upper, z_square.sqrt(), y[0])
    p = g * torch.where(upper, y[0], z_square.sqrt())
    tau = last.expand(p.shape) if len(y) == 1 else y[1] / weight
    return p, torch.where(upper, z_square, y[0] ** 2), tau


def _rates_free(t: Any, y: Any, parameters: Any, of: Any = torch) -> Any:
    g, kappa, eta, c, upper, beta = parameters[:6]
    z = of.sqrt(y[0] * y[0] + c * of.exp(-2 * eta * t))
    pull = y[1] - kappa * g * y[0] * z
    return g * z * pull - eta * y[0], beta * (of.where(upper, z, y[0]) - y[1])


def _rates_held(t: Any, y: Any, parameters: Any, of: Any = torch) -> Any:
    g, kappa, eta, c, upper, tau = parameters[:6]
    z = of.sqrt(y[0] * y[0] + c * of.exp(-2 * eta * t))
    pull = tau * of.where(upper, z, y[0]) - kappa * g * y[0] * z
    return (g * z * pull - eta * y[0],)


def _k(t: Tensor, y: solver.State, parameters: solver.State) -> tuple[Tensor, Tensor]:
    """:func:`alignment` in the solver's unknowns, and its derivative along the solution."""
    g, kappa, eta, _, _, beta = parameters[:6]
    p, s, tau = observe(t, y, parameters)
    half = kappa * g * g / 2
    pull = tau - kappa * p
    dp, log_s = g * g * s * pull - eta * p, 2 * (p * pull - eta)
    dtau = torch.zeros_like(p) if len(y) == 1 else beta * (1 - tau) - tau * log_s / 2
    value = half * s + kappa * p * p - tau * p + 1.5 * eta
    crossed = ~parameters[4] & (y[0] < 0)  # w began above 0: on its way tau went through -inf times p < 0
    return torch.where(crossed, -torch.inf, value), half * s * log_s + (2 * kappa * p - tau) * dp - dtau * p
