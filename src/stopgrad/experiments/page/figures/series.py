"""What the pictures read from a row: series that may be missing, and lines of them over one axis."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.store import Record
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TIME = style.SYMBOLS["t"]


def records(row: Row, arm: str) -> list[Record]:
    """The finished trials of an arm, in the order of its seeds."""
    return list(row.records.get(arm, {}).values())


def series(row: Row, arm: str, name: str) -> list[Any]:
    """A series of an arm's first trial; empty where there is none."""
    found = records(row, arm)
    return found[0].result.series.get(name, []) if found else []


def names(row: Row) -> list[str]:
    """Of the arms, in their order."""
    return [arm.name for arm in row.experiment.arms]


def colours(row: Row) -> dict[str, str]:
    """Arm -> its colour, as far as there are colours."""
    return dict(zip(names(row), style.SERIES, strict=False))


def courses(
    row: Row,
    y: dict[str, str],
    title: str,
    see: str,
    *,
    x: tuple[str, str] = ("t", TIME),
    log: str = "",
) -> "Figure":
    """A panel for every series of ``y``, name -> axis title, in it a line or a bundle of lines an arm.

    Args:
        row: the experiment.
        y: series of the arms' first trials against that of ``x``; one of lists is a bundle.
        title, see: see `style.canvas`.
        x: name and axis title of what they are over.
        log: axes that are logarithmic: "", "x", "y" or "xy"; what is not above 0 is not drawn there.
    """
    figure = style.canvas(title, see, panels=[""] * len(y), gap=0.1)
    for col, (name, axis) in enumerate(y.items(), start=1):
        for arm, colour in colours(row).items():
            found, along = series(row, arm, name), series(row, arm, x[0])
            for line in found if found and isinstance(found[0], list) else [found]:
                if line:
                    style.line(figure, *drawn(along, line, log), arm, colour, col=col)
        style.axes(figure, x[1], axis, col=col)
    logarithmic(figure, log)
    figure.update_layout(showlegend=len(names(row)) > 1)
    return figure


def drawn(x: Sequence[Any], y: Sequence[Any], log: str) -> tuple[list[Any], list[Any]]:
    """Points of a line: on a logarithmic axis those above 0, others break it."""
    pairs = [(a, None if b is None or ("y" in log and b <= 0) else b) for a, b in zip(x, y, strict=False)]
    pairs = [(a, b) for a, b in pairs if a is not None and (a > 0 or "x" not in log)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def logarithmic(figure: "Figure", axes: str) -> None:
    """Make all axes in ``axes``, of "x" and "y", logarithmic."""
    if "x" in axes:
        figure.update_xaxes(type="log", nticks=6)
    if "y" in axes:
        figure.update_yaxes(type="log", nticks=6)
