"""The parts of the page that are words, tables and pictures. Every text from a run goes through `escape`."""

import base64
import io
import json
import math
from collections.abc import Container, Mapping, Sequence
from html import escape
from shlex import quote
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from stopgrad.errors import require
from stopgrad.report.figures import MEASURES, NODES
from stopgrad.report.run_files import Evaluation, Row, RunFiles

BEING_JUDGED = "being judged"
VERDICTS = {  # verdict -> badge colour class, what it means
    BEING_JUDGED: ("open", "What was measured is being read."),
    "healthy": ("good", "The embedding stays spread out over many directions."),
    "complete-collapse": ("bad", "Nearly all images are mapped to one and the same vector."),
    "dimensional-collapse": ("bad", "The embedding uses only a few of its directions."),
    "predictor-collapse": ("bad", "The predictions hardly vary, though the projections do."),
    "diverged": ("bad", "The loss or the vectors are no longer finite, or the loss runs away."),
    "frozen-target": ("bad", "The target network stands still while the online network learns."),
    "target-leak": ("bad", "A gradient flows into the target, which should be a constant."),
    "identical-views": ("bad", "Both views of an image are the same picture."),
    "normalisation-leak": ("bad", "Batch normalisation hides a collapse that shows in evaluation mode."),
    "dead-projector": ("bad", "The projector gives zeros, or no gradient reaches it."),
    "nan-ahead": ("bad", "The norms grow without a pause and are about to overflow."),
    "constant-loss": ("bad", "The loss does not move."),
}
PROBES = (
    ("knn", "kNN"),
    ("linear_probe", "linear probe, all labels, standardised"),
    ("linear_probe_raw", "linear probe, all labels, raw"),
    ("linear_probe_20", "linear probe, 20 labels a class, standardised"),
    ("linear_probe_20_raw", "linear probe, 20 labels a class, raw"),
)
QUERIES, NEIGHBOURS = 12, 8
NEAREST = (
    "Left the query, then the test images whose encoder features are most alike (cosine), nearest first. "
    "Point at a picture for its name and similarity."
)
BORDERS = (
    ' A <span class="same">green</span> border is the query\'s class, '
    'a <span class="other">dashed red</span> one another class.'
)
SKIPPED_SHOWN = 200


def header(run: RunFiles, verdict: str | None = None) -> str:
    """Title, verdict badge and the facts of the run; the verdict is that of `summary.json` by default."""
    summary = run.summary
    facts = (
        ("data", text(summary.get("data"))),
        ("seed", text(summary.get("seed"))),
        ("epochs", text(summary.get("epochs"))),
        ("final loss", number(summary.get("loss"))),
        ("speed", f"{number(summary.get('images_per_second'))} images / s"),
        ("run folder", text(summary.get("run", run.path.name))),
        ("stopgrad", text(summary.get("stopgrad"))),
    )
    return (
        f"<h1>{text(summary.get('method', 'run'))} <small>on {text(summary.get('data'))}</small></h1>"
        + badge(str(summary.get("verdict", "unfinished")) if verdict is None else verdict)
        + fact_list(facts)
    )


def badge(verdict: str) -> str:
    """The verdict in its colour, and what it means."""
    tone, meaning = VERDICTS.get(verdict, ("open", "This run has no final verdict yet."))
    return f'<p><span class="badge {tone}">{escape(verdict)}</span> {meaning}</p>'


def fact_list(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values, the values as HTML."""
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def evidence(run: RunFiles) -> str:
    """What the verdict of `summary.json` rests on."""
    items = [item for item in run.summary.get("evidence") or () if isinstance(item, Mapping)]
    lines = "".join(f"<li>{_reason(item)}</li>" for item in items)
    return f"<ul>{lines}</ul>" if items else note("summary.json holds no evidence for a verdict.")


def final_measures(run: RunFiles) -> str:
    """Every measure of the end of the run, of the test images."""
    nodes = [(key, name) for key, (name, _, _) in NODES.items() if isinstance(run.summary.get(key), Mapping)]
    if not nodes:
        return ""
    measures = {key: one.heading for key, one in MEASURES.items()} | {"m_o": "m_o", "m_r": "m_r"}
    final = [
        [escape(heading), *(number(run.summary[node].get(key)) for node, _ in nodes)]
        for key, heading in measures.items()
    ]
    return "<h3>At the end of the run</h3>" + table(
        ["measure", *(name for _, name in nodes)], final, numbers=range(1, 5)
    )


def _reason(item: Row) -> str:
    threshold = item.get("threshold")
    limit = f", threshold {number(threshold)}" if finite(threshold) else ""
    what = f"<b>{text(item.get('measure'))} of {text(item.get('of'))}: {number(item.get('value'))}</b>"
    return f"{what}{limit} – {text(item.get('says'))}"


def key_figures(run: RunFiles) -> str:
    """kNN and linear probes beside the untrained encoder's."""
    before = run.summary.get("untrained")
    before = before if isinstance(before, Mapping) else {}
    rows = []
    for key, name in PROBES:
        now, then = run.summary.get(key), before.get(key)
        if finite(now) or finite(then):
            gain = f"{100 * (now - then):+.1f}" if finite(now) and finite(then) else "–"
            rows.append([name, percent(now), percent(then), gain])
    if not rows:
        return note("No accuracy was measured, as for data without labels: judge by the charts below.")
    return table(
        ["accuracy on test images (%)", "this run", "untrained encoder", "gain"],
        rows,
        numbers=(1, 2, 3),
    )


def skipped(run: RunFiles) -> str:
    """The files that could not be read, if any."""
    files = [item for item in run.summary.get("skipped") or () if isinstance(item, Mapping)]
    if not files:
        return ""
    rows = [[text(item.get("path")), text(item.get("reason"))] for item in files[:SKIPPED_SHOWN]]
    more = len(files) - len(rows)
    rest = note(f"… and {more} more, listed in summary.json.") if more else ""
    count = f"{len(files)} file{'s' if len(files) > 1 else ''} skipped"
    listed = table(["file", "reason"], rows)
    return f'<details class="skipped"><summary>{count}</summary>{listed}{rest}</details>'


def neighbour_grid(evaluation: Evaluation | None) -> str:
    """Queries, each followed by its nearest test images; the border tells whether the labels agree."""
    if evaluation is None:
        return note("evaluation.npz is not there: the run has not been evaluated.")
    from stopgrad.evaluation.neighbours import nearest_neighbours, spread_queries

    queries = spread_queries(evaluation.h, evaluation.labels, QUERIES)
    if len(queries) == 0:
        return note("No feature vector is finite, so there are no neighbours to show.")
    order, similarity = nearest_neighbours(evaluation.h, queries, NEIGHBOURS)
    rows = []
    for place, query in enumerate(queries):
        pairs = zip(order[place], similarity[place], strict=True)
        cells = [
            picture(evaluation, int(query)),
            *(picture(evaluation, int(i), int(query), s) for i, s in pairs),
        ]
        rows.append(f'<div class="row">{"".join(cells)}</div>')
    borders = "" if evaluation.labels is None else BORDERS
    return f'<p>{NEAREST}{borders}</p><div class="neighbours">{"".join(rows)}</div>'


def picture(
    evaluation: Evaluation, index: int, query: int | None = None, similarity: float | None = None
) -> str:
    """One image of the grid; `query` and `similarity` are None for the query itself."""
    label = evaluation.label_name(index)
    says = [evaluation.ids[index], *([f"class {label}"] if label is not None else [])]
    tone = "query"
    if query is not None:
        own = evaluation.label_name(query)
        tone = "plain" if label is None or own is None else "same" if label == own else "other"
        says += [f"cosine similarity {similarity:.3f}", *([] if tone == "plain" else [f"{tone} class"])]
    words = escape(("query: " if query is None else "") + ", ".join(says))
    source = png_data_uri(evaluation.thumbnails[index])
    return f'<img class="{tone}" src="{source}" alt="{words}" title="{words}">'


def png_data_uri(image: NDArray[np.uint8]) -> str:
    """An image (C, H, W), uint8, of one or three channels, as a PNG `data:` address."""
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image[:3], 0, -1)
    stream = io.BytesIO()
    require("PIL.Image", "report").fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def settings(run: RunFiles) -> str:
    """How to run it again, and the whole config.yaml."""
    folder = str(run.summary.get("run", run.path.name)).rstrip("/")
    again = f"stopgrad pretrain --config {quote(folder + '/config.yaml')} --out {quote(folder + '-again')}"
    body = escape(run.config) if run.config else "config.yaml is not there."
    return (
        f"<p>To run it again, from the folder it was started in:</p><pre>{escape(again)}</pre>"
        f"<details><summary>config.yaml</summary><pre>{body}</pre></details>"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Container[int] = ()) -> str:
    """An HTML table of cells that are HTML already; `numbers` are the columns that hold numbers."""
    mark = [' class="number"' if column in numbers else "" for column in range(len(head))]
    top = "".join(f"<th{kind}>{cell}</th>" for kind, cell in zip(mark, head, strict=True))
    lines = ("".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(mark, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def note(words: str) -> str:
    """A line that stands where something is missing."""
    return f'<p class="note">{words}</p>'


def text(value: Any) -> str:
    """Any value from a run's files as safe HTML; a dash where there is none."""
    if value is None:
        return "–"
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def finite(value: Any) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any) -> str:
    """A number to four digits, words for one that is not finite, a dash for none."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    if not finite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(fraction: Any) -> str:
    """A fraction in [0, 1] as percent to one digit, a dash for none."""
    return f"{100 * fraction:.1f}" if finite(fraction) else "–"
