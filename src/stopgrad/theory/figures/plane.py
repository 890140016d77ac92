"""The plane of a mode's two eigenvalues, p and s: flow, fixed points and basins (tian2021, Figs. 3 and 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stopgrad.theory.basins import collapses, separatrix
from stopgrad.theory.domain import POSITIVE
from stopgrad.theory.figures import style
from stopgrad.theory.figures.arguments import number, several, span, whole
from stopgrad.theory.figures.sketch import Sketch
from stopgrad.theory.fixed_points import fixed_points, roots
from stopgrad.theory.modes import Modes, slopes

EDGE = "edge of the basins"


@dataclass(frozen=True)
class Plane:
    """The hyper-parameters of a plane in which tau is held, and the part of it that is looked at.

    Attributes:
        alpha_p, eta, sigma2, tau: see :class:`stopgrad.theory.modes.Modes`.
        p_range: p from and to.
        s_max: s from 0 to.
    """

    alpha_p: float
    eta: float
    sigma2: float
    tau: float
    p_range: tuple[float, float]
    s_max: float

    @property
    def kappa(self) -> float:
        """1 + sigma2."""
        return 1 + self.sigma2

    def axis(self, points: int) -> np.ndarray:
        """Values of p. (points,)"""
        return np.linspace(*self.p_range, points)

    def mesh(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """p and s of a grid over the plane, [i, j] at the i-th s and the j-th p. (points, points) each"""
        p, s = np.meshgrid(self.axis(points), np.linspace(0, self.s_max, points))
        return p, s

    def starts(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts of flow lines: along the top, and along both sides. p and s, (N,) each"""
        low, high = self.p_range
        top, side = np.linspace(low, high, 9), self.s_max * np.array([0.1, 0.25, 0.45, 0.7])
        p = np.concatenate([top, np.full(4, low), np.full(4, high)])
        return p, np.concatenate([np.full(9, self.s_max), side, side])

    def start(self, p0: np.ndarray, s0: np.ndarray) -> Modes:
        """Modes that start there."""
        return Modes(p0=p0, s0=s0, alpha_p=self.alpha_p, eta=self.eta, sigma2=self.sigma2, fixed_tau=self.tau)

    def flow(self, p0: np.ndarray, s0: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p and s over time from each start. (starts, times) each"""
        end = self.start(p0[:, None], s0[:, None]).final(torch.from_numpy(t))
        return end.p.numpy(), end.s.numpy()

    def still_lines(self) -> list[tuple[np.ndarray, np.ndarray, bool]]:
        """For eta = 0 the lines of fixed points: p, s, and whether the line attracts.

        On s = 0 departures grow at the rate 2 p (tau - kappa p); p = tau / kappa attracts at every s > 0.
        """
        rest = self.tau / self.kappa
        low, high = sorted((0.0, rest))
        cuts = [self.p_range[0], *np.clip([low, high], *self.p_range), self.p_range[1]]
        lines = [
            (np.array([cuts[i], cuts[i + 1]]), np.zeros(2), i != 1) for i in range(3) if cuts[i] < cuts[i + 1]
        ]
        return [*lines, (np.full(2, rest), np.array([0.0, self.s_max]), True)]

    def edge(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Curve above which starts do not collapse; no points where all collapse. p and s, (N,) each"""
        sign = -1.0 if self.tau < 0 else 1.0
        low, high = sorted(sign * p for p in self.p_range)
        tau, rest = abs(self.tau), abs(self.tau) / self.kappa
        if self.eta == 0:
            p = np.union1d(np.linspace(low, high, points), np.clip([0.0, rest], low, high))
            return sign * p, np.where(p < 0, p**2, (p**2 - rest**2).clip(min=0)) / self.alpha_p
        if 4 * self.eta * self.kappa > tau**2:
            return np.empty(0), np.empty(0)
        eps = min(self.eta * self.kappa / tau**2, 0.25)
        saddle = roots(eps, 0.0, 1.0)[0].item()
        ends = min(low / rest, 0.9 * saddle), max(high / rest, 1.1 * saddle)
        x, q = separatrix(eps, ends, rtol=1e-7)
        return sign * x * rest, q * rest**2 / self.alpha_p

    def p_nullcline(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """For eta > 0 where p' = 0: p strictly between 0 and tau / kappa, and s. (points,) each"""
        p = np.linspace(0, self.tau / self.kappa, points + 2)[1:-1]
        return p, self.eta * p / (self.alpha_p * (self.tau - self.kappa * p))

    def s_nullclines(self) -> list[float]:
        """Values of p at which s' = 0 for every s, for eta > 0."""
        return sorted({root.item() for root in roots(self.eta, self.sigma2, self.tau) if root == root})


def tian2021_fig3(
    etas: Sequence[float] = (0.0, 0.01, 1.0),
    tau: float = 1.0,
    alpha_p: float = 1.0,
    sigma2: float = 0.5,
    p_range: Sequence[float] = (-1.0, 1.5),
    s_max: float = 1.5,
    points: int = 161,
) -> Sketch:
    """Flow of p and s for several weight decays.

    Args:
        etas: weight decay of each panel, up to 4.
        tau: the target's share, held.
        alpha_p, sigma2: see :class:`stopgrad.theory.modes.Modes`.
        p_range, s_max: the part of the plane.
        points: points of a curve, half those of a solution, and starts along each axis of the basins' map.
    """
    decays = several("etas", etas, "eta", 4)
    points = whole("points", points, 10)
    planes = [plane_of(alpha_p, eta, sigma2, tau, p_range, s_max) for eta in decays]
    figure = style.sketch(
        "Where a mode goes: flow of p and s while τ is held",
        "A solution ends at p = τ / (1 + σ²) or near it, a feature learned, or at s = 0, collapse (red). "
        "Without decay whole lines are fixed,<br>so the start is never forgotten. With decay all falls "
        f"onto the parabola; there two points attract, or with too much decay only 0. {held_text(planes[0])}",
        panels=[f"η = {eta:g}" for eta in decays],
        height=390,
        share_y=True,
        gap=0.03,
    )
    for col, plane in enumerate(planes, start=1):
        p0, s0 = plane.mesh(points)
        style.regions(figure, p0[0], s0[:, 0], collapses(plane.start(p0, s0)).numpy(), col=col)
        style.flow_lines(
            figure, *plane.flow(*plane.starts(), flow_times(2 * points)), "solutions", style.BLUE, col=col
        )
        draw_parabola(figure, plane, points, col)
        draw_nullclines(figure, plane, points, col)
        style.line(figure, *plane.edge(points), EDGE, style.RED, col=col)
        draw_fixed(figure, plane, col)
        style.axes(
            figure, style.SYMBOLS["p"], style.SYMBOLS["s"] if col == 1 else "", col=col,
            x_range=plane.p_range, y_range=(-0.03 * plane.s_max, plane.s_max),
        )  # fmt: skip
    return figure


def tian2021_fig4(
    etas: Sequence[float] = (0.0, 0.1, 0.25),
    tau: float = 1.0,
    sigma2: float = 0.5,
    p_range: Sequence[float] = (-0.2, 0.8),
    points: int = 401,
) -> Sketch:
    """The flow on the parabola: p' against p, and its zeros against eta.

    Args:
        etas: weight decay of each panel but the last, up to 3.
        tau: the target's share, held, > 0.
        sigma2: variance of the views.
        p_range: p of these panels.
        points: points of a curve.
    """
    decays, (low, high) = several("etas", etas, "eta", 3), span("p_range", p_range)
    points = whole("points", points, 10)
    share, variance = number("tau", tau, POSITIVE), number("sigma2", sigma2)
    figure = style.sketch(
        "Three fixed points or one: the flow on the parabola",
        "On α<sub>p</sub> s = p² a mode has one number left. p grows where p' > 0 (arrows); starts below "
        "the unstable p₋ fall to 0.<br>"
        "More decay moves p₋ up and p₊ down (right) until they meet; beyond, collapse is all that is left. "
        f"τ = {share:g}, σ² = {variance:g}; α<sub>p</sub> does not matter.",
        panels=(*(f"η = {eta:g}" for eta in decays), "all η"),
        height=320,
        gap=0.055,
    )
    p, few = np.linspace(low, high, points), np.linspace(low, high, 12)
    for col, eta in enumerate(decays, start=1):
        style.line(figure, [low, high], [0, 0], "p' = 0", style.GREY, width=1, col=col)
        style.line(
            figure, p, rate_on_parabola(p, eta, variance, share), "p' on the parabola", style.BLUE, col=col
        )
        way = np.sign(rate_on_parabola(few, eta, variance, share)) * (high - low) / 25
        style.arrows(figure, few, 0.0, way, 0.0, "direction", col=col)
        for fixed in fixed_points(1.0, eta, variance, share):
            style.point(figure, fixed.p, 0.0, fixed.stable, col=col)
        style.axes(figure, "p", "p', its rate of change" if col == 1 else "", col=col, x_range=(low, high))
    _draw_roots(figure, decays, variance, share, points, len(decays) + 1)
    return figure


def basin_map(
    alpha_p: float = 1.0,
    eta: float = 0.04,
    sigma2: float = 0.5,
    fixed_tau: float | None = 1.0,
    beta: float = 0.4,
    tau0: float = 0.0,
    p_range: Sequence[float] = (-1.0, 1.5),
    s_max: float = 1.5,
    points: int = 161,
) -> Sketch:
    """Which starts (p0, s0) collapse.

    Args:
        alpha_p, eta, sigma2, beta, tau0: see :class:`stopgrad.theory.modes.Modes`.
        fixed_tau: the target's share, held; None: it moves from tau0 at the rate beta.
        p_range, s_max: the part of the plane.
        points: starts along each axis.
    """
    points = whole("points", points, 2)
    # a target that moves comes to rest where the online network is: there the plane is that of tau = 1
    plane = plane_of(alpha_p, eta, sigma2, 1.0 if fixed_tau is None else fixed_tau, p_range, s_max)
    p0, s0 = plane.mesh(points)
    rate, share = number("beta", beta), number("tau0", tau0)
    modes = Modes(
        p0=p0, s0=s0, tau0=share, alpha_p=plane.alpha_p, beta=rate, eta=plane.eta, sigma2=plane.sigma2,
        fixed_tau=None if fixed_tau is None else plane.tau,
    )  # fmt: skip
    if modes.held:
        name, dash, setting = EDGE, "solid", held_text(plane)
    else:
        name, dash = f"{EDGE} if τ were 1 throughout", "dot"
        setting = (
            f"τ from {share:g} at β = {rate:g}, α<sub>p</sub> = {plane.alpha_p:g}, σ² = {plane.sigma2:g}."
        )
    edge = plane.edge(points)
    figure = style.sketch(
        "Which starts collapse",
        f"Red starts end at s = 0. {_reading(modes, plane, edge[0])}<br>η = {plane.eta:g}, {setting}",
        height=480,
    )
    style.regions(figure, p0[0], s0[:, 0], collapses(modes).numpy())
    draw_parabola(figure, plane, points)
    if modes.held or rate > 0:
        style.line(figure, *edge, name, style.RED, dash=dash)
        draw_fixed(figure, plane)
    style.axes(
        figure,
        style.SYMBOLS["p0"],
        style.SYMBOLS["s0"],
        x_range=plane.p_range,
        y_range=(-0.03 * plane.s_max, plane.s_max),
    )
    return figure


def flow_times(points: int) -> np.ndarray:
    """Fine at first, and long enough for a decay of 0.01 to bring a solution onto the parabola. (points,)"""
    return np.concatenate([[0.0], np.geomspace(1e-2, 400, points - 1)])


def rate_on_parabola(p: np.ndarray, eta: float, sigma2: float, tau: float) -> np.ndarray:
    """p' at alpha_p s = p^2 while tau is held (tian2021, Eq. 16). (N,)"""
    modes = Modes(p0=p, s0=p**2, eta=eta, sigma2=sigma2, fixed_tau=tau)
    return slopes(modes.p0, modes.s0, modes.fixed_tau, modes)[0].numpy()


def _draw_roots(
    figure: Sketch, decays: list[float], sigma2: float, tau: float, points: int, col: int
) -> None:
    """The fixed points against eta, up to beyond the threshold."""
    threshold = tau**2 / (4 * (1 + sigma2))
    eta = np.linspace(0, threshold, points)
    near, far = (root.numpy() for root in roots(eta, sigma2, tau))
    most = max(1.5 * threshold, 1.05 * max(decays))
    style.line(figure, eta, far, "p₊ (stable)", style.INK, col=col)
    style.line(figure, eta, near, "p₋ (unstable)", style.INK, dash="dot", col=col)
    style.line(figure, [0, most], [0, 0], "p = 0 (stable for η > 0)", style.RED, width=3, col=col)
    style.line(
        figure, [threshold] * 2, [0, 1.1 * far[0]], f"η = τ² / (4 (1 + σ²)) = {threshold:.4g}",
        style.RED, dash="dash", width=1.5, col=col,
    )  # fmt: skip
    style.axes(
        figure, style.SYMBOLS["eta"], "p at the fixed points", col=col,
        x_range=(0, most), y_range=(-0.05 * far[0], 1.1 * far[0]),
    )  # fmt: skip


def plane_of(
    alpha_p: float, eta: float, sigma2: float, tau: float, p_range: Sequence[float], s_max: float
) -> Plane:
    """The plane, its numbers checked."""
    values = {"alpha_p": alpha_p, "eta": eta, "sigma2": sigma2, "tau": tau}
    checked = {name: number(name, value) for name, value in values.items()}
    return Plane(**checked, p_range=span("p_range", p_range), s_max=number("s_max", s_max, POSITIVE))


def _reading(modes: Modes, plane: Plane, edge: np.ndarray) -> str:
    """What to see in a basin map."""
    if not modes.held and not modes.beta.any():
        return "The target never moves."
    if not edge.size:
        return "There is too much decay for anything to last."
    if not modes.held:
        return "Where their border leaves the dotted edge, it is because the target lags behind."
    if plane.eta == 0:
        return "Without decay the edge is known in closed form."
    return "The edge is the solution that runs into the unstable fixed point."


def held_text(plane: Plane) -> str:
    """The settings of a plane in which tau is held."""
    return f"τ = {plane.tau:g}, α<sub>p</sub> = {plane.alpha_p:g}, σ² = {plane.sigma2:g}."


def draw_parabola(figure: Sketch, plane: Plane, points: int, col: int = 1) -> None:
    """Where the integral s - p^2 / alpha_p is 0."""
    p = plane.axis(points)
    style.line(
        figure,
        p,
        p**2 / plane.alpha_p,
        "parabola α<sub>p</sub> s = p²",
        style.INK,
        dash="dash",
        width=1.5,
        col=col,
    )


def draw_nullclines(figure: Sketch, plane: Plane, points: int, col: int = 1) -> None:
    """Where p or s does not change."""
    if plane.eta == 0:  # they are the lines of fixed points
        return
    style.line(figure, *plane.p_nullcline(points), "p' = 0", style.ORANGE, width=1.5, col=col)
    for p in plane.s_nullclines():
        style.line(figure, [p, p], [0, plane.s_max], "s' = 0", style.GREEN, width=1.5, col=col)


def draw_fixed(figure: Sketch, plane: Plane, col: int = 1) -> None:
    """Fixed points, or without decay the lines of them."""
    if plane.eta > 0:
        for fixed in fixed_points(plane.alpha_p, plane.eta, plane.sigma2, plane.tau):
            style.point(figure, fixed.p, fixed.s, fixed.stable, col=col)
        return
    for p, s, stable in plane.still_lines():
        name, dash = (
            ("line of stable fixed points", "solid") if stable else ("line of unstable fixed points", "dot")
        )
        style.line(figure, p, s, name, style.INK, dash=dash, width=4, col=col)
