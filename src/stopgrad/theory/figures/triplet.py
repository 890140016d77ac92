"""One mode of data that are not isotropic, weight by weight (tian2021, Fig. 10)."""

import re

import numpy as np

from stopgrad.theory.figures import style
from stopgrad.theory.figures.arguments import whole
from stopgrad.theory.figures.sketch import Sketch
from stopgrad.theory.triplet import tian2021_fig10 as planes

PANELS = (
    "target held at w<sub>a</sub> = 1",
    "w<sub>p</sub> = √α<sub>p</sub> w",
    "no predictor, w<sub>p</sub> = 1",
)
CURVES = {
    "w_p w = w_a l_d / l_s": (
        "stable points w<sub>p</sub> w = w<sub>a</sub> λ<sub>d</sub> / λ<sub>s</sub>",
        style.RED,
    ),
    "w_a' = 0": ("w<sub>a</sub>' = 0", style.GREEN),
    "w' = 0": ("w' = 0", style.ORANGE),
}


def tian2021_fig10(
    l_d: float = 0.5, l_s: float = 1.0, alpha_p: float = 1.0, beta: float = 1.0, points: int = 15
) -> Sketch:
    """Flow of the weights w, w_p and w_a in three planes.

    Args:
        l_d, l_s, alpha_p, beta, points: see :func:`stopgrad.theory.triplet.tian2021_fig10`.
    """
    drawn = planes(l_d=l_d, l_s=l_s, alpha_p=alpha_p, beta=beta, points=whole("points", points, 2))
    figure = style.sketch(
        "The predictor makes a solution that does not collapse",
        "Left: online weight w and predictor w<sub>p</sub> lift each other off 0, onto the hyperbola. "
        "Middle: the target follows; starts with w > 0 leave 0 for a stable point,<br>starts with w < 0 fall "
        "into 0. Right: without a predictor all collapse. "
        f"λ<sub>d</sub> = {l_d:g}, λ<sub>s</sub> = {l_s:g}, "
        f"α<sub>p</sub> = {alpha_p:g}, β = {beta:g}.",
        panels=PANELS,
        height=330,
        gap=0.09,
    )
    for col, plane in enumerate(drawn, start=1):
        length = 0.65 * (plane.x[1] - plane.x[0])
        w, other = np.meshgrid(plane.x, plane.y)
        style.field(
            figure,
            w,
            other,
            length * plane.dx,
            length * plane.dy,
            (1.0, 1.0),
            "direction of the flow",
            col=col,
        )
        for key, (x, y) in plane.curves.items():
            name, colour = CURVES[key]
            style.line(figure, x, y, name, colour, col=col)
        for x, y, stable in plane.points:
            style.point(figure, x, y, stable, col=col)
        x_title, y_title = (re.sub("_(.)", r"<sub>\1</sub>", axis) for axis in plane.axes)
        style.axes(
            figure,
            x_title,
            y_title,
            col=col,
            x_range=1.05 * plane.x[[0, -1]],
            y_range=1.05 * plane.y[[0, -1]],
        )
        # one scale for both axes, so that all arrows are of one length
        figure.update_yaxes(scaleanchor=f"x{col if col > 1 else ''}", constrain="domain", row=1, col=col)
        figure.update_xaxes(constrain="domain", row=1, col=col)
    return figure
