"""The matrix dynamics whose assumptions and theorem the modes rest on (tian2021, Figs. 7, 8 and 9).

Data are isotropic, X = I and X' = sigma2 I. Starts are drawn: the papers say neither sizes nor scales.

Shapes: n inputs and outputs; T times; R runs.
"""

from collections.abc import Sequence

import numpy as np

from stopgrad.errors import UsageError
from stopgrad.theory.assumptions import (
    RTOL,
    commutator_growth,
    nearly_aligned,
    predictor_parts,
    random_starts,
    target_cosines,
)
from stopgrad.theory.domain import POSITIVE
from stopgrad.theory.figures import style
from stopgrad.theory.figures.arguments import number, several, span, whole
from stopgrad.theory.figures.sketch import Sketch
from stopgrad.theory.reduced import Reduced

FIRST = 1e-2  # time of the first point of a curve; the axis is logarithmic
LARGEST = 16  # matrices of which each eigenvalue can still be told apart


def tian2021_fig7(
    gammas: Sequence[float] = (0.9, 0.99, 0.996),
    etas: Sequence[float] = (0.0, 0.01, 0.1),
    sigma2: float = 0.0009,
    learning_rate: float = 0.01,
    n: int = 8,
    scale: float = 0.3,
    runs: int = 10,
    seed: int = 0,
    t_end: float = 100.0,
    points: int = 80,
) -> Sketch:
    """Whether W_a is a multiple of W (Assumption 1): their cosine over time.

    Args:
        gammas: share of the target kept in a step, in [0, 1), up to 6; beta = (1 - gamma) / learning_rate.
        etas: weight decay of each panel, up to 4.
        sigma2: variance of the views.
        learning_rate: of the steps that gamma counts in.
        n: inputs and outputs.
        scale: W and W_p start normal with standard deviation scale / sqrt(n), W_a at 0.
        runs, seed: number of starts, and the first one's seed.
        t_end: end of the time axis, > 0.01.
        points: points of a curve.
    """
    decays = several("etas", etas, "eta", 4)
    kept = several("gammas", gammas, "beta", 6)
    if max(kept) >= 1:
        raise UsageError(f"gammas: {max(kept):g} is outside its domain [0, 1)")
    rate, variance = number("learning_rate", learning_rate, POSITIVE), number("sigma2", sigma2)
    starts = _starts(n, scale, runs, seed)
    t = _times(t_end, points)
    figure = style.sketch(
        "The target stays proportional to the network: W<sub>a</sub> = τ W holds nearly",
        "Cosine between the target's weights W<sub>a</sub> and the network's W: 1 where one is a multiple of "
        f"the other.<br>Lines are means of {runs} random starts, shades span lowest to highest. "
        f"n = {n}, σ² = {variance:g}, W<sub>a</sub>(0) = 0.",
        panels=[f"η = {eta:g}" for eta in decays],
        share_y=True,
        gap=0.045,
    )
    low = 0.98
    for col, eta in enumerate(decays, start=1):
        for colour, gamma in zip(style.SERIES, kept, strict=False):
            found = target_cosines(starts, t, eta, (1 - gamma) / rate, variance)
            low = min(low, found.min())
            name = f"γ<sub>a</sub> = {gamma:g} (β = {(1 - gamma) / rate:g})"
            style.band(figure, t[1:], found.min(axis=0), found.max(axis=0), name, colour, col=col)
            style.line(figure, t[1:], found.mean(axis=0), name, colour, col=col)
        title = "cosine of W<sub>a</sub> and W" if col == 1 else ""
        style.axes(figure, style.SYMBOLS["t"], title, col=col, y_range=(low - 0.005, 1.003))
    figure.update_xaxes(type="log")
    return figure


def tian2021_fig8(
    etas: Sequence[float] = (0.001, 0.01, 0.05),
    taus: Sequence[float] = (0.2, 0.6, 1.0),
    sigma2: float = 0.0009,
    n: int = 8,
    scale: float = 1.0,
    seed: int = 0,
    t_end: float = 1000.0,
    points: int = 200,
) -> Sketch:
    """Symmetric and antisymmetric part of a predictor whose gradient is not symmetrised.

    Args:
        etas: weight decay of each panel, up to 4.
        taus: the target's share, held, up to 6.
        sigma2: variance of the views.
        n, scale, seed: W_p starts normal with standard deviation scale / sqrt(n), F at W_p^T W_p.
        t_end: end of the time axis, > 0.01.
        points: points of a curve.
    """
    decays, shares = several("etas", etas, "eta", 4), several("taus", taus, "tau", 6)
    variance = number("sigma2", sigma2)
    ((W_p, _),) = _starts(n, scale, 1, seed)
    t = _times(t_end, points)
    figure = style.sketch(
        "The predictor becomes symmetric by itself",
        "W<sub>p</sub> = A + B with A symmetric and B antisymmetric, its gradient free. "
        "B (dashed) vanishes for every η and τ.<br>"
        "A (solid) stays, unless much decay or a small τ drag it to 0 as well. "
        f"n = {n}, σ² = {variance:g}, F(0) = W<sub>p</sub><sup>T</sup> W<sub>p</sub>.",
        panels=[f"η = {eta:g}" for eta in decays],
        share_y=True,
        gap=0.045,
    )
    for col, eta in enumerate(decays, start=1):
        for colour, tau in zip(style.SERIES, shares, strict=False):
            parts = predictor_parts(W_p, t, eta, tau, variance)
            for values, name, dash in zip(parts, "AB", ("solid", "dash"), strict=True):
                style.line(figure, t[1:], values[1:], f"‖{name}‖ for τ = {tau:g}", colour, dash=dash, col=col)
        style.axes(figure, style.SYMBOLS["t"], "Frobenius norm" if col == 1 else "", col=col)
    _logarithmic(figure, -4, 0.7)
    return figure


def tian2021_fig9(
    etas: Sequence[float] = (0.0, 0.01, 0.05),
    taus: Sequence[float] = (0.2, 0.6, 1.0),
    sigma2: float = 0.0009,
    n: int = 8,
    p_range: Sequence[float] = (0.02, 0.1),
    angle: float = 0.01,
    seed: int = 0,
    t_end: float = 300.0,
    points: int = 200,
) -> Sketch:
    """Norm of the commutator of F and W_p over its first value.

    Args:
        etas: weight decay of each panel, up to 4.
        taus: the target's share, held, up to 6.
        sigma2: variance of the views.
        n: inputs and outputs.
        p_range: eigenvalues of W_p at the start are uniform in it; those of F are their squares.
        angle: size of the rotation between the eigenvectors of W_p and F at the start.
        seed: of the start.
        t_end: end of the time axis, > 0.01.
        points: points of a curve.
    """
    decays, shares = several("etas", etas, "eta", 4), several("taus", taus, "tau", 6)
    variance = number("sigma2", sigma2)
    W_p, F = _turned(n, p_range, angle, seed)
    t = _times(t_end, points)
    figure = style.sketch(
        "Eigenspaces that nearly agree can drift apart before they align",
        "Norm of the commutator F W<sub>p</sub> − W<sub>p</sub> F over its value at the start. While K has "
        "negative eigenvalues, which needs little decay and<br>a large τ, the norm can grow many times over "
        "(above the dotted line). It shrinks once features are learned, or die. "
        f"n = {n}, σ² = {variance:g}.",
        panels=[f"η = {eta:g}" for eta in decays],
        share_y=True,
        gap=0.045,
    )
    for col, eta in enumerate(decays, start=1):
        for colour, tau in zip(style.SERIES, shares, strict=False):
            norm = commutator_growth(W_p, F, t, eta, tau, variance)
            style.line(figure, t[1:], norm[1:], f"τ = {tau:g}", colour, col=col)
        style.line(figure, t[[1, -1]], [1, 1], "as at the start", style.INK, dash="dot", width=1, col=col)
        title = "‖[F, W<sub>p</sub>]‖ / its start" if col == 1 else ""
        style.axes(figure, style.SYMBOLS["t"], title, col=col)
    _logarithmic(figure, -3, 1.2)
    return figure


def matrix_flow(
    alpha_p: float = 1.0,
    eta: float = 0.04,
    sigma2: float = 0.5,
    tau: float = 1.0,
    n: int = 6,
    p_range: Sequence[float] = (0.05, 0.5),
    angle: float = 0.2,
    seed: int = 0,
    t_end: float = 200.0,
    points: int = 120,
) -> Sketch:
    """Predictor and correlation as matrices: their eigenvalues, and how well their eigenvectors agree.

    Args:
        alpha_p, eta, sigma2, tau: see :class:`stopgrad.theory.reduced.Reduced`.
        n: inputs and outputs, 2 to 16.
        p_range: eigenvalues of W_p at the start are uniform in it; those of F are their squares.
        angle: size of the rotation between the eigenvectors of W_p and F at the start.
        seed: of the start.
        t_end: end of the time axis, > 0.01.
        points: points of a curve.
    """
    if whole("n", n, 2) > LARGEST:
        raise UsageError(f"n: {n} is outside its domain [2, {LARGEST}]")
    W_p, F = _turned(n, p_range, angle, seed)
    t = _times(t_end, points)
    path = Reduced(W_p, F, tau, alpha_p, eta, sigma2).trajectory(t, rtol=RTOL)
    figure = style.sketch(
        "Predictor and correlation turn towards each other",
        "Each line is an eigenvalue of W<sub>p</sub> or of F = W X W<sup>T</sup>. Alignment is the mean "
        "cosine of u and W<sub>p</sub> u<br>over F's eigenvectors u; the commutator's norm must fall below "
        "Theorem 3's bound.",
        panels=("eigenvalues of W<sub>p</sub>", "eigenvalues of F", "alignment", "‖[F, W<sub>p</sub>]‖"),
        rows=2,
        height=220,
        gap=0.12,
        row_gap=0.24,
    )
    for col, (values, name, colour) in enumerate(
        ((path.eigenvalues_W_p, "of W<sub>p</sub>", style.BLUE), (path.eigenvalues_F, "of F", style.GREEN)), 1
    ):
        for one in values.T:
            style.line(figure, t[1:], one[1:], name, colour, width=1.5, col=col)
    style.line(figure, t[1:], path.alignment[1:], "alignment", style.PURPLE, row=2)
    style.line(figure, t[1:], path.commutator_norm[1:], "commutator", style.ORANGE, row=2, col=2)
    style.line(
        figure, t[1:], path.theorem3_bound[1:], "Theorem 3's bound", style.INK, dash="dot", row=2, col=2
    )
    for panel, title in enumerate(("eigenvalue", "eigenvalue", "mean cosine", "Frobenius norm")):
        row, col = panel // 2 + 1, panel % 2 + 1
        style.axes(figure, style.SYMBOLS["t"] if row == 2 else "", title, row=row, col=col)
    figure.update_xaxes(type="log", dtick=1)
    figure.update_yaxes(range=[0, 1.03], row=2, col=1)
    figure.update_yaxes(type="log", exponentformat="power", row=2, col=2)
    return figure


def _starts(n: int, scale: float, runs: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    size, count = number("scale", scale, POSITIVE), whole("runs", runs)
    return random_starts(whole("n", n, 2), size, count, whole("seed", seed, 0))


def _turned(n: int, p_range: Sequence[float], angle: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = span("p_range", p_range)
    size = number("angle", angle, POSITIVE)
    return nearly_aligned(whole("n", n, 2), (low, high), size, whole("seed", seed, 0))


def _times(t_end: float, points: int) -> np.ndarray:
    """0, and times evenly spaced in the logarithm. (points + 1,)"""
    end = number("t_end", t_end, (FIRST, False))
    return np.concatenate([[0.0], np.geomspace(FIRST, end, whole("points", points, 2))])


def _logarithmic(figure: Sketch, low: float, high: float) -> None:
    """Both axes of every panel; the vertical one spans 10^low to 10^high."""
    figure.update_xaxes(type="log", dtick=1)
    figure.update_yaxes(type="log", range=[low, high], dtick=1)
