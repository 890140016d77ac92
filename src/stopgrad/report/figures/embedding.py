"""The map of the embedding: a point for each image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.report.figures.style import GREY, Z, empty_figure, escaped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CLASS_COLOURS = (
    *("#4c8bf5", "#f28e2b", "#2ca25f", "#d93a4a", "#9a6fd0"),
    *("#a5714f", "#e377c2", "#8a929c", "#b8a90f", "#17b2c3"),
)
CLASS_SYMBOLS = ("circle", "diamond", "square", "cross")


def embedding_map(
    points: NDArray[np.floating],
    names: Sequence[str],
    labels: Sequence[str | None] | None = None,
    method: str = "t-SNE",
) -> "Figure":
    """Scatter of (n, 2) points, named on hover, coloured by label where there are labels.

    The legend lists up to as many classes as colours and symbols can tell apart.
    """
    figure = empty_figure(f"{method} 1 (no unit)", f"{method} 2 (no unit)", height=560)
    shown = [None] * len(names) if labels is None else list(labels)
    groups = sorted({label for label in shown if label is not None}, key=_natural)
    for label in [*groups, None]:
        rows = [place for place, own in enumerate(shown) if own == label]
        if not rows:
            continue
        what = "" if label is None else f"<br>class {escaped(label)}"
        figure.add_scatter(
            x=points[rows, 0],
            y=points[rows, 1],
            mode="markers",
            name="no label" if label is None else escaped(label),
            marker={"size": 7, "opacity": 0.85, **_mark(label, groups)},
            customdata=[escaped(names[row]) + what for row in rows],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False, scaleanchor="x")
    figure.update_layout(
        hovermode="closest", showlegend=0 < len(groups) <= len(CLASS_COLOURS) * len(CLASS_SYMBOLS)
    )
    return figure


def _mark(label: str | None, groups: Sequence[str]) -> dict[str, Any]:
    """Colour and symbol of a class; without a label grey, or that of z where no point has one."""
    if label is None:
        return {"color": GREY if groups else Z, "symbol": CLASS_SYMBOLS[0]}
    turn = groups.index(label)
    return {
        "color": CLASS_COLOURS[turn % len(CLASS_COLOURS)],
        "symbol": CLASS_SYMBOLS[turn // len(CLASS_COLOURS) % len(CLASS_SYMBOLS)],
    }


def _natural(label: str) -> tuple[bool, float, str]:
    """Numbers by size before other names."""
    return (False, float(label), "") if label.isdecimal() else (True, 0.0, label)
