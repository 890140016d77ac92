"""The page: one HTML file that works offline, made only from the files of a run folder.

The page's Content-Security-Policy allows no request at all, and no script but plotly's and the page's own
(by their hashes), so a text that slipped through the escaping could still run nothing.
"""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from stopgrad.errors import require
from stopgrad.evaluation import neighbours
from stopgrad.files import whole_file
from stopgrad.report import figures, sections
from stopgrad.report.run_files import Evaluation, Row, RunFiles, read_run

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_STEPS = 2000  # points of a line, so that a long run's report stays small and quick
MOST_COLUMNS = 200  # epochs of a heat map
NOTHING = "Nothing finite was measured for this picture."


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder, whole or not at all, and return its path.

    Raises:
        UsageError: if `run` is no run folder or one of its files is damaged.
        MissingExtra: if plotly or Pillow is not installed.
    """
    page = render(read_run(run))
    target = run / "report.html"
    with whole_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return target


def render(run: RunFiles) -> str:
    """The whole page as text; the same files give the same text."""
    plotly = require("plotly.offline", "report").get_plotlyjs()
    script = _asset("page.js")
    title = f"{sections.text(run.summary.get('method', 'run'))} on {sections.text(run.summary.get('data'))}"
    return Template(_asset("page.html")).substitute(
        title=title,
        style=_asset("page.css"),
        hashes=f"{_hash(plotly)} {_hash(script)}",
        header=sections.header(run) + sections.skipped(run),
        key_figures=sections.key_figures(run),
        evidence=sections.evidence(run),
        charts="".join(_charts(run)),
        neighbours=sections.neighbour_grid(run.evaluation),
        map=_map(run.evaluation),
        settings=sections.settings(run),
        footer=_footer(run),
        plotly=plotly,
        script=script,
    )


def panel(heading: str, figure: "Figure", reading: str, missing: str = NOTHING) -> str:
    """A figure with its heading and one sentence on how to read it, or a note where it is empty."""
    if not figure.data:
        return f"<figure><h3>{escape(heading)}</h3>{sections.note(escape(missing))}</figure>"
    data = figure.to_json(engine="json")  # plotly writes "<" as an escape, so no text ends the script early
    return (
        f'<figure><h3>{escape(heading)}</h3><div class="plot" style="height:{figure.layout.height}px">'
        f'<script type="application/json">{data}</script></div>'
        f"<figcaption>{escape(reading)}</figcaption></figure>"
    )


def thin(rows: Sequence[Row], most: int) -> Sequence[Row]:
    """Every n-th row, so that at most `most` + 1 are left, the last one among them."""
    stride = -(-len(rows) // most)
    return rows if stride <= 1 else [*rows[:-1:stride], rows[-1]]


def _charts(run: RunFiles) -> list[str]:
    steps, epochs = thin(run.steps, MOST_STEPS), thin(run.epochs, MOST_STEPS)
    columns = thin(run.epochs, MOST_COLUMNS)
    reasons = [item for item in run.summary.get("evidence") or () if isinstance(item, dict)]
    before = run.summary.get("untrained")
    no_p = "This method has no predictor, so there is no p."
    thinned = (
        f" One step in {-(-len(run.steps) // MOST_STEPS)} is drawn." if len(steps) < len(run.steps) else ""
    )
    spread = {
        name: panel(one.heading, figures.measure(epochs, name, reasons), one.reading)
        for name, one in figures.MEASURES.items()
    }
    return [
        panel("Loss", figures.loss(steps, epochs), f"The training loss by epoch.{thinned}"),
        panel(
            "Accuracy",
            figures.accuracy(epochs, before.get("knn") if isinstance(before, dict) else None),
            "On validation images, while training. Collapse is never judged by accuracy: "
            "a collapsed encoder can still be probed well above chance.",
            "No accuracy was measured, as for data without labels.",
        ),
        spread["std"],
        spread["effective_rank"],
        panel(
            "Spectrum of z",
            figures.spectrum(columns, "z"),
            "Eigenvalues of the covariance of the l2-normalised z, as shares of their sum. "
            "Dark from below means that directions die out.",
        ),
        panel(
            "Spectrum of p",
            figures.spectrum(columns, "p"),
            "The same of the prediction p.",
            no_p if not any("p" in row for row in run.epochs) else NOTHING,
        ),
        spread["alignment"],
        spread["uniformity"],
        panel(
            "Centre and residual",
            figures.decomposition(epochs, reasons),
            "m_o is the norm of the mean of the unit-length vectors, m_r the root mean square of the rest; "
            "m_o near 1 and m_r near 0 is collapse to one vector.",
        ),
        panel("Learning rate", figures.learning_rate(steps), f"As the optimizer used it.{thinned}"),
        panel("Speed", figures.throughput(steps), f"Training images per second.{thinned}"),
    ]


def _map(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return sections.note("evaluation.npz is not there: the run has not been evaluated.")
    drawn = neighbours.embedding_map(evaluation.h)
    if len(drawn.index) == 0:
        return sections.note("No feature vector is finite, so there is no map to show.")
    labels = None if evaluation.labels is None else [evaluation.label_name(int(i)) for i in drawn.index]
    names = [evaluation.ids[i] for i in drawn.index]
    figure = figures.embedding_map(drawn.points, names, labels, drawn.method)
    reading = (
        f"{drawn.method} of the encoder features of {len(names)} test images (unit length). Only who is near "
        "whom means something: sizes of clusters and distances between them do not, and a map spreads out "
        "even an embedding that is nearly collapsed."
    )
    return panel("", figure, reading).replace("<h3></h3>", "")


def _footer(run: RunFiles) -> str:
    if run.unreadable_lines == 0:
        return ""
    lines = f"{run.unreadable_lines} line{'s' if run.unreadable_lines > 1 else ''}"
    return sections.note(
        f"{lines} of metrics.jsonl could not be read (a killed run leaves a torn one) and left out."
    )


def _asset(name: str) -> str:
    return resources.files("stopgrad.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
