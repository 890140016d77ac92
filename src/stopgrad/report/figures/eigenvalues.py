"""The course of the predictor's eigenvalues p_j and of the correlation's s_j beside them, with theory's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stopgrad.report.figures.embedding import CLASS_COLOURS
from stopgrad.report.figures.style import GREY, MOST_MARKERS, empty_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = tuple(colour for colour in CLASS_COLOURS if colour != GREY)[:8]
"""Of the pairs in a picture, as many as there are; grey is the key's."""
DRAWN = len(COLOURS)
Side = Literal["p", "s"]
TITLES: dict[tuple[Side, bool], str] = {
    ("p", False): "p<sub>j</sub>",
    ("p", True): "p<sub>j</sub> over |p| / |z|",
    ("s", False): "s<sub>j</sub> (units of |z|²)",
    ("s", True): "s<sub>j</sub>, share of E|z|²",
}


@dataclass(frozen=True, eq=False)
class Path:
    """Pairs of eigenvalues over M epochs.

    Attributes:
        epochs: (M,)
        p: of the predictor. (M, K)
        s: of F in the predictor's eigenvectors, >= 0. (M, K)
    """

    epochs: NDArray[np.float64]
    p: NDArray[np.float64]
    s: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Eigenvalues:
    """What is drawn of a run.

    Attributes:
        measured: as the run went, the largest p first at every epoch.
        predicted: as theory has it, from one of the measured epochs on, in the order of that one; None where
            it says nothing.
        relative: whether lengths are divided out, since the run's distance does not see them.
        alignment: share of F in the predictor's eigenbasis at the first and the last measured epoch.
        says: what the prediction assumes, or why there is none.
    """

    measured: Path
    predicted: Path | None
    relative: bool
    alignment: tuple[float, float]
    says: str


def eigenvalues(course: Eigenvalues, side: Side) -> "Figure":
    """The `DRAWN` largest pairs over epochs: p linear, s logarithmic; measured solid, predicted dashed."""
    figure = empty_figure("epoch", TITLES[side, course.relative], height=360)
    measured, predicted = getattr(course.measured, side), course.predicted
    markers = len(course.measured.epochs) <= MOST_MARKERS
    for j in range(min(DRAWN, measured.shape[1])):
        colour = COLOURS[j]
        figure.add_scatter(
            x=course.measured.epochs,
            y=_drawable(measured[:, j], side),
            mode="lines+markers" if markers else "lines",
            name=f"{j + 1}",
            legendgroup=f"{j + 1}",
            line={"color": colour, "width": 2},
            marker={"size": 4},
            hovertemplate=f"epoch %{{x:.3g}}: {side}<sub>{j + 1}</sub> = %{{y:.3g}}<extra></extra>",
        )
        if predicted is None or j >= predicted.p.shape[1]:
            continue
        figure.add_scatter(
            x=predicted.epochs,
            y=_drawable(getattr(predicted, side)[:, j], side),
            mode="lines",
            name=f"{j + 1} predicted",
            legendgroup=f"{j + 1}",
            showlegend=False,
            line={"color": colour, "width": 1.5, "dash": "dash"},
            hovertemplate=(
                f"epoch %{{x:.3g}}: {side}<sub>{j + 1}</sub> = %{{y:.3g}}, predicted<extra></extra>"
            ),
        )
    if predicted is not None:
        _draw_key(figure)
    figure.update_layout(hovermode="closest", legend={"title": {"text": "j"}})
    if side == "s":
        figure.update_yaxes(type="log", exponentformat="power", dtick=1, range=_range(course))
    return figure


def _drawable(values: NDArray[np.float64], side: Side) -> NDArray[np.float32]:
    """Values for a line; those that a logarithm cannot show make gaps."""
    shown = np.where(values > 0, values, np.nan) if side == "s" else values
    return shown.astype(np.float32)


def _range(course: Eigenvalues) -> list[float] | None:
    """Decades of the measured values, and half of one beyond: a predicted mode may die by any factor."""
    values = course.measured.s[:, :DRAWN]
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return None
    tops = [values.max()]
    if course.predicted is not None:
        tops.append(np.nanmax(course.predicted.s[:, :DRAWN], initial=values.max()))
    return [float(np.log10(values.min()) - 0.5), float(np.log10(max(tops)) + 0.2)]


def _draw_key(figure: "Figure") -> None:
    """What solid and dashed lines are."""
    for name, dash in (("measured", "solid"), ("predicted", "dash")):
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=name, line={"color": GREY, "width": 2, "dash": dash},
            hovertemplate="<extra></extra>",
        )  # fmt: skip
