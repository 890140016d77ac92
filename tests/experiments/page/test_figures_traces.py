from statistics import fmean

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.experiments.page.figures import traces
from stopgrad.theory.figures import style

points = st.lists(st.none() | st.floats(-100, 100), min_size=1, max_size=6)


@given(st.lists(points, max_size=4))
def test_the_mean_and_the_range_of_the_seeds_that_have_a_value(seeds):
    trace = traces.collect([{"t": list(range(len(y))), "y": y} for y in seeds], "y", "t")
    found = {}
    for x, mean, low, high in zip(trace.x, trace.mean, trace.low, trace.high, strict=True):
        values = [y[int(x)] for y in seeds if int(x) < len(y) and y[int(x)] is not None]
        np.testing.assert_allclose([mean, low, high], [fmean(values), min(values), max(values)])
        found[x] = values
    assert sum(map(len, found.values())) == sum(value is not None for y in seeds for value in y)


def test_points_before_the_first_are_left_out_and_steps_are_counted():
    series = [{"epoch": [0, 4, 8], "y": [9.0, 1.0, 2.0]}]
    assert traces.collect(series, "y", since=4).x.tolist() == [4, 8]
    assert traces.collect(series, "y", along=None).x.tolist() == [0, 1, 2]
    assert not len(traces.collect(series, "other").x)
    assert not len(traces.collect([{"y": [1.0]}], "y").x)


def test_a_trace_is_a_line_within_a_band_and_one_seed_has_no_band():
    figure = style.canvas("t", "s")
    one = traces.collect([{"epoch": [1, 2], "y": [0.1, 0.2]}], "y")
    traces.draw(figure, one, "one", style.BLUE)
    assert [trace.mode for trace in figure.data] == ["lines"]
    assert figure.data[0].fill is None
    two = traces.collect([{"epoch": [1, 2], "y": [0.1, 0.2]}, {"epoch": [1, 2], "y": [0.3, 0.6]}], "y")
    traces.draw(figure, two, "two", style.BLUE)
    band, line = figure.data[1:]
    assert band.fill == "toself"
    assert list(band.y) == [0.1, 0.2, 0.6, 0.3]
    assert list(band.x) == [1, 2, 2, 1]
    np.testing.assert_allclose(line.y, [0.2, 0.4])
    assert line.showlegend
    assert not band.showlegend
