import html
import math

import numpy as np
import pytest

from stopgrad.report import figures


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


ALL = epoch_rows("z", "p", "z_train", "p_train")
POINTS = np.arange(6, dtype=np.float32).reshape(3, 2)
PICTURES = {
    "loss": lambda: figures.loss(step_rows(), ALL),
    **{name: lambda name=name: figures.measure(ALL, name) for name in figures.MEASURES},
    "decomposition": lambda: figures.decomposition(ALL),
    "spectrum": lambda: figures.spectrum(ALL, "z"),
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
    assert seen == {"z": {figures.Z}, "p": {figures.P}}
    assert figures.Z != figures.P


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
    assert heat.z[3, 0] == figures.SPECTRUM_FLOOR == heat.zmin


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
