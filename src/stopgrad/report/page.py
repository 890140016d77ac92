"""The frame of every page: one HTML file that works offline.

Its Content-Security-Policy allows no request at all, and no script but plotly's and the page's own (by their
hashes), so a text that slipped through the escaping could still run nothing.
"""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from stopgrad.files import whole_file

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Item = TypeVar("Item")

MOST_STEPS = 2000  # points of a line, so that a long run's page stays small and quick
NOTHING = "Nothing finite was measured for this picture."


def frame(title: str, header: str, sections: Sequence[str], footer: str = "") -> str:
    """A whole page of texts that are HTML already."""
    plotly = _asset("plotly-cartesian.min.js")
    script = _asset("theme.js") + _asset("page.js")
    return Template(_asset("page.html")).substitute(
        title=title,
        style=_asset("page.css"),
        hashes=f"{_hash(plotly)} {_hash(script)}",
        header=header,
        main="\n".join(sections),
        footer=footer,
        plotly=plotly,
        script=script,
    )


def write_page(target: Path, page: str) -> None:
    """Write a page whole or not at all; what UTF-8 cannot hold, as in names of files, is spelled out."""
    with whole_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def section(name: str, heading: str, body: str) -> str:
    """A part of the page; `name` is its address within."""
    return f'<section id="{name}"><h2>{escape(heading)}</h2>{body}</section>'


def panel(heading: str, figure: "Figure", reading: str, missing: str = NOTHING) -> str:
    """A figure with its heading, if any, and how to read it, or a note where it is empty."""
    top = f"<h3>{escape(heading)}</h3>" if heading else ""
    if not figure.data:
        return f'<figure>{top}<p class="note">{escape(missing)}</p></figure>'
    data = figure.to_json(engine="json")  # plotly writes "<" as an escape, so no text ends the script early
    return (
        f'<figure>{top}<div class="plot" style="height:{figure.layout.height}px">'
        f'<script type="application/json">{data}</script></div>'
        f"<figcaption>{escape(reading)}</figcaption></figure>"
    )


def lowest_and_highest(values: Sequence[float], most: int) -> list[int]:
    """Places of at most about `most` of the values, in order: none lies outside the line through these.

    Kept are the lowest and the highest of each stretch, the first and the last value, and the first that is
    not finite.
    """
    if len(values) <= most:
        return list(range(len(values)))
    whole = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(whole)
    kept = {0, len(whole) - 1}
    if not finite.all():
        kept.add(int(np.argmin(finite)))
    for part in np.array_split(np.arange(len(whole)), most // 2):
        known = part[finite[part]]
        if len(known):
            kept.update((int(known[whole[known].argmin()]), int(known[whole[known].argmax()])))
    return sorted(kept)


def thin(rows: Sequence[Item], most: int) -> Sequence[Item]:
    """Every n-th item, so that at most `most` + 1 are left, the last one among them."""
    stride = -(-len(rows) // most)
    return rows if stride <= 1 else [*rows[:-1:stride], rows[-1]]


def _asset(name: str) -> str:
    return resources.files("stopgrad.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
