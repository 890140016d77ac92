"""A picture as a file: a page that needs no network, or an image drawn by a browser without a window."""

import re
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopgrad.errors import UsageError, require
from stopgrad.files import whole_file

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SUFFIXES = (".html", ".png", ".svg")
WIDTH = 1200  # pixels of an image; a page takes the window's
DENSITY = 2  # dots per pixel of a PNG

# The policy lets no request out, so that a page is whole in its one file
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>body {{ margin: 0; background: #fff; overflow-x: auto }} body > div {{ min-width: 900px }}</style>
</head>
<body><script>{plotly}</script>{figure}</body>
</html>
"""


def check_suffix(path: Path) -> None:
    """Say that a name is none of a picture before the picture is computed.

    Raises:
        UsageError: if the path ends in none of ``SUFFIXES``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"out: {path.name} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a picture, whole or not at all, in the format that the path's suffix names.

    ``.html`` is one page that works offline. ``.png`` and ``.svg`` are drawn by Chrome or Chromium, looked
    for on the PATH and at the environment's ``BROWSER_PATH``.

    Raises:
        UsageError: for another suffix, or if there is no browser that works.
        MissingExtra: if plotly, or for images kaleido, is not installed.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    content = page(figure).encode() if suffix == ".html" else image(figure, suffix[1:])
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def page(figure: "Figure") -> str:
    """The picture as one HTML page, with plotly's script inside it. The same picture gives the same text."""
    title = re.sub("<[^>]*>", "", figure.layout.title.text)
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id="figure",
        config={
            "responsive": True,
            "displaylogo": False,
            "modeBarButtons": [["toImage", "resetScale2d"]],
        },
    )
    # the one that reports have: a third of the script that comes with plotly's package
    plotly = resources.files("stopgrad").joinpath("report", "plotly-cartesian.min.js")
    return PAGE.format(title=escape(title), plotly=plotly.read_text(encoding="utf-8"), figure=body)


def image(figure: "Figure", kind: str) -> bytes:
    """The picture as an image of a kind, "png" or "svg".

    Raises:
        UsageError: if there is no browser that works.
        MissingExtra: if kaleido is not installed.
    """
    kaleido = require("kaleido", "report")
    errors: Any = require("kaleido.errors", "report")
    size = {"width": WIDTH, "height": figure.layout.height, "scale": DENSITY if kind == "png" else 1}
    try:
        return kaleido.calc_fig_sync(figure, opts={"format": kind, **size}, kopts={"mathjax": False})
    except errors.ChromeNotFoundError:
        raise UsageError(
            f"out: .{kind} needs Chrome or Chromium, and none was found: install one, or name it in "
            "BROWSER_PATH, or write .html"
        ) from None
    except (errors.BrowserFailedError, errors.BrowserClosedError) as error:
        reason = " ".join(str(next(iter(error.args), "no reason given")).split())
        raise UsageError(f"out: .{kind} needs Chrome or Chromium, which failed: {reason}") from error
