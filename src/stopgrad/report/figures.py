"""One function per picture: plain rows or arrays in, a plotly Figure out. Nothing is measured here.

A row is one line of `metrics.jsonl`. A series without one finite value is left out, so a figure whose `data`
is empty has nothing to show. Backgrounds are transparent and text takes the page's colour, so a figure fits a
light and a dark page. Names of files and classes are escaped: plotly reads some HTML in its texts.
"""

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.diagnostics.diagnosis import Evidence
from stopgrad.diagnostics.series import Series
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
FORBIDDEN = "rgba(217,58,74,0.10)"  # ALARM, light enough for text in either style
SPAN = 100  # a panel whose values span such a factor has a logarithmic axis
PANEL, LINE = 170, 16  # pixels: the height of a panel of evidence, and of a line above it
WORDS = 48  # letters of such a line, as fit on a telephone
LABEL = 0.45  # share of a panel's width that a threshold's label takes there
RATIOS = 1e-4, 1e4  # a bar against its threshold ends here at the latest


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


def evidence_figure(series: Sequence[Series], first_bad_step: int | None) -> "Figure":
    """The course of the evidence over steps: a panel for each measure, one below the other.

    A panel has its threshold as a dashed line, the side where the failure lies shaded, and the first bad step
    as an upright line. Its axis is logarithmic where the values span a factor of `SPAN`; zeros then lie at
    its foot. Measures that were never finite have no panel.
    """
    groups: dict[tuple[str, float, bool | None], list[Series]] = {}
    for one in series:
        if any(math.isfinite(value) for value in one.values):
            groups.setdefault((one.measure, one.threshold, one.below), []).append(one)
    figure = _figure("step", "")
    headings = [_heading(panel) for panel in groups.values()]
    tops, height = _stack([len(lines) for lines in headings], marked=first_bad_step is not None)
    figure.update_layout(height=height + 62, showlegend=False, margin={"l": 64, "r": 14, "t": 10, "b": 52})
    steps = [step for panel in groups.values() for one in panel for step in one.steps]
    ends = _margins(steps if first_bad_step is None else [*steps, first_bad_step]) if steps else [0.0, 1.0]
    for place, (panel, lines) in enumerate(zip(groups.values(), headings, strict=True)):
        axis, top = str(place + 1) if place else "", 1 - tops[place] / height
        lowest = place + 1 == len(groups)
        across = {**_titled("step" if lowest else ""), "range": ends, "showticklabels": lowest}
        upward = {**_titled(_axis_title(panel[0])), "domain": [max(0.0, top - PANEL / height), top]}
        figure.update_layout({
            f"xaxis{axis}": {**across, "anchor": f"y{axis}", "matches": "x" if place else None},
            f"yaxis{axis}": {**upward, "anchor": f"x{axis}"},
        })  # fmt: skip
        named = first_bad_step is not None and place == 0
        figure.add_annotation(
            text="<br>".join(lines), x=0, xref="paper", xshift=-56, xanchor="left", align="left",
            y=top, yref="paper", yshift=LINE * named + 2, yanchor="bottom", showarrow=False,
        )  # fmt: skip
        _draw_panel(figure, axis, panel)
        if first_bad_step is not None:
            _mark_step(figure, axis, first_bad_step, ends, named)
    return figure


def threshold_bars(failed: Sequence[Evidence], others: Sequence[Evidence]) -> "Figure":
    """Measures in multiples of their thresholds: a bar each from 1 to the measure.

    Those that the verdict rests on come first; of the others, which are well above their thresholds, those
    below are marked as failures too.
    """
    items = [(item, ALARM) for item in failed]
    items += [(item, ALARM if item.below else ACCENT) for item in others]
    items = [(item, colour) for item, colour in items if math.isfinite(item.value) and item.threshold > 0]
    figure = _figure("multiple of the threshold", "", height=90 + 62 * max(1, len(items)))
    if not items:
        return figure
    ratios = [min(max(item.value / item.threshold, RATIOS[0]), RATIOS[1]) for item, _ in items]
    figure.add_bar(
        x=[ratio - 1 for ratio in ratios],
        base=1,
        y=[
            f"<b>{_safe(item.measure)} of {_safe(item.of)}</b><br>"
            f"{item.value:.3g}, threshold {item.threshold:.3g}"
            for item, _ in items
        ],
        orientation="h",
        width=0.5,
        marker={"color": [colour for _, colour in items]},
        customdata=[_safe(item.says) for item, _ in items],
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure.add_scatter(  # where a bar is too short to be seen
        x=ratios,
        y=figure.data[0].y,
        mode="markers",
        marker={"size": 10, "color": [colour for _, colour in items]},
        hoverinfo="skip",
    )
    figure.add_vline(1, line={"color": ALARM, "dash": "dash", "width": 1.5})
    ends = math.log10(min(*ratios, 1)) - 0.3, math.log10(max(*ratios, 1)) + 0.3
    figure.update_layout(showlegend=False, hovermode="closest")
    decades = max(1, math.ceil((ends[1] - ends[0]) / 4))
    figure.update_xaxes(type="log", range=ends, dtick=decades, exponentformat="power")
    figure.update_yaxes(autorange="reversed", showgrid=False, title=None, ticks="", ticklabelstandoff=6)
    return figure


def cumulative_spectrum(shares: Sequence[float], effective_rank: float | None = None) -> "Figure":
    """Cumulative share of variance of the largest components, in percent, and the effective rank."""
    figure = _figure("components (largest first)", "share of variance (%)")
    if not any(math.isfinite(_number(share)) for share in shares):
        return figure
    figure.add_scatter(
        x=list(range(len(shares) + 1)),
        y=[0.0, *(100 * np.cumsum([_number(share) for share in shares]))],
        mode="lines+markers" if len(shares) <= 60 else "lines",
        name="cumulative share",
        line={"color": Z, "width": 2},
        marker={"size": 5},
        hovertemplate="%{y:.1f} %<extra></extra>",
    )
    figure.update_yaxes(range=[0, 103])
    figure.update_layout(showlegend=False)
    rank = _number(effective_rank)
    if math.isfinite(rank):
        figure.add_vline(
            rank,
            line={"color": GREY, "dash": "dash", "width": 1.5},
            annotation_text=f"effective rank {rank:.3g}",
            annotation_position="bottom right" if rank <= len(shares) / 2 else "bottom left",
        )
        figure.update_xaxes(range=[0, 1.03 * max(len(shares), rank)])
    return figure


@dataclass(frozen=True)
class _Axis:
    """The range of a panel's values; on a logarithmic one, what is not positive lies at its foot."""

    low: float
    high: float
    log: bool

    def drawn(self, value: float) -> float:
        """A value as plotly takes it for lines and shapes."""
        return 10.0 ** self.at(value) if self.log else value

    def at(self, value: float) -> float:
        """A value's place between `low` and `high`, as plotly takes it for ranges and annotations."""
        if not self.log:
            return value
        return self.low if value <= 0 else max(self.low, math.log10(value))

    def edge(self, below: bool) -> float:
        """The end of the axis on a side, as plotly takes it for shapes."""
        end = self.low if below else self.high
        return 10.0**end if self.log else end


def _axis_of(values: Iterable[float]) -> _Axis:
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known), max(known)
    least = min((value for value in known if value > 0), default=0.0)
    if low >= 0 and high >= SPAN * least > 0:
        bottom = math.log10(least) - (low == 0)
        room = 0.1 * (math.log10(high) - bottom)
        return _Axis(bottom - room, math.log10(high) + room, True)
    room = 0.12 * (high - low) or 0.12 * abs(high) or 1.0
    if low >= 0:
        return _Axis(0.0, 1.12 * high or 1.0, False)
    return _Axis(low - room, high + room, False)


def _stack(lines: Sequence[int], marked: bool) -> tuple[list[float], float]:
    """Where panels begin below each other, under so many lines each, and their height together, in pixels."""
    tops: list[float] = []
    bottom = 0.0
    for place, count in enumerate(lines):
        gap = 10 if place else 0
        tops.append(bottom + gap + LINE * (count + (marked and place == 0)) + 8)
        bottom = tops[-1] + PANEL
    return tops, max(bottom, 1.0)


def _titled(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "automargin": True,
        "zeroline": False,
    }


def _axis_title(one: Series) -> str:
    return EVIDENCE.get(one.measure, ("", one.measure.replace("_", " ")))[1]


def _heading(panel: Sequence[Series]) -> list[str]:
    """What a panel shows, its nodes in their colours, and what that says."""
    nodes = " and ".join(f'<span style="color:{_colour(one.of)}">{_safe(one.of)}</span>' for one in panel)
    known = EVIDENCE.get(panel[0].measure)
    name = known[0].format(nodes) if known else f"{_safe(panel[0].measure.replace('_', ' '))} of {nodes}"
    says = "; ".join(dict.fromkeys(one.says for one in panel))
    return [f"<b>{name}</b>", *(_safe(line) for line in textwrap.wrap(says, WORDS))]


def _colour(node: str) -> str:
    return {"z": Z, "p": P}.get(node, ACCENT)


def _margins(steps: Sequence[int]) -> list[float]:
    """The range of the steps, with room at both ends."""
    room = 0.03 * (max(steps) - min(steps)) or 1.0
    return [min(steps) - room, max(steps) + room]


def _draw_panel(figure: "Figure", axis: str, panel: Sequence[Series]) -> None:
    """Lines, threshold and forbidden side of the measures that share a panel."""
    values = [value for one in panel for value in one.values if math.isfinite(value)]
    threshold, below = panel[0].threshold, panel[0].below
    scale = _axis_of([*values, threshold])
    x, y = f"x{axis}", f"y{axis}"
    for one in panel:
        few = sum(math.isfinite(value) for value in one.values) <= 60
        figure.add_scatter(
            x=list(one.steps),
            y=[scale.drawn(value) if math.isfinite(value) else None for value in one.values],
            customdata=[f"{value:.4g}" for value in one.values],  # zeros are drawn elsewhere
            mode="lines+markers" if few else "lines",
            name=_safe(one.of),
            line={"color": _colour(one.of), "width": 2},
            marker={"size": 5},
            hovertemplate=f"%{{customdata}}<extra>{_safe(one.of)}</extra>",
            xaxis=x,
            yaxis=y,
        )
    axis_of_values: dict[str, Any] = {
        "range": [scale.low, scale.high],
        "exponentformat": "power",
        "nticks": 6,
    }
    if scale.log:
        axis_of_values |= {"type": "log", "dtick": max(1, math.ceil((scale.high - scale.low) / 5))}
    figure.update_layout({f"yaxis{axis}": axis_of_values})
    if not math.isfinite(threshold):
        return
    if below is not None:
        figure.add_shape(
            type="rect", xref=f"{x} domain", yref=y, x0=0, x1=1, y0=scale.drawn(threshold),
            y1=scale.edge(below),
            fillcolor=FORBIDDEN, line={"width": 0}, layer="below",
        )  # fmt: skip
    figure.add_shape(
        type="line", xref=f"{x} domain", yref=y, x0=0, x1=1, y0=scale.drawn(threshold),
        y1=scale.drawn(threshold), line={"color": ALARM, "dash": "dash", "width": 1.5},
    )  # fmt: skip
    side = "collapsed losses come to" if below is None else f"failure {'below' if below else 'above'}"
    text = f"{side} {threshold:.4g}"
    end, above = _free_corner(panel, scale)
    figure.add_annotation(
        text=text, font={"color": ALARM}, showarrow=False, xref=f"{x} domain", x=end,
        xanchor="right" if end else "left", yref=y, y=scale.at(threshold),
        yanchor="bottom" if above else "top",
    )  # fmt: skip


def _free_corner(panel: Sequence[Series], scale: _Axis) -> tuple[int, bool]:
    """Where the threshold's label has most room: left (0) or right (1), above the line or not."""
    level = scale.at(panel[0].threshold)
    steps = [step for one in panel for step in one.steps]
    width = LABEL * (max(steps) - min(steps))

    def room(end: int, above: bool) -> float:
        near = [
            scale.at(value) - level
            for one in panel
            for step, value in zip(one.steps, one.values, strict=True)
            if math.isfinite(value) and abs(step - (max(steps) if end else min(steps))) <= width
        ]
        if above:
            return min([value for value in near if value >= 0] + [scale.high - level])
        return min([-value for value in near if value < 0] + [level - scale.low])

    return max(((1, True), (1, False), (0, True), (0, False)), key=lambda corner: room(*corner))


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
