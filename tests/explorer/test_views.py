"""The theory's views: the pictures are those of the figures, and nothing outside the controls is computed."""

import base64
import json
import re
import shlex

import numpy as np
import pytest

from stopgrad.cli import app
from stopgrad.explorer.app import FIRST
from stopgrad.explorer.pictures import copies, drawn
from stopgrad.explorer.views import OFF, VIEWS, Slider
from stopgrad.theory.figures import FIGURES, make_figure

CONTROLS = [(view.name, control) for view in VIEWS.values() for control in view.controls]
SLIDERS = [(name, control) for name, control in CONTROLS if isinstance(control, Slider)]


def label(value):
    return getattr(value, "name", value)


def test_the_list_has_every_control(client):
    listed = client.get("/api/views").json()
    assert [view["name"] for view in listed] == list(VIEWS)
    for view in listed:
        own = VIEWS[view["name"]].controls
        assert [control["name"] for control in view["controls"]] == [control.name for control in own]


@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
def test_controls_are_arguments_of_a_picture(view):
    known = {name for figure in view.figures for name in FIGURES[figure].parameters}
    assert {control.name for control in view.controls} <= known
    assert set(view.click or ()) <= {control.name for control in view.controls}


def assert_alike(traces, others):
    """The same, but for the rounding of the machine on which one of them was made."""
    for trace, other in zip(traces, others, strict=True):
        assert trace.keys() == other.keys()
        for key in trace:
            if isinstance(trace[key], dict) and "bdata" in trace[key]:
                decoded = (
                    np.frombuffer(base64.b64decode(a["bdata"]), a["dtype"]) for a in (trace[key], other[key])
                )
                np.testing.assert_allclose(*decoded, atol=1e-6)
            else:
                assert trace[key] == other[key]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_the_pictures_of_the_figures(name, client):
    answer = client.get(f"/api/views/{name}").json()
    view = VIEWS[name]
    defaults = {control.name: control.default for control in view.controls}
    for picture, figure in zip(answer["pictures"], view.figures, strict=True):
        known = FIGURES[figure].parameters
        same = make_figure(figure, **{key: value for key, value in defaults.items() if key in known})
        computed = json.loads(same.to_json(engine="json"))["data"]
        if name == FIRST.stem:  # kept, perhaps of another machine
            assert_alike(picture["data"], computed)
        else:
            assert picture["data"] == computed
        assert picture["heading"]


def test_the_picture_that_is_kept_is_the_one_that_is_computed():
    view = VIEWS[FIRST.stem]
    assert FIRST.stem == next(iter(VIEWS))
    kept, computed = json.loads(FIRST.read_text()), drawn(view, view.query().model_dump())
    for one, other in zip(kept["pictures"], computed["pictures"], strict=True):
        assert one.keys() == other.keys()
        assert one["heading"] == other["heading"]
        assert one["reading"] == other["reading"]
        assert_alike(one["data"], other["data"])


@pytest.mark.parametrize(("name", "control"), SLIDERS, ids=label)
def test_a_slider_reaches_both_ends_and_no_further(name, control, client):
    model = VIEWS[name].query
    for value in (control.low, control.high):
        assert getattr(model(**{control.name: value}), control.name) == value
    for value in (control.low - 1, control.high + 1, "nan", "inf", "-inf", "1e999", "x", "[1]"):
        assert client.get(f"/api/views/{name}", params={control.name: value}).status_code == 422


def test_a_slider_that_can_be_off(client):
    moving = client.get("/api/views/mode", params={"fixed_tau": OFF, "basin": False}).json()
    same = make_figure("mode-plane", fixed_tau=None, basin=False)
    assert moving["pictures"][0]["data"] == json.loads(same.to_json(engine="json"))["data"]
    assert client.get("/api/views/mode", params={"eta": OFF}).status_code == 422


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("mode", "unknown=1"),
        ("mode", "p_range=0&p_range=1"),
        ("phase", "x=eta=0:1:100000"),
        ("phase", "x=eta%3D0%3A1%3A100000"),
        ("eigenvalues", "loss=huber"),
        ("matrices", "n=2.5"),
        ("matrices", "n=4000"),
    ],
)
def test_what_no_control_can_say_is_refused(name, query, client):
    assert client.get(f"/api/views/{name}?{query}").status_code == 422


def test_two_equal_axes_are_refused_in_one_line(client):
    answer = client.get("/api/views/phase", params={"x": "p0=-1:1.5:41", "y": "p0=-1:1.5:41"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "y: p0 is the x axis already"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mode-plane", {"eta": 0.1, "fixed_tau": None, "basin": False}),
        ("two-eigenvalues", {"loss": "cosine", "first": 0.2}),
        ("phase-diagram", {"x": "eta=0:0.4:5", "y": "beta=0.01:3:4:log", "colour": "collapsed"}),
    ],
)
def test_copies_make_the_same_picture(name, values, tmp_path):
    texts = copies(name, values)
    scope = {}
    exec(texts["python"].replace("figure.show()", ""), scope)
    same = make_figure(name, **values)
    assert scope["figure"].to_json() == same.to_json()
    words = shlex.split(texts["command"])
    out = tmp_path / words[-1]
    app([*words[1:-1], str(out)], standalone_mode=False)
    page = re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), out.read_text())
    for trace in json.loads(same.to_json())["data"]:
        if isinstance(trace.get("x"), dict):
            assert trace["x"]["bdata"] in page


def test_slow_parts_are_left_out_on_demand():
    quick, whole = (make_figure("mode-plane", fixed_tau=None, basin=basin) for basin in (False, True))
    assert not any(trace.type == "heatmap" for trace in quick.data)
    (shade,) = (trace for trace in whole.data if trace.type == "heatmap")
    assert set(np.unique(shade.z)) == {0.0, 1.0}


def test_hover_names_the_cause(client):
    (picture,) = client.get("/api/views/phase").json()["pictures"]
    (shade,) = (trace for trace in picture["data"] if trace["type"] == "heatmap")
    words = np.array(shade["text"])
    eta, z = (
        np.frombuffer(base64.b64decode(shade[axis]["bdata"]), shade[axis]["dtype"]).reshape(shape)
        for axis, shape in (("x", (-1,)), ("z", words.shape))
    )
    beyond = 4 * eta * 1.5 > 1
    assert (words[:, beyond] == "collapses, whatever the start: η > τ² / (4 (1 + σ²))").all()
    assert (z[words == "keeps a feature"] > 0.01).all()
    assert "collapses: the start is in the basin of s = 0" in words
