"""One mode from one start: its way through the plane of p and s, and its course in time.

Both are quick enough to follow a slider: the arrows are slopes, not solutions, and while tau is held the
edge of the basins is one curve. Where tau moves, a start's fate needs a solution of its own; that map is
coarse, and made only if it is asked for.
"""

import functools
from collections.abc import Sequence

import numpy as np

from stopgrad.theory.basins import collapses
from stopgrad.theory.domain import POSITIVE
from stopgrad.theory.figures import style
from stopgrad.theory.figures.arguments import number
from stopgrad.theory.figures.plane import Plane, draw_fixed, draw_nullclines, draw_parabola, plane_of
from stopgrad.theory.figures.sketch import Sketch
from stopgrad.theory.modes import Modes, Trajectory, slopes
from stopgrad.theory.regimes import regime

# Arrows along each axis, points of a curve, and starts along each axis of the map where tau moves
ARROWS, POINTS, COARSE = 13, 161, 25
TIMES = 161
# Where an axis may end, times a power of ten
ROUND = np.array([1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0])
# Relative error of a step: a picture needs no more
ERROR = 1e-8


def mode_plane(
    alpha_p: float = 1.0,
    eta: float = 0.04,
    sigma2: float = 0.5,
    fixed_tau: float | None = 1.0,
    beta: float = 0.4,
    tau0: float = 0.0,
    p0: float = 0.3,
    s0: float = 0.2,
    p_range: Sequence[float] = (-1.0, 1.5),
    s_max: float = 1.5,
    t_end: float = 80.0,
    basin: bool = True,
) -> Sketch:
    """The plane of p and s: flow, nullclines, parabola, fixed points, basin of collapse, and one solution.

    Args:
        alpha_p, eta, sigma2, beta, tau0, p0, s0: see :class:`stopgrad.theory.modes.Modes`.
        fixed_tau: the target's share, held; None: it moves from tau0 at the rate beta. The plane then is that
            of tau = 1, where the target comes to rest; arrows and nullclines are left out, since they change.
        p_range, s_max: the part of the plane.
        t_end: end of the solution.
        basin: whether to shade the starts that collapse where tau moves, and to say what becomes of this one,
            which takes longer.
    """
    settings = _settings(alpha_p, eta, sigma2, fixed_tau, beta, tau0, p0, s0)
    mode = Modes(**dict(settings))
    rest = 1.0 if fixed_tau is None else mode.fixed_tau.item()
    plane = plane_of(mode.alpha_p.item(), mode.eta.item(), mode.sigma2.item(), rest, p_range, s_max)
    found = regime(mode, fate=mode.held or basin)
    fate = found.fate or "Where this start ends takes longer to tell."
    figure = style.sketch("The plane of a mode", f"{found.text}<br>{fate}", height=440)
    if mode.held:
        _shade(figure, plane)
        _draw_slopes(figure, plane)
        draw_nullclines(figure, plane, POINTS)
    elif basin:
        _shade_solved(figure, plane, mode)
    draw_parabola(figure, plane, POINTS)
    draw_fixed(figure, plane)
    course = _course(settings, number("t_end", t_end, POSITIVE))
    style.line(figure, course.p, course.s, "solution", style.BLUE, width=3)
    style.scatter(
        figure, "start", 1, 1, x=[mode.p0.item()], y=[mode.s0.item()], mode="markers", cliponaxis=False,
        marker={
            "size": 12, "symbol": "diamond", "color": style.BLUE,
            "line": {"color": style.PAPER, "width": 1.5},
        },
    )  # fmt: skip
    style.axes(
        figure, style.SYMBOLS["p"], style.SYMBOLS["s"],
        x_range=plane.p_range, y_range=(-0.03 * plane.s_max, plane.s_max),
    )  # fmt: skip
    return figure


def mode_course(
    alpha_p: float = 1.0,
    eta: float = 0.04,
    sigma2: float = 0.5,
    fixed_tau: float | None = 1.0,
    beta: float = 0.4,
    tau0: float = 0.0,
    p0: float = 0.3,
    s0: float = 0.2,
    t_end: float = 80.0,
) -> Sketch:
    """p, s, tau and k of one mode over time.

    Args:
        alpha_p, eta, sigma2, fixed_tau, beta, tau0, p0, s0: see :func:`mode_plane`.
        t_end: end of the time axis.
    """
    settings = _settings(alpha_p, eta, sigma2, fixed_tau, beta, tau0, p0, s0)
    course = _course(settings, number("t_end", t_end, POSITIVE))
    figure = style.sketch(
        "Its course in time",
        "Where k is above 0, the eigenspaces of predictor and data turn towards each other.",
        panels=("predictor", "data", "the target's share", "alignment"),
        rows=2,
        height=246,
        gap=0.14,
        row_gap=0.18,
        legend=False,
    )
    # a line at 0 as the axes have it: one of its own would take plotly as long as a curve
    figure.update_yaxes(zeroline=True, zerolinecolor=style.GREY, nticks=6)
    figure.update_xaxes(nticks=5)
    t = course.t.numpy()
    shown = zip(("p", "s", "tau", "k"), (style.BLUE, style.GREEN, style.PURPLE, style.ORANGE), strict=True)
    for i, (name, colour) in enumerate(shown):
        row, col = i // 2 + 1, i % 2 + 1
        values = np.broadcast_to(getattr(course, name).numpy(), t.shape)
        symbol = {"tau": "τ"}.get(name, name)
        style.line(figure, t, values, symbol, colour, row=row, col=col)
        title = style.SYMBOLS["t"] if row == 2 else ""
        span = {"x_range": t[[0, -1]].tolist(), "y_range": _span(values)}
        style.axes(figure, title, symbol, row=row, col=col, **span)
    return figure


def _span(values: np.ndarray) -> list[float]:
    """From 0 to both sides as far as round numbers: under a slider the axes stand still most of the time."""
    ends = [0.0, 0.0]
    for i, far in enumerate((-np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0))):
        if 0 < far < np.inf:
            unit = 10.0 ** np.floor(np.log10(far))
            ends[i] = float(unit * ROUND[np.searchsorted(ROUND, 1.04 * far / unit)])
    room = 0.03 * sum(ends) or 1.0
    return [-max(ends[0], room), max(ends[1], room)]


def _settings(
    alpha_p: float, eta: float, sigma2: float, fixed_tau: float | None, beta: float, tau0: float, p0: float,
    s0: float,
) -> tuple[tuple[str, float], ...]:  # fmt: skip
    """Arguments of one mode, checked."""
    given = {
        "alpha_p": alpha_p, "eta": eta, "sigma2": sigma2, "beta": beta, "tau0": tau0, "p0": p0, "s0": s0,
        **({} if fixed_tau is None else {"fixed_tau": fixed_tau}),
    }  # fmt: skip
    return tuple((name, number(name, value)) for name, value in given.items())


@functools.lru_cache(maxsize=4)
def _course(settings: tuple[tuple[str, float], ...], t_end: float) -> Trajectory:
    """The course of one mode, which both pictures show."""
    times = np.concatenate([[0.0], np.geomspace(1e-3, 1, TIMES - 1)]) * t_end
    return Modes(**dict(settings)).trajectory(times, rtol=ERROR)


def _shade(figure: Sketch, plane: Plane) -> None:
    """The starts below the edge, or all where there is none."""
    p, s = plane.edge(POINTS)
    name = "below, starts collapse"
    if not p.size:
        p, s, name = np.array(plane.p_range), np.full(2, plane.s_max), "every start collapses"
    style.line(figure, p, s, name, style.RED)
    style.band(figure, p, np.zeros_like(p), s, name, style.RED)


def _shade_solved(figure: Sketch, plane: Plane, mode: Modes) -> None:
    p0, s0 = plane.mesh(COARSE)
    rest = {name: getattr(mode, name) for name in ("tau0", "alpha_p", "beta", "eta", "sigma2")}
    style.regions(figure, p0[0], s0[:, 0], collapses(Modes(p0=p0, s0=s0, **rest)).numpy())


def _draw_slopes(figure: Sketch, plane: Plane) -> None:
    """Directions, all of one length on the page."""
    low, high = plane.p_range
    p, s = np.meshgrid(np.linspace(low, high, ARROWS), np.linspace(0, plane.s_max, ARROWS))
    held = plane.start(p, s)
    dp, ds, _ = (rate.numpy() for rate in slopes(held.p0, held.s0, held.fixed_tau, held))
    width, height = high - low, plane.s_max
    size = np.hypot(dp / width, ds / height)
    share = np.divide(0.6 / ARROWS, size, out=np.zeros_like(size), where=size > 0)
    style.field(figure, p, s, share * dp, share * ds, (width, height), "direction of the flow")
