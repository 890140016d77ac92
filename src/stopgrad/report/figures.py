"""One function per picture: plain rows or arrays in, a plotly Figure out. Nothing is measured here.

A row is one line of `metrics.jsonl`. A series without one finite value is left out, so a figure whose `data`
is empty has nothing to show. Backgrounds are transparent and text takes the page's colour, so a figure fits a
light and a dark page. Names of files and classes are escaped: plotly reads some HTML in its texts.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.errors import require

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Row = Mapping[str, Any]

Z, P = "#2b83d6", "#e8710a"  # the colours of the projection and the prediction, in every picture
ACCENT, GREY, ALARM = "#1f9d6b", "#8a929c", "#d93a4a"
NODES = {  # the key of a row -> legend, colour, dash
    "z": ("z", Z, "solid"),
    "z_train": ("z, train BN", Z, "dot"),
    "p": ("p", P, "solid"),
    "p_train": ("p, train BN", P, "dot"),
}
CLASS_COLOURS = (
    *("#4c8bf5", "#f28e2b", "#2ca25f", "#d93a4a", "#9a6fd0"),
    *("#a5714f", "#e377c2", "#8a929c", "#b8a90f", "#17b2c3"),
)
CLASS_SYMBOLS = ("circle", "diamond", "square", "cross")
SPECTRUM_FLOOR = -6  # log10 of the least eigenvalue that the colours part


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
    figure = _figure("epoch", "loss (as the method defines it)")
    _line(figure, steps, ["loss"], "each step", GREY, width=1, markers=False)
    _line(figure, epochs, ["loss"], "epoch mean", ACCENT)
    broken = [row["epoch"] for row in steps if "loss" in row and not math.isfinite(_number(row["loss"]))]
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
    figure = _figure("epoch", MEASURES[name].axis)
    for node, (label, colour, dash) in NODES.items():
        _line(figure, epochs, [node, name], label, colour, dash=dash)
    if figure.data:
        _draw_thresholds(figure, [item for item in evidence if item.get("measure") == name])
    return figure


def decomposition(epochs: Sequence[Row], evidence: Sequence[Row] = ()) -> "Figure":
    """m_o, the norm of the mean vector, and m_r, the residuals' root mean square, of z and p over epochs."""
    figure = _figure("epoch", "norm (of unit-length vectors)")
    for node in ("z", "p"):
        _line(figure, epochs, [node, "m_o"], f"m_o of {node}", NODES[node][1])
        _line(figure, epochs, [node, "m_r"], f"m_r of {node}", NODES[node][1], dash="dash")
    if figure.data:
        _draw_thresholds(figure, [item for item in evidence if item.get("measure") in ("m_o", "m_r")])
    return figure


def spectrum(epochs: Sequence[Row], node: str) -> "Figure":
    """Heat map of the eigenvalues of `node`'s covariance, as shares, by component and epoch."""
    figure = _figure("epoch", "component (largest first)")
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


def accuracy(epochs: Sequence[Row], untrained_knn: float | None = None) -> "Figure":
    """kNN and online linear probe over epochs, in percent, beside the untrained encoder's kNN."""
    figure = _figure("epoch", "accuracy (%)")
    for key, label, colour in (("knn", "kNN", ACCENT), ("online_probe", "online linear probe", "#9a6fd0")):
        _line(figure, epochs, [key], label, colour, scale=100, hover="%{y:.1f} %")
    if figure.data and math.isfinite(_number(untrained_knn)):
        level = 100 * _number(untrained_knn)
        figure.add_hline(
            level,
            line={"color": GREY, "dash": "dash", "width": 1.5},
            annotation_text=f"untrained kNN {level:.1f} %",
        )
    return figure


def learning_rate(steps: Sequence[Row]) -> "Figure":
    """The learning rate of the step rows."""
    figure = _figure("epoch", "learning rate (per step)")
    _line(figure, steps, ["lr"], "learning rate", ACCENT, markers=False)
    figure.update_layout(showlegend=False)
    return figure


def throughput(steps: Sequence[Row]) -> "Figure":
    """Images per second of the step rows."""
    figure = _figure("epoch", "speed (images / s)")
    _line(figure, steps, ["images_per_second"], "images / s", ACCENT, width=1, markers=False)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=False)
    return figure


def embedding_map(
    points: NDArray[np.floating],
    names: Sequence[str],
    labels: Sequence[str | None] | None = None,
    method: str = "t-SNE",
) -> "Figure":
    """Scatter of (n, 2) points, named on hover, coloured by label where there are labels.

    The legend lists up to as many classes as colours and symbols can tell apart.
    """
    figure = _figure(f"{method} 1 (no unit)", f"{method} 2 (no unit)", height=560)
    shown = [None] * len(names) if labels is None else list(labels)
    groups = sorted({label for label in shown if label is not None}, key=_natural)
    for label in [*groups, None]:
        rows = [place for place, own in enumerate(shown) if own == label]
        if not rows:
            continue
        turn = groups.index(label) if label is not None else 0
        what = "" if label is None else f"<br>class {_safe(label)}"
        figure.add_scatter(
            x=points[rows, 0],
            y=points[rows, 1],
            mode="markers",
            name="no label" if label is None else _safe(label),
            marker={
                "size": 7,
                "opacity": 0.85,
                "color": (GREY if groups else Z)
                if label is None
                else CLASS_COLOURS[turn % len(CLASS_COLOURS)],
                "symbol": CLASS_SYMBOLS[turn // len(CLASS_COLOURS) % len(CLASS_SYMBOLS)],
            },
            customdata=[_safe(names[row]) + what for row in rows],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False, scaleanchor="x")
    figure.update_layout(
        hovermode="closest", showlegend=0 < len(groups) <= len(CLASS_COLOURS) * len(CLASS_SYMBOLS)
    )
    return figure


def _figure(x: str, y: str, height: int = 330) -> "Figure":
    figure = require("plotly.graph_objects", "report").Figure()
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 14, "t": 10, "b": 10},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": clear},
        showlegend=True,
    )
    figure.update_xaxes(
        title={"text": x, "standoff": 8, "font": {"size": 13}}, automargin=True, zeroline=False
    )
    figure.update_yaxes(
        title={"text": y, "standoff": 8, "font": {"size": 13}}, automargin=True, zeroline=False
    )
    return figure


def _line(
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
    series = [(row["epoch"], scale * _number(_inside(row, keys))) for row in rows if "epoch" in row]
    finite = sum(math.isfinite(value) for _, value in series)
    if finite == 0:
        return
    figure.add_scatter(
        x=np.array([_number(epoch) for epoch, _ in series], dtype=np.float32),
        y=np.array([value if math.isfinite(value) else math.nan for _, value in series], dtype=np.float32),
        mode="lines+markers" if finite == 1 or (markers and finite <= 60) else "lines",
        name=name,
        line={"color": colour, "dash": dash, "width": width},
        marker={"size": 5},
        hovertemplate=f"{hover}<extra>{name}</extra>",
    )


def _inside(row: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        row = row.get(key) if isinstance(row, Mapping) else None
    return row


def _spectrum_of(row: Row, node: str) -> NDArray[np.float64]:
    values = _inside(row, [node, "spectrum"])
    return np.array(
        [_number(value) for value in values] if isinstance(values, list) else [], dtype=np.float64
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _safe(name: str) -> str:
    return html.escape(name, quote=False)  # plotly knows no entities for quotes, and needs none


def _natural(label: str) -> tuple[bool, float, str]:
    return (False, float(label), "") if label.isdecimal() else (True, 0.0, label)


def _draw_thresholds(figure: "Figure", evidence: Iterable[Row]) -> None:
    """One line per distinct threshold, labelled with what it is a threshold of."""
    owners: dict[float, list[str]] = {}
    for item in evidence:
        level = _number(item.get("threshold"))
        if math.isfinite(level):
            owners.setdefault(level, []).append(_safe(str(item.get("of", ""))))
    for level, of in owners.items():
        figure.add_hline(
            level,
            line={"color": ALARM, "dash": "dash", "width": 1.5},
            annotation_text=f"verdict's threshold {level:.3g} ({', '.join(dict.fromkeys(of))})",
            annotation_font_color=ALARM,
        )
