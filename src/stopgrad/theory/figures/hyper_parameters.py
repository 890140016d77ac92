"""What a mode's hyper-parameters do: courses in time (tian2021, Fig. 5) and phase diagrams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stopgrad.errors import UsageError, unknown
from stopgrad.theory.basins import collapses
from stopgrad.theory.domain import POSITIVE
from stopgrad.theory.figures import style
from stopgrad.theory.figures.arguments import number, several, whole
from stopgrad.theory.figures.sketch import Sketch
from stopgrad.theory.modes import Modes, alignment
from stopgrad.theory.sweep import DEFAULTS, axis

COLOURS = ("s", "min_k", "collapsed")


@dataclass(frozen=True)
class Courses:
    """The courses of N modes at T times.

    Attributes:
        p, tau, k: (N, T)
        lowest_k: the smallest k of each at any instant, between the times too. (N,)
    """

    p: np.ndarray
    tau: np.ndarray
    k: np.ndarray
    lowest_k: np.ndarray


def courses(modes: Modes, t: np.ndarray) -> Courses:
    """The courses of modes of shape (N, 1) at the times t, (T,)."""
    end = modes.final(torch.from_numpy(t))
    k = alignment(end.p, end.s, end.tau, modes.alpha_p, modes.eta, modes.sigma2)
    lowest = modes.final(t[-1], lowest_k=True).lowest_k
    assert lowest is not None
    return Courses(end.p.numpy(), end.tau.numpy(), k.numpy(), lowest[:, 0].numpy())


def tian2021_fig5(
    etas: Sequence[float] = (0.04, 0.12, 0.24),
    betas: Sequence[float] = (0.4, 0.2, 0.1),
    p0: float = 0.3,
    s0: float | None = None,
    sigma2: float = 0.0009,
    alpha_p: float = 1.0,
    eta: float = 0.04,
    fixed_tau: float | None = 1.0,
    beta: float = 0.4,
    t_end: float = 80.0,
    points: int = 401,
) -> Sketch:
    """Effect of weight decay (top row) and of the target's rate (bottom row) on p, tau and k.

    Args:
        etas: weight decays of the top row, up to 6; there the target is held at ``fixed_tau``, or follows at
            ``beta`` if that is None.
        betas: rates of the bottom row, up to 6; there the weight decay is ``eta`` and tau starts at 0.
        p0: start of p.
        s0: start of s; None: on the parabola, p0^2 / alpha_p.
        sigma2, alpha_p: see :class:`stopgrad.theory.modes.Modes`.
        t_end: end of the time axis.
        points: points of a curve.
    """
    decays, rates = several("etas", etas, "eta", 6), several("betas", betas, "beta", 6)
    t = np.linspace(0, number("t_end", t_end, POSITIVE), whole("points", points, 2))
    alpha_p, p0 = number("alpha_p", alpha_p), number("p0", p0)
    sigma2, eta, beta = number("sigma2", sigma2), number("eta", eta), number("beta", beta)
    same: dict[str, Any] = {
        "p0": p0, "s0": p0**2 / alpha_p if s0 is None else s0, "sigma2": sigma2, "alpha_p": alpha_p,
    }  # fmt: skip
    top = Modes(**same, eta=np.array(decays)[:, None], beta=beta, fixed_tau=fixed_tau)
    bottom = Modes(**same, eta=eta, beta=np.array(rates)[:, None])
    target = f"β = {beta:g}" if fixed_tau is None else f"τ held at {fixed_tau:g}"
    figure = style.sketch(
        "Weight decay and a slow target both lift k above 0, at a price",
        "k is the mode's eigenvalue of Theorem 3's K: where it is positive for all modes, the eigenspaces of "
        "predictor and data turn towards each other.<br>More decay (top) lifts k, but lowers p or ends it; a "
        f"slower target (bottom) lifts k, but learns later. p(0) = {p0:g}, σ² = {sigma2:g}, "
        f"α<sub>p</sub> = {alpha_p:g}.",
        panels=[
            f"{what} {row}" for row in (f"({target})", f"(η = {eta:g}, τ(0) = 0)") for what in ("p", "τ", "k")
        ],
        rows=2,
        height=260,
        row_gap=0.16,
    )
    _draw_courses(figure, [f"η = {one:g}" for one in decays], top, t, 1)
    _draw_courses(figure, [f"β = {one:g}" for one in rates], bottom, t, 2)
    return figure


def phase_diagram(
    x: str = "eta=0:0.3:61",
    y: str = "beta=0.05:1:39",
    colour: str = "s",
    alpha_p: float = DEFAULTS["alpha_p"],
    beta: float = DEFAULTS["beta"],
    eta: float = DEFAULTS["eta"],
    sigma2: float = DEFAULTS["sigma2"],
    p0: float = DEFAULTS["p0"],
    s0: float = DEFAULTS["s0"],
    tau0: float = DEFAULTS["tau0"],
    fixed_tau: float | None = None,
    t_end: float = 200.0,
) -> Sketch:
    """How a mode ends over any two of its hyper-parameters and starts.

    Args:
        x, y: the axes, as :func:`stopgrad.theory.sweep.axis` reads them: NAME=FROM:TO:COUNT, with ``:log``
            spaced by the logarithm.
        colour: "s" at t_end, "min_k", the smallest k over [0, t_end], or "collapsed".
        alpha_p, beta, eta, sigma2, p0, s0, tau0, fixed_tau: what is on no axis; fixed_tau None lets tau move.
        t_end: end time.
    """
    if colour not in COLOURS:
        raise unknown("colour", colour, list(COLOURS))
    (x_name, x_values), (y_name, y_values) = axis(x), axis(y)
    if x_name == y_name:
        raise UsageError(f"y: {y_name} is the x axis already")
    fixed = {
        "alpha_p": alpha_p, "beta": beta, "eta": eta, "sigma2": sigma2, "p0": p0, "s0": s0, "tau0": tau0,
        "t_end": t_end, **({} if fixed_tau is None else {"fixed_tau": fixed_tau}),
    }  # fmt: skip
    fixed = {name: number(name, value) for name, value in fixed.items() if name not in (x_name, y_name)}
    settings = fixed | dict(zip((x_name, y_name), np.meshgrid(x_values, y_values), strict=True))
    values, lost = phases(settings, colour)
    figure = style.sketch(*_phase_texts(colour, fixed), height=480)
    if colour == "collapsed":
        style.regions(figure, x_values, y_values, lost)
    else:
        title = "s at the end" if colour == "s" else "smallest k"
        style.colours(figure, x_values, y_values, values, title, around_zero=colour == "min_k")
        if colour == "min_k":
            style.boundary(figure, x_values, y_values, values, 0.0, "smallest k = 0", style.INK)
        edge = lost.astype(np.float64)
        style.boundary(figure, x_values, y_values, edge, 0.5, "edge of collapse", style.RED)
    figure.update_traces(
        selector={"type": "heatmap"}, text=causes(settings, lost), hoverinfo="all",
        hovertemplate=(
            f"{_symbol(x_name)} = %{{x:.4g}}<br>{_symbol(y_name)} = %{{y:.4g}}<br>%{{text}}<extra></extra>"
        ),
    )  # fmt: skip
    style.boundary(
        figure, x_values, y_values, decay_share(settings), 1.0,
        "4 η (1 + σ²) = τ²: beyond, every start collapses", style.ORANGE, "dash",
    )  # fmt: skip
    style.axes(figure, style.SYMBOLS[x_name], style.SYMBOLS[y_name])
    for text, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        if text.endswith(":log"):
            update(type="log", dtick="D2", tickformat="~g")
    return figure


def phases(settings: Mapping[str, Any], colour: str) -> tuple[np.ndarray, np.ndarray]:
    """The quantity that ``colour`` names, and whether a mode collapses, in the settings' shape.

    What collapses is what at t_end is in the basin of s = 0.
    """
    start = dict(settings)
    t_end = start.pop("t_end")
    modes = Modes(**start)
    final = modes.final(t_end, lowest_k=colour == "min_k")
    lost = collapses(modes.at(final)).numpy()
    values = final.lowest_k if final.lowest_k is not None else final.s
    return values.numpy(), lost


def decay_share(settings: Mapping[str, Any]) -> np.ndarray:
    """Weight decay over the most that leaves a fixed point besides 0, 4 eta (1 + sigma2) / tau^2.

    tau is 1 unless held, as it is where a moving target rests; where it never moves, nan. The values are
    numbers or arrays of one shape, which is the result's.
    """
    tau = np.float64(settings.get("fixed_tau", 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 4 * settings["eta"] * (1 + settings["sigma2"]) / tau**2
    stuck = "fixed_tau" not in settings and np.asarray(settings["beta"]) == 0
    return np.where(stuck, np.nan, share)


def causes(settings: Mapping[str, Any], lost: np.ndarray) -> np.ndarray:
    """Why each mode ends as it does, in words; ``lost`` is whether it collapses, and gives the shape."""
    share = np.broadcast_to(decay_share(settings), lost.shape)
    return np.select(
        [~lost, np.isnan(share), share > 1],
        [
            "keeps a feature",
            "collapses: the target never moves",
            "collapses, whatever the start: η > τ² / (4 (1 + σ²))",
        ],
        "collapses: the start is in the basin of s = 0",
    )


def _symbol(name: str) -> str:
    rest = {"tau0": "τ(0)", "fixed_tau": "τ", "s0": "s(0)", "p0": "p(0)", "t_end": "end at t"}
    return rest.get(name, style.SYMBOLS[name].split(",")[0])


def _phase_texts(colour: str, fixed: Mapping[str, float]) -> tuple[str, str]:
    """Title and subtitle."""
    readings = {
        "s": (
            "How much of a mode is left",
            "s at the end: 0 (dark) is collapse, brighter is a stronger feature.",
        ),
        "min_k": (
            "Where eigenspaces align throughout",
            "The smallest k on the way. Where it is positive (blue), the eigenspaces of predictor and data "
            "turn towards each other all along.",
        ),
        "collapsed": ("What collapses", "Red settings end at s = 0."),
    }
    title, reading = readings[colour]
    names = [f"{_symbol(name)} = {value:g}" for name, value in fixed.items()]
    return title, f"{reading}<br>{', '.join(names)}."


def _draw_courses(figure: Sketch, labels: Sequence[str], modes: Modes, t: np.ndarray, row: int) -> None:
    found = courses(modes, t)
    for i, (colour, label) in enumerate(zip(style.SERIES, labels, strict=False)):
        name = f"{label}: lowest k {found.lowest_k[i]:+.3f}, p = {found.p[i, -1]:.3f} at the end"
        for col, values in enumerate((found.p, found.tau, found.k), start=1):
            style.line(figure, t, values[i], name, colour, dash=("solid", "dash")[row - 1], row=row, col=col)
    style.line(figure, t[[0, -1]], [0, 0], "k = 0", style.INK, width=1, dash="dot", row=row, col=3)
    for col, name in enumerate(("p", "tau", "k"), start=1):
        values = getattr(found, name)
        span = None if name == "k" else 1.08 * np.array([min(0.0, np.nanmin(values)), np.nanmax(values)])
        symbol = {"tau": "τ"}.get(name, name)
        style.axes(figure, style.SYMBOLS["t"] if row == 2 else "", symbol, row=row, col=col, y_range=span)
