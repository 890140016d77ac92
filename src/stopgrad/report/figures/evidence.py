"""The course of a verdict's evidence: panels below each other over the same steps, and the first bad step."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stopgrad.report.figures.evidence_panel import axis_title, draw_panel, heading
from stopgrad.report.figures.style import GREY, empty_figure, titled_axis

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stopgrad.diagnostics.series import Series

PANEL, LINE = 170, 16  # pixels: the height of a panel, and of a line of words above it


def evidence_figure(series: "Sequence[Series]", first_bad_step: int | None) -> "Figure":
    """The course of the evidence over steps: a panel for each measure, one below the other.

    A panel has its threshold as a dashed line, the side where the failure lies shaded, and the first bad step
    as an upright line. Its axis is logarithmic where the values span a large factor; zeros then lie at its
    foot. Measures that were never finite have no panel.
    """
    figure = empty_figure("step", "")
    panels = _panels(series)
    headings = [heading(panel) for panel in panels]
    tops, height = _stack([len(lines) for lines in headings], marked=first_bad_step is not None)
    figure.update_layout(height=height + 62, showlegend=False, margin={"l": 64, "r": 14, "t": 10, "b": 52})
    ends = _step_range(panels, first_bad_step)
    for place, (panel, lines) in enumerate(zip(panels, headings, strict=True)):
        axis, top = str(place + 1) if place else "", 1 - tops[place] / height
        lowest = place + 1 == len(panels)
        across = {**titled_axis("step" if lowest else ""), "range": ends, "showticklabels": lowest}
        upward = {**titled_axis(axis_title(panel)), "domain": [max(0.0, top - PANEL / height), top]}
        figure.update_layout({
            f"xaxis{axis}": {**across, "anchor": f"y{axis}", "matches": "x" if place else None},
            f"yaxis{axis}": {**upward, "anchor": f"x{axis}"},
        })  # fmt: skip
        named = first_bad_step is not None and place == 0
        figure.add_annotation(
            text="<br>".join(lines), x=0, xref="paper", xshift=-56, xanchor="left", align="left",
            y=top, yref="paper", yshift=LINE * named + 2, yanchor="bottom", showarrow=False,
        )  # fmt: skip
        draw_panel(figure, axis, panel)
        if first_bad_step is not None:
            _mark_step(figure, axis, first_bad_step, ends, named)
    return figure


def _panels(series: "Sequence[Series]") -> "list[list[Series]]":
    """The series that share a panel, those of one measure and threshold, of what was ever finite."""
    groups: dict[tuple[str, float, bool | None], list[Series]] = {}
    for one in series:
        if any(math.isfinite(value) for value in one.values):
            groups.setdefault((one.measure, one.threshold, one.below), []).append(one)
    return list(groups.values())


def _stack(lines: Sequence[int], marked: bool) -> tuple[list[float], float]:
    """Where panels begin below each other, under so many lines each, and their height together, in pixels."""
    tops: list[float] = []
    bottom = 0.0
    for place, count in enumerate(lines):
        gap = 10 if place else 0
        tops.append(bottom + gap + LINE * (count + (marked and place == 0)) + 8)
        bottom = tops[-1] + PANEL
    return tops, max(bottom, 1.0)


def _step_range(panels: "Sequence[Sequence[Series]]", first_bad_step: int | None) -> list[float]:
    """The range of the steps that all panels share, with room at both ends."""
    steps = [step for panel in panels for one in panel for step in one.steps]
    if not steps:
        return [0.0, 1.0]
    if first_bad_step is not None:
        steps.append(first_bad_step)
    room = 0.03 * (max(steps) - min(steps)) or 1.0
    return [min(steps) - room, max(steps) + room]


def _mark_step(figure: "Figure", axis: str, step: int, ends: Sequence[float], named: bool) -> None:
    """The first bad step as an upright line through a panel, with its number above."""
    figure.add_shape(
        type="line", xref=f"x{axis}", yref=f"y{axis} domain", x0=step, x1=step, y0=0, y1=1,
        line={"color": GREY, "width": 1.5},
    )  # fmt: skip
    if named:
        share = (step - ends[0]) / (ends[1] - ends[0])
        figure.add_annotation(
            text=f"first bad step {step:,}", showarrow=False, xref=f"x{axis}", x=step,
            xanchor="left" if share < 0.3 else "right" if share > 0.7 else "center",
            yref=f"y{axis} domain", y=1, yanchor="bottom",
        )  # fmt: skip
