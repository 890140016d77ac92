"""The report of a run: one HTML file made only from the files of its folder, and from its diagnosis.

What neither torch nor scikit-learn has a part in is drawn without importing them, which takes seconds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stopgrad.report import figures, sections
from stopgrad.report.figures import Eigenvalues
from stopgrad.report.page import (
    MOST_STEPS,
    NOTHING,
    frame,
    lowest_and_highest,
    panel,
    section,
    thin,
    write_page,
)
from stopgrad.report.run_files import Evaluation, Row, RunFiles, read_run

if TYPE_CHECKING:
    from stopgrad.diagnostics.diagnosis import Diagnosis
    from stopgrad.diagnostics.series import Series

MOST_COLUMNS = 200  # epochs of a heat map
EIGENVALUES = "Eigenvalues of the predictor"


def write_report(
    run: Path,
    diagnosis: "Diagnosis | None" = None,
    series: "Sequence[Series]" = (),
    eigenvalues: Eigenvalues | None = None,
) -> Path:
    """Write `report.html` into a run folder, whole or not at all, and return its path.

    Args:
        run: the folder.
        diagnosis: of the run's readings; without one, the page has the verdict of `summary.json` alone.
        series: the course of the diagnosis's evidence.
        eigenvalues: the course of the predictor's, where it has one.

    Raises:
        UsageError: if `run` is no run folder or one of its files is damaged.
        MissingExtra: if plotly or Pillow is not installed.
    """
    target = run / "report.html"
    write_page(target, render(read_run(run), diagnosis, series, eigenvalues))
    return target


def render(
    run: RunFiles,
    diagnosis: "Diagnosis | None" = None,
    series: "Sequence[Series]" = (),
    eigenvalues: Eigenvalues | None = None,
) -> str:
    """The whole page as text; the same files give the same text."""
    title = f"{sections.text(run.summary.get('method', 'run'))} on {sections.text(run.summary.get('data'))}"
    whole = parts(run, embedding_map(run.evaluation), diagnosis, series, eigenvalues)
    return frame(title, *whole, _footer(run))


def parts(
    run: RunFiles,
    drawn_map: str,
    diagnosis: "Diagnosis | None" = None,
    series: "Sequence[Series]" = (),
    eigenvalues: Eigenvalues | None = None,
) -> tuple[str, tuple[str, ...]]:
    """Header and sections of the page as HTML; ``drawn_map`` is the map's, which takes seconds to compute."""
    verdict = None if diagnosis is None else diagnosis.verdict
    neighbours = sections.neighbour_grid(run.evaluation)
    course = _eigenvalues(eigenvalues)
    return _assembled(run, verdict, _reasons(run, diagnosis, series), course, neighbours, drawn_map)


def outline(run: RunFiles) -> tuple[str, tuple[str, ...]]:
    """`parts` as far as the files alone tell; in place of the rest, that it is being computed."""
    coming = sections.note("Being computed …")
    return _assembled(run, sections.BEING_JUDGED, coming, [_figure(EIGENVALUES, coming)], coming, coming)


def _assembled(
    run: RunFiles, verdict: str | None, reasons: str, course: Sequence[str], neighbours: str, drawn_map: str
) -> tuple[str, tuple[str, ...]]:
    return sections.header(run, verdict) + sections.skipped(run), (
        section("key-figures", "Key figures", sections.key_figures(run)),
        section("evidence", "Why this verdict", reasons + sections.final_measures(run)),
        section("charts", "Training", f'<div class="charts">{"".join(_charts(run, course))}</div>'),
        section("neighbours", "Nearest neighbours", neighbours),
        section("map", "Map of the embedding", drawn_map),
        section("settings", "Settings", sections.settings(run)),
    )


def _reasons(run: RunFiles, diagnosis: "Diagnosis | None", series: "Sequence[Series]") -> str:
    """Why the verdict is what it is; `summary.json` has judged the end of the run alone."""
    if diagnosis is None:
        return sections.evidence(run)
    from stopgrad.report import diagnosed

    reasons = diagnosed.findings(diagnosis, diagnosed.course(diagnosis, series))
    at_end = run.summary.get("verdict", diagnosis.verdict)
    if at_end == diagnosis.verdict:
        return reasons
    return reasons + sections.note(
        f"summary.json says {sections.text(at_end)}: it judges the test images at the end of the run alone, "
        "this page what was read while it trained."
    )


def _charts(run: RunFiles, course: Sequence[str]) -> list[str]:
    epochs = thin(run.epochs, MOST_STEPS)
    reasons = [item for item in run.summary.get("evidence") or () if isinstance(item, dict)]
    measures = {
        name: panel(one.heading, figures.measure(epochs, name, reasons), one.reading)
        for name, one in figures.MEASURES.items()
    }
    thinned = ""
    if len(run.steps) > MOST_STEPS:
        thinned = (
            f" Of every {2 * len(run.steps) / MOST_STEPS:.0f} steps the lowest and the highest are drawn."
        )
    return [
        panel("Loss", figures.loss(_steps(run, "loss"), epochs), f"The training loss by epoch.{thinned}"),
        _accuracy(run, epochs),
        measures["std"],
        measures["effective_rank"],
        *_spectra(run),
        *course,
        measures["alignment"],
        measures["uniformity"],
        panel(
            "Centre and residual",
            figures.decomposition(epochs, reasons),
            "m_o is the norm of the mean of the unit-length vectors, m_r the root mean square of the rest; "
            "m_o near 1 and m_r near 0 is collapse to one vector.",
        ),
        panel(
            "Learning rate", figures.learning_rate(_steps(run, "lr")), f"As the optimizer used it.{thinned}"
        ),
        panel(
            "Speed",
            figures.throughput(_steps(run, "images_per_second")),
            f"Training images per second.{thinned}",
        ),
    ]


def _steps(run: RunFiles, key: str) -> Sequence[Row]:
    """The step rows that a line of this key needs."""
    kept = lowest_and_highest([figures.as_number(row.get(key)) for row in run.steps], MOST_STEPS)
    return [run.steps[i] for i in kept]


def _accuracy(run: RunFiles, epochs: Sequence[Row]) -> str:
    before = run.summary.get("untrained")
    return panel(
        "Accuracy",
        figures.accuracy(epochs, before.get("knn") if isinstance(before, dict) else None),
        "On validation images, while training. Collapse is never judged by accuracy: "
        "a collapsed encoder can still be probed well above chance.",
        "No accuracy was measured, as for data without labels.",
    )


def _spectra(run: RunFiles) -> tuple[str, str]:
    columns = thin(run.epochs, MOST_COLUMNS)
    no_p = "This method has no predictor, so there is no p."
    return (
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
            NOTHING if any("p" in row for row in run.epochs) else no_p,
        ),
    )


def _eigenvalues(course: Eigenvalues | None) -> list[str]:
    if course is None:
        nothing = (
            "None were measured: the predictor is no matrix (an MLP has no eigenvalues), or the run is older "
            "than this picture."
        )
        return [_figure(EIGENVALUES, sections.note(nothing))]
    first, last = course.alignment
    of_p = (
        "Solid: the largest eigenvalues p_j of the predictor's symmetric part at each epoch, whatever their "
        f"directions v_j. {course.says}"
    )
    of_s = (
        "Solid: what the correlation F = E[z zᵀ] of the validation images' views (batch norm in train mode) "
        f"has along the same v_j. {first:.0%} of F lay in the predictor's eigenbasis at first, {last:.0%} at "
        "last; the rest is what no pair tells of. Dashed: as on its left."
    )
    return [
        panel(EIGENVALUES, figures.eigenvalues(course, "p"), of_p),
        panel("Eigenvalues of F in the same directions", figures.eigenvalues(course, "s"), of_s),
    ]


def _figure(heading: str, content: str) -> str:
    return f"<figure><h3>{heading}</h3>{content}</figure>"


def embedding_map(evaluation: Evaluation | None) -> str:
    """The map of the held-out images as HTML, or why there is none."""
    if evaluation is None:
        return sections.note("evaluation.npz is not there: the run has not been evaluated.")
    from stopgrad.evaluation import neighbours

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
    return panel("", figure, reading)


def _footer(run: RunFiles) -> str:
    if run.unreadable_lines == 0:
        return ""
    lines = f"{run.unreadable_lines} line{'s' if run.unreadable_lines > 1 else ''}"
    return sections.note(
        f"{lines} of metrics.jsonl could not be read (a killed run leaves a torn one) and left out."
    )
