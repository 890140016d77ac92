"""The regime that a mode's hyper-parameters put it in, in words.

One number decides, r = eta (1 + sigma2) / tau^2 (tian2021, section 3.2 and Fig. 4; a target that follows the
network comes to rest at tau = 1):

    r > 1/4           only the trivial fixed point is left, every start collapses
    1/9 < r <= 1/4    a feature can be kept, and on the parabola k > 0 at every p: the eigenspaces of
                      predictor and data turn towards each other all along
    0 < r <= 1/9      a feature can be kept; on the parabola k <= 0 for p in an interval between p- and p+
    r = 0             nothing decays: whole lines are fixed points, and the start is never forgotten

On the parabola alpha_p s = p^2 it is k = 3 (1 + sigma2) p^2 / 2 - tau p + 3 eta / 2, lowest at
p = tau / (3 (1 + sigma2)); alpha_p is not in it, and so names no regime.
"""

from dataclasses import dataclass
from typing import Literal

from stopgrad.errors import UsageError
from stopgrad.theory.basins import collapses
from stopgrad.theory.fixed_points import roots
from stopgrad.theory.modes import Modes

Name = Literal["unavoidable", "window", "turning-away", "no-decay", "frozen-target"]

# Of r: up to the first, k is negative somewhere on the parabola; beyond the second, everything collapses
WINDOW = (1 / 9, 1 / 4)


@dataclass(frozen=True)
class Regime:
    """What becomes of a mode, and why.

    Attributes:
        name: of the regime, see the module; "frozen-target" for one that never follows the network.
        text: the regime in one sentence, with the inequality that decides it.
        collapses: whether this start ends at s = 0; None if that was not asked for.
        fate: where this start ends, in one sentence; empty if that was not asked for.
    """

    name: Name
    text: str
    collapses: bool | None
    fate: str


def regime(modes: Modes, *, fate: bool = True) -> Regime:
    """The regime of ONE mode.

    Args:
        modes: the mode.
        fate: whether to follow it to its end, which takes seconds where tau moves and eta is small.

    Raises:
        UsageError: if there is more than one.

    >>> regime(Modes(p0=0.3, s0=0.09, eta=0.2, sigma2=0.5, fixed_tau=1.0)).text
    'Collapse is unavoidable: η = 0.2 > τ² / (4 (1 + σ²)) = 0.1667.'
    """
    if modes.p0.numel() != 1:
        raise UsageError(f"regime: of one mode at a time, these are {modes.p0.numel()}")
    name, text = _named(modes)
    if not fate:
        return Regime(name, text, None, "")
    dies = bool(collapses(modes))
    return Regime(name, text, dies, _fate(modes, dies))


def _named(mode: Modes) -> tuple[Name, str]:
    eta, kappa, tau = mode.eta.item(), mode.kappa.item(), _rest(mode)
    if not mode.held and mode.beta.item() == 0:
        return "frozen-target", "The target never moves (β = 0): the network learns what it was at the start."
    if eta == 0:
        return "no-decay", "No weight decay: whole lines are fixed points, and the start is never forgotten."
    low, most = (share * tau**2 / kappa for share in WINDOW)
    if eta > most:
        return "unavoidable", f"Collapse is unavoidable: η = {eta:.4g} > τ² / (4 (1 + σ²)) = {most:.4g}."
    if eta > low:
        return "window", (
            f"Alignment window: τ² / (9 (1 + σ²)) = {low:.4g} < η = {eta:.4g} ≤ τ² / (4 (1 + σ²)) = "
            f"{most:.4g}; on the parabola k > 0 at every p."
        )
    root = (tau**2 - 9 * eta * kappa) ** 0.5
    from_, to = sorted((tau + sign * root) / (3 * kappa) for sign in (-1, 1))
    return "turning-away", (
        f"A feature can be kept, but η = {eta:.4g} ≤ τ² / (9 (1 + σ²)) = {low:.4g}: on the parabola k ≤ 0 "
        f"for p from {from_:.3g} to {to:.3g}."
    )


def _fate(mode: Modes, dies: bool) -> str:
    if dies:
        return "This start collapses: s goes to 0."
    eta, kappa, tau = mode.eta.item(), mode.kappa.item(), _rest(mode)
    if not mode.held and mode.beta.item() == 0:
        return "This start does not collapse."
    if eta == 0:
        return f"This start keeps a feature: p goes to τ / (1 + σ²) = {tau / kappa:.4g}."
    far = roots(eta, kappa - 1, tau)[1].item()
    return f"This start keeps a feature: p goes to {far:.4g}, s to {far**2 / mode.alpha_p.item():.4g}."


def _rest(mode: Modes) -> float:
    """tau in the end."""
    return float(mode.fixed_tau.item()) if mode.held else 1.0
