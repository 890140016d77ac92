"""Measures against their thresholds, where there is one reading and no course."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stopgrad.report.figures.style import ACCENT, ALARM, THRESHOLD_LINE, empty_figure, escaped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stopgrad.diagnostics.diagnosis import Evidence

RATIOS = 1e-4, 1e4  # a bar against its threshold ends here at the latest


def threshold_bars(failed: "Sequence[Evidence]", others: "Sequence[Evidence]") -> "Figure":
    """Measures in multiples of their thresholds: a bar each from 1 to the measure.

    Those that the verdict rests on come first; of the others, which are well above their thresholds, those
    below are marked as failures too.
    """
    items = [(item, ALARM) for item in failed]
    items += [(item, ALARM if item.below else ACCENT) for item in others]
    items = [(item, colour) for item, colour in items if math.isfinite(item.value) and item.threshold > 0]
    figure = empty_figure("multiple of the threshold", "", height=90 + 62 * max(1, len(items)))
    if not items:
        return figure
    ratios = [min(max(item.value / item.threshold, RATIOS[0]), RATIOS[1]) for item, _ in items]
    _draw_bars(figure, [item for item, _ in items], ratios, [colour for _, colour in items])
    figure.add_vline(1, line=THRESHOLD_LINE)
    ends = math.log10(min(*ratios, 1)) - 0.3, math.log10(max(*ratios, 1)) + 0.3
    figure.update_layout(showlegend=False, hovermode="closest")
    decades = max(1, math.ceil((ends[1] - ends[0]) / 4))
    figure.update_xaxes(type="log", range=ends, dtick=decades, exponentformat="power")
    figure.update_yaxes(autorange="reversed", showgrid=False, title=None, ticks="", ticklabelstandoff=6)
    return figure


def _draw_bars(
    figure: "Figure", items: "Sequence[Evidence]", ratios: Sequence[float], colours: Sequence[str]
) -> None:
    """A bar from 1 to each ratio, with a dot at its end where it is too short to be seen."""
    names = [
        f"<b>{escaped(item.measure)} of {escaped(item.of)}</b><br>"
        f"{item.value:.3g}, threshold {item.threshold:.3g}"
        for item in items
    ]
    figure.add_bar(
        x=[ratio - 1 for ratio in ratios],
        base=1,
        y=names,
        orientation="h",
        width=0.5,
        marker={"color": colours},
        customdata=[escaped(item.says) for item in items],
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure.add_scatter(
        x=ratios,
        y=names,
        mode="markers",
        marker={"size": 10, "color": colours},
        hoverinfo="skip",
    )
