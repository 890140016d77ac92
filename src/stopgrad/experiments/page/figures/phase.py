"""Phase diagrams of Tian et al. 2021: what was trained, under the boundary that was predicted.

Legend: R rows of a panel, a row an arm; G points of a row, a point one weight decay.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.schema import Result
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Grid = np.ndarray
ROW_NAMES = ("alpha_p", "beta")
"""What the rows of a panel vary."""
FEWER = "predicted: one mode fewer lives"
MARKS = {
    "training collapsed": ("x", 8, style.PAPER, style.INK),
    "not as predicted": ("circle-open", 15, style.RED, style.RED),
    "diverged": ("star", 9, style.INK, style.PAPER),
}
"""Symbol, size, colour and the colour of its edge."""


def panel(row: Row, *, measure: str, scale: str, title: str, see: str, counts: bool) -> "Figure":
    """One panel: a map of a measure, marks where training collapsed, the predicted boundary.

    Args:
        row: whose arms are the rows of the panel; of several seeds the first is drawn.
        measure: name of the series that gives the colours, and ``scale``, what it is called.
        title, see: of the picture.
        counts: whether ``predicted`` and ``observed`` count living modes, and are not 1 for collapse.
    """
    varied = next(name for name in ROW_NAMES if name in row.experiment.arms[0].changes)
    found = {arm.changes[varied]: result for arm in row.experiment.arms if (result := _first(row, arm.name))}
    results = [found[value] for value in sorted(found)]
    figure = style.canvas(title, f"{see} {_table(results)}", height=520)
    style.axes(figure, style.SYMBOLS["eta"], style.SYMBOLS[varied])
    if not results:
        return figure
    eta = np.array(results[0].series["eta"], dtype=np.float64)
    x, y = _edges(eta), _edges(np.array(sorted(found), dtype=np.float64))
    values, observed, predicted = (_grid(results, name) for name in (measure, "observed", "predicted"))
    style.colours(figure, x, y, values, scale)
    if counts:
        style.line(figure, *_borders(x, y, predicted), FEWER, style.ORANGE, dash="dot")
        observed, predicted = np.where(np.isnan(observed), np.nan, observed == 0), (predicted == 0) * 1.0
    style.line(figure, *_borders(x, y, predicted), "predicted edge of collapse", style.ORANGE, width=4)
    at = list(np.meshgrid(np.sqrt(x[1:] * x[:-1]), np.sqrt(y[1:] * y[:-1])))
    measured = ~np.isnan(observed)
    for name, where in (
        ("training collapsed", observed == 1),
        ("not as predicted", (observed != predicted) & measured),
        ("diverged", ~measured),
    ):
        if where.any():
            _marks(figure, at[0][where], at[1][where], name)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(type="log", showgrid=False, exponentformat="none")
    figure.update_xaxes(range=np.log10(x[[0, -1]]).tolist())
    figure.update_yaxes(range=np.log10(y[[0, -1]]).tolist())
    figure.update_layout(plot_bgcolor=style.GRID, legend={"itemsizing": "constant"})
    return figure


def _first(row: Row, arm: str) -> Result | None:
    """The result of the arm's first seed, if it is there and holds what is drawn."""
    for record in row.records.get(arm, {}).values():
        if {"eta", "observed", "predicted"} <= record.result.series.keys():
            return record.result
    return None


def _table(results: list[Result]) -> str:
    """The confusion table of all rows together, in words."""
    names = ("both_collapse", "both_survive", "only_predicted", "only_observed")
    both, neither, predicted, observed = (
        sum(int(result.numbers.get(name, 0)) for result in results) for name in names
    )
    return (
        f"Points where both collapse: {both}; neither: {neither}; predicted alone: {predicted}; "
        f"training alone: {observed}."
    )


def _grid(results: list[Result], name: str) -> Grid:
    """A series of all rows; nan where a value, or the series, is missing. (R, G)"""
    width = len(results[0].series["eta"])
    rows = [result.series.get(name, [])[:width] for result in results]
    return np.array([[*row, *[None] * (width - len(row))] for row in rows], dtype=np.float64)


def _edges(values: Grid) -> Grid:
    """Borders of cells about values that are even in the logarithm. (n + 1,)"""
    if len(values) == 1:
        return values * np.array([0.9, 1.1])
    middle = np.sqrt(values[1:] * values[:-1])
    return np.array([values[0] ** 2 / middle[0], *middle, values[-1] ** 2 / middle[-1]])


def _borders(x: Grid, y: Grid, values: Grid) -> tuple[list[float | None], list[float | None]]:
    """Lines along the cells' edges, x (G + 1,) and y (R + 1,), between values (R, G) that differ."""
    lines: tuple[list[float | None], list[float | None]] = ([], [])
    upright = np.argwhere(np.diff(values, axis=1) != 0)
    level = np.argwhere(np.diff(values, axis=0) != 0)
    ends = [(x[g + 1], x[g + 1], y[r], y[r + 1]) for r, g in upright]
    ends += [(x[g], x[g + 1], y[r + 1], y[r + 1]) for r, g in level]
    for x0, x1, y0, y1 in ends:
        lines[0].extend((float(x0), float(x1), None))
        lines[1].extend((float(y0), float(y1), None))
    return lines


def _marks(figure: "Figure", x: Grid, y: Grid, name: str) -> None:
    """A mark of the name's kind at every point."""
    symbol, size, colour, edge = MARKS[name]
    marker = {
        "symbol": symbol,
        "size": size,
        "color": colour,
        "line": {"color": edge, "width": 1 + (size > 9)},
    }
    figure.add_scatter(name=name, x=x, y=y, mode="markers", marker=marker)


_linear = partial(
    panel,
    measure="observed",
    scale="modes alive after training",
    see="Every cell is a linear network trained by SGD on pairs of noisy views. The lines are computed "
    "from the<br>moments of these views, not fitted.",
    counts=True,
)
_encoder = partial(
    panel,
    measure="rank",
    scale="effective rank of z after training",
    see="Every cell is a small convolutional network trained on digits. The line is computed from "
    "the moments<br>of its hidden features before training, not fitted.",
    counts=False,
)

FIGURES: dict[str, "Callable[[Row], Figure]"] = {
    "tian2021-phase-linear-alpha": partial(
        _linear, title="Linear networks and their modes, η and α<sub>p</sub>"
    ),
    "tian2021-phase-linear-beta": partial(_linear, title="Linear networks and their modes, η and β"),
    "tian2021-phase-encoder-alpha": partial(
        _encoder, title="A small encoder beside the theory of its last layer, η and α<sub>p</sub>"
    ),
    "tian2021-phase-encoder-beta": partial(
        _encoder, title="A small encoder beside the theory of its last layer, η and β"
    ),
}
