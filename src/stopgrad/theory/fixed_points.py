"""Fixed points of a mode while tau is held (tian2021, section 3.2 and Fig. 4).

With eta > 0 the invariant s - p^2 / alpha_p decays, so fixed points lie on the parabola alpha_p s = p^2, at
p = 0 and at the roots of kappa p^2 - tau p + eta = 0, kappa = 1 + sigma2:

    p+- = (tau +- sqrt(tau^2 - 4 eta kappa)) / (2 kappa)

0 and p+ attract; p- is a saddle, whose stable manifold parts their basins. For eta > tau^2 / (4 kappa) only 0
is left. With eta = 0 there are whole lines of fixed points, s = 0 and p = tau / kappa, of which these are the
two on the parabola.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad.theory.domain import reals


@dataclass(frozen=True)
class FixedPoint:
    """A fixed point of (p, s).

    Attributes:
        p, s: where.
        stable: whether what starts near it stays near it.
        eigenvalues: of the Jacobian there, in increasing order.
    """

    p: float
    s: float
    stable: bool
    eigenvalues: tuple[float, float]


def roots(eta: Any, sigma2: Any, tau: Any) -> tuple[Tensor, Tensor]:
    """p- and p+, the one nearer to 0 first; nan where there are none. Arguments broadcast."""
    eta, tau = torch.as_tensor(eta, dtype=torch.float64), torch.as_tensor(tau, dtype=torch.float64)
    kappa = 1 + torch.as_tensor(sigma2, dtype=torch.float64)
    # the far root first: the near one is the quotient of their product eta / kappa, without cancellation
    far = (tau + torch.copysign((tau**2 - 4 * eta * kappa).sqrt(), tau)) / (2 * kappa)
    near = torch.where(far == 0, 0.0, eta / (kappa * far))
    return near, far


def jacobian(p: float, s: float, alpha_p: float, eta: float, sigma2: float, tau: float) -> np.ndarray:
    """Derivatives of (p', s') by (p, s) with tau held. (2, 2)"""
    kappa = 1 + sigma2
    return np.array([
        [-alpha_p * s * kappa - eta, alpha_p * (tau - kappa * p)],
        [2 * s * (tau - 2 * kappa * p), 2 * p * (tau - kappa * p) - 2 * eta],
    ])  # fmt: skip


def fixed_points(alpha_p: float, eta: float, sigma2: float, tau: float) -> list[FixedPoint]:
    """All fixed points in order of |p|; with eta = 0 those on the parabola alpha_p s = p^2.

    Raises:
        UsageError: naming an argument outside its domain.
    """
    alpha_p, eta, sigma2, tau = (
        reals(name, value).item()
        for name, value in (("alpha_p", alpha_p), ("eta", eta), ("sigma2", sigma2), ("tau", tau))
    )
    near, far = (root.item() for root in roots(eta, sigma2, tau))
    found = [0.0] + [p for p in sorted({near, far}, key=abs) if p == p and p != 0]
    return [_point(p, far, alpha_p, eta, sigma2, tau) for p in found]


def collapse_unavoidable(eta: Any, sigma2: Any, tau: Any) -> Tensor:
    """Whether the trivial fixed point is the only one: eta > tau^2 / (4 (1 + sigma2))."""
    eta, sigma2, tau = reals("eta", eta), reals("sigma2", sigma2), reals("tau", tau)
    return 4 * eta * (1 + sigma2) > tau**2


def _point(p: float, far: float, alpha_p: float, eta: float, sigma2: float, tau: float) -> FixedPoint:
    s = p * p / alpha_p
    first, second = np.sort(np.linalg.eigvals(jacobian(p, s, alpha_p, eta, sigma2, tau)).real).tolist()
    # The double root p- = p+ attracts from one side only. With eta = 0 the origin repels along the parabola,
    # though its Jacobian is 0; p+ lies on a line of fixed points that attracts.
    double = 4 * eta * (1 + sigma2) == tau**2
    stable = eta > 0 if p == 0 else p == far and not double
    return FixedPoint(p, s, stable, (first, second))
