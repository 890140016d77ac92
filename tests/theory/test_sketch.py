"""A sketch is what plotly's own objects would hold."""

import json

import numpy as np
import pytest
from plotly.subplots import make_subplots

from stopgrad.theory.figures.sketch import Sketch


@pytest.mark.parametrize("share_y", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (2, 2), (2, 3)])
def test_panels_are_where_plotly_puts_them(rows, columns, share_y):
    names = [f"panel {i}" if i != 1 else "" for i in range(rows * columns)]
    ours = Sketch(names, rows, 0.06, 0.2, share_y).figure()
    theirs = make_subplots(
        rows,
        columns,
        subplot_titles=names,
        horizontal_spacing=0.06,
        vertical_spacing=0.2,
        shared_yaxes=share_y,
    )
    theirs.update_layout(template="none")
    assert close(json.loads(ours.to_json()), json.loads(theirs.to_json()))


def close(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == pytest.approx(other) if isinstance(one, float) else one == other


def test_content_is_what_plotly_writes():
    sketch = Sketch(("a", "b"), gap=0.1)
    sketch.add_scatter(col=2, x=np.linspace(0, 1, 3), y=[1.5, None, np.float64(2)], mode="lines", text=None)
    sketch.add_heatmap(z=np.eye(2, dtype=np.float32), text=np.array([["p", "q"], ["r", "s"]]))
    sketch.update_yaxes(title={"text": "y", "standoff": 8}, row=1, col=2)
    sketch.update_yaxes(title={"text": "z"})
    sketch.update_traces({"type": "heatmap"}, hoverinfo="all")
    sketch.update_layout(legend={"x": 0})
    content, figure = sketch.content(), json.loads(sketch.figure().to_json(engine="json"))
    del figure["layout"]["template"]
    assert json.loads(json.dumps(content)) == figure
    assert content["layout"]["yaxis2"]["title"] == {"text": "z", "standoff": 8}
    assert content["data"][0]["xaxis"] == "x2"


def test_what_is_no_plotly_is_refused_at_the_end():
    sketch = Sketch()
    sketch.add_scatter(x=[0], y=[0], mode="points")
    with pytest.raises(ValueError, match="mode"):
        sketch.figure()
