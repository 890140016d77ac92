"""Which starts collapse: the basin of the trivial fixed point.

With tau held and eta = 0 it is known in closed form. With c = s0 - p0^2 / alpha_p and kappa = 1 + sigma2, a
start with s0 > 0, tau > 0 collapses exactly if

    c <= 0 and (p0 < 0 or sqrt(-alpha_p c) >= tau / kappa)

(the text's s0 > p0^2 / alpha_p is sufficient to escape, not necessary). The same holds with eta = 0 while tau
moves at beta > 0, with 1 in place of tau: for c <= 0 and p < 0,
beta sqrt(w^2 - c) / sqrt(alpha_p) + w_a^2 / 2 falls along every solution (w and w_a are the weights of the
online and the target network); for c <= 0 and p >= sqrt(-alpha_p c) >= 1 / kappa, max(|w|, |w_a|) falls.

With eta > 0 the basin's edge is the stable manifold of the saddle p-. Most starts are told apart by regions
that no solution leaves; the others are followed until they enter one. With tau held, a rescaling leaves one
number, eps = eta kappa / tau^2: x = kappa p / tau and q = kappa^2 alpha_p s / tau^2 obey
x' = q (1 - x) - eps x and q' = 2 q (x (1 - x) - eps), so that the edge is a curve for each eps
(:func:`separatrix`).
"""

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.theory import solver
from stopgrad.theory.domain import POSITIVE, reals
from stopgrad.theory.fixed_points import roots
from stopgrad.theory.modes import Modes, observe

# Nearer to the stable fixed point p+ than this share of p+ - p-, a solution has arrived
ARRIVED = 1e-3
# Relative error of a step: near the edge errors grow until the fate is decided
RTOL = 1e-11
# Rate of leaving the saddle, in units of eta, below which it is not waited for: at a double root it is 0
SLOW = 0.3
# Evenly spaced points of each half of the edge, besides those of the solver's steps
EDGE = 161
# Halvings of the longest time that one mode is followed for, to the first look at where it is
STRETCHES = 8


def collapses(modes: Modes) -> Tensor:
    """Whether each mode ends at s = 0. bool, in the modes' shape.

    Starts on the edge itself, a set of measure zero that includes the saddle, count as escaping.
    """
    if modes.held:  # (p, tau) -> (-p, -tau) maps solutions to solutions
        sign = torch.where(modes.fixed_tau < 0, -1.0, 1.0).to(modes.p0)
        modes = replace(modes, p0=sign * modes.p0, fixed_tau=sign * modes.fixed_tau)
    known = _known(modes).reshape(-1)
    collapsed = (known > 0).reshape(-1)
    rest = (known == 0).nonzero()[:, 0]
    if rest.numel():
        collapsed[rest] = _followed(modes, rest)
    return collapsed.reshape(modes.p0.shape)


def _known(modes: Modes) -> Tensor:
    """Where eta = 0 or beta = 0 a formula decides: 1 collapses, -1 escapes. Elsewhere 0."""
    c, eta, alpha_p = modes.c, modes.eta, modes.alpha_p
    end = modes.fixed_tau if modes.held else torch.ones_like(c)
    still = (c <= 0) & ((modes.p0 < 0) | ((-alpha_p * c).clamp(min=0).sqrt() >= end / modes.kappa))
    fate = torch.where(eta == 0, _sign(still), 0)
    if not modes.held:
        # A target that never moves pulls w away from 0 unless decay outweighs it, or P starts as -w
        pull = (alpha_p * modes.s0).sqrt() * modes.tau0.abs()
        frozen = torch.where(eta == 0, (pull == 0) & (c <= 0), pull <= eta)
        frozen = frozen | ((c == 0) & (modes.p0 * modes.tau0 < 0))
        fate = torch.where(modes.beta == 0, _sign(frozen), fate)
    return torch.where(modes.s0 == 0, 1, fate)


def _sign(collapsed: Tensor) -> Tensor:
    return torch.where(collapsed, 1, -1)


def _followed(modes: Modes, rows: Tensor) -> Tensor:
    """Follow modes with eta > 0 until each is in a region that no solution leaves."""
    y, parameters = modes.state()
    parameters = tuple(p[rows] for p in parameters)
    eta, kappa, last = parameters[2], parameters[1], parameters[5]
    tau = last if modes.held else torch.ones_like(eta)
    near, far = roots(eta, kappa - 1, tau)
    parameters = (*parameters, near, far)
    # Times to die out, to catch up with the target, and to leave the saddle's neighbourhood: where that is
    # slow, all else has died out by then, and on which side of the saddle p is no longer changes
    leave = (near * (tau - 2 * kappa * near)).nan_to_num(0.0)
    horizon = 100 / eta + 60 / torch.maximum(leave, SLOW * eta)
    if not modes.held:
        horizon = horizon + 100 / last
    region = _region_held if modes.held else _region_free
    follow = _one_followed if rows.numel() == 1 else _all_followed
    t, y = follow(modes, tuple(a[rows] for a in y), parameters, horizon)
    fate = region(t, y, parameters)
    p = observe(t, y, parameters)[0]
    return torch.where(fate == 0, p < near, fate > 0)


def _all_followed(
    modes: Modes, y: solver.State, parameters: solver.State, horizon: Tensor
) -> tuple[Tensor, solver.State]:
    """Times, up to the horizon, and states at which each is in a region, if it comes to one."""
    end = solver.solve(
        modes.rates, y, parameters, horizon, rtol=RTOL, stop=_STOPS[modes.held], compiled=False
    )  # fmt: skip
    return end.t, end.y


def _one_followed(
    modes: Modes, y: solver.State, parameters: solver.State, horizon: Tensor
) -> tuple[Tensor, solver.State]:
    """The same of one mode, over stretches of time that double: a batch of one is dear."""
    t = torch.zeros_like(horizon)
    stretch = horizon / 2**STRETCHES
    while bool(t < horizon) and not bool(_STOPS[modes.held](t, y, y, parameters)):
        times = torch.cat([t, torch.minimum(t + stretch, horizon)])
        y = tuple(value[-1:] for value in solver.course(modes.rates, y, parameters, times, rtol=RTOL))
        t, stretch = times[-1:], 2 * stretch
    return t, y


def _region_held(t: Tensor, y: solver.State, parameters: solver.State) -> Tensor:
    """1: bound to collapse, -1: bound to escape, 0: not known. For tau held at >= 0 and eta > 0."""
    g, _, _, c, upper, _, near, far = parameters
    p, s, _ = observe(t, y, parameters)
    q, edge = g * g * s, near**2
    below = ~upper | (c == 0)
    inside = (p <= near) & (below | (q <= edge)) & ((p < near) | (q < edge))
    outside = (upper & (p >= near)) | (below & (p >= near) & (p <= far) & (q >= edge))
    return torch.where(near.isnan() | inside, 1, torch.where(outside, -1, 0))


def _region_free(t: Tensor, y: solver.State, parameters: solver.State) -> Tensor:
    """The same while tau moves, with eta > 0 and beta > 0."""
    g, _, _, c, upper, _, near, far = parameters
    p, s, _ = observe(t, y, parameters)
    weight, target = g.abs() * s.sqrt(), g.abs() * y[1] * torch.where(upper | (y[0] >= 0), 1.0, -1.0)
    size = torch.maximum(p.abs(), torch.maximum(weight, target.abs()))
    distance = torch.maximum((p - far).abs(), torch.maximum((weight - far).abs(), (target - far).abs()))
    inside = ((~upper | (c == 0)) & (p <= 0)) | (size < near)
    return torch.where(near.isnan() | inside, 1, torch.where(distance < ARRIVED * (far - near), -1, 0))


def _stop_held(t: Tensor, y: solver.State, f: solver.State, parameters: solver.State) -> Tensor:
    return _region_held(t, y, parameters) != 0


def _stop_free(t: Tensor, y: solver.State, f: solver.State, parameters: solver.State) -> Tensor:
    return _region_free(t, y, parameters) != 0


_STOPS = {True: _stop_held, False: _stop_free}


def separatrix(
    eps: float, x_range: tuple[float, float] = (-2.0, 3.0), rtol: float = RTOL
) -> tuple[np.ndarray, np.ndarray]:
    """The edge between collapse and escape while tau is held, in the scaled coordinates x and q.

    Args:
        eps: eta kappa / tau^2, in (0, 1/4].
        x_range: x to cover, about the saddle.
        rtol: relative error of log q allowed in a step.

    Returns:
        x, increasing, and q along the saddle's stable manifold: starts above it escape. It is followed away
        from the saddle, which is backwards in time, so that the errors of the start die out. q is above 0,
        but for rounding where eps is small.

    Raises:
        UsageError: if eps is outside (0, 1/4].
    """
    eps = reals("eps", eps, POSITIVE).item()
    if eps > 0.25:
        raise UsageError(f"eps: {eps:g} is outside its domain (0, 1/4]: beyond, everything collapses")
    x = roots(eps, 0.0, 1.0)[0].item()
    slope = -(x**2) * (1 - 2 * x) / eps

    def log_slope(x: float, log_q: np.ndarray) -> float:
        """Of log q over x, on the manifold: by time, a small eps would take 1 / eps of it."""
        q = math.exp(min(log_q.item(), 700.0))  # a step too far is taken back
        return 2 * (x * (1 - x) - eps) / (q * (1 - x) - eps * x)

    halves = []
    for end in x_range:
        begin = x + np.copysign(1e-6 * x, end - x)
        start = [np.log(x**2 + slope * (begin - x))]
        path = solve_ivp(
            log_slope, (begin, end), start, "DOP853", rtol=rtol, atol=rtol / 100, dense_output=True
        )
        at = np.union1d(path.t, np.linspace(begin, end, EDGE))
        halves.append(np.stack([at, path.sol(at)[0]]))
    x, log_q = np.concatenate([halves[0], [[x], [2 * np.log(x)]], halves[1]], axis=1)
    return x, np.exp(log_q)
