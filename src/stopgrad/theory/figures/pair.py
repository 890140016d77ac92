"""Two eigenvalues of a representation under a closed-form predictor (halvagal2023)."""

import numpy as np
from scipy.integrate import solve_ivp

from stopgrad.theory.domain import NONNEGATIVE, POSITIVE
from stopgrad.theory.figures import style
from stopgrad.theory.figures.arguments import number
from stopgrad.theory.figures.sketch import Sketch
from stopgrad.theory.representation import Loss, Siamese, Variant, power

ARROWS, TIMES = 15, 201
SYMBOLS = "λ<sub>1</sub>, eigenvalue of W W<sup>T</sup>", "λ<sub>2</sub>, eigenvalue of W W<sup>T</sup>"
NOISE = (0.0, 0.01)  # of the query and the key: the published figures'

READINGS: dict[tuple[Loss, Variant], str] = {
    (
        "euclidean",
        "plain",
    ): "Every eigenvalue goes to 1; a small one waits long, since its rate is in λ itself.",
    ("euclidean", "isoloss"): "Every eigenvalue goes to 1, small ones as fast as others.",
    ("euclidean", "no-stop-gradient"): "Without stop-gradient eigenvalues only fall.",
    ("euclidean", "no-predictor"): "Without a predictor nothing is learned.",
    ("cosine", "plain"): "The two become equal, at their mean at the start: their sum is conserved.",
    (
        "cosine",
        "isoloss",
    ): "The two become equal, small ones as fast as others; λ^(1 + exponent) keeps its mean.",
    ("cosine", "no-stop-gradient"): "Without stop-gradient the eigenvalues part.",
    ("cosine", "no-predictor"): "Without a predictor nothing is learned.",
}


def two_eigenvalues(
    loss: Loss = "euclidean",
    variant: Variant = "plain",
    first: float = 0.1,
    second: float = 0.6,
    exponent: float = 1.0,
    eps: float = 0.0,
    most: float = 1.5,
    t_end: float = 20.0,
) -> Sketch:
    """Where two eigenvalues go, and their course in time.

    Args:
        loss, variant: see :mod:`stopgrad.theory.representation`.
        first, second: the eigenvalues of W W^T at the start, >= 0.
        exponent, eps: the predictor's eigenvalues are s^exponent + eps; 1/2 is DirectPred's exponent, 1 that
            of the published figures.
        most: end of both axes, > 0.
        t_end: end of the solution.
    """
    network = Siamese(loss, variant, power(exponent, eps), *NOISE)
    start = np.array([number("first", first, NONNEGATIVE), number("second", second, NONNEGATIVE)])
    most, end = number("most", most, POSITIVE), number("t_end", t_end, POSITIVE)
    figure = style.sketch(
        "Two eigenvalues of the representation",
        f"{READINGS[loss, variant]}<br>A clean view predicts one with noise of variance {NOISE[1]:g}.",
        panels=("where they go", "in time"),
        height=380,
        gap=0.12,
    )
    _draw_directions(figure, network, most)
    style.line(figure, [0, most], [0, most], "equal", style.GREY, dash="dot", width=1.5)
    if loss == "euclidean" and variant in ("plain", "isoloss"):
        rest = (1 - eps) ** (1 / exponent) if eps < 1 else 0.0
        style.point(figure, rest, rest, True)
    t, s = _solve(network, start, end)
    style.line(figure, s[0], s[1], "solution", style.BLUE, width=3)
    for values, name, colour in zip(s, ("λ₁", "λ₂"), style.SERIES, strict=False):
        style.line(figure, t, values, name, colour, col=2)
    style.axes(figure, *SYMBOLS, x_range=(0, most), y_range=(0, most))
    style.axes(figure, style.SYMBOLS["t"], "λ", col=2, y_range=(0, 1.05 * max(most, s.max())))
    return figure


def _solve(network: Siamese, start: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) and both eigenvalues (2, T); a solution that passes through 0 stays there."""
    t = np.concatenate([[0.0], np.geomspace(1e-3, 1, TIMES - 1)]) * end
    course = solve_ivp(
        lambda _, s: network.spectrum_rates(s.clip(min=0)), (0, end), start, "LSODA", t, rtol=1e-7, atol=1e-10
    )
    return course.t, course.y.clip(min=0)


def _draw_directions(figure: Sketch, network: Siamese, most: float) -> None:
    axis = np.linspace(0, most, ARROWS)
    x, y = np.meshgrid(axis, axis)
    rates = np.array([network.spectrum_rates(s) for s in np.stack([x.ravel(), y.ravel()], axis=1)])
    size = np.linalg.norm(rates, axis=1, keepdims=True)
    share = np.divide(0.6 * most / ARROWS, size, out=np.zeros_like(size), where=size > 1e-12)
    dx, dy = (share * rates).T
    style.field(figure, x.ravel(), y.ravel(), dx, dy, (most, most), "direction of the flow")
