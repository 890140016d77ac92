"""How the pictures look: the colours and fonts of the runs' report, on a white page of their own.

Every picture has a title, a subtitle that says what to see, axis titles with the symbols, and one legend
entry for everything of one name. Nothing is computed here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stopgrad.errors import require
from stopgrad.theory.figures.sketch import Sketch

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2b83d6", "#e8710a", "#1f9d6b", "#d93a4a", "#9a6fd0", "#8a929c"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, "#a5714f")
INK, QUIET, GRID, PAPER = "#1c2128", "#5b6572", "#e3e6ea", "#ffffff"
# Length of an arrow's head, as a share of the arrow
BARB = 0.4
# Where everything is lost, and where not
COLLAPSE, SURVIVE = "#f5c6cb", "#d8e9f9"
# Plotly's Python and its script have different ones of this name
VIRIDIS = (
    "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b",
    "#fde725",
)  # fmt: skip

# Names of the quantities as axis titles
SYMBOLS = {
    "alpha_p": "α<sub>p</sub>, the predictor's learning rate over the encoder's",
    "beta": "β, rate at which the target follows",
    "eta": "η, weight decay",
    "sigma2": "σ², variance of the views",
    "p0": "p(0), the predictor's eigenvalue at the start",
    "s0": "s(0), the data's eigenvalue at the start",
    "tau0": "τ(0), the target's share at the start",
    "fixed_tau": "τ, the target's share (held)",
    "t_end": "t, time",
    "p": "p, eigenvalue of the predictor",
    "s": "s, eigenvalue of W X W<sup>T</sup>",
    "tau": "τ, the target's share of the weight",
    "t": "t, time",
}

# How every axis looks
AXIS: dict[str, Any] = {
    "gridcolor": GRID,
    "linecolor": GREY,
    "layer": "below traces",
    "ticks": "outside",
    "exponentformat": "power",
    "tickcolor": GREY,
    "zeroline": False,
    "ticklabeloverflow": "allow",  # the margins have room; to look for labels that lack it takes a while
}

# Pixels above the panels (some of them for headings), below (with and without a legend) and beside them, and
# from them to the legend
TOP, HEADING, BOTTOM, NO_LEGEND, SIDE, LEGEND = 118, 22, 128, 56, 70, 62


def sketch(
    title: str,
    subtitle: str,
    *,
    panels: Sequence[str] = ("",),
    rows: int = 1,
    height: int = 340,
    gap: float = 0.07,
    row_gap: float = 0.2,
    share_y: bool = False,
    legend: bool = True,
) -> Sketch:
    """An empty picture.

    Args:
        title: its name.
        subtitle: what to see in it; ``<br>`` starts a new line.
        panels: a heading for each panel, row by row.
        rows: rows of panels.
        height: of a row, in pixels.
        gap, row_gap: between panels, as shares of the picture.
        share_y: give the panels of a row one scale.
        legend: whether there is one, below.
    """
    drawing = Sketch(panels, rows, gap, row_gap if rows > 1 else 0.0, share_y)
    drawing.update_annotations(font={"size": 13, "color": INK})
    top = TOP if any(panels) else TOP - HEADING
    bottom = BOTTOM if legend else NO_LEGEND
    total = top + bottom + rows * height
    drawing.update_layout(
        height=total,
        margin={"l": SIDE, "r": 24, "t": top, "b": bottom},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        title={
            "text": f"<b>{title}</b>",
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": QUIET}},
            "font": {"size": 18},
            "x": 0,
            "xref": "paper",
            "y": 1 - 22 / total,
            "yref": "container",
            "yanchor": "top",
        },
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": -LEGEND / (rows * height), "yanchor": "top"},
        showlegend=legend,
    )
    drawing.update_xaxes(**AXIS)
    drawing.update_yaxes(**AXIS)
    return drawing


def canvas(title: str, subtitle: str, **panels: Any) -> "Figure":
    """The same as plotly's Figure, for pictures that need more of it than a sketch has.

    Args:
        title, subtitle, panels: see :func:`sketch`.
    """
    drawing = sketch(title, subtitle, **panels)
    grid = {"rows": panels.get("rows", 1), "cols": drawing.columns}
    figure = require("plotly.subplots", "report").make_subplots(**grid)
    figure.layout = {"template": "none", **drawing.layout}
    return figure


def axes(
    figure: "Sketch | Figure",
    x: str,
    y: str,
    *,
    row: int = 1,
    col: int = 1,
    x_range: Any = None,
    y_range: Any = None,
) -> None:
    """Title the axes of a panel, and set what they span."""
    font = {"size": 13}
    for update, text, span in ((figure.update_xaxes, x, x_range), (figure.update_yaxes, y, y_range)):
        update(title={"text": text, "standoff": 8, "font": font}, row=row, col=col)
        if span is not None:
            update(range=list(span), row=row, col=col)


def scatter(figure: "Sketch | Figure", name: str, row: int, col: int, **trace: Any) -> None:
    """A scatter trace; of several with one name the first stands in the legend, for all."""
    first = not any(other.name == name and other.showlegend for other in figure.data)
    figure.add_scatter(name=name, legendgroup=name, showlegend=first, row=row, col=col, **trace)


def line(
    figure: "Sketch | Figure",
    x: Any,
    y: Any,
    name: str,
    colour: str,
    *,
    row: int = 1,
    col: int = 1,
    dash: str = "solid",
    width: float = 2,
) -> None:
    """A line; a nan breaks it."""
    scatter(
        figure,
        name,
        row,
        col,
        x=np.asarray(x),
        y=np.asarray(y),
        mode="lines",
        line={"color": colour, "dash": dash, "width": width, "simplify": False},
    )


def band(
    figure: "Sketch | Figure",
    x: Any,
    low: Any,
    high: Any,
    name: str,
    colour: str,
    *,
    row: int = 1,
    col: int = 1,
) -> None:
    """The area between two lines of finite values, in a faint colour, with the legend entry of a line."""
    figure.add_scatter(
        name=name,
        legendgroup=name,
        showlegend=False,
        row=row,
        col=col,
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([low, high[::-1]]),
        mode="lines",
        fill="toself",
        line={"width": 0, "color": colour},
        fillcolor=_faint(colour),
        hoverinfo="skip",
    )


def flow_lines(
    figure: "Sketch | Figure",
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    colour: str,
    *,
    row: int = 1,
    col: int = 1,
) -> None:
    """Solutions, one in each row of x and y (lines, points), each with an arrow half-way along."""
    gap = np.full((len(x), 1), np.nan)
    sizes = np.zeros((len(x), x.shape[1] + 1))
    for i, place in enumerate(_half_way(x, y)):
        sizes[i, place] = 9
    scatter(
        figure,
        name,
        row,
        col,
        x=np.hstack([x, gap]).reshape(-1),
        y=np.hstack([y, gap]).reshape(-1),
        mode="lines+markers",
        line={"color": colour, "width": 1.1, "simplify": False, "backoff": 0},
        marker=_heads(sizes.reshape(-1), colour),
        hoverinfo="skip",
    )


def arrows(
    figure: "Sketch | Figure", x: Any, y: Any, dx: Any, dy: Any, name: str, *, row: int = 1, col: int = 1
) -> None:
    """Arrows (dx, dy) with their middles at (x, y), all of one shape; none where both are 0."""
    x, y, dx, dy = (np.ravel(values) for values in np.broadcast_arrays(x, y, dx, dy))
    moving = np.hypot(dx, dy) > 0
    x, y, dx, dy = x[moving], y[moving], dx[moving], dy[moving]
    gap = np.full(len(x), np.nan)
    scatter(
        figure,
        name,
        row,
        col,
        x=np.stack([x - dx / 2, x + dx / 2, gap], axis=1).reshape(-1),
        y=np.stack([y - dy / 2, y + dy / 2, gap], axis=1).reshape(-1),
        mode="lines+markers",
        line={"color": QUIET, "width": 1, "simplify": False, "backoff": 0},
        marker=_heads(np.tile([0.0, 9.0, 0.0], len(x)), QUIET),
        hoverinfo="skip",
    )


def field(
    figure: "Sketch | Figure", x: Any, y: Any, dx: Any, dy: Any, span: tuple[float, float], name: str, *,
    row: int = 1, col: int = 1,
) -> None:  # fmt: skip
    """Many arrows as one line: a slider redraws it ten times as fast as markers that turn.

    Args:
        x, y: their middles; there is none where dx and dy are 0.
        dx, dy: from tail to head.
        span: what the axes span, in their own units: heads are drawn for a panel as wide as high.
    """
    moving = np.ravel((np.abs(dx) + np.abs(dy)) > 0)
    x, y, dx, dy = (np.ravel(one)[moving] for one in np.broadcast_arrays(x, y, dx, dy))
    head_x, head_y = x + dx / 2, y + dy / 2
    # the shaft turned back by BARB to either side, on the page
    side_x, side_y = -dy / span[1] * span[0], dx / span[0] * span[1]
    left, right = ((BARB * (-dx + turn * side_x), BARB * (-dy + turn * side_y)) for turn in (0.6, -0.6))
    gap = np.full(len(x), np.nan)
    scatter(
        figure,
        name,
        row,
        col,
        x=np.stack([x - dx / 2, head_x, head_x + left[0], head_x, head_x + right[0], gap], axis=1).ravel(),
        y=np.stack([y - dy / 2, head_y, head_y + left[1], head_y, head_y + right[1], gap], axis=1).ravel(),
        mode="lines",
        line={"color": QUIET, "width": 1, "simplify": False},
        hoverinfo="skip",
    )


def point(figure: "Sketch | Figure", x: float, y: float, stable: bool, *, row: int = 1, col: int = 1) -> None:
    """A fixed point: filled where it is stable, open where not."""
    scatter(
        figure,
        "stable fixed point" if stable else "unstable fixed point",
        row,
        col,
        x=np.array([x]),
        y=np.array([y]),
        mode="markers",
        cliponaxis=False,
        marker={
            "size": 11,
            "color": INK if stable else PAPER,
            "line": {"color": INK, "width": 2},
        },
    )


def regions(
    figure: "Sketch | Figure", x: Any, y: Any, collapsed: np.ndarray, *, row: int = 1, col: int = 1
) -> None:
    """Shade where everything is lost (true) and where not, of shape (y, x), with a legend entry each."""
    figure.add_heatmap(
        x=np.asarray(x),
        y=np.asarray(y),
        z=collapsed.astype(np.float32),
        zmin=0,
        zmax=1,
        colorscale=[[0, SURVIVE], [1, COLLAPSE]],
        showscale=False,
        hoverinfo="skip",
        name="collapsed",
        row=row,
        col=col,
    )
    for name, colour in (("collapses", COLLAPSE), ("survives", SURVIVE)):
        scatter(
            figure,
            name,
            row,
            col,
            x=np.array([np.nan]),
            y=np.array([np.nan]),
            mode="markers",
            marker={"symbol": "square", "size": 13, "color": colour},
            hoverinfo="skip",
        )


def colours(
    figure: "Sketch | Figure", x: Any, y: Any, z: np.ndarray, title: str, *, around_zero: bool = False
) -> None:
    """A map of values of shape (y, x), with a scale beside it.

    ``around_zero`` parts positive from negative values by two colours; the scale ends at the largest value
    on both sides, however low others are.
    """
    scale: dict[str, Any] = {"colorscale": [[i / 9, colour] for i, colour in enumerate(VIRIDIS)]}
    if around_zero:
        most = abs(float(np.nanmax(z)))
        scale = {"colorscale": [[0, RED], [0.5, PAPER], [1, BLUE]], "zmin": -most, "zmax": most}
    figure.add_heatmap(
        x=np.asarray(x),
        y=np.asarray(y),
        z=z,
        hoverongaps=False,
        name=title,
        colorbar={
            "title": {"text": title, "side": "right", "font": {"size": 13}},
            "thickness": 14,
            "outlinewidth": 0,
        },
        **scale,
    )


def boundary(
    figure: "Sketch | Figure",
    x: Any,
    y: Any,
    z: np.ndarray,
    level: float,
    name: str,
    colour: str,
    dash: str = "solid",
) -> None:
    """The line where values of shape (y, x) pass a level; no line and no legend entry where they do not."""
    finite = z[np.isfinite(z)]
    if not (finite < level).any() or not (finite > level).any():
        return
    figure.add_contour(
        x=np.asarray(x),
        y=np.asarray(y),
        z=z.astype(np.float64),
        contours={"start": level, "end": level, "size": 1, "coloring": "none"},
        line={"color": colour, "width": 2, "dash": dash, "smoothing": 0},
        showscale=False,
        hoverinfo="skip",
        name=name,
        showlegend=True,
    )


def _heads(sizes: np.ndarray, colour: str) -> dict[str, Any]:
    """Arrow heads of these sizes, 0 for none, along the line that they are on."""
    return {
        "symbol": "arrow",
        "angleref": "previous",
        "size": sizes,
        "color": colour,
        "opacity": 1,
        "line": {"width": 0},
    }


def _half_way(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Place in each row that halves the line's length. (lines,)"""
    steps = np.hypot(np.diff(x, axis=1), np.diff(y, axis=1))
    walked = np.cumsum(steps, axis=1)
    return np.array([np.searchsorted(one, one[-1] / 2) + 1 for one in walked]).clip(max=x.shape[1] - 1)


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
