"""The curves of a run over its epochs: loss, measures of z and p, accuracy, learning rate, speed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stopgrad.report.figures.rows import Row, as_number, value_at
from stopgrad.report.figures.style import (
    ACCENT,
    ALARM,
    GREY,
    MOST_MARKERS,
    PROBE,
    REFERENCE_LINE,
    THRESHOLD_LINE,
    P,
    Z,
    empty_figure,
    escaped,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NODES = {  # the key of a row -> legend, colour, dash
    "z": ("z", Z, "solid"),
    "z_train": ("z, train BN", Z, "dot"),
    "p": ("p", P, "solid"),
    "p_train": ("p, train BN", P, "dot"),
}


@dataclass(frozen=True)
class Measure:
    """How a measure of an embedding is named and read."""

    heading: str
    axis: str
    reading: str


MEASURES = {
    "std": Measure(
        "Spread",
        "std × √D (1 isotropic)",
        "Standard deviation of the l2-normalised vectors, mean over dimensions, times √D: "
        "1 is isotropic, 0 is complete collapse.",
    ),
    "effective_rank": Measure(
        "Effective rank",
        "effective rank (dimensions)",
        "How many directions the centred vectors use: exp of the entropy of the normalised singular values.",
    ),
    "alignment": Measure(
        "Alignment",
        "E ‖v₁ − v₂‖² (0 to 4)",
        "Squared distance between the two views of one image: 0 is the same vector. "
        "Small alone means little, a collapsed embedding has 0.",
    ),
    "uniformity": Measure(
        "Uniformity",
        "log E exp(−2 ‖vᵢ − vⱼ‖²)",
        "How evenly the vectors cover the sphere: lower is more even (about −4 is uniform), 0 is collapse.",
    ),
}


def loss(steps: Sequence[Row], epochs: Sequence[Row]) -> "Figure":
    """The training loss of the step rows and of the epoch rows; a first loss that is not finite is marked."""
    figure = empty_figure("epoch", "loss (as the method defines it)")
    line(figure, steps, ["loss"], "each step", GREY, width=1, markers=False)
    line(figure, epochs, ["loss"], "epoch mean", ACCENT)
    broken = [row["epoch"] for row in steps if "loss" in row and not math.isfinite(as_number(row["loss"]))]
    if broken and figure.data:
        figure.add_vline(
            broken[0],
            line={"color": ALARM, "width": 1.5},
            annotation_text="loss no longer finite",
            annotation_position="top left",
        )
    return figure


def measure(epochs: Sequence[Row], name: str, evidence: Sequence[Row] = ()) -> "Figure":
    """One of MEASURES over epochs, of z and p, with batch norm in eval and train mode.

    The thresholds that the verdict's `evidence` names for this measure are drawn as lines.
    """
    figure = empty_figure("epoch", MEASURES[name].axis)
    for node, (label, colour, dash) in NODES.items():
        line(figure, epochs, [node, name], label, colour, dash=dash)
    if figure.data:
        _draw_thresholds(figure, [item for item in evidence if item.get("measure") == name])
    return figure


def decomposition(epochs: Sequence[Row], evidence: Sequence[Row] = ()) -> "Figure":
    """m_o, the norm of the mean vector, and m_r, the residuals' root mean square, of z and p over epochs."""
    figure = empty_figure("epoch", "norm (of unit-length vectors)")
    for node in ("z", "p"):
        line(figure, epochs, [node, "m_o"], f"m_o of {node}", NODES[node][1])
        line(figure, epochs, [node, "m_r"], f"m_r of {node}", NODES[node][1], dash="dash")
    if figure.data:
        _draw_thresholds(figure, [item for item in evidence if item.get("measure") in ("m_o", "m_r")])
    return figure


def accuracy(epochs: Sequence[Row], untrained_knn: float | None = None) -> "Figure":
    """kNN and online linear probe over epochs, in percent, beside the untrained encoder's kNN."""
    figure = empty_figure("epoch", "accuracy (%)")
    for key, label, colour in (("knn", "kNN", ACCENT), ("online_probe", "online linear probe", PROBE)):
        line(figure, epochs, [key], label, colour, scale=100, hover="%{y:.1f} %")
    if figure.data and math.isfinite(as_number(untrained_knn)):
        level = 100 * as_number(untrained_knn)
        figure.add_hline(
            level,
            line=REFERENCE_LINE,
            annotation_text=f"untrained kNN {level:.1f} %",
        )
    return figure


def learning_rate(steps: Sequence[Row]) -> "Figure":
    """The learning rate of the step rows."""
    figure = empty_figure("epoch", "learning rate (per step)")
    line(figure, steps, ["lr"], "learning rate", ACCENT, markers=False)
    figure.update_layout(showlegend=False)
    return figure


def throughput(steps: Sequence[Row]) -> "Figure":
    """Images per second of the step rows."""
    figure = empty_figure("epoch", "speed (images / s)")
    line(figure, steps, ["images_per_second"], "images / s", ACCENT, width=1, markers=False)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=False)
    return figure


def line(
    figure: "Figure",
    rows: Iterable[Row],
    keys: Sequence[str],
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    width: float = 2,
    markers: bool = True,
    scale: float = 1,
    hover: str = "%{y:.4g}",
) -> None:
    """Draw what stands under `keys` of the rows by epoch, if any of it is finite; the rest makes gaps."""
    series = [(row["epoch"], scale * as_number(value_at(row, keys))) for row in rows if "epoch" in row]
    finite = sum(math.isfinite(value) for _, value in series)
    if finite == 0:
        return
    figure.add_scatter(
        x=np.array([as_number(epoch) for epoch, _ in series], dtype=np.float32),
        y=np.array([value if math.isfinite(value) else math.nan for _, value in series], dtype=np.float32),
        mode="lines+markers" if finite == 1 or (markers and finite <= MOST_MARKERS) else "lines",
        name=name,
        line={"color": colour, "dash": dash, "width": width},
        marker={"size": 5},
        hovertemplate=f"{hover}<extra>{name}</extra>",
    )


def _draw_thresholds(figure: "Figure", evidence: Iterable[Row]) -> None:
    """One line per distinct threshold, labelled with what it is a threshold of."""
    owners: dict[float, list[str]] = {}
    for item in evidence:
        level = as_number(item.get("threshold"))
        if math.isfinite(level):
            owners.setdefault(level, []).append(escaped(str(item.get("of", ""))))
    for level, of in owners.items():
        figure.add_hline(
            level,
            line=THRESHOLD_LINE,
            annotation_text=f"verdict's threshold {level:.3g} ({', '.join(dict.fromkeys(of))})",
            annotation_font_color=ALARM,
        )
