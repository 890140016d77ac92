"""Pictures that follow sliders: one mode, two eigenvalues, matrices, and the causes in a phase diagram."""

import numpy as np
import pytest

from stopgrad.theory.basins import collapses
from stopgrad.theory.figures import make_figure
from stopgrad.theory.figures.hyper_parameters import causes
from stopgrad.theory.modes import Modes


def line(figure, name, col=1):
    axis = "x" if col == 1 else f"x{col}"
    (found,) = (t for t in figure.data if t.name == name and (t.xaxis or "x") == axis and t.fill is None)
    return found


@pytest.mark.parametrize("eta", [0.0, 0.04, 0.3])
@pytest.mark.parametrize("fixed_tau", [1.0, 0.7])
def test_a_modes_plane_shades_what_collapses(eta, fixed_tau):
    figure = make_figure("mode-plane", eta=eta, fixed_tau=fixed_tau)
    (shade,) = (trace for trace in figure.data if trace.fill == "toself")
    low, high = np.split(np.asarray(shade.y), 2)
    p = np.split(np.asarray(shade.x), 2)[0]
    assert (low == 0).all()
    inside = np.linspace(-0.97, 1.47, 60)
    edge = np.interp(inside, p, high[::-1])
    for share, collapsed in ((0.97, True), (1.03, False)):
        start = (inside, np.maximum(share * edge, 1e-9))
        shown = edge > 0.05  # below, a line between two points of the edge is not the edge
        found = collapses(Modes(*start, eta=eta, fixed_tau=fixed_tau)).numpy()
        if eta < 0.3:
            assert (found[shown] == collapsed).all()
        else:
            assert found.all()


def test_a_modes_solution_runs_from_its_start_to_the_end_that_is_named():
    figure = make_figure("mode-plane", p0=0.4, s0=0.3, t_end=500.0)
    solution, start = line(figure, "solution"), line(figure, "start")
    assert (start.x[0], start.y[0]) == (0.4, 0.3) == (solution.x[0], solution.y[0])
    text = figure.layout.title.subtitle.text
    assert f"p goes to {solution.x[-1]:.4g}, s to {solution.y[-1]:.4g}." in text


def test_a_modes_arrows_point_where_the_flow_goes():
    eta, sigma2, tau, alpha_p = 0.05, 0.3, 0.9, 2.0
    figure = make_figure("mode-plane", eta=eta, sigma2=sigma2, fixed_tau=tau, alpha_p=alpha_p)
    arrows = line(figure, "direction of the flow")
    x, y = (np.asarray(values).reshape(-1, 6) for values in (arrows.x, arrows.y))
    p, s, dx, dy = x[:, :2].mean(axis=1), y[:, :2].mean(axis=1), x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]
    pull = tau - (1 + sigma2) * p
    dp, ds = alpha_p * s * pull - eta * p, 2 * p * s * pull - 2 * eta * s
    np.testing.assert_allclose(dx * ds, dy * dp, atol=1e-12)
    assert (dx * dp + dy * ds > 0).all()
    # a head's two sides are of one length on a square panel, on both sides of the shaft, and point back
    sides = [np.stack([(x[:, i] - x[:, 1]) / 2.5, (y[:, i] - y[:, 1]) / 1.5]) for i in (2, 4)]
    shaft = np.stack([dx / 2.5, dy / 1.5])
    np.testing.assert_allclose(*[np.linalg.norm(side, axis=0) for side in sides])
    assert all(((side * shaft).sum(axis=0) < 0).all() for side in sides)
    turns = [shaft[0] * side[1] - shaft[1] * side[0] for side in sides]
    assert (turns[0] * turns[1] < 0).all()


def test_a_modes_course_is_its_trajectory():
    figure = make_figure("mode-course", fixed_tau=None, beta=0.2, t_end=30.0)
    mode = Modes(0.3, 0.2, beta=0.2)
    t = np.asarray(line(figure, "p").x)
    same = mode.trajectory(t)
    for name, col in (("p", 1), ("s", 2), ("τ", 3), ("k", 4)):
        expected = getattr(same, {"τ": "tau"}.get(name, name)).numpy()
        np.testing.assert_allclose(line(figure, name, col).y, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "variant", "end"),
    [
        ("euclidean", "plain", (1.0, 1.0)),
        ("euclidean", "isoloss", (1.0, 1.0)),
        ("euclidean", "no-stop-gradient", (0.0, 0.0)),
        ("euclidean", "no-predictor", (0.2, 0.7)),
        ("cosine", "plain", (0.45, 0.45)),
        ("cosine", "isoloss", (np.sqrt(0.265), np.sqrt(0.265))),  # the mean of the squares is conserved
    ],
)
def test_two_eigenvalues_end_where_the_theory_says(loss, variant, end):
    figure = make_figure("two-eigenvalues", loss=loss, variant=variant, first=0.2, second=0.7, t_end=400.0)
    solution = line(figure, "solution")
    assert (solution.x[0], solution.y[0]) == pytest.approx((0.2, 0.7))
    assert (solution.x[-1], solution.y[-1]) == pytest.approx(end, abs=0.03)


def test_the_commutator_stays_below_its_bound():
    figure = make_figure("matrix-flow", eta=0.1, points=60)
    norm, bound = line(figure, "commutator", 4), line(figure, "Theorem 3's bound", 4)
    assert (np.asarray(norm.y) <= 1.001 * np.asarray(bound.y)).all()
    assert norm.y[-1] < 1e-3 * norm.y[0]


def test_causes_name_what_decides():
    settings = {"eta": np.array([0.02, 0.1, 0.3]), "sigma2": 0.5, "beta": 0.4}
    assert causes(settings, np.array([False, True, True])).tolist() == [
        "keeps a feature",
        "collapses: the start is in the basin of s = 0",
        "collapses, whatever the start: η > τ² / (4 (1 + σ²))",
    ]
    assert (
        causes({**settings, "beta": 0.0}, np.ones(3, bool)).tolist()
        == ["collapses: the target never moves"] * 3
    )
