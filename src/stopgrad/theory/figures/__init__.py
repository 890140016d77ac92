"""Pictures of the theory by name: the papers' figures, and some that they do not have.

    figure = make_figure("tian2021-fig3", etas=[0, 0.05])
    write_figure(figure, Path("fig3.html"))

A picture only arranges what functions of the theory return; its parameters are those of the function that
draws it.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stopgrad.errors import UsageError, nearest, require, unknown
from stopgrad.theory.figures import hyper_parameters, matrices, mode, pair, plane, spectra, triplet
from stopgrad.theory.figures.export import check_suffix, write_figure
from stopgrad.theory.figures.sketch import Sketch

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Drawing

__all__ = ["FIGURES", "Figure", "Sketch", "check_suffix", "make_figure", "make_sketch", "write_figure"]


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes:
        name: what it is asked for by.
        title: what it shows, in one line.
        source: the paper and the place in it; "" for a picture of ours.
        draw: makes it; every parameter has a default.
    """

    name: str
    title: str
    source: str
    draw: Callable[..., Sketch]

    @property
    def parameters(self) -> dict[str, Any]:
        """Name -> default of what can be set."""
        return {name: p.default for name, p in inspect.signature(self.draw).parameters.items()}


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            "tian2021-fig3", "flow of a mode's p and s for three weight decays", "tian2021, Fig. 3",
            plane.tian2021_fig3,
        ),
        Figure(
            "tian2021-fig4", "fixed points on the parabola, and the decay at which they vanish",
            "tian2021, Fig. 4", plane.tian2021_fig4,
        ),
        Figure(
            "tian2021-fig5", "weight decay and a slow target lift k, at a price", "tian2021, Fig. 5",
            hyper_parameters.tian2021_fig5,
        ),
        Figure(
            "tian2021-fig7", "the target's weights stay proportional to the network's",
            "tian2021, appendix B, Fig. 7", matrices.tian2021_fig7,
        ),
        Figure(
            "tian2021-fig8", "the antisymmetric part of the predictor vanishes",
            "tian2021, appendix B, Fig. 8", matrices.tian2021_fig8,
        ),
        Figure(
            "tian2021-fig9", "the commutator of predictor and data can shoot up",
            "tian2021, appendix B, Fig. 9", matrices.tian2021_fig9,
        ),
        Figure(
            "tian2021-fig10", "flow of a scalar network, with and without predictor",
            "tian2021, appendix D, Fig. 10", triplet.tian2021_fig10,
        ),
        Figure(
            "halvagal2023-fig4", "two eigenvalues under the Euclidean and the cosine loss",
            "halvagal2023, supplement, Fig. 4", spectra.halvagal2023_fig4,
        ),
        Figure(
            "halvagal2023-fig5", "eigenvalues of a ReLU network under every loss",
            "halvagal2023, supplement, Fig. 5", spectra.halvagal2023_fig5,
        ),
        Figure("basin-map", "which starts collapse", "", plane.basin_map),
        Figure(
            "phase-diagram", "how a mode ends over any two parameters", "", hyper_parameters.phase_diagram,
        ),
        Figure("mode-plane", "one mode in the plane of p and s, from one start", "", mode.mode_plane),
        Figure("mode-course", "p, s, tau and k of one mode over time", "", mode.mode_course),
        Figure("two-eigenvalues", "two eigenvalues of a representation", "", pair.two_eigenvalues),
        Figure("matrix-flow", "predictor and correlation as matrices", "", matrices.matrix_flow),
    )
}  # fmt: skip


def make_figure(name: str, **parameters: Any) -> "Drawing":
    """Draw a picture of the registry.

    Args:
        name: one of ``FIGURES``.
        parameters: what to change of its defaults, see :attr:`Figure.parameters`.

    Raises:
        UsageError: for an unknown name or parameter, or a value outside its domain.
        MissingExtra: if plotly is not installed.
    """
    require("plotly.graph_objects", "report")  # before anything is computed
    return make_sketch(name, **parameters).figure()


def make_sketch(name: str, **parameters: Any) -> Sketch:
    """The same in plain dicts, without plotly: quick enough to follow a slider.

    Raises:
        UsageError: as :func:`make_figure` does.
    """
    if name not in FIGURES:
        raise unknown("figure", name, list(FIGURES))
    known = list(FIGURES[name].parameters)
    for key in parameters:
        if key not in known:
            raise UsageError(f"{name}: unknown parameter '{key}'{nearest(key, known)}")
    return FIGURES[name].draw(**parameters)
