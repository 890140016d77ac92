"""Predicted against measured: the spectra of z, and the times at which theory arrives and z settles."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stopgrad.experiments.page.beside.pairs import SETTLED, Collected, Pair, grouped, spectra
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEAST = 1e-5
"""Smallest share of the variance that the spectra's picture shows."""
COLOURS = {"EMA": style.BLUE, "stop-gradient alone": style.ORANGE, "no stop-gradient": style.RED}
"""Of where the keys come from."""


def spectrum_figure(found: Collected) -> "Figure":
    """Predicted against measured final spectrum of z of near arms with a linear predictor, a point a mode."""
    figure = style.canvas(
        "The spectrum of z that theory foresees, and the one that training leaves",
        "A point is the j-th largest share of an arm, mean over its seeds. On the line both are the same; "
        f"shares below {LEAST:g} are not drawn.",
        height=420,
    )
    for target, pairs in grouped(found.linear(), lambda pair: pair.target):
        points = [
            _mean_spectra(of_arm)
            for _, of_arm in grouped(pairs, lambda pair: f"{pair.experiment} {pair.arm}")
        ]
        both = np.hstack([p for p in points if p.size] or [np.empty((2, 0))])
        both = both[:, (both > LEAST).all(axis=0)]
        if both.size:
            _points(figure, both[0], both[1], target)
    if figure.data:
        _same(figure, (LEAST, 1), "power")
        style.axes(figure, "predicted share of the variance of z", "measured share after training")
    return figure


def time_figure(found: Collected) -> "Figure":
    """Predicted time of arrival against the epoch when z settles, of near arms with a linear predictor."""
    figure = style.canvas(
        "When theory arrives, and when z settles",
        "A point is a trial. Measured: the first evaluated epoch from which std and effective rank of z stay "
        f"within {SETTLED:g} of their last values;<br>trials that settle no earlier are left out.",
        height=380,
    )
    for target, pairs in grouped(found.linear(), lambda pair: pair.target):
        times = [(pair.theory.numbers.get("epochs"), pair.settled) for pair in pairs]
        known = np.array([row for row in times if None not in row], dtype=float)
        if known.size:
            _points(figure, known[:, 0], known[:, 1], target)
    if figure.data:
        ends = (min(min(t.x.min(), t.y.min()) for t in figure.data), max(t.x.max() for t in figure.data))
        _same(figure, ends, "none")
        style.axes(figure, "predicted epoch of arrival", "epoch from which z's measures rest")
    return figure


def _mean_spectra(pairs: Sequence[Pair]) -> np.ndarray:
    """Mean over the seeds of predicted and measured shares. (2, modes)"""
    rows = [row for row in map(spectra, pairs) if row[0].size and row[1].size]
    if not rows:
        return np.empty((2, 0))
    count = min(len(shares) for row in rows for shares in row)
    return np.array([[shares[:count] for shares in row] for row in rows]).mean(axis=0)


def _points(figure: "Figure", x: np.ndarray, y: np.ndarray, target: str) -> None:
    marker = {"size": 6, "color": COLOURS[target], "opacity": 0.6}
    figure.add_scatter(x=x, y=y, mode="markers", name=target, marker=marker)


def _same(figure: "Figure", ends: tuple[float, float], exponents: str) -> None:
    """The line on which both are the same, on logarithmic axes."""
    style.line(figure, ends, ends, "the same", style.GREY, dash="dot", width=1)
    figure.update_xaxes(type="log", exponentformat=exponents)
    figure.update_yaxes(type="log", exponentformat=exponents)
