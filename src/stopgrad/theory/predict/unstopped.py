"""A learned linear predictor without stop-gradient."""

from typing import Any

import numpy as np
from scipy.special import wrightomega

from stopgrad.theory.predict.case import Case, State


class Unstopped(Case):
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
        """Theorem 2's."""
        return float(self._fall.min())

    @property
    def _fall(self) -> np.ndarray:
        return self.x.l_s - np.abs(self.x.l_d) + self.x.eta

    @property
    def start(self) -> np.ndarray:
        """p0. (..., n)"""
        return np.broadcast_to(self.x.p0, self.shape)

    @property
    def conserved(self) -> np.ndarray:
        """s - (1 - p)^2 / alpha_p at the start, p in the sign of l_d. (..., n)"""
        return self.x.s0 - (self.x.p0 - np.sign(self.x.l_d)) ** 2 / self.x.alpha_p

    def speed(self, p: np.ndarray, s: np.ndarray) -> np.ndarray:
        """With the predictor's own rate. (..., n)"""
        return super().speed(p, s) + self.x.l_s * self.x.alpha_p * s

    def unknowns(self) -> np.ndarray:
        """ln w and p. (..., n, 2)"""
        return np.stack([super().unknowns()[..., 0], self.start], axis=-1)

    def read(self, t: Any, y: np.ndarray) -> State:
        """p is an unknown itself, and the target is the online network."""
        w, _ = self._weights(y[..., :1])
        return State(y[..., 1], w, w)

    def slopes(self, t: float, y: np.ndarray) -> np.ndarray:
        """Of ln w and p. (..., n, 2)"""
        x, (p, w, _) = self.x, self.read(t, y)
        falls = 2 * p * x.l_d - (p**2 + 1) * x.l_s - x.eta
        return np.stack([falls, x.alpha_p * w**2 * (x.l_d - p * x.l_s) - x.eta * p], axis=-1)

    def survivors(self) -> np.ndarray:
        """Those that nothing makes fall, where the conserved quantity is positive. (..., n)"""
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
