"""A kind of method on modes: what decides, the unknowns, and the course that they take.

Shapes: n modes, N times, G settings compared, K unknowns of a mode.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import LSODA

from stopgrad.method import Method
from stopgrad.parts.target import Ema
from stopgrad.theory.predict.answers import Beyond
from stopgrad.theory.predict.data import DataStatistics

# Times looked at, spread evenly over the logarithm of these multiples of the fastest mode's time
LOOKS, FIRST, LAST = 1600, 1e-3, 1e12
# Largest ln w, and ln(w_a / w) of either sign, that is told apart from more
STEEP = 50.0
# Of the integration
MAX_STEPS = 100_000
# Taken for 0
TINY = 1e-150


@dataclass(frozen=True, eq=False)
class Setting:
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
        """See `DataStatistics`. (n,)"""
        return self.data.l_d

    @property
    def l_s(self) -> np.ndarray:
        """See `DataStatistics`. (n,)"""
        return self.data.l_s

    @property
    def beta(self) -> Any:
        """Rate at which the target follows."""
        return (1 - self.ema) / self.lr

    @cached_property
    def follows(self) -> bool:
        """Whether the target is a network of its own."""
        return isinstance(self.method.target, Ema)

    @cached_property
    def stops(self) -> bool:
        """Whether the target is a constant for the gradient."""
        return self.method.stops_gradient


def tau_of(method: Method) -> float:
    """`Ema.tau`, nan for a target that is the online network."""
    return method.target.tau if isinstance(method.target, Ema) else float("nan")


class State(NamedTuple):
    """Modes at one time, or at N times: p, w and w_a, each (..., n) or (N, ..., n)."""

    p: np.ndarray
    w: np.ndarray
    w_a: np.ndarray


class Case(ABC):
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

    def __init__(self, setting: Setting):
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

    def read(self, t: Any, y: np.ndarray) -> State:
        """What the unknowns y (..., n, K) stand for at the time t."""
        w, w_a = self._weights(y)
        return State(self.eigenvalues(w), w, w_a)

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

    def follow(self, times: np.ndarray) -> State:
        """States at times > 0 that increase, from the start at 0. (N,)

        Raises:
            Beyond: if the integration fails on the way.
        """
        _, path = self._integrate(times, float(times[-1]), lambda now: False)
        return State(*(row[1 : len(times) + 1] for row in path))

    def course(self, done: Callable[[State], bool], looks: int = LOOKS) -> tuple[np.ndarray, State]:
        """Times (N,) and states from the start until ``done``, or until nothing can happen any more.

        Raises:
            Beyond: if the integration fails on the way.
        """
        x = self.x
        decays = np.ravel(x.eta)[np.ravel(x.eta) > 0]
        end = max(LAST / self._fastest, 1e3 / decays.min(initial=np.inf))
        return self._integrate(np.geomspace(FIRST / self._fastest, end, looks), end, done)

    @cached_property
    def _fastest(self) -> float:
        """Bound on the rates at the start."""
        x = self.x
        return float((self.speed(self.start, x.s0) + x.l_s + (x.beta if x.follows else 0.0)).max())

    def _integrate(
        self, t: np.ndarray, end: float, done: Callable[[State], bool]
    ) -> tuple[np.ndarray, State]:
        """Times 0, those of ``t`` until the end or ``done``, and this, with the states there.

        By LSODA, which turns implicit where fast modes rest and slow ones move; error 1e-9 a step, relative
        (not of logarithms) or in units of `scale`.
        """
        y0 = self.unknowns()
        first = min(t[0], FIRST / self._fastest)
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
        solver, size = solver_at(0.0, y0.reshape(-1), first), first
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
                    if size < 1e-15 * max(before, first):
                        break
                    solver = solver_at(before, old, size)
                    continue
                size = solver.t - before
                reached = int(np.searchsorted(t, solver.t, side="right"))
                if reached > seen:
                    states.extend(solver.dense_output()(t[seen:reached]).T)
                    seen = reached
        raise Beyond(f"p0: the modes could not be followed beyond t = {solver.t:g}")

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
