"""How the pictures look: colours, lines, and the empty figure that each starts from."""

import html
from typing import TYPE_CHECKING, Any

from stopgrad.errors import require

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Z, P = "#2b83d6", "#e8710a"  # the colours of the projection and the prediction, in every picture
ACCENT, PROBE, GREY, ALARM = "#1f9d6b", "#9a6fd0", "#8a929c", "#d93a4a"
THRESHOLD_LINE = {"color": ALARM, "dash": "dash", "width": 1.5}
REFERENCE_LINE = {"color": GREY, "dash": "dash", "width": 1.5}
MOST_MARKERS = 60  # values of a line that are marked one by one


def empty_figure(x: str, y: str, height: int = 330) -> "Figure":
    """A figure without data; `x` and `y` title its axes, `height` is in pixels.

    Raises:
        MissingExtra: if plotly is not installed.
    """
    clear = "rgba(0,0,0,0)"
    layout = {  # at once: plotly takes its time over every change of a figure
        "template": "none",
        "height": height,
        "margin": {"l": 10, "r": 14, "t": 10, "b": 10},
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": clear},
        "showlegend": True,
        "xaxis": titled_axis(x),
        "yaxis": titled_axis(y),
    }
    return require("plotly.graph_objects", "report").Figure(layout=layout)


def titled_axis(title: str) -> dict[str, Any]:
    """What every axis has."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "automargin": True,
        "zeroline": False,
    }


def escaped(name: str) -> str:
    """A name as a text that is no markup: plotly knows no entities for quotes, and needs none."""
    return html.escape(name, quote=False)
