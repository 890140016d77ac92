"""What was followed over a training, for the pictures: the mean over an arm's seeds within the seeds' range.

Legend: one point an epoch, a step or whatever a series stands along; one value a seed.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page.figures.series import records
from stopgrad.experiments.statistics import summarise
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TRAINED = 1
"""First epoch of a training's traces: before it batch normalisation has no statistics to evaluate with."""
PAPER, AT_THE_END = "the paper's number", "linear probe at the end"
"""Of the marks beside the traces, in the legend."""
OURS, THEIRS = 1.05, 1.1
"""Where the marks beside the traces stand, in lengths of the training."""
SEE = "Lines are means, bands hold all seeds."


@dataclass(frozen=True)
class Trace:
    """A series of an arm: ``mean``, ``low`` and ``high`` over the seeds that have a value, (points,) each."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def collect(
    series: Iterable[Mapping[str, list[Any]]],
    name: str,
    along: str | None = "epoch",
    since: float = -math.inf,
) -> Trace:
    """A series over its seeds; without points where no seed has one.

    Seeds are joined by the x of their points, so that one may end early. Points that are None are left out.

    Args:
        series: of each seed (`Result.series`).
        name: of the series.
        along: the series that holds the x; None: the points are counted from 0.
        since: smallest x.
    """
    points: dict[float, list[float]] = {}
    for columns in series:
        y = columns.get(name, [])
        x = range(len(y)) if along is None else columns.get(along, [])
        for place, value in zip(x, y, strict=False):
            if place is not None and value is not None and place >= since:
                points.setdefault(place, []).append(value)
    places = sorted(points)
    rows = [(np.mean(points[x]), min(points[x]), max(points[x])) for x in places]
    mean, low, high = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return Trace(np.array(places, dtype=np.float64), mean, low, high)


def draw(figure: "Figure", trace: Trace, arm: str, colour: str, *, row: int = 1, col: int = 1) -> None:
    """The mean within the band of all seeds; nothing where there are no points."""
    if not len(trace.x):
        return
    if (trace.low < trace.high).any():
        style.band(figure, trace.x, trace.low, trace.high, arm, colour, row=row, col=col)
    style.line(figure, trace.x, trace.mean, arm, colour, row=row, col=col)


def draw_arms(
    figure: "Figure",
    shown: Row,
    name: str,
    colours: Mapping[str, str],
    *,
    along: str | None = "epoch",
    since: float = -math.inf,
    row: int = 1,
    col: int = 1,
) -> None:
    """A series of some arms, arm -> colour, each as `collect` and `draw` have it."""
    for arm, colour in colours.items():
        draw(figure, collect(of_arm(shown, arm), name, along, since), arm, colour, row=row, col=col)


def of_arm(row: Row, arm: str) -> list[Mapping[str, list[Any]]]:
    """The series of an arm's finished trials, seed by seed."""
    return [record.result.series for record in records(row, arm)]


def values(row: Row, arm: str, measure: str) -> list[float]:
    """A measure of an arm's finished trials that have it, seed by seed."""
    found = [record.result.numbers for record in records(row, arm)]
    return [numbers[measure] for numbers in found if measure in numbers]


def level(
    figure: "Figure", x: tuple[float, float], found: list[float], name: str, *, row: int = 1, col: int = 1
) -> None:
    """A dashed line at the mean of some values, such as those of untrained weights; none without values."""
    if found:
        style.line(figure, x, [np.mean(found)] * 2, name, style.GREY, row=row, col=col, dash="dash")


def seeds(
    figure: "Figure", x: float, found: list[float], name: str, colour: str, *, row: int = 1, col: int = 1
) -> None:
    """A dot for each seed's value at x, with the legend entry of a line; none without values."""
    if found:
        figure.add_scatter(
            x=[x] * len(found),
            y=found,
            name=name,
            legendgroup=name,
            showlegend=False,
            mode="markers",
            marker={"size": 6, "color": colour, "opacity": 0.5},
            row=row,
            col=col,
        )


def ends(
    figure: "Figure",
    x: float,
    found: Mapping[str, list[float]],
    colours: Mapping[str, str],
    name: str,
    *,
    row: int = 1,
    col: int = 1,
) -> None:
    """Filled squares at x: the mean over the seeds of each arm's values, with their deviation.

    Args:
        figure: to draw on.
        x: beside the traces.
        found: arm -> value of each seed; arms without values are left out.
        colours: arm -> its colour.
        name: in the legend.
        row, col: the panel.
    """
    arms = {arm: summarise(list(of_seed)) for arm, of_seed in found.items() if of_seed}
    _marks(
        figure,
        x,
        {arm: summary.mean for arm, summary in arms.items()},
        colours,
        name,
        "square",
        row,
        col,
        error_y={
            "array": [summary.std for summary in arms.values()],
            "color": style.QUIET,
            "thickness": 1.2,
            "width": 3,
        },
    )


def paper(
    figure: "Figure",
    x: float,
    shown: Row,
    measure: str,
    colours: Mapping[str, str],
    *,
    row: int = 1,
    col: int = 1,
) -> None:
    """Hollow diamonds at x: what the paper has of a measure for the arms that have a colour."""
    theirs = shown.experiment.paper_numbers
    given = {arm: theirs[arm][measure] for arm in colours if measure in theirs.get(arm, {})}
    _marks(figure, x, given, colours, PAPER, "diamond-open", row, col)


def _marks(
    figure: "Figure",
    x: float,
    points: Mapping[str, float],
    colours: Mapping[str, str],
    name: str,
    symbol: str,
    row: int,
    col: int,
    **more: Any,
) -> None:
    """One trace of marks in the arms' colours; of several of one name the first stands in the legend."""
    if not points:
        return
    style.scatter(
        figure,
        name,
        row,
        col,
        x=[x] * len(points),
        y=list(points.values()),
        text=list(points),
        mode="markers",
        hovertemplate=f"%{{text}}: %{{y:.4g}}<extra>{name}</extra>",
        marker={
            "symbol": symbol,
            "size": 9,
            "color": [colours[arm] for arm in points],
            "line": {"width": 2, "color": [colours[arm] for arm in points]},
        },
        **more,
    )
