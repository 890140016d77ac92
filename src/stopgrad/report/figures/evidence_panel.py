"""One panel of evidence: a measure over steps, of one node or several, beside its threshold."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stopgrad.report.figures.style import ACCENT, ALARM, MOST_MARKERS, THRESHOLD_LINE, P, Z, escaped
from stopgrad.report.figures.value_axis import ValueAxis

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stopgrad.diagnostics.series import Series

EVIDENCE = {  # measure of an evidence -> heading, axis title
    "std": ("Spread of {}", "std × √D (1 isotropic)"),
    "effective_rank": ("Effective rank of {}", "rank (dimensions)"),
    "loss": ("Loss", "loss"),
    "loss_spread": ("Spread of the last five losses", "share of the loss"),
    "finite": ("Finite rows of {}", "share of rows (0 to 1)"),
    "zero_rows": ("Zero rows of {}", "share of rows (0 to 1)"),
    "view_distance": ("Distance of the two views' {}", "E ‖z₁ − z₂‖² (0 to 4)"),
    "target_gradient": ("Gradient into the target", "0 none, 1 flows"),
    "target_moved": ("Movement of the target's weights", "share of their norm"),
    "gradient_norm": ("Gradient of the {}", "norm"),
    "std_ratio": ("Spread of {}: training / evaluation mode", "ratio (1 the same)"),
    "effective_rank_ratio": ("Rank of {}: training / evaluation mode", "ratio (1 the same)"),
    "log10_norm": ("Norm of {} if it grows on for as long", "log₁₀ of the norm"),
}
WORDS = 48  # letters of a line above a panel, as fit on a telephone
FORBIDDEN = "rgba(217,58,74,0.10)"  # ALARM, light enough for text in either style
LABEL = 0.45  # share of a panel's width that a threshold's label takes there


def heading(panel: "Sequence[Series]") -> list[str]:
    """What a panel shows, its nodes in their colours, and what that says."""
    nodes = " and ".join(f'<span style="color:{_colour(one.of)}">{escaped(one.of)}</span>' for one in panel)
    known = EVIDENCE.get(panel[0].measure)
    name = known[0].format(nodes) if known else f"{escaped(panel[0].measure.replace('_', ' '))} of {nodes}"
    says = "; ".join(dict.fromkeys(one.says for one in panel))
    return [f"<b>{name}</b>", *(escaped(line) for line in textwrap.wrap(says, WORDS))]


def axis_title(panel: "Sequence[Series]") -> str:
    """What a panel's values are, with their unit or range."""
    measure = panel[0].measure
    return EVIDENCE.get(measure, ("", measure.replace("_", " ")))[1]


def draw_panel(figure: "Figure", axis: str, panel: "Sequence[Series]") -> None:
    """Lines, threshold and forbidden side of the measures that share a panel; `axis` is its axes' number."""
    values = [value for one in panel for value in one.values if math.isfinite(value)]
    scale = ValueAxis.over([*values, panel[0].threshold])
    _draw_lines(figure, axis, panel, scale)
    look: dict[str, Any] = {
        "range": [scale.low, scale.high],
        "exponentformat": "power",
        "nticks": 6,
    }
    if scale.log:
        look |= {"type": "log", "dtick": max(1, math.ceil((scale.high - scale.low) / 5))}
    figure.update_layout({f"yaxis{axis}": look})
    if math.isfinite(panel[0].threshold):
        _draw_threshold(figure, axis, panel, scale)


def _draw_lines(figure: "Figure", axis: str, panel: "Sequence[Series]", scale: ValueAxis) -> None:
    for one in panel:
        few = sum(math.isfinite(value) for value in one.values) <= MOST_MARKERS
        figure.add_scatter(
            x=list(one.steps),
            y=[scale.drawn(value) if math.isfinite(value) else None for value in one.values],
            customdata=[f"{value:.4g}" for value in one.values],  # zeros are drawn elsewhere
            mode="lines+markers" if few else "lines",
            name=escaped(one.of),
            line={"color": _colour(one.of), "width": 2},
            marker={"size": 5},
            hovertemplate=f"%{{customdata}}<extra>{escaped(one.of)}</extra>",
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
        )


def _draw_threshold(figure: "Figure", axis: str, panel: "Sequence[Series]", scale: ValueAxis) -> None:
    """The threshold's line with its label, and the side of it on which the failure lies."""
    threshold, below = panel[0].threshold, panel[0].below
    x, y, level = f"x{axis} domain", f"y{axis}", scale.drawn(threshold)
    if below is not None:
        figure.add_shape(
            type="rect", xref=x, yref=y, x0=0, x1=1, y0=level, y1=scale.edge(below),
            fillcolor=FORBIDDEN, line={"width": 0}, layer="below",
        )  # fmt: skip
    figure.add_shape(type="line", xref=x, yref=y, x0=0, x1=1, y0=level, y1=level, line=THRESHOLD_LINE)
    side = "collapsed losses come to" if below is None else f"failure {'below' if below else 'above'}"
    end, above = _free_corner(panel, scale)
    figure.add_annotation(
        text=f"{side} {threshold:.4g}", font={"color": ALARM}, showarrow=False, xref=x, x=end,
        xanchor="right" if end else "left", yref=y, y=scale.at(threshold),
        yanchor="bottom" if above else "top",
    )  # fmt: skip


def _free_corner(panel: "Sequence[Series]", scale: ValueAxis) -> tuple[int, bool]:
    """Where the threshold's label has most room: left (0) or right (1), above the line or not."""
    level = scale.at(panel[0].threshold)
    ends = (min(min(one.steps) for one in panel), max(max(one.steps) for one in panel))
    width = LABEL * (ends[1] - ends[0])

    def room(end: int, above: bool) -> float:
        near = [
            scale.at(value) - level
            for one in panel
            for step, value in zip(one.steps, one.values, strict=True)
            if math.isfinite(value) and abs(step - ends[end]) <= width
        ]
        if above:
            return min([value for value in near if value >= 0] + [scale.high - level])
        return min([-value for value in near if value < 0] + [level - scale.low])

    return max(((1, True), (1, False), (0, True), (0, False)), key=lambda corner: room(*corner))


def _colour(node: str) -> str:
    return {"z": Z, "p": P}.get(node, ACCENT)
