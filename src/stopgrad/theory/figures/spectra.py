"""How eigenvalues of a representation learn under a closed-form predictor (halvagal2023, Figs. 4 and 5)."""

import numpy as np

from stopgrad.theory import representation
from stopgrad.theory.figures import style
from stopgrad.theory.figures.arguments import whole
from stopgrad.theory.figures.sketch import Sketch
from stopgrad.theory.representation import Loss, Variant

LOSSES: dict[Loss, str] = {"euclidean": "Euclidean loss", "cosine": "cosine loss"}
VARIANTS: dict[Variant, str] = {
    "plain": "plain",
    "no-stop-gradient": "no stop-gradient",
    "no-predictor": "no predictor",
    "isoloss": "IsoLoss",
}
TIME = "t, steps × learning rate"
EIGENVALUE = "λ, eigenvalue of W W<sup>T</sup>"


def halvagal2023_fig4(points: int = 151, seed: int = 2) -> Sketch:
    """Two neurons under either loss, from three starts.

    Args:
        points, seed: see :func:`stopgrad.theory.representation.halvagal2023_fig4`.
    """
    found = representation.halvagal2023_fig4(whole("points", points, 2), whole("seed", seed, 0))
    figure = style.sketch(
        "Two neurons: the Euclidean loss ends at 1, the cosine loss at equal eigenvalues",
        "Both eigenvalues of each start, in its colour. Euclidean: every one ends at 1, and small ones take "
        "long to start.<br>Cosine: the two become equal, at their mean at the start (dotted): this loss does "
        "not see how large W is. λ is the predictor's eigenvalue too.",
        panels=list(LOSSES.values()),
        share_y=True,
        height=380,
        gap=0.04,
    )
    for col, loss in enumerate(LOSSES, start=1):
        for i, (colour, course) in enumerate(zip(style.SERIES, found[loss], strict=False), start=1):
            for values in course.s.T:
                style.line(figure, course.t, values, f"start {i}", colour, col=col)
            if loss == "cosine":
                mean = [course.s[0].mean()] * 2
                style.line(
                    figure,
                    course.t[[0, -1]],
                    mean,
                    "mean at the start",
                    colour,
                    dash="dot",
                    width=1.5,
                    col=col,
                )
        style.axes(figure, TIME, EIGENVALUE if col == 1 else "", col=col)
    figure.update_yaxes(rangemode="tozero")
    return figure


def halvagal2023_fig5(steps: int = 1500, batch: int = 500, seed: int = 2) -> Sketch:
    """Ten ReLU neurons under either loss, with and without stop-gradient and predictor, and with IsoLoss.

    Args:
        steps, batch, seed: see :func:`stopgrad.theory.representation.halvagal2023_fig5`.
    """
    steps, batch, seed = whole("steps", steps, 10), whole("batch", batch), whole("seed", seed, 0)
    found = representation.halvagal2023_fig5(steps, batch, seed)
    figure = style.sketch(
        "Ten ReLU neurons learn as linear ones do",
        "Each line is an eigenvalue of W W<sup>T</sup>. Plain and IsoLoss draw them together, IsoLoss "
        "without keeping the small ones waiting;<br>"
        "without stop-gradient they die (Euclidean) or part (cosine), without a predictor nothing moves. "
        "Gradient descent on noisy Gaussian views.",
        panels=[f"{LOSSES[loss]}, {name}" for loss in LOSSES for name in VARIANTS.values()],
        rows=2,
        height=250,
        gap=0.045,
        row_gap=0.16,
    )
    for row, loss in enumerate(LOSSES, start=1):
        for col, variant in enumerate(VARIANTS, start=1):
            course = found[loss, variant]
            for values, name, colour, width in _ranked(course.s):
                style.line(figure, course.t, values, name, colour, width=width, row=row, col=col)
            style.axes(
                figure, TIME if row == 2 else "", EIGENVALUE if col == 1 else "", row=row, col=col,
            )  # fmt: skip
    figure.update_yaxes(rangemode="tozero")
    return figure


def _ranked(s: np.ndarray) -> list[tuple[np.ndarray, str, str, float]]:
    """Lines of eigenvalues (T, M), ascending, with their look: the smallest, the largest, those between."""
    between = [(values, "between", style.GREY, 1.0) for values in s.T[1:-1]]
    return [*between, (s[:, 0], "smallest", style.ORANGE, 2.0), (s[:, -1], "largest", style.BLUE, 2.0)]
