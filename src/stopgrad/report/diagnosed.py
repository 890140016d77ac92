"""A diagnosis as HTML: its evidence with the course, its remedies, and the page of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from stopgrad.diagnostics.diagnosis import Diagnosis, Evidence
from stopgrad.diagnostics.series import Series
from stopgrad.diagnostics.verdict import judge
from stopgrad.errors import UsageError, require
from stopgrad.report import figures, sections
from stopgrad.report.page import MOST_STEPS, frame, panel, section, thin, write_page

SUFFIX = ".html"
COURSE = (
    "Each measure that the verdict rests on, over the steps of the run. Dashed: the threshold. "
    "Shaded: the side on which the failure lies."
)
SINCE = " The upright line is the first bad step."
SOURCE = {  # key of a source -> what to call it
    **{"kind": "kind", "method": "method", "readings": "readings", "last_step": "last step"},
    **{"model": "encoder", "library": "library", "data": "images", "key": "array", "rows": "vectors"},
    **{"dims": "dimensions", "dtype": "numbers", "worst_of": "the worst of"},
}


def check_page(target: Path) -> None:
    """Refuse what no page can be written to, before anything is measured.

    Raises:
        UsageError: another ending than .html, or no such folder.
        MissingExtra: if plotly is not installed.
    """
    if target.suffix.lower() != SUFFIX:
        raise UsageError(f"--plot {target}: the page ends in {SUFFIX}, not '{target.suffix}'")
    if not target.parent.is_dir():
        raise UsageError(f"--plot {target}: no folder {target.parent}; make it first")
    if target.is_dir():
        raise UsageError(f"--plot {target}: is a folder; name a file")
    require("plotly", "report")


def write_diagnosis(
    target: Path, diagnosis: Diagnosis, source: Mapping[str, Any], series: Sequence[Series]
) -> None:
    """Write the page of a diagnosis, whole or not at all.

    Args:
        target: the file, ending in .html.
        diagnosis: without steps, it is that of one set of vectors, and its only node has their measures.
        source: what was read: ``path``, and what else `SOURCE` names.
        series: the course of the evidence, if there is one.

    Raises:
        UsageError: as `check_page`.
    """
    check_page(target)
    write_page(target, render(diagnosis, source, series))


def render(diagnosis: Diagnosis, source: Mapping[str, Any], series: Sequence[Series]) -> str:
    """The whole page as text."""
    path = sections.text(source.get("path"))
    facts = [
        (name, sections.text(source[key])) for key, name in SOURCE.items() if source.get(key) is not None
    ]
    header = (
        f"<h1>Diagnosis <small>of {path}</small></h1>"
        + sections.badge(diagnosis.verdict)
        + sections.fact_list(facts)
    )
    pictures = course(diagnosis, series) if source.get("kind") == "run" else _vectors(diagnosis, source)
    reasons = section("evidence", "Why this verdict", findings(diagnosis, pictures))
    return frame(f"{diagnosis.verdict}: {path}", header, (reasons,))


def findings(diagnosis: Diagnosis, pictures: str) -> str:
    """Since when, how sure and why; pictures as HTML; the evidence; what to change."""
    since = "" if diagnosis.first_bad_step is None else f"since step {diagnosis.first_bad_step:,}, "
    lead = f"<b>{escape(diagnosis.verdict)}</b>, {since}confidence {diagnosis.confidence:.2f}"
    cause = f"<p>Cause: {escape(diagnosis.cause)}.</p>" if diagnosis.cause else ""
    return f"<p>{lead}.</p>{cause}" + pictures + _evidence(diagnosis) + _fixes(diagnosis)


def course(diagnosis: Diagnosis, series: Sequence[Series]) -> str:
    """The course of the evidence as a picture, nothing where there is none."""
    if not series:
        return ""
    drawn = [
        replace(one, steps=tuple(thin(one.steps, MOST_STEPS)), values=tuple(thin(one.values, MOST_STEPS)))
        for one in series
    ]
    since = "" if diagnosis.first_bad_step is None else SINCE
    return panel("", figures.evidence_figure(drawn, diagnosis.first_bad_step), COURSE + since)


def _evidence(diagnosis: Diagnosis) -> str:
    rows = [
        [
            escape(item.measure if item.of == item.measure else f"{item.measure} of {item.of}"),
            sections.number(item.value),
            _limit(item),
            escape(item.says),
        ]
        for item in diagnosis.evidence
    ]
    return sections.table(["evidence", "value", "threshold", "meaning"], rows, numbers=(1, 2))


def _limit(item: Evidence) -> str:
    if not math.isfinite(item.threshold):
        return "finite"
    return f"{'&lt;' if item.below else '≥'} {sections.number(item.threshold)}"


def _fixes(diagnosis: Diagnosis) -> str:
    if not diagnosis.fixes:
        return ""
    lines = "".join(
        f"<li><b>{escape(fix.change)}</b>: {escape(fix.effect)} "
        f'<span class="note">({escape(fix.source)})</span></li>'
        for fix in diagnosis.fixes
    )
    return f"<h3>What to change, the most promising first</h3><ol>{lines}</ol>"


def _vectors(diagnosis: Diagnosis, source: Mapping[str, Any]) -> str:
    """Pictures of one set of vectors, which has no course: measures against thresholds, spectrum."""
    ((name, measures),) = diagnosis.measures.items()
    failed = () if diagnosis.verdict == "healthy" else diagnosis.evidence
    known = [(item.measure, item.of) for item in failed]
    judged = judge({"z": measures, name: measures}, 0.0)[1]  # it asks for a z, whatever else it judges
    others = [item for item in judged if item.of == name and (item.measure, item.of) not in known]
    shares = measures.get("spectrum") or []
    count, dims = len(shares), source.get("dims")
    shown = f"the first {count} of {dims}" if isinstance(dims, int) and dims > count else f"all {count}"
    charts = (
        panel(
            "Measures against their thresholds",
            figures.threshold_bars(failed, others),
            "Each bar starts at its threshold and ends at the measure, both in multiples of the threshold.",
        ),
        panel(
            "Spectrum",
            figures.cumulative_spectrum(shares, measures.get("effective_rank")),
            f"Share of the variance that the largest directions hold together ({shown}). "
            "A curve that is up at once means that a few directions hold everything.",
        ),
    )
    return f'<div class="charts">{"".join(charts)}</div>'
