"""The matrix dynamics whose assumptions and theorem the modes rest on (tian2021, Figs. 7, 8 and 9).

Data are isotropic, X = I and X' = sigma2 I. Starts are drawn: the papers say neither sizes nor scales.

Shapes: n inputs and outputs; T times; R runs.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import expm

from stopgrad.errors import UsageError
from stopgrad.theory.domain import POSITIVE
from stopgrad.theory.figures import style
from stopgrad.theory.figures.arguments import number, several, span, whole
from stopgrad.theory.flow import Flow
from stopgrad.theory.reduced import Reduced

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FIRST = 1e-2  # time of the first point of a curve; the axis is logarithmic
RTOL = 1e-8


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
) -> "Figure":
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
    figure = style.canvas(
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


def target_cosines(
    starts: Sequence[tuple[np.ndarray, np.ndarray]], t: np.ndarray, eta: float, beta: float, sigma2: float
) -> np.ndarray:
    """Cosine of W_a and W at the times after the first, for starts W, W_p and W_a = 0. (R, T - 1)"""
    runs = []
    for W, W_p in starts:
        same = np.eye(len(W))
        flow = Flow(same, sigma2 * same, W, W_p, np.zeros_like(W), beta=beta, eta=eta)
        runs.append(flow.trajectory(t, rtol=RTOL).target_cosine[1:])
    return np.stack(runs)


def tian2021_fig8(
    etas: Sequence[float] = (0.001, 0.01, 0.05),
    taus: Sequence[float] = (0.2, 0.6, 1.0),
    sigma2: float = 0.0009,
    n: int = 8,
    scale: float = 1.0,
    seed: int = 0,
    t_end: float = 1000.0,
    points: int = 200,
) -> "Figure":
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
    figure = style.canvas(
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


def predictor_parts(
    W_p: np.ndarray, t: np.ndarray, eta: float, tau: float, sigma2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Norms of W_p's symmetric and antisymmetric part, from F = W_p^T W_p. (T,) each"""
    start = Reduced(W_p, W_p.T @ W_p, tau=tau, eta=eta, sigma2=sigma2, symmetric=False)
    path = start.trajectory(t, rtol=RTOL).W_p
    turned = np.swapaxes(path, 1, 2)
    return np.linalg.norm(path + turned, axis=(1, 2)) / 2, np.linalg.norm(path - turned, axis=(1, 2)) / 2


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
) -> "Figure":
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
    W_p, F = nearly_aligned(n, span("p_range", p_range), number("angle", angle, POSITIVE), seed)
    t = _times(t_end, points)
    figure = style.canvas(
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


def nearly_aligned(
    n: int, p_range: tuple[float, float], angle: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """W_p diagonal, and F with its squared eigenvalues and eigenvectors turned at random. (n, n) each"""
    random = np.random.default_rng(whole("seed", seed, 0))
    p = random.uniform(*p_range, whole("n", n, 2))
    turn = random.standard_normal((n, n))
    vectors = expm(angle * (turn - turn.T))
    F = (vectors * p**2) @ vectors.T
    return np.diag(p), (F + F.T) / 2


def commutator_growth(
    W_p: np.ndarray, F: np.ndarray, t: np.ndarray, eta: float, tau: float, sigma2: float
) -> np.ndarray:
    """||F W_p - W_p F|| over its value at t = 0. (T,)"""
    norm = Reduced(W_p, F, tau=tau, eta=eta, sigma2=sigma2).trajectory(t, rtol=RTOL).commutator_norm
    return norm / norm[0]


def _starts(n: int, scale: float, runs: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of random matrices (n, n)."""
    size = number("scale", scale, POSITIVE) / whole("n", n, 2) ** 0.5
    first = whole("seed", seed, 0)
    found = []
    for run in range(whole("runs", runs)):
        W, W_p = size * np.random.default_rng(first + run).standard_normal((2, n, n))
        found.append((W, W_p))
    return found


def _times(t_end: float, points: int) -> np.ndarray:
    """0, and times evenly spaced in the logarithm. (points + 1,)"""
    end = number("t_end", t_end, (FIRST, False))
    return np.concatenate([[0.0], np.geomspace(FIRST, end, whole("points", points, 2))])


def _logarithmic(figure: "Figure", low: float, high: float) -> None:
    """Both axes of every panel; the vertical one spans 10^low to 10^high."""
    figure.update_xaxes(type="log", dtick=1)
    figure.update_yaxes(type="log", range=[low, high], dtick=1)
