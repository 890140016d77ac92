"""A picture as plotly's data and layout, in plain dicts.

Plotly's own objects check every value against its schema, which takes longer than to compute a picture that
follows a slider. So pictures are drawn on a `Sketch`, which has the few methods of plotly's Figure that they
use; :meth:`Sketch.figure` makes plotly's object of it, checked, where a caller wants one, and
:meth:`Sketch.content` is what a browser takes.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stopgrad.errors import require

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TYPED = {"f8", "f4", "i4", "u1"}
"""Types of numbers that plotly's script reads as they lie in memory."""


class Trace(dict[str, Any]):
    """A trace; what it does not have is None, as with plotly's."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


class Sketch:
    """A grid of panels, and what is drawn in them.

    Attributes:
        data: the traces, in order.
        layout: as plotly's.
    """

    def __init__(
        self,
        panels: Sequence[str] = ("",),
        rows: int = 1,
        gap: float = 0.0,
        row_gap: float = 0.0,
        share_y: bool = False,
    ) -> None:
        """Panels with axes and headings as `plotly.subplots.make_subplots` places them.

        Args:
            panels: a heading for each, row by row.
            rows: rows of panels.
            gap, row_gap: between panels, as shares of the picture.
            share_y: give the panels of a row one scale.
        """
        self.data: list[Trace] = []
        self.layout: dict[str, Any] = {"annotations": []}
        self.columns = len(panels) // rows
        width = (1 - gap * (self.columns - 1)) / self.columns
        height = (1 - row_gap * (rows - 1)) / rows
        for i, heading in enumerate(panels):
            row, col = divmod(i, self.columns)
            left, low = col * (width + gap), (rows - 1 - row) * (height + row_gap)
            number = _number(i)
            y: dict[str, Any] = {"anchor": f"x{number}", "domain": [low, min(1.0, low + height)]}
            if share_y and col:
                y |= {"matches": f"y{_number(row * self.columns)}", "showticklabels": False}
            self.layout[f"xaxis{number}"] = {"anchor": f"y{number}", "domain": [left, min(1.0, left + width)]}
            self.layout[f"yaxis{number}"] = y
            if heading:
                self.layout["annotations"].append({
                    "text": heading, "showarrow": False, "font": {"size": 16},
                    "x": left + width / 2, "xanchor": "center", "xref": "paper",
                    "y": min(1.0, low + height), "yanchor": "bottom", "yref": "paper",
                })  # fmt: skip

    def add(self, kind: str, row: int = 1, col: int = 1, **trace: Any) -> None:
        """Draw a trace of a kind in a panel."""
        number = _number((row - 1) * self.columns + col - 1)
        self.data.append(Trace(type=kind, xaxis=f"x{number}", yaxis=f"y{number}", **trace))

    def add_scatter(self, **trace: Any) -> None:
        """Points or lines."""
        self.add("scatter", **trace)

    def add_heatmap(self, **trace: Any) -> None:
        """A map of colours."""
        self.add("heatmap", **trace)

    def add_contour(self, **trace: Any) -> None:
        """Lines where a map has a value."""
        self.add("contour", **trace)

    def update_layout(self, **values: Any) -> None:
        """Change the layout; a dict changes what it names alone."""
        _merge(self.layout, values)

    def update_traces(self, selector: Mapping[str, Any], **values: Any) -> None:
        """Change the traces that have the selector's values."""
        for trace in self.data:
            if all(trace.get(key) == value for key, value in selector.items()):
                _merge(trace, values)

    def update_annotations(self, **values: Any) -> None:
        """Change the headings."""
        for note in self.layout["annotations"]:
            _merge(note, values)

    def update_xaxes(self, row: int | None = None, col: int | None = None, **values: Any) -> None:
        """Change the horizontal axes of a row, of a column, of one panel, or of all."""
        for number in self._numbers(row, col):
            _merge(self.layout[f"xaxis{number}"], values)

    def update_yaxes(self, row: int | None = None, col: int | None = None, **values: Any) -> None:
        """Change the vertical axes of a row, of a column, of one panel, or of all."""
        for number in self._numbers(row, col):
            _merge(self.layout[f"yaxis{number}"], values)

    def _numbers(self, row: int | None, col: int | None) -> Iterator[str]:
        for i in range(sum(name.startswith("xaxis") for name in self.layout)):
            if row in (None, i // self.columns + 1) and col in (None, i % self.columns + 1):
                yield _number(i)

    def figure(self) -> "Figure":
        """Plotly's object, every value of it checked.

        Raises:
            MissingExtra: if plotly is not installed.
        """
        layout = {"template": "none", **self.layout}
        return require("plotly.graph_objects", "report").Figure({"data": self.data, "layout": layout})

    def content(self) -> dict[str, Any]:
        """``data`` and ``layout`` in what JSON has, arrays of numbers as the bytes that they are."""
        return {"data": _plain(self.data), "layout": _plain(self.layout)}


def _number(i: int) -> str:
    """Of the i-th panel's axes, in their names."""
    return str(i + 1) if i else ""


def _merge(old: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping):
            _merge(old.setdefault(key, {}), value)
        else:
            old[key] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, np.ndarray):
        return _typed(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _typed(values: np.ndarray) -> Any:
    kind = values.dtype.str[1:]
    if kind not in TYPED or values.ndim > 2:
        return values.tolist()
    little = np.ascontiguousarray(values, dtype=f"<{kind}")
    found = {"dtype": kind, "bdata": base64.b64encode(little.tobytes()).decode("ascii")}
    return found if values.ndim == 1 else {**found, "shape": ", ".join(map(str, values.shape))}
