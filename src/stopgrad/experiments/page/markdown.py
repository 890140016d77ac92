"""The ledger as Markdown: `docs/results/ledger.md`."""

import re
from collections.abc import Sequence

from stopgrad.errors import UsageError
from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import tables

HEAD = f"""# The ledger of claims

Written by `{tables.COMMAND}` from the finished trials in `results/ledger`, which
`stopgrad reproduce all` makes; nothing here is written by hand. Every theorem, table and figure of the papers
is an experiment whose rule was fixed before the run, and the rule alone gives the verdict. Where networks are
trained it is on `digits`, with the papers' numbers, of their own data, beside ours. Accuracies are of linear
probes on test images; ± is the standard deviation over seeds, an interval the bootstrap's of 95 % of a paired
difference. Collapse is never read from an accuracy. The pictures are on the HTML page that the same command
writes.
"""

LEDGER = "../results/ledger.md"
"""Where a paper's own page finds the ledger."""
CLAIMS = "\n## Its ledger\n"
"""Heading of a paper's own page under which all is written by the command."""


def render(rows: Sequence[Row], beside: str = "") -> str:
    """The whole page; the same rows give the same text. ``beside`` is Markdown that stands at the end."""
    lines = [HEAD]
    lines += [f"- {plain(name)}: {plain(value)}" for name, value in tables.facts(rows)]
    lines += ["", *table(tables.counts(rows)), ""]
    for paper, own in tables.by_paper(rows).items():
        lines += [f"## {plain(tables.NAMES[paper])}", "", *_claims(own), ""]
        for row in own:
            lines += [_experiment(row), ""]
    return "\n".join([*lines, *([beside] if beside else [])]).rstrip() + "\n"


def paper(page: str, rows: Sequence[Row]) -> str:
    """A paper's own page with the verdicts on its claims in place of those that it had, linked to the ledger.

    Raises:
        UsageError: if the page has no heading `CLAIMS`.
    """
    words, heading, _ = page.partition(CLAIMS)
    if not heading:
        raise UsageError(f"no heading '{CLAIMS.strip()}', under which the paper's claims are written")
    head = ("claim", "", "verdict")
    lines = [(r.experiment.id, r.experiment.title, tables.outcome(r)) for r in rows]
    linked = [(f"[{plain(line[0])}]({LEDGER}#{_anchor(line[0])})", *map(plain, line[1:])) for line in lines]
    said = f"Written by `{tables.COMMAND}`; the numbers are in [the ledger]({LEDGER})."
    return "\n".join([words + heading, said, "", *_top(head), *map(_line, linked)]) + "\n"


def plain(text: str) -> str:
    """A text as Markdown that shows it and does nothing else, in one line."""
    text = " ".join(text.split()).replace("&", "&amp;")
    text = re.sub(r"([\\`*\[<|~])", r"\\\1", text)
    # between letters, as in W_p, an underscore is one
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def table(content: tables.Table) -> list[str]:
    """The lines of a table."""
    return [*_top(content.head), *(_line(tuple(map(plain, row))) for row in content.rows)]


def _claims(rows: Sequence[Row]) -> list[str]:
    claims = tables.claims(rows)
    linked = [(f"[{plain(row[0])}](#{_anchor(row[0])})", *map(plain, row[1:])) for row in claims.rows]
    return [*_top(claims.head), *map(_line, linked)]


def _experiment(row: Row) -> str:
    experiment = row.experiment
    arms = tables.arms(row)
    lines = [
        f"### {plain(experiment.id)}",
        "",
        f"**{plain(experiment.title)}** ({plain(experiment.section)})",
        "",
        f"Claim: {plain(experiment.claim)}",
        "",
        f"Verdict: **{plain(tables.outcome(row))}**: {plain(tables.why(row))}",
        "",
        *(table(arms) if len(arms.head) > 1 else []),
        "",
        "Rule, fixed before the run:",
        "",
        *map(_part, tables.parts(row)),
        "",
        f"{plain(tables.cost(row))}.",
    ]
    return "\n".join(lines)


def _part(part: tables.Part) -> str:
    figures = f"{plain(part.figures)}: " if part.figures else ""
    became = "" if part.outcome is None else f": {figures}**{plain(part.outcome)}**"
    return f"{'  ' * part.depth}- {plain(part.says)}{became}"


def _top(head: Sequence[str]) -> list[str]:
    return [_line(tuple(map(plain, head))), "|" + "---|" * len(head)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _anchor(heading: str) -> str:
    """Where a heading of one word is found: the address that renderers of Markdown give it."""
    return heading.lower().replace(".", "")
