"""What Tian et al. 2021 say of one mode (section 3.2, Figs. 3 to 5), on `stopgrad.theory.modes`.

Legend: p, s, tau of a mode; kappa = 1 + sigma2.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stopgrad.experiments.schema import Result
from stopgrad.theory import modes as of_mode
from stopgrad.theory.basins import collapses
from stopgrad.theory.fixed_points import collapse_unavoidable, fixed_points, roots
from stopgrad.theory.modes import Modes, Trajectory


def figure3(eta: float, sigma2: float = 0.5, points: int = 31, t_end: float = 1500.0) -> Result:
    """Fig. 3: where starts of a grid in p and s go while tau = 1, alpha_p = 1.

    Numbers: ``collapsed``, the share of starts in the collapsed basin by `stopgrad.theory.basins`;
    ``agreement``, the share for which the solution at ``t_end`` says the same; ``above_collapsed``, the share
    of the starts above the parabola s = p^2 that collapse; ``distance``, the largest distance of an end from
    the fixed points (eta = 0: from the lines s = 0 and p = tau / kappa); ``off_parabola``, the largest
    |s - p^2| at the end; ``unavoidable``, 1 where only the trivial point is left.
    """
    p, s = (
        grid.ravel() for grid in np.meshgrid(np.linspace(-1, 1.5, points), np.linspace(0.013, 1.507, points))
    )
    starts = Modes(p, s, alpha_p=1.0, eta=eta, sigma2=sigma2, fixed_tau=1.0)
    fate = collapses(starts).numpy()
    end = starts.final(t_end)
    p_end, s_end = end.p.numpy(), end.s.numpy()
    if eta == 0:
        distance = np.minimum(s_end, np.abs(p_end - 1 / (1 + sigma2)))
    else:
        still = fixed_points(1.0, eta, sigma2, 1.0)
        distance = np.min([np.hypot(p_end - q.p, s_end - q.s) for q in still], axis=0)
    dead = s_end < 1e-3
    above = s > p**2
    numbers = {
        "collapsed": float(fate.mean()),
        "agreement": float((dead == fate).mean()),
        "above_collapsed": float(fate[above].mean()),
        "distance": float(distance.max()),
        "off_parabola": float(np.abs(s_end - p_end**2).max()),
        "unavoidable": float(collapse_unavoidable(eta, sigma2, 1.0)),
    }
    return Result(numbers, {"p": p.tolist(), "s": s.tolist(), "collapsed": fate.tolist()})


def figure4(taus: Sequence[float] = (0.5, 1.0), sigma2s: Sequence[float] = (0.2, 1.0)) -> Result:
    """Fig. 4: on the parabola p has two more fixed points than 0 exactly for eta < tau^2 / (4 kappa).

    Numbers over the grid of tau and sigma2: ``points_below`` and ``points_above``, the fixed points at 0.99
    and 1.01 times the threshold; ``residual`` of Eq. 16 at them; ``basin_agreement``, the share of starts 2 %
    to both sides of p- at half the threshold that end where the figure has them: at 0, and at p+.
    """
    below, above, residuals, right, lines = [], [], [], [], []
    for tau in taus:
        for sigma2 in sigma2s:
            kappa = 1 + sigma2
            threshold = tau**2 / (4 * kappa)
            few, many = (fixed_points(1.0, share * threshold, sigma2, tau) for share in (1.01, 0.99))
            below.append(len(many))
            above.append(len(few))
            eta = 0.99 * threshold
            residuals += [abs(q.p**2 * (tau - kappa * q.p) - eta * q.p) for q in many]
            near, far = (root.item() for root in roots(threshold / 2, sigma2, tau))
            p = near * np.array([0.98, 1.02])
            end = (
                Modes(p, p**2, eta=threshold / 2, sigma2=sigma2, fixed_tau=tau)
                .final(500 * kappa / tau**2)
                .p.numpy()
            )
            right += [abs(end[0]) < 1e-6, abs(end[1] - far) < 1e-6]
            lines.append([tau, sigma2, threshold, near, far])
    numbers = {
        "points_below": float(min(below)),
        "points_above": float(max(above)),
        "residual": max(residuals),
        "basin_agreement": float(np.mean(right)),
    }
    return Result(numbers, {"tau_sigma2_threshold_near_far": lines})


def figure5(
    eta: float, beta: float | None = None, p0: float = 0.3, sigma2: float = 0.0009, t_end: float = 120.0
) -> Result:
    """Fig. 5: what the weight decay and the target's rate do to k and p, from p(0) = ``p0`` on the parabola.

    ``beta`` None holds tau at 1, else tau moves from 0. Numbers: ``min_k``, the smallest k on the way,
    ``final_p``, p at ``t_end``, and ``time``, when p comes within 5 % of it to stay.
    """
    target = {"fixed_tau": 1.0} if beta is None else {"beta": beta}
    mode = Modes(p0, p0**2, eta=eta, sigma2=sigma2, **target)
    path = mode.trajectory(np.linspace(0, t_end, 1201), rtol=1e-9)
    numbers = {"min_k": path.k.min().item(), "final_p": path.p[-1].item(), "time": _arrival(path)}
    shown = {"t": path.t, "p": path.p, "tau": path.tau, "k": path.k}
    return Result(numbers, {name: values[::5].tolist() for name, values in shown.items()})


def observations(sigma2: float = 0.0009) -> Result:
    """Observations 1-10 of section 3.2 and Table 4, each as one number whose sign is the claim, and Eq. 17.

    sigma2 is that of Fig. 5. Numbers, positive where the observation is right:
    ``obs1``: how many more starts collapse at alpha_p 1/4 than at 4, as a share (eta = 0, tau = 1);
    ``obs2``: growth of s from one start at alpha_p 1, less that at 100;
    ``obs3``: how far two starts of different c end apart in s with eta = 0, less that with eta = 0.02;
    ``obs4``: p- at eta 0.10, less that at 0.05;
    ``obs5``: share of starts that collapse beyond the threshold of eta, less 1/2;
    ``obs6_on`` and ``obs6_off``: what alpha_p 4 in place of 1 adds to k on the parabola and off it;
    ``obs7``: what eta 0.12 in place of 0.04 adds to the smallest k (tau = 1, from p = 0.3 on the parabola);
    ``obs8``: what beta 0.1 in place of 0.4 adds to it (tau moves from 0);
    ``obs9``: how much later p comes within 5 % of its end at beta 0.1;
    ``obs10``: p- at tau 0.7, less that at tau 1.
    Eq. 17: ``eq17_error``, between k and half of alpha_p kappa s + eta, less Delta; ``window``, the least
    eta kappa / tau^2 for which k > 0 on the whole parabola; ``window_error``, its distance from 1/9.
    """
    kappa = 1 + sigma2
    p, s = (grid.ravel() for grid in np.meshgrid(np.linspace(-1, 1.5, 41), np.linspace(0.013, 1.507, 41)))

    def lost(alpha_p: float, eta: float) -> float:
        starts = Modes(p, s, alpha_p=alpha_p, eta=eta, sigma2=sigma2, fixed_tau=1.0)
        return float(collapses(starts).double().mean())

    def course(eta: float, **target: float) -> tuple[float, float]:
        """Smallest k, and when p comes within 5 % of its end to stay."""
        path = Modes(0.3, 0.09, eta=eta, sigma2=sigma2, **target).trajectory(np.linspace(0, 150, 1501))
        return path.k.min().item(), _arrival(path)

    def k(alpha_p: Any, p: Any, s: Any) -> Any:
        return of_mode.alignment(p, s, 1.0, alpha_p, 0.04, sigma2)

    def near(eta: float, tau: float) -> float:
        return roots(eta, sigma2, tau)[0].item()

    p0, s0 = [0.1, 0.1, 0.3, 0.3, 0.3, 0.3], [0.05, 0.05, 0.3, 0.6, 0.3, 0.6]
    ends = Modes(
        p0, s0, alpha_p=[1, 100, 1, 1, 1, 1], eta=[0, 0, 0, 0, 0.02, 0.02], sigma2=sigma2, fixed_tau=1.0
    )
    end = ends.final(800.0).s.tolist()
    (k_weak, _), (k_strong, _) = course(0.04, fixed_tau=1.0), course(0.12, fixed_tau=1.0)
    (k_fast, early), (k_slow, late) = course(0.04, beta=0.4), course(0.04, beta=0.1)
    q = np.linspace(0.01, 1, 100)
    delta = p * (1 - kappa * p) - 0.04
    window = _window(sigma2)
    numbers = {
        "obs1": lost(0.25, 0.0) - lost(4.0, 0.0),
        "obs2": end[0] - end[1],
        "obs3": abs(end[2] - end[3]) - abs(end[4] - end[5]),
        "obs4": near(0.10, 1.0) - near(0.05, 1.0),
        "obs5": lost(1.0, 1.01 / (4 * kappa)) - 0.5,
        "obs6_on": float(np.abs(k(4.0, q, q**2 / 4) - k(1.0, q, q**2)).max()),
        "obs6_off": float((k(4.0, q, q**2) - k(1.0, q, q**2)).min()),
        "obs7": k_strong - k_weak,
        "obs8": k_slow - k_fast,
        "obs9": late - early,
        "obs10": near(0.05, 0.7) - near(0.05, 1.0),
        "eq17_error": float(np.abs(k(2.0, p, s) - (kappa * s + 0.02 - delta)).max()),
        "window": window,
        "window_error": abs(window - 1 / 9),
    }
    return Result(numbers, {"smallest_k": [k_weak, k_strong, k_fast, k_slow]})


def _arrival(path: Trajectory) -> float:
    """When p comes within 5 % of its end to stay."""
    away = (path.p - path.p[-1]).abs() > 0.05 * path.p[-1]
    return path.t[int(away.nonzero().max()) + 1].item()


def _window(sigma2: float) -> float:
    """By bisection over eta kappa / tau^2: the least for which k > 0 at every p of the parabola (tau = 1)."""
    p = np.linspace(0, 1, 20_001)
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        positive = (of_mode.alignment(p, p**2, 1.0, 1.0, middle / (1 + sigma2), sigma2) > 0).all()
        low, high = (low, middle) if positive else (middle, high)
    return high
