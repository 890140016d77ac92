"""The picture of every trained table: arms with their mean, their seeds, the paper's number and the control.

Legend: one row of the picture an arm, one panel a measure.
"""

import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import measures
from stopgrad.experiments.statistics import summarise
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PITCH = 38
"""Pixels of an arm."""
LETTERS = 26
"""Of an arm's name in one line."""
LIFT, DROP = -0.1, 0.2
"""Of the mean and of the seeds' dots, in arms, so that one does not hide the other."""
SEE = (
    "A dot is a seed, a filled square the mean with its standard deviation, a hollow diamond the paper's "
    "number, the dashed line the untrained encoder."
)


def draw(row: Row, names: Sequence[str]) -> "Figure":
    """Arms against measures, from the records that are there; without any, a figure without data.

    Args:
        row: the experiment.
        names: measures, a panel each, such as ("linear_probe", "z.std"); one that no record has is left out.
    """
    numbers = row.numbers
    shown = [n for n in names if any(n in v for of_seed in numbers.values() for v in of_seed.values())]
    arms = [arm.name for arm in row.experiment.arms]
    figure = style.canvas(
        escape(row.experiment.title),
        SEE,
        panels=[escape(measures.label(name)) if len(shown) > 1 else "" for name in shown] or [""],
        height=PITCH * max(2, len(arms)),
        gap=0.05,
        share_y=True,
    )
    for col, name in enumerate(shown, start=1):
        _panel(figure, row, arms, name, col)
    return figure


def _panel(figure: "Figure", row: Row, arms: Sequence[str], name: str, col: int) -> None:
    for place, arm in enumerate(arms):
        values = {s: v[name] for s, v in row.numbers.get(arm, {}).items() if name in v}
        if values:
            _arm(figure, place, name, values, col)
    paper = [(row.experiment.paper_numbers.get(arm, {}).get(name), place) for place, arm in enumerate(arms)]
    _add(
        figure,
        "the paper's number",
        [value for value, _ in paper if value is not None],
        [place + LIFT for value, place in paper if value is not None],
        name,
        col,
        marker={"symbol": "diamond-open", "size": 11, "color": style.ORANGE, "line": {"width": 2}},
    )
    _control(figure, row, name, len(arms), col)
    figure.update_yaxes(
        tickvals=list(range(len(arms))),
        ticktext=[_wrapped(arm) for arm in arms],
        range=[len(arms) - 0.5, -0.5],
        automargin=True,
        ticks="",
        row=1,
        col=col,
    )
    title = measures.label(name)
    accuracy = name in measures.ACCURACIES
    style.axes(figure, f"{escape(title)}, accuracy" if accuracy else escape(title), "", col=col)
    figure.update_xaxes(nticks=7, tickformat=".0%" if accuracy else None, row=1, col=col)


def _arm(figure: "Figure", place: int, name: str, values: dict[int | None, float], col: int) -> None:
    """The dots of an arm's seeds, and their mean with its deviation."""
    found = summarise(list(values.values()))
    _add(
        figure,
        "a seed",
        list(values.values()),
        [place + DROP] * len(values),
        name,
        col,
        said=[f"seed {s}: {measures.number(name, v)}" for s, v in values.items()],
        marker={"size": 6, "color": style.GREY, "opacity": 0.7},
    )
    _add(
        figure,
        "mean ± standard deviation",
        [found.mean],
        [place + LIFT],
        name,
        col,
        said=[measures.spread(name, found)],
        marker={"symbol": "square", "size": 9, "color": style.BLUE},
        error_x={"array": [found.std], "color": style.BLUE, "thickness": 1.5, "width": 4},
    )


def _control(figure: "Figure", row: Row, name: str, count: int, col: int) -> None:
    """The mean of the untrained encoders of the seeds, across all arms."""
    values = [r.result.numbers[name] for r in row.control.values() if name in r.result.numbers]
    if not values:
        return
    mean = summarise(values).mean
    _add(
        figure,
        "untrained encoder",
        [mean, mean],
        [-0.5, count - 0.5],
        name,
        col,
        mode="lines",
        line={"color": style.GREEN, "dash": "dash", "width": 2},
    )


def _add(
    figure: "Figure",
    entry: str,
    x: list[float],
    y: list[float],
    measure: str,
    col: int,
    said: Sequence[str] = (),
    **trace: object,
) -> None:
    """Points with a legend entry for all of one name; none where there are none."""
    if not x:
        return
    style.scatter(
        figure,
        entry,
        1,
        col,
        **{"mode": "markers", **trace},
        x=x,
        y=y,
        hovertext=list(said) or [f"{entry}: {measures.number(measure, value)}" for value in x],
        hoverinfo="text",
    )


def _wrapped(name: str) -> str:
    return "<br>".join(textwrap.wrap(escape(name), LETTERS)) or " "
