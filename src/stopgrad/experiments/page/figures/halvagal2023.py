"""Figures 4 and 5 of Halvagal et al. 2023 (IsoLoss), and its derivations' curves, from the records."""

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page.figures.series import courses, drawn, names, series
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TIME = "t, steps × learning rate"
EIGENVALUE = "λ, eigenvalue of W W<sup>T</sup>"


def rates(row: Row) -> "Figure":
    """Theorems 1 and 2: how fast modes grow, relative to their size, plain and with IsoLoss."""
    figure = style.canvas(
        escape(row.experiment.title),
        "Small modes grow in proportion to their eigenvalue, which the IsoLoss takes away.",
        panels=names(row),
        share_y=True,
        gap=0.04,
    )
    for col, arm in enumerate(names(row), start=1):
        s = series(row, arm, "s")
        for name, entry, colour in (("plain", "plain", style.BLUE), ("isoloss", "IsoLoss", style.ORANGE)):
            x, y = drawn(s, series(row, arm, name), "x")
            if x:
                style.line(figure, x, y, entry, colour, col=col)
        style.axes(figure, EIGENVALUE, "relative rate, dlog z / dt" if col == 1 else "", col=col)
    figure.update_xaxes(type="log", dtick=1)
    return figure


def figure4(row: Row) -> "Figure":
    """Fig. 4: the eigenvalues of two neurons from three starts, under either loss."""
    figure = style.canvas(
        "Two neurons from three starts",
        "Both eigenvalues of a start, in its colour. Euclidean: all end at 1. Cosine: the two become equal, "
        "at their mean at the start.",
        panels=[f"{name} loss" for name in names(row)],
        share_y=True,
        gap=0.04,
    )
    for col, arm in enumerate(names(row), start=1):
        t = series(row, arm, "t")
        for start, colour in zip((1, 2, 3), style.SERIES, strict=False):
            for values in series(row, arm, f"start {start}"):
                style.line(figure, t, values, f"start {start}", colour, col=col)
        style.axes(figure, TIME, EIGENVALUE if col == 1 else "", col=col)
    return figure


def figure5(row: Row) -> "Figure":
    """Fig. 5: eigenvalues of ReLU neurons beside those of linear ones, a panel an arm."""
    kinds = list(dict.fromkeys(name.partition(", ")[2] for name in names(row)))
    losses = list(dict.fromkeys(name.partition(", ")[0] for name in names(row)))
    places = {f"{loss}, {kind}": (i, j) for i, loss in enumerate(losses) for j, kind in enumerate(kinds)}
    figure = style.canvas(
        "Ten neurons, ReLU beside linear",
        "Every line is an eigenvalue. As in the linear network, but for the cosine IsoLoss, and more slowly "
        "where W_p is set from the representation.",
        panels=[name.replace(", W_p", "<br>W_p") for name in places],
        rows=len(losses),
        height=230,
        gap=0.05,
    )
    for name, (i, j) in places.items():
        t = series(row, name, "t")
        for entry, colour in (("linear", style.GREY), ("relu", style.BLUE)):
            shown = "ReLU" if entry == "relu" else entry
            for values in series(row, name, entry):
                style.line(figure, t, values, shown, colour, row=i + 1, col=j + 1, width=1.3)
        style.axes(figure, TIME, EIGENVALUE if j == 0 else "", row=i + 1, col=j + 1)
    return figure


def without_stop_gradient(row: Row) -> "Figure":
    """Appendix C.1 and C.2: eigenvalues over time, a panel an arm."""
    figure = style.canvas(
        "Without stop-gradient: collapse, and run-away",
        "Every line is an eigenvalue. Euclidean: noise takes all of them. Cosine: some die, and the others "
        "grow by what these lose.",
        panels=names(row),
        gap=0.06,
    )
    for col, arm in enumerate(names(row), start=1):
        for values in series(row, arm, "s"):
            style.line(figure, series(row, arm, "t"), values, "eigenvalue", style.BLUE, col=col)
        style.axes(figure, TIME, EIGENVALUE if col == 1 else "", col=col)
    return figure


FIGURES: "dict[str, Callable[[Row], Figure]]" = {
    "halvagal2023-thm1": rates,
    "halvagal2023-thm2": rates,
    "halvagal2023-fig4": figure4,
    "halvagal2023-fig5": figure5,
    "halvagal2023-nosg": without_stop_gradient,
    "halvagal2023-nopred": lambda row: courses(
        row,
        {"norm_W": "‖W(t)‖ / ‖W(0)‖"},
        "Without a predictor under the Euclidean loss",
        "With a clean query W stands still, with noise on it W decays.",
        x=("t", TIME),
    ),
}
