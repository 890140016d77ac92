"""A learned linear predictor with stop-gradient."""

from functools import cached_property
from typing import Any

import numpy as np

from stopgrad.theory.basins import collapses
from stopgrad.theory.fixed_points import roots
from stopgrad.theory.modes import Modes
from stopgrad.theory.predict.case import STEEP, TINY, Case, Setting, State


class Learned(Case):
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

    def __init__(self, setting: Setting):
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
        """eta beyond the edge, for a target that is the online network."""
        return self.x.eta - self.edge if self.x.eta > self.edge and not self.x.follows else None

    @property
    def edge(self) -> float:
        """The largest weight decay at which a mode has a fixed point besides 0."""
        return float((self.x.l_d**2 / (4 * self.x.l_s)).max())

    @property
    def start(self) -> np.ndarray:
        """p0. (..., n)"""
        return np.broadcast_to(self.x.p0, self.shape)

    @cached_property
    def swings(self) -> np.ndarray:
        """Those with p against l_d and c <= 0 at the start, beside a target of its own. (..., n)"""
        return self.x.follows & self.against & ~self.upper

    @property
    def plain(self) -> np.ndarray:
        """Those with p and w_a as unknowns, and those that swing. (..., n)"""
        return self.upper | self.swings

    @property
    def scale(self) -> np.ndarray:
        """Of p and w_a, the smaller of the start and the near root. (..., n)"""
        size = np.maximum(np.abs(self.x.p0), np.sqrt(self.x.alpha_p) * self.w0)
        near = np.where(np.nan_to_num(self.near) != 0, np.abs(self.near), size)
        least = np.where(size > TINY, np.minimum(size, near), 1.0)
        return np.where(self.upper, least * np.minimum(1.0, 1 / np.sqrt(self.x.alpha_p)), super().scale)

    def speed(self, p: np.ndarray, s: np.ndarray) -> np.ndarray:
        """With the predictor's own rate. (..., n)"""
        return super().speed(p, s) + self.x.l_s * self.x.alpha_p * s

    def unknowns(self) -> np.ndarray:
        """p and w_a where c > 0. (..., n, K)"""
        first = super().unknowns()
        above = np.stack([self.start, self.w0], axis=-1)[..., : first.shape[-1]]
        return np.where(self.upper[..., None], above, first)

    def read(self, t: Any, y: np.ndarray) -> State:
        """The larger of w and p / sqrt(alpha_p) from the other."""
        x, upper = self.x, self.upper
        left = np.abs(self.c) * np.exp(-2 * x.eta * t)
        above = np.sqrt(y[..., 0] ** 2 / x.alpha_p + left)
        if upper.all():
            return State(y[..., 0], above, y[..., -1] if x.follows else above)
        w, w_a = self._weights(y)
        w = np.where(upper, above, w)
        p = np.where(upper, y[..., 0], np.sign(x.p0) * np.sqrt(x.alpha_p * (w**2 + left)))
        return State(p, w, np.where(upper, y[..., -1], w_a) if x.follows else w)

    def slopes(self, t: float, y: np.ndarray) -> np.ndarray:
        """Of p and w_a where c > 0. (..., n, K)"""
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
        """By the closed form for eta = 0; elsewhere the mode is followed until its end is sure. (..., n)"""
        x = self.x
        still = np.broadcast_to(x.eta == 0, self.shape)
        alive = still & self._without_decay() if still.any() else np.zeros(self.shape, dtype=bool)
        open_ = ~still & ~np.isnan(self.far) & (self.upper | ~self.against) & (self.w0 > 0)
        if open_.any():
            _, path = self.course(lambda now: bool((~open_ | (self._fate(now) != 0)).all()), looks=2)
            # what has not decided itself by then started on the edge, and rests at the near root
            alive |= open_ & (self._fate(State(*(row[-1] for row in path))) >= 0)
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

    def _fate(self, now: State) -> np.ndarray:
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
        """The far root or 0; for eta = 0 what the conserved quantity leaves. (n,) each"""
        x = self.x
        left = self.c * (x.eta == 0)
        dead = np.sign(x.p0) * np.sqrt((-x.alpha_p * left).clip(min=0)) + 0.0  # no -0.0
        return np.where(alive, self.far, dead), np.where(alive, self.far**2 / x.alpha_p + left, 0.0)
