import html
import math
from dataclasses import replace

import numpy as np
import pytest

from stopgrad.diagnostics.diagnosis import Evidence
from stopgrad.diagnostics.series import Series
from stopgrad.report import figures
from stopgrad.report.figures.eigenvalues import DRAWN, Path
from stopgrad.report.figures.evidence_panel import WORDS
from stopgrad.report.figures.spectra import SPECTRUM_FLOOR
from stopgrad.report.figures.style import ACCENT, ALARM, P, Z


def node(**values):
    return {
        "std": 0.5,
        "uniformity": -2.0,
        "alignment": 0.3,
        "effective_rank": 9.0,
        "m_o": 0.6,
        "m_r": 0.8,
    } | values


def epoch_rows(*nodes, count=4):
    spectrum = {"spectrum": [0.7, 0.29, 0.01, 0.0]}
    return [
        {"epoch": i, "step": 8 * i, "knn": 0.5 + 0.1 * i, **{n: node(**spectrum) for n in nodes}}
        for i in range(count)
    ]


def step_rows(count=8):
    return [
        {"epoch": i / 4, "step": i, "loss": -0.1 * i, "lr": 0.2, "images_per_second": 5000.0}
        for i in range(count)
    ]


def eigen_course(predicted=True, relative=False, pairs=10):
    epochs = np.arange(4.0)
    p = np.linspace(1, 0.1, pairs) * np.ones((4, 1))
    path = Path(epochs, p, 10.0 ** -np.arange(pairs) * np.ones((4, 1)))
    return figures.Eigenvalues(path, path if predicted else None, relative, (0.4, 0.9), "why")


ALL = epoch_rows("z", "p", "z_train", "p_train")
POINTS = np.arange(6, dtype=np.float32).reshape(3, 2)
PICTURES = {
    "loss": lambda: figures.loss(step_rows(), ALL),
    **{name: lambda name=name: figures.measure(ALL, name) for name in figures.MEASURES},
    "decomposition": lambda: figures.decomposition(ALL),
    "spectrum": lambda: figures.spectrum(ALL, "z"),
    "eigenvalues": lambda: figures.eigenvalues(eigen_course(), "p"),
    "eigenvalues of F": lambda: figures.eigenvalues(eigen_course(relative=True), "s"),
    "accuracy": lambda: figures.accuracy(ALL, 0.6),
    "learning_rate": lambda: figures.learning_rate(step_rows()),
    "throughput": lambda: figures.throughput(step_rows()),
    "embedding_map": lambda: figures.embedding_map(POINTS, ["a", "b", "c"], ["x", "y", "x"]),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_every_figure_has_data_axis_titles_and_hover_texts(picture):
    figure = PICTURES[picture]()
    assert figure.data
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text
    assert all(trace.hovertemplate for trace in figure.data)


def test_one_colour_for_z_and_another_for_p_everywhere():
    seen = {"z": set(), "p": set()}
    for figure in [figures.measure(ALL, name) for name in figures.MEASURES] + [figures.decomposition(ALL)]:
        for trace in figure.data:
            seen["p" if "p" in trace.name.split(",")[0].split() else "z"].add(trace.line.color)
    assert seen == {"z": {Z}, "p": {P}}
    assert Z != P


def test_train_mode_and_eval_mode_are_told_apart_by_the_dash():
    dashes = {trace.name: trace.line.dash for trace in figures.measure(ALL, "std").data}
    assert dashes["z"] != dashes["z, train BN"]


def test_missing_predictor_leaves_its_lines_out():
    rows = epoch_rows("z", "z_train")
    assert [trace.name for trace in figures.measure(rows, "std").data] == ["z", "z, train BN"]
    assert not figures.spectrum(rows, "p").data


def test_values_that_are_not_finite_make_gaps_and_nothing_finite_makes_no_line():
    rows = epoch_rows("z")
    rows[1]["z"]["std"], rows[2]["z"]["std"], rows[3]["z"]["std"] = None, math.nan, math.inf
    drawn = figures.measure(rows, "std").data[0].y
    assert drawn[0] == 0.5
    assert np.isnan(drawn[1:]).all()
    rows[0]["z"] = None
    assert not figures.measure(rows, "std").data


def test_first_loss_that_is_not_finite_is_marked():
    rows = step_rows()
    assert not figures.loss(rows, []).layout.shapes
    rows[5]["loss"] = None
    rows[6]["loss"] = math.nan
    (line,) = figures.loss(rows, []).layout.shapes
    assert line.x0 == line.x1 == rows[5]["epoch"]


def test_thresholds_of_the_verdict_are_drawn_once_each_on_their_own_picture():
    evidence = [
        {"measure": "std", "of": "z", "threshold": 0.1},
        {"measure": "std", "of": "p", "threshold": 0.1},
        {"measure": "std", "of": "z", "threshold": None},
        {"measure": "effective_rank", "of": "z", "threshold": 4},
    ]
    std, rank = figures.measure(ALL, "std", evidence), figures.measure(ALL, "effective_rank", evidence)
    assert [shape.y0 for shape in std.layout.shapes] == [0.1]
    assert "(z, p)" in std.layout.annotations[0].text
    assert [shape.y0 for shape in rank.layout.shapes] == [4]


def test_spectrum_is_log10_of_the_shares_down_to_a_floor():
    (heat,) = figures.spectrum(epoch_rows("z", count=2), "z").data
    assert heat.z.shape == (4, 2)
    np.testing.assert_allclose(10.0 ** heat.z[:3, 0], [0.7, 0.29, 0.01], rtol=1e-5)
    assert heat.z[3, 0] == SPECTRUM_FLOOR == heat.zmin


def test_accuracy_is_in_percent_beside_the_untrained_encoder():
    figure = figures.accuracy(ALL, 0.564)
    np.testing.assert_allclose(figure.data[0].y, [50, 60, 70, 80], rtol=1e-6)
    assert figure.layout.shapes[0].y0 == pytest.approx(56.4)
    assert not figures.accuracy([{"epoch": 0}], 0.564).data


def test_map_shows_every_point_once_in_natural_order_of_classes():
    labels = ["10", "9", None, "9"]
    points = np.array([[0, 1], [2, 3], [4, 5], [6, 7]], dtype=np.float32)
    figure = figures.embedding_map(points, list("abcd"), labels)
    assert [trace.name for trace in figure.data] == ["9", "10", "no label"]
    assert [list(trace.x) for trace in figure.data] == [[2, 6], [0], [4]]
    assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.data}) == 3


def test_map_has_no_legend_without_labels_or_with_more_classes_than_marks():
    many = [f"class {i}" for i in range(200)]
    points = np.zeros((200, 2), dtype=np.float32)
    assert figures.embedding_map(POINTS, list("abc")).layout.showlegend is False
    assert figures.embedding_map(points, many, many).layout.showlegend is False
    assert figures.embedding_map(points, many, ["a", "b"] * 100).layout.showlegend is True


def test_names_in_a_figure_cannot_be_markup():
    hostile = '<a href="https://example.org">%{x}</a>'
    text = figures.embedding_map(POINTS, [hostile] * 3, [hostile] * 3).to_plotly_json()
    (trace,) = text["data"]
    assert "<a" not in trace["name"]
    assert all("<a" not in name for name in trace["customdata"])
    assert html.unescape(trace["name"]) == hostile
    assert '"' in trace["name"]  # plotly would show &quot; as it stands
    assert trace["hovertemplate"] == "%{customdata}<extra></extra>"


# ---- eigenvalues


def lines(figure, dash):
    return [trace for trace in figure.data if trace.line.dash == dash and trace.x[0] is not None]


@pytest.mark.parametrize("side", ["p", "s"])
def test_eigenvalues_are_solid_as_measured_and_dashed_as_predicted_in_one_colour_a_pair(side):
    drawn = eigen_course()
    figure = figures.eigenvalues(drawn, side)
    measured, predicted = lines(figure, None), lines(figure, "dash")
    assert len(measured) == len(predicted) == DRAWN == 8
    colours = [trace.line.color for trace in measured]
    assert colours == [trace.line.color for trace in predicted]
    assert len(set(colours)) == 8
    for j, trace in enumerate(measured):
        np.testing.assert_allclose(trace.y, getattr(drawn.measured, side)[:, j], rtol=1e-6)
        assert trace.legendgroup == predicted[j].legendgroup
    assert figure.layout.yaxis.type == ("log" if side == "s" else None)
    assert [trace.name for trace in figure.data][-2:] == ["measured", "predicted"]
    assert not lines(figures.eigenvalues(eigen_course(predicted=False), side), "dash")


def test_what_a_logarithm_cannot_show_makes_a_gap_and_a_dead_mode_no_empty_decades():
    drawn = eigen_course(pairs=3)
    drawn.measured.s[1, 0] = 0
    predicted = Path(drawn.measured.epochs, drawn.measured.p, drawn.measured.s * 1e-200)
    figure = figures.eigenvalues(replace(drawn, predicted=predicted), "s")
    assert np.isnan(figure.data[0].y[1])
    assert figure.layout.yaxis.range == (-2.5, 0.2)
    drawn.measured.s[:] = 0
    assert figures.eigenvalues(replace(drawn, predicted=None), "s").layout.yaxis.range is None


def test_axes_say_whether_lengths_are_divided_out():
    titles = {
        relative: [
            figures.eigenvalues(eigen_course(relative=relative), side).layout.yaxis.title.text
            for side in "ps"
        ]
        for relative in (False, True)
    }
    assert titles[True] == ["p<sub>j</sub> over |p| / |z|", "s<sub>j</sub>, share of E|z|²"]
    assert titles[False] == ["p<sub>j</sub>", "s<sub>j</sub> (units of |z|²)"]


# ---- evidence


def course(values, measure="std", of="z", threshold=0.05, below=True, says="it says so", start=20):
    steps = tuple(range(start, start + 20 * len(values), 20))
    return Series(measure, of, steps, tuple(values), threshold, below, says)


def shapes(figure, kind):
    return [shape for shape in figure.layout.shapes if shape.type == kind]


def test_evidence_has_one_panel_a_measure_with_titles_and_z_and_p_together():
    of_p = course([0.5, 0.4], of="p")
    figure = figures.evidence_figure([course([0.8, 0.7]), of_p, course([9, 8], "effective_rank")], None)
    assert [trace.yaxis for trace in figure.data] == ["y", "y", "y2"]
    assert [trace.line.color for trace in figure.data] == [Z, P, Z]
    assert all(trace.hovertemplate for trace in figure.data)
    layout = figure.layout
    assert layout.yaxis.title.text
    assert layout.yaxis2.title.text
    assert (layout.xaxis.title.text, layout.xaxis2.title.text) == ("", "step")
    assert layout.yaxis.domain[0] > layout.yaxis2.domain[1]  # below each other
    assert layout.xaxis2.matches == "x"


@pytest.mark.parametrize(("below", "side"), [(True, "below"), (False, "above")])
@pytest.mark.parametrize("values", [(0.8, 0.3), (0.8, 3e-7)])
def test_threshold_is_dashed_with_its_value_and_the_forbidden_side_is_shaded(below, side, values):
    figure = figures.evidence_figure([course(values, threshold=0.4, below=below)], None)
    (line,) = shapes(figure, "line")
    (shade,) = shapes(figure, "rect")
    assert line.line.dash == "dash"
    assert line.y0 == line.y1 == shade.y0 == pytest.approx(0.4)
    low, high = figure.layout.yaxis.range
    logarithmic = figure.layout.yaxis.type == "log"
    assert logarithmic == (values[1] < 1e-3)
    end = low if below else high
    assert shade.y1 == pytest.approx(10**end if logarithmic else end)
    (label,) = (note for note in figure.layout.annotations if "failure" in note.text)
    assert label.text == f"failure {side} 0.4"
    assert label.y == pytest.approx(math.log10(0.4) if logarithmic else 0.4)  # annotations go by the exponent


def test_zeros_on_a_logarithmic_axis_lie_at_its_foot_and_are_told_as_zeros():
    figure = figures.evidence_figure([course([0.1, 1e-5, 0.0], "target_moved", "target", 1e-12)], None)
    (trace,) = figure.data
    low, _ = figure.layout.yaxis.range
    assert trace.y[:2] == pytest.approx((0.1, 1e-5))
    assert trace.y[2] == pytest.approx(10**low)
    assert low < -13
    assert trace.customdata[2] == "0"


def test_the_first_bad_step_is_an_upright_line_in_every_panel_named_once():
    series = [course([0.8, 0.01]), course([9, 1], "effective_rank", threshold=3.1)]
    figure = figures.evidence_figure(series, 1040)
    upright = [shape for shape in shapes(figure, "line") if shape.x0 == shape.x1]
    assert [(shape.xref, shape.x0) for shape in upright] == [("x", 1040), ("x2", 1040)]
    assert [n.text for n in figure.layout.annotations if "bad" in n.text] == ["first bad step 1,040"]
    low, high = figure.layout.xaxis.range
    assert low < 20
    assert high > 1040
    assert not [n for n in figures.evidence_figure(series, None).layout.annotations if "bad" in n.text]


def test_values_that_are_not_finite_make_gaps_and_an_endless_threshold_no_line():
    figure = figures.evidence_figure(
        [course([-0.1, math.nan, math.inf], "loss", "loss", math.inf, False)], 40
    )
    assert list(figure.data[0].y) == [-0.1, None, None]
    assert not shapes(figure, "rect")
    assert len(shapes(figure, "line")) == 1  # the step's
    assert not figures.evidence_figure([course([math.nan])], 20).data
    assert not figures.evidence_figure([], None).data


def test_a_fingerprint_has_no_forbidden_side():
    figure = figures.evidence_figure([course([-0.1, -1.0], "loss", "loss", -1.0, None)], 40)
    assert not shapes(figure, "rect")
    assert "collapsed losses come to -1" in [note.text for note in figure.layout.annotations]


@pytest.mark.parametrize(
    ("values", "end", "above"),
    [
        ([0.6] * 10, 1, False),
        ([0.8] + [0.01] * 9, 1, True),
        ([0.02] * 5 + [0.9] * 2 + [0.02] * 3, 0, True),
    ],
)
def test_the_thresholds_label_keeps_off_the_lines(values, end, above):
    figure = figures.evidence_figure([course(values, threshold=0.4)], None)
    (label,) = (note for note in figure.layout.annotations if "failure" in note.text)
    assert (label.xanchor == "right") == bool(end)
    assert (label.yanchor == "bottom") == above


def test_long_words_of_an_evidence_are_broken_and_are_no_markup():
    figure = figures.evidence_figure([course([0.8, 0.7], says="<a href='x'>word</a> " * 20)], None)
    lines = figure.layout.annotations[0].text.split("<br>")
    assert len(lines) > 3
    assert all(len(html.unescape(line)) <= WORDS for line in lines[1:])
    assert not any("<a" in line for line in lines)


def test_bars_start_at_the_threshold_and_end_at_the_measure():
    failed = [Evidence("zero_rows", "x", 0.9, 0.5, False, "zeros")]
    others = [
        Evidence("std", "x", 0.5, 0.05, False, "spread"),
        Evidence("effective_rank", "x", 1.55, 3.1, True, "few"),
    ]
    figure = figures.threshold_bars(failed, others)
    bars, ends = figure.data
    assert bars.base == 1
    assert [1 + x for x in bars.x] == pytest.approx([1.8, 10.0, 0.5]) == list(ends.x)
    assert bars.marker.color == (ALARM, ACCENT, ALARM)
    assert "0.9, threshold 0.5" in bars.y[0]
    lost = [Evidence("std", "x", math.nan, 0.05, False, ""), Evidence("std", "x", 0.0, 0.05, True, "")]
    assert len(figures.threshold_bars(lost, []).data[0].x) == 1
    assert not figures.threshold_bars(lost[:1], []).data


def test_the_cumulative_spectrum_ends_at_all_of_the_variance():
    figure = figures.cumulative_spectrum([0.5, 0.3, 0.2], 2.5)
    assert list(figure.data[0].x) == [0, 1, 2, 3]
    assert list(figure.data[0].y) == pytest.approx([0, 50, 80, 100])
    (line,) = figure.layout.shapes
    assert line.x0 == 2.5
    assert not figures.cumulative_spectrum([], 2.5).data
    assert not figures.cumulative_spectrum([math.nan, None], math.nan).data
