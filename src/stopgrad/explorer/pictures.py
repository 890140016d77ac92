"""Pictures as the page draws them: heading, reading, and plotly's data and layout.

The same functions draw the pictures of reports and of the command line; only their frame differs here.
"""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from stopgrad.explorer.views import OFF, VIEWS, View
from stopgrad.theory import figures, solver

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def drawn(
    view: View, values: Mapping[str, Any], unwanted: Callable[[], bool] = lambda: False
) -> dict[str, Any] | None:
    """The pictures of a view for these values of its controls, and how to make each outside the page.

    Args:
        unwanted: asked now and then; once it is true, there is no answer.

    Raises:
        UsageError: for values that no picture can be drawn of together.
    """
    try:
        with solver.given_up_once(unwanted):
            return {"pictures": [_drawn(name, values) for name in view.figures]}
    except solver.GivenUp:
        return None


def _drawn(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    known = figures.FIGURES[name].parameters
    own = {key: None if value == OFF else value for key, value in values.items() if key in known}
    content = figures.make_sketch(name, **own).content()
    return {"name": name, **framed(content), **copies(name, own)}


def shown(figure: "Figure") -> dict[str, Any]:
    """A figure of plotly's, see :func:`framed`."""
    return framed(json.loads(figure.to_json(engine="json")))


def framed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A picture with its title and subtitle apart, as HTML of a few tags (``sub``, ``sup``, ``b``)."""
    layout = dict(content["layout"])
    title = layout.pop("title", None) or {}
    above = layout.get("margin", {}).get("t", 0)
    return {
        "heading": _line(title.get("text")).replace("<b>", "").replace("</b>", ""),
        "reading": [_line(line) for line in (title.get("subtitle") or {}).get("text", "").split("<br>")],
        "data": content["data"],
        "layout": layout,
        "above": above,
    }


def copies(name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The command and the Python that draw a picture; values that are the picture's own are left out."""
    known = figures.FIGURES[name].parameters
    changed = {key: value for key, value in values.items() if value != known[key]}
    sets = "".join(f" --set {_shell(f'{key}={json.dumps(value)}')}" for key, value in changed.items())
    arguments = "".join(f", {key}={value!r}" for key, value in changed.items())
    return {
        "command": f"stopgrad theory figure {name}{sets} --out {name}.html",
        "python": (
            "from stopgrad.theory.figures import make_figure\n\n"
            f'figure = make_figure("{name}"{arguments})\nfigure.show()'
        ),
    }


def _line(text: str | None) -> str:
    return " ".join((text or "").replace("<br>", " ").split())


def _shell(text: str) -> str:
    return text if text.replace("=", "").replace(".", "").replace("_", "").isalnum() else f"'{text}'"


def write_first() -> None:
    """Keep the first page's pictures, see :data:`stopgrad.explorer.app.FIRST`."""
    from stopgrad.explorer.app import FIRST

    view = VIEWS[FIRST.stem]
    FIRST.parent.mkdir(exist_ok=True)
    content = drawn(view, view.query().model_dump())
    FIRST.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


if __name__ == "__main__":
    write_first()
