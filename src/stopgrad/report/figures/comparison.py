"""One measure of several runs over their epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stopgrad.errors import unknown
from stopgrad.report.figures.curves import MEASURES, line
from stopgrad.report.figures.embedding import CLASS_COLOURS
from stopgrad.report.figures.rows import Row
from stopgrad.report.figures.style import empty_figure, escaped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COURSES: dict[str, tuple[str, tuple[str, ...]]] = {  # name -> axis title, where rows have it
    "knn": ("kNN accuracy on validation images, %", ("knn",)),
    "loss": ("loss (as each method defines it)", ("loss",)),
    **{name: (one.axis, ("z", name)) for name, one in MEASURES.items()},
}
COMPARED = {"knn": "kNN accuracy", "loss": "Loss", **{name: one.heading for name, one in MEASURES.items()}}
"""Measures that runs are compared by, and what to call them."""
DASHES = ("solid", "dash", "dot")


def comparison(runs: Mapping[str, Sequence[Row]], name: str) -> "Figure":
    """One of `COMPARED` over epochs, a line for each run.

    Args:
        runs: name of a run -> its epoch rows.
        name: of the measure, of z in evaluation mode.

    Raises:
        UsageError: for an unknown measure.
    """
    if name not in COURSES:
        raise unknown("measure", name, list(COURSES))
    title, keys = COURSES[name]
    figure = empty_figure("epoch", title, height=420)
    for i, (run, epochs) in enumerate(runs.items()):
        turn, place = divmod(i, len(CLASS_COLOURS))
        line(
            figure, epochs, keys, escaped(run), CLASS_COLOURS[place], dash=DASHES[turn % len(DASHES)],
            scale=100 if name == "knn" else 1,
        )  # fmt: skip
    return figure
