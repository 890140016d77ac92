"""The ledger as one HTML page that works offline, with the papers' figures redrawn from our data."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from stopgrad.errors import require
from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import figures, tables
from stopgrad.experiments.rules import CONDITIONAL, FAILS, HOLDS, UNREACHABLE
from stopgrad.report import sections
from stopgrad.report.page import frame, panel, section
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SUMMARY = (
    "Every theorem, table and figure of the papers is an experiment whose rule was fixed before the run, and "
    "the rule alone gives the verdict. Where networks are trained it is on digits; the papers' numbers are "
    "of their own data. ± is the standard deviation over seeds, an interval the bootstrap's of 95 % of a "
    "paired difference."
)
SHORT: dict[str, str] = {HOLDS: "holds", CONDITIONAL: "condition", FAILS: "fails", UNREACHABLE: "not"}
"""Verdicts as classes of elements; what has not been run is "open"."""
TONES: dict[str, str] = {HOLDS: "good", CONDITIONAL: "open", FAILS: "bad"}
WIDE, NARROW = 230, 460
"""Least width of a panel of several, and of one that stands alone, in pixels: a narrow screen scrolls."""
TITLED, BARE = 34, 14
BELOW = 110
"""Pixels above the panels, with headings and without, and at most below, in a picture without its title."""


def render(rows: Sequence[Row], beside: Sequence[str] = ()) -> str:
    """The whole page; the same rows give the same text. ``beside`` are HTML sections that stand at the end.

    Raises:
        MissingExtra: if plotly is not installed.
    """
    counted = tables.counts(rows)
    papers = tables.by_paper(rows)
    header = (
        f"<h1>The ledger of claims</h1><p>{SUMMARY}</p>"
        + sections.fact_list([(name, escape(value)) for name, value in tables.facts(rows)])
        + table(counted)
        + _choices(papers)
    )
    parts = [_style(papers)]
    for paper, own in papers.items():
        parts.append(_of(section(paper, tables.NAMES[paper], _claims(own)), f"paper of-{paper}"))
        parts += [experiment(row) for row in own]
    return frame("The ledger of claims", header, [*parts, *beside], f"<p>{_made()}</p>")


def picture(figure: "Figure", known: str = "") -> str:
    """A figure with its title as heading, unless that is ``known``, and its subtitle below.

    It takes the colours of the page: what `style.canvas` made for a white one of its own loses its ground and
    its inks, which a dark page would swallow.
    """
    title, subtitle = figure.layout.title.text or "", figure.layout.title.subtitle.text or ""
    heading, reading = (" ".join(text.replace("<br>", " ").split()) for text in (_bare(title), subtitle))
    shown = _on_page(figure)
    top = f"<h3>{heading}</h3>" if heading and heading != escape(known) else ""
    wide = WIDE * _columns(figure) if _columns(figure) > 1 else NARROW
    drawn = panel("", shown, "", "The trials of this picture have not been run.")
    if not figure.data:
        return drawn
    return (
        f'{top}<div class="scroll"><div style="min-width:{wide}px">{drawn}</div></div>'
        f'<p class="note">{reading}</p>'
    )


def table(content: tables.Table, numbers: bool = True) -> str:
    """A table; all columns but the first are ``numbers``, or all are words."""
    lines = [list(map(escape, row)) for row in content.rows]
    columns = range(1, len(content.head)) if numbers else ()
    return sections.table(list(map(escape, content.head)), lines, columns)


def _on_page(figure: "Figure") -> "Figure":
    content = json.loads(figure.to_json(engine="json").replace(style.INK, style.GREY))
    shown = require("plotly.graph_objects", "report").Figure(content)
    top, bottom = figure.layout.margin.t or 0, figure.layout.margin.b or 0
    new = min(top, TITLED if any(note.text for note in figure.layout.annotations) else BARE)
    clear = "rgba(0,0,0,0)"
    shown.update_layout(
        title=None,
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        margin_t=new,
        margin_b=min(bottom, BELOW),
        height=(figure.layout.height or 450) - top + new - bottom + min(bottom, BELOW),
    )
    shown.update_annotations(font_color=None)
    return shown


def _columns(figure: "Figure") -> int:
    """Panels beside each other."""
    return len({axis.domain for axis in figure.select_xaxes() if axis.domain is not None}) or 1


def _bare(title: str) -> str:
    return title.replace("<b>", "").replace("</b>", "")


def experiment(row: Row) -> str:
    """The section of one experiment: verdict, claim, picture, numbers and rule."""
    own = row.experiment
    drawing = figures.draw(row)
    arms = tables.arms(row)
    body = (
        f"<p>{_badge(tables.outcome(row))} {escape(tables.why(row))}</p>"
        f"<p><b>Claim.</b> {escape(own.claim)} "
        f'<span class="note">{escape(own.section)}</span></p>'
        + (picture(drawing, own.title) if drawing is not None else "")
        + (table(arms) if len(arms.head) > 1 else "")
        + f"<details><summary>The rule, fixed before the run</summary>{_parts(tables.parts(row))}</details>"
        + sections.note(escape(tables.cost(row)) + ".")
    )
    name = f"{own.id}: {own.title}"
    return _of(section(own.id, name, body), f"is-{_class(row)} of-{own.paper}")


def _claims(rows: Sequence[Row]) -> str:
    claims = tables.claims(rows)
    lines = [
        (
            f'<a href="#{escape(row[0])}">{escape(row[0])}</a>',
            escape(row[1]),
            _badge(row[2]),
            escape(row[3]),
            row[4],
        )
        for row in claims.rows
    ]
    html = sections.table(list(map(escape, claims.head)), lines, numbers=(4,))
    for row in rows:  # a line is hidden with its section
        link = f'<tr><td><a href="#{escape(row.experiment.id)}">'
        html = html.replace(link, link.replace("<tr>", f'<tr class="is-{_class(row)}">'), 1)
    return html


def _parts(parts: Sequence[tables.Part]) -> str:
    """The parts as lists within lists."""
    html, depth = "", -1
    for part in parts:
        if part.depth > depth:
            html += "<ul>" * (part.depth - depth)
        else:
            html += "</li>" + "</ul></li>" * (depth - part.depth)
        depth = part.depth
        figures = f"{escape(part.figures)}: " if part.figures else ""
        became = "" if part.outcome is None else f": {figures}<b>{escape(part.outcome)}</b>"
        html += f"<li>{escape(part.says)}{became}"
    return html + "</li></ul>" * (depth + 1)


def _badge(outcome: str) -> str:
    tone = TONES.get(outcome, "none")
    return f'<span class="badge {tone}">{escape(outcome)}</span>'


def _class(row: Row) -> str:
    return SHORT.get(tables.outcome(row), "open")


def _of(html: str, classes: str) -> str:
    return f'<div class="{classes}">{html}</div>'


def _choices(papers: Iterable[str]) -> str:
    """Buttons that choose what is shown: the page's style does it, without a script."""
    verdicts = {"is-" + short: name for name, short in SHORT.items()} | {"is-open": tables.NOT_RUN}
    names = {"of-" + paper: tables.NAMES[paper] for paper in papers}
    return "".join(
        f"<fieldset><legend>{escape(legend)}</legend>{_radios(group, {'': 'all'} | options)}</fieldset>"
        for group, legend, options in (("verdict", "Verdict", verdicts), ("paper", "Paper", names))
    )


def _radios(group: str, options: dict[str, str]) -> str:
    return "".join(
        f'<label><input type="radio" name="{group}" id="{group}-{value or "all"}"'
        f"{'' if value else ' checked'}> {escape(text)}</label> "
        for value, text in options.items()
    )


def _style(papers: Iterable[str]) -> str:
    # body:has(...) would be matched anew after every change of the page, which plotly makes by the thousand
    hidden = [
        f"header:has(#verdict-is-{short}:checked) ~ main :is(div, tr)[class*=is-]:not(.is-{short})"
        for short in (*SHORT.values(), "open")
    ]
    hidden += [f"header:has(#paper-of-{paper}:checked) ~ main > div:not(.of-{paper})" for paper in papers]
    return (
        "<style>fieldset { border: 0; padding: 0; margin: .4rem 0 0; } legend { color: var(--quiet); "
        "font-size: .8rem; padding: 0; } label { margin-right: .8rem; white-space: nowrap; } "
        ".badge, td > a { white-space: nowrap; } .scroll { margin-bottom: 0; } "
        ".scroll + .note { margin-top: 0; } "
        ".facts + .scroll { margin-top: .8rem; } .paper td:nth-child(2) { min-width: 9rem; } "
        ".paper td:nth-child(4) { min-width: 16rem; } .scroll table { margin-bottom: 1rem; } "
        ".badge.none { background: #5b6572; } "
        f"{', '.join(hidden)} {{ display: none; }}</style>"
    )


def _made() -> str:
    return f"Made by <code>{escape(tables.COMMAND)}</code> from the store of finished trials alone."
