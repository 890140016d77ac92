"""The eigenvalues of a covariance: their course over a run, and how few hold most of the variance."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stopgrad.report.figures.rows import Row, as_number, value_at
from stopgrad.report.figures.style import MOST_MARKERS, REFERENCE_LINE, Z, empty_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SPECTRUM_FLOOR = -6  # log10 of the least eigenvalue that the colours part


def spectrum(epochs: Sequence[Row], node: str) -> "Figure":
    """Heat map of the eigenvalues of `node`'s covariance, as shares, by component and epoch."""
    figure = empty_figure("epoch", "component (largest first)")
    columns = [(row["epoch"], _spectrum_of(row, node)) for row in epochs]
    columns = [(epoch, values) for epoch, values in columns if np.isfinite(values).any()]
    if not columns:
        return figure
    image = np.full((max(len(values) for _, values in columns), len(columns)), np.nan, dtype=np.float32)
    for place, (_, values) in enumerate(columns):
        image[: len(values), place] = np.log10(np.maximum(values, 10.0**SPECTRUM_FLOOR))
    ticks = list(range(SPECTRUM_FLOOR, 1))
    figure.add_heatmap(
        x=[epoch for epoch, _ in columns],
        y=list(range(1, len(image) + 1)),
        z=image,
        zmin=SPECTRUM_FLOOR,
        zmax=0,
        colorscale="Viridis",
        hoverongaps=False,
        hovertemplate="epoch %{x}<br>component %{y}<br>eigenvalue 10^%{z:.2f}<extra></extra>",
        colorbar={
            "title": {"text": "share of variance", "side": "right", "font": {"size": 13}},
            "tickvals": ticks,
            "ticktext": [
                f"≤ 10<sup>{t}</sup>" if t == SPECTRUM_FLOOR else f"10<sup>{t}</sup>" for t in ticks
            ],
            "thickness": 12,
            "outlinewidth": 0,
        },
    )
    figure.update_layout(hovermode="closest")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False)
    return figure


def cumulative_spectrum(shares: Sequence[float], effective_rank: float | None = None) -> "Figure":
    """Cumulative share of variance of the largest components, in percent, and the effective rank."""
    figure = empty_figure("components (largest first)", "share of variance (%)")
    if not any(math.isfinite(as_number(share)) for share in shares):
        return figure
    figure.add_scatter(
        x=list(range(len(shares) + 1)),
        y=[0.0, *(100 * np.cumsum([as_number(share) for share in shares]))],
        mode="lines+markers" if len(shares) <= MOST_MARKERS else "lines",
        name="cumulative share",
        line={"color": Z, "width": 2},
        marker={"size": 5},
        hovertemplate="%{y:.1f} %<extra></extra>",
    )
    figure.update_yaxes(range=[0, 103])
    figure.update_layout(showlegend=False)
    rank = as_number(effective_rank)
    if math.isfinite(rank):
        figure.add_vline(
            rank,
            line=REFERENCE_LINE,
            annotation_text=f"effective rank {rank:.3g}",
            annotation_position="bottom right" if rank <= len(shares) / 2 else "bottom left",
        )
        figure.update_xaxes(range=[0, 1.03 * max(len(shares), rank)])
    return figure


def _spectrum_of(row: Row, node: str) -> NDArray[np.float64]:
    values = value_at(row, [node, "spectrum"])
    return np.array(
        [as_number(value) for value in values] if isinstance(values, list) else [], dtype=np.float64
    )
