import re
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from stopgrad.errors import UsageError
from stopgrad.theory import representation, triplet
from stopgrad.theory.assumptions import nearly_aligned, predictor_parts
from stopgrad.theory.basins import collapses
from stopgrad.theory.figures import FIGURES, make_figure
from stopgrad.theory.figures.hyper_parameters import decay_share
from stopgrad.theory.figures.plane import Plane, flow_times
from stopgrad.theory.fixed_points import fixed_points, jacobian, roots
from stopgrad.theory.flow import Flow
from stopgrad.theory.modes import Modes, slopes
from stopgrad.theory.reduced import Reduced

SMALL = {
    "tian2021-fig3": {"points": 21},
    "tian2021-fig4": {"points": 21},
    "tian2021-fig5": {"betas": [0.4, 0.1], "points": 41},
    "tian2021-fig7": {"n": 3, "runs": 2, "points": 9},
    "tian2021-fig8": {"n": 3, "points": 9, "t_end": 30.0},
    "tian2021-fig9": {"n": 3, "points": 9, "t_end": 30.0},
    "tian2021-fig10": {"points": 5},
    "halvagal2023-fig4": {"points": 31},
    "halvagal2023-fig5": {"steps": 20, "batch": 10},
    "basin-map": {"points": 21},
    "phase-diagram": {"x": "eta=0:0.3:5", "y": "beta=0.05:1:3", "t_end": 10.0},
    "mode-plane": {"basin": False},
    "mode-course": {},
    "two-eigenvalues": {},
    "matrix-flow": {"n": 3, "points": 9, "t_end": 30.0},
}


@pytest.fixture(scope="module")
def drawn():
    return {name: make_figure(name, **SMALL[name]) for name in FIGURES}


def lines(figure, name, col=1):
    """Traces of this name in a panel."""
    axis = "x" if col == 1 else f"x{col}"
    return [trace for trace in figure.data if trace.name == name and (trace.xaxis or "x") == axis]


def line(figure, name, col=1):
    (found,) = lines(figure, name, col)
    return found


@pytest.mark.parametrize("name", SMALL)
def test_every_figure_can_be_read_without_the_paper(drawn, name):
    figure = drawn[name]
    assert figure.layout.title.text
    assert len(figure.layout.title.subtitle.text) > 20
    # the lowest row has titles below, the first panel of each row beside
    below = [axis for axis in figure.select_xaxes() if axis.title.text]
    rows = 2 if name in ("tian2021-fig5", "halvagal2023-fig5", "mode-course", "matrix-flow") else 1
    assert len(below) * rows == len(list(figure.select_xaxes()))
    assert sum(bool(axis.title.text) for axis in figure.select_yaxes()) >= rows
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert len(legend) == len(set(legend)) >= 1
    # everything has an entry in the legend or, a map, a scale beside it or entries of its own
    assert {t.name for t in figure.data if t.type != "heatmap"} == set(legend)
    assert figure.layout.height >= 400


def test_no_figure_is_left_out():
    assert set(SMALL) == set(FIGURES)
    assert all(figure.name == name for name, figure in FIGURES.items())
    assert all(figure.source.split(",")[0] in ("tian2021", "halvagal2023", "") for figure in FIGURES.values())
    assert FIGURES["basin-map"].parameters["eta"] == 0.04


def test_the_gallery_describes_every_figure_and_parameter():
    text = (Path(__file__).parents[2] / "docs" / "theory" / "figures.md").read_text()
    sections = {part.partition(":")[0]: part for part in text.split("\n## ")[1:]}
    assert list(sections) == list(FIGURES)
    for name, figure in FIGURES.items():
        assert set(re.findall(r"`(\w+)`", sections[name].partition("\nParameters:")[2])) == set(
            figure.parameters
        )


# Figure 3 and the basin map


@pytest.mark.parametrize("col", [1, 2, 3])
def test_fig3_shades_what_collapses_and_draws_solutions(drawn, col):
    eta = (0.0, 0.01, 1.0)[col - 1]
    figure = drawn["tian2021-fig3"]
    shade = line(figure, "collapsed", col)
    p0, s0 = np.meshgrid(shade.x, shade.y)
    expected = collapses(Modes(p0=p0, s0=s0, eta=eta, fixed_tau=1.0)).numpy()
    np.testing.assert_array_equal(shade.z.astype(bool), expected)
    assert expected.mean() == 1 if eta == 1 else 0 < expected.mean() < 0.5

    path = line(figure, "solutions", col)
    p, s = (np.reshape(v, (17, 43))[:, :-1] for v in (path.x, path.y))
    times = flow_times(42)
    early = times <= 20
    for i in (2, 9, 16):
        one = Modes(p0=p[i, 0], s0=s[i, 0], eta=eta, fixed_tau=1.0).trajectory(times[early])
        np.testing.assert_allclose(p[i, early], one.p, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(s[i, early], one.s, rtol=1e-5, atol=1e-7)


def test_fig3_marks_the_fixed_points(drawn):
    for col, eta in ((2, 0.01), (3, 1.0)):
        for stable, name in ((True, "stable fixed point"), (False, "unstable fixed point")):
            marks = [(t.x[0], t.y[0]) for t in lines(drawn["tian2021-fig3"], name, col)]
            assert marks == [(f.p, f.s) for f in fixed_points(1.0, eta, 0.5, 1.0) if f.stable == stable]
    assert not lines(drawn["tian2021-fig3"], "stable fixed point", 1)
    assert len(lines(drawn["tian2021-fig3"], "line of stable fixed points", 1)) == 3


PLANES = [
    Plane(alpha_p, eta, sigma2, tau, (-1.0, 1.5), 1.5)
    for alpha_p, eta, sigma2, tau in (
        (1, 0, 0.5, 1),
        (2, 0.05, 0.3, 1),
        (0.5, 0.02, 0, -0.8),
        (3, 0, 1, -0.5),
    )
]


@pytest.mark.parametrize("plane", PLANES)
def test_the_edge_parts_collapse_from_escape(plane):
    p, s = plane.edge(41)
    inside = (p > -1) & (p < 1.5) & (s > 1e-6)
    assert inside.sum() > 5
    p, s = p[inside], s[inside]
    assert not collapses(plane.start(p, s * 1.001)).any()
    assert collapses(plane.start(p, s * 0.999)).all()


def test_there_is_no_edge_where_everything_collapses():
    for eta, tau in ((0.2, 1.0), (0.01, 0.0)):
        assert Plane(1.0, eta, 0.5, tau, (-1.0, 1.5), 1.5).edge(11)[0].size == 0
    # a range without the saddle, and the last decay that leaves one
    assert Plane(1.0, 0.05, 0.0, 1.0, (0.5, 2.0), 1.5).edge(11)[0].max() >= 2
    assert Plane(1.0, 0.25, 0.0, 1.0, (-1.0, 2.0), 1.5).edge(11)[0].size > 0


@pytest.mark.parametrize("plane", PLANES)
def test_nullclines_and_still_lines_stand_still(plane):
    if plane.eta > 0:
        p, s = plane.p_nullcline(20)
        modes = plane.start(p, s)
        assert slopes(modes.p0, modes.s0, modes.fixed_tau, modes)[0].abs().max() < 1e-14
        for p in plane.s_nullclines():
            modes = plane.start(np.full(5, p), np.linspace(0.1, 2, 5))
            assert slopes(modes.p0, modes.s0, modes.fixed_tau, modes)[1].abs().max() < 1e-14
        assert len(plane.s_nullclines()) == 2
        return
    for p, s, stable in plane.still_lines():
        middle = p.mean(), s.mean()
        modes = plane.start(p, s)
        assert slopes(modes.p0, modes.s0, modes.fixed_tau, modes)[0].abs().max() < 1e-15
        assert slopes(modes.p0, modes.s0, modes.fixed_tau, modes)[1].abs().max() < 1e-15
        off = np.linalg.eigvals(jacobian(*middle, plane.alpha_p, 0.0, plane.sigma2, plane.tau)).real
        assert stable == (off[np.abs(off).argmax()] < 0)


@pytest.mark.parametrize(
    "setting", [{}, {"fixed_tau": None, "beta": 0.3, "tau0": 0.5, "eta": 0.1}, {"eta": 0}]
)
def test_the_basin_map_is_coloured_by_collapse(setting):
    figure = make_figure("basin-map", points=15, alpha_p=2.0, **setting)
    shade = line(figure, "collapsed")
    p0, s0 = np.meshgrid(np.linspace(-1, 1.5, 15), np.linspace(0, 1.5, 15))
    modes = Modes(p0=p0, s0=s0, alpha_p=2.0, **({"fixed_tau": 1.0} | setting))
    np.testing.assert_array_equal(shade.z.astype(bool), collapses(modes).numpy())
    assert 0 < shade.z.mean() < 1
    np.testing.assert_allclose(line(figure, "parabola α<sub>p</sub> s = p²").y, p0[0] ** 2 / 2)


# Figures 4 and 5


def test_fig4_draws_the_cubic_and_its_roots(drawn):
    figure = drawn["tian2021-fig4"]
    for col, eta in ((1, 0.0), (2, 0.1), (3, 0.25)):
        curve = line(figure, "p' on the parabola", col)
        np.testing.assert_allclose(curve.y, curve.x * (curve.x * (1 - 1.5 * curve.x) - eta), atol=1e-15)
        marks = {t.x[0] for name in ("stable", "unstable") for t in lines(figure, f"{name} fixed point", col)}
        assert marks == {0.0} | {root.item() for root in roots(eta, 0.5, 1.0) if root == root}
        arrow = line(figure, "direction", col)
        tail, head = arrow.x[::3], arrow.x[1::3]
        p = (tail + head) / 2
        np.testing.assert_array_equal(np.sign(head - tail), np.sign(p * (p * (1 - 1.5 * p) - eta)))


def test_fig4_draws_the_roots_over_eta_up_to_the_threshold(drawn):
    figure = drawn["tian2021-fig4"]
    far, near = line(figure, "p₊ (stable)", 4), line(figure, "p₋ (unstable)", 4)
    for curve, root in ((near, 0), (far, 1)):
        np.testing.assert_array_equal(curve.y, roots(curve.x, 0.5, 1.0)[root])
    assert far.x[-1] == 1 / 6
    assert far.y[-1] == pytest.approx(near.y[-1]) == pytest.approx(1 / 3)


def test_fig5_has_the_numbers_of_the_claim(drawn):
    figure = drawn["tian2021-fig5"]
    names = [trace.name for trace in figure.data if trace.showlegend and trace.name != "k = 0"]
    assert [re.search("k ([+-].....),", name)[1] for name in names] == [
        "-0.107", "+0.013", "+0.195", "-0.021", "+0.011",
    ]  # fmt: skip
    assert names[2].endswith("p = 0.000 at the end")
    for name, setting in (
        (names[1], {"eta": 0.12, "fixed_tau": 1.0}),
        (names[4], {"eta": 0.04, "beta": 0.1}),
    ):
        one = Modes(p0=0.3, s0=0.09, sigma2=0.0009, **setting).trajectory(np.linspace(0, 80, 41))
        course = [trace for trace in figure.data if trace.name == name]
        for trace, values in zip(course, (one.p, one.tau, one.k), strict=True):
            np.testing.assert_allclose(trace.y, values, atol=1e-7)
    # the slower target gets later to half-way
    half = [np.searchsorted(trace.y[5:], 0.6) for trace in figure.data if trace.name in names[3:]][::3]
    assert half[0] < half[1]


# The phase diagram


@pytest.mark.parametrize("colour", ["s", "min_k", "collapsed"])
def test_the_phase_diagram_is_the_end_of_every_setting(colour):
    x, y = "alpha_p=0.5:4:2", "eta=0.01:0.4:3:log"
    figure = make_figure("phase-diagram", x=x, y=y, colour=colour, p0=0.2, s0=0.05, t_end=6.0)
    image = next(trace for trace in figure.data if trace.type == "heatmap")
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == (None, "log")
    for i, j in ((0, 0), (1, 1), (2, 0)):
        modes = Modes(p0=0.2, s0=0.05, alpha_p=[0.5, 4][j], eta=[0.01, 0.4**0.5 / 10, 0.4][i])
        path = modes.trajectory(np.linspace(0, 6, 601))
        expected = {"s": path.s[-1], "min_k": path.k.min(), "collapsed": collapses(modes).double()}[colour]
        assert image.z[i, j] == pytest.approx(expected.item(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    "setting",
    [
        {"x": "p0=-1:1:3", "y": "s0=0:1:3", "fixed_tau": 0.0},
        {"x": "fixed_tau=-1:1:3", "y": "eta=0:0.1:3"},
        {"x": "tau0=-1:1:3", "y": "beta=0,0.1"},
        {"x": "t_end=0:20:5", "y": "sigma2=0:1:2", "colour": "collapsed", "beta": 0.0},
    ],
)
@pytest.mark.filterwarnings("error")
def test_the_phase_diagram_takes_any_two(setting):
    figure = make_figure("phase-diagram", **{"t_end": 5.0} | setting)
    image = next(trace for trace in figure.data if trace.type == "heatmap")
    assert image.z.shape == (len(image.y), len(image.x))


def test_the_phase_diagram_marks_the_decay_beyond_which_all_collapses():
    settings = {"eta": np.array([0.01, 1 / 6, 0.3]), "sigma2": 0.5, "beta": 0.4}
    assert decay_share(settings)[1] == pytest.approx(1)
    assert decay_share(settings | {"fixed_tau": 0.5})[1] == pytest.approx(4)
    assert np.isnan(decay_share(settings | {"beta": np.array([0.0, 0.1, 0.1])})).tolist() == [
        True,
        False,
        False,
    ]
    figure = make_figure("phase-diagram", x="eta=0:0.3:7", y="sigma2=0:1:3", t_end=10.0)
    border = next(trace for trace in figure.data if "every start" in trace.name)
    eta, sigma2 = np.meshgrid(border.x, border.y)
    np.testing.assert_allclose(border.z, 4 * eta * (1 + sigma2))
    assert border.contours.start == 1
    lost = next(trace for trace in figure.data if trace.name == "edge of collapse")
    assert (lost.z[border.z > 1] == 1).all()


# Figures 7 to 10


def test_fig7_shows_the_cosine_of_the_target():
    figure = make_figure("tian2021-fig7", n=3, runs=3, points=9, gammas=[0.99], etas=[0.0, 0.05])
    name = "γ<sub>a</sub> = 0.99 (β = 1)"
    shade, mean = lines(figure, name, col=2)
    t = np.concatenate([[0], mean.x])
    runs = []
    for seed in range(3):
        W, W_p = 0.3 / 3**0.5 * np.random.default_rng(seed).standard_normal((2, 3, 3))
        path = Flow(np.eye(3), 0.0009 * np.eye(3), W, W_p, np.zeros((3, 3)), beta=1.0, eta=0.05).trajectory(t)
        pairs = zip(path.W[1:], path.W_a[1:], strict=True)
        runs.append([np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    np.testing.assert_allclose(mean.y, np.mean(runs, axis=0), atol=1e-6)
    np.testing.assert_allclose(shade.y[:9], np.min(runs, axis=0), atol=1e-6)
    np.testing.assert_allclose(shade.y[9:], np.max(runs, axis=0)[::-1], atol=1e-6)
    assert min(mean.y) > 0.9


def test_fig8_parts_make_up_the_predictor(random):
    W_p = random.standard_normal((3, 3))
    t = np.array([0.0, 1.0, 200.0])
    even, odd = predictor_parts(W_p, t, 0.05, 1.0, 0.0009)
    start = Reduced(W_p, W_p.T @ W_p, tau=1.0, eta=0.05, sigma2=0.0009, symmetric=False)
    whole = np.sum(start.trajectory(t).W_p ** 2, axis=(1, 2))
    np.testing.assert_allclose(even**2 + odd**2, whole, rtol=1e-6)
    assert odd[0] == pytest.approx(np.linalg.norm(W_p - W_p.T) / 2)
    assert odd[-1] < 1e-3 * odd[0]


def test_fig8_the_antisymmetric_part_vanishes_for_every_setting():
    figure = make_figure("tian2021-fig8", n=4, points=20)
    odd = [trace for trace in figure.data if trace.name.startswith("‖B‖")]
    assert len(odd) == 9
    assert max(trace.y[-1] / trace.y[0] for trace in odd) < 1e-3
    even = {t.name: t.y[-1] for t in figure.data if t.name.startswith("‖A‖") and t.xaxis == "x3"}
    assert even["‖A‖ for τ = 1"] > 0.5
    assert even["‖A‖ for τ = 0.2"] < 1e-3


def test_fig9_grows_only_where_K_has_a_negative_eigenvalue():
    figure = make_figure("tian2021-fig9", n=4, points=60)
    W_p, F = nearly_aligned(4, (0.02, 0.1), 0.01, 0)
    np.testing.assert_allclose(np.linalg.eigvalsh(F), np.sort(np.diag(W_p)) ** 2)
    grown = {}
    for col, eta in ((1, 0.0), (2, 0.01), (3, 0.05)):
        for tau in (0.2, 0.6, 1.0):
            curve = line(figure, f"τ = {tau:g}", col)
            path = Reduced(W_p, F, tau=tau, eta=eta, sigma2=0.0009).trajectory(np.concatenate([[0], curve.x]))
            norm = path.commutator_norm
            large = norm > 1e-5 * norm[0]
            np.testing.assert_allclose(curve.y[large[1:]], norm[1:][large[1:]] / norm[0], rtol=1e-3)
            grown[eta, tau] = max(curve.y)
            assert path.lowest_K.min() < 0 or max(curve.y) <= 1
    assert grown[0.0, 1.0] > 5
    assert grown[0.05, 0.2] <= 1


def test_fig10_points_where_the_flow_points(drawn):
    figure = drawn["tian2021-fig10"]
    panels = triplet.tian2021_fig10(points=5)
    for col, plane in enumerate(panels, start=1):
        arrow = line(figure, "direction of the flow", col)
        x, y = (np.reshape(values, (-1, 6)) for values in (arrow.x, arrow.y))
        across, up = np.meshgrid(plane.x, plane.y)
        moving = np.hypot(plane.dx, plane.dy) > 0
        np.testing.assert_allclose((x[:, 0] + x[:, 1]) / 2, across[moving], atol=1e-12)
        np.testing.assert_allclose((y[:, 0] + y[:, 1]) / 2, up[moving], atol=1e-12)
        step = 0.65 * (plane.x[1] - plane.x[0])
        np.testing.assert_allclose((x[:, 1] - x[:, 0]) / step, plane.dx[moving], atol=1e-12)
        np.testing.assert_allclose((y[:, 1] - y[:, 0]) / step, plane.dy[moving], atol=1e-12)
    rest = line(figure, "stable fixed point", 2)
    assert (rest.x[0], rest.y[0]) == (0.5, 0.5)


# Figures of the representation


def test_halvagal_fig4_ends_at_one_and_at_the_initial_mean(drawn):
    figure = drawn["halvagal2023-fig4"]
    courses = representation.halvagal2023_fig4(31)
    for col, loss in ((1, "euclidean"), (2, "cosine")):
        for i, course in enumerate(courses[loss], start=1):
            for trace, values in zip(lines(figure, f"start {i}", col), course.s.T, strict=True):
                np.testing.assert_array_equal(trace.y, values)
                assert trace.y[-1] == pytest.approx(1.0 if col == 1 else course.s[0].mean(), rel=0.05)
    means = [trace.y[0] for trace in lines(figure, "mean at the start", 2)]
    assert means == [course.s[0].mean() for course in courses["cosine"]]


def test_halvagal_fig5_draws_every_eigenvalue(drawn):
    figure = drawn["halvagal2023-fig5"]
    courses = representation.halvagal2023_fig5(20, 10)
    assert len(figure.data) == 80
    for col, course in enumerate(courses.values(), start=1):
        names = ("smallest", "between", "largest")
        traces = chain.from_iterable(lines(figure, name, col) for name in names)
        np.testing.assert_array_equal(np.stack([trace.y for trace in traces], axis=1), course.s)


# Bad input


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "tian2021-fig33",
            {},
            r"^figure: unknown 'tian2021-fig33', did you mean 'tian2021-fig3'\? Known: tian",
        ),
        (
            "basin-map",
            {"etas": 1},
            r"^basin-map: unknown parameter 'etas', did you mean 'eta'\? Known: alpha_p,",
        ),
        ("basin-map", {"eta": -1}, r"^eta: -1 is outside its domain \[0, inf\)$"),
        ("basin-map", {"points": 2.5}, r"^points: 2.5 is no whole number >= 2$"),
        (
            "basin-map",
            {"p_range": [1, 0]},
            r"^p_range: \[1.0, 0.0\] must be two numbers, the lower one first$",
        ),
        ("basin-map", {"beta": [1, 2]}, r"^beta: one number is needed, this has shape \(2,\)$"),
        ("tian2021-fig3", {"etas": [1, 2, 3, 4, 5]}, r"^etas: 5 values, at most 4 fit into the picture$"),
        ("tian2021-fig3", {"etas": []}, r"^etas: empty"),
        ("tian2021-fig3", {"s_max": "much"}, r"^s_max: 'much' is not a number"),
        ("tian2021-fig4", {"tau": 0}, r"^tau: 0 is outside its domain \(0, inf\)$"),
        ("tian2021-fig5", {"t_end": 0}, r"^t_end: 0 is outside"),
        ("tian2021-fig7", {"gammas": [0.5, 1]}, r"^gammas: 1 is outside its domain \[0, 1\)$"),
        ("tian2021-fig7", {"runs": 0}, r"^runs: 0 is no whole number >= 1$"),
        ("tian2021-fig9", {"n": 1}, r"^n: 1 is no whole number >= 2$"),
        ("tian2021-fig10", {"l_d": 2}, r"^l_d: must not exceed l_s"),
        ("halvagal2023-fig5", {"seed": -1}, r"^seed: -1 is no whole number >= 0$"),
        ("phase-diagram", {"x": "etta=0:1:3"}, r"^grid: unknown 'etta', did you mean 'eta'\?"),
        ("phase-diagram", {"x": "beta=0:1:3"}, r"^y: beta is the x axis already$"),
        ("phase-diagram", {"colour": "k"}, r"^colour: unknown 'k'"),
    ],
)
def test_bad_input_is_named(name, parameters, message):
    with pytest.raises(UsageError, match=message) as error:
        make_figure(name, **parameters)
    assert "\n" not in str(error.value)
