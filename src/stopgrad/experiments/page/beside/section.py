"""The section: in words, tables and pictures, for both pages."""

from collections.abc import Sequence
from html import escape

import numpy as np

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import html, tables
from stopgrad.experiments.page.beside.pairs import (
    OUTCOMES,
    Collected,
    Pair,
    agreement,
    collect,
    grouped,
    matrix,
    overlap,
    spectra,
    suspects,
)
from stopgrad.experiments.page.beside.pictures import spectrum_figure, time_figure
from stopgrad.experiments.page.markdown import plain, table
from stopgrad.postmortem.counterpart import Grade
from stopgrad.report import sections as blocks
from stopgrad.report.page import section

GRADES: dict[Grade, str] = {
    "near": "near: distance, rates or normalisation replaced",
    "far": "far: an MLP predictor replaced by a linear one",
}
HEADING = "Theory beside practice"

ABOUT = (
    "For every trained arm with a linear counterpart, the theory's prediction from the statistics of the "
    "untrained network of the same seed, made without a step of training: the encoder is taken as it starts, "
    "one linear layer is followed by the equations of Tian et al. 2021, and collapse is read from the modes "
    "that are left as it is from z. Definitions were fixed before outcomes were looked at, but for one that "
    "stopgrad.experiments.exact.counterpart names. Trials of one arm differ in the seed alone and are no "
    "independent cases."
)


def markdown(rows: Sequence[Row]) -> str:
    """The section for `docs/results/ledger.md`."""
    found = collect(rows)
    lines = [f"## {HEADING}", "", plain(ABOUT), ""]
    for grade, name in GRADES.items():
        lines += [f"### {name[0].upper()}{name[1:]}", "", plain(_says(found.of(grade))), ""]
        if found.of(grade):
            lines += [*table(_matrix(found.of(grade))), "", *table(_families(found.of(grade))), ""]
    lines += ["### Where they disagree", "", *table(_disagreements(found.pairs)), ""]
    lines += ["### Spectra and times", "", plain(_figures_say(found)), ""]
    lines += [
        "### Arms without a prediction",
        "",
        plain(_waiting(found)),
        "",
        *table(_reasons(found)),
        "",
    ]
    return "\n".join(lines)


def sections(rows: Sequence[Row]) -> list[str]:
    """The section for the HTML page."""
    found = collect(rows)
    body = blocks.note(escape(ABOUT))
    for grade, name in GRADES.items():
        body += f"<h3>{escape(name[0].upper() + name[1:])}</h3><p>{escape(_says(found.of(grade)))}</p>"
        if found.of(grade):
            body += html.table(_matrix(found.of(grade))) + html.table(_families(found.of(grade)))
    body += f"<h3>Where they disagree</h3>{html.table(_disagreements(found.pairs), numbers=False)}"
    body += f"<p>{escape(_figures_say(found))}</p>"
    body += html.picture(spectrum_figure(found)) + html.picture(time_figure(found))
    body += f"<h3>Arms without a prediction</h3><p>{escape(_waiting(found))}</p>{html.table(_reasons(found))}"
    return [section("beside", HEADING, body)]


def _says(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "No trial has both, a prediction and an outcome."
    beyond = sum(not pair.theory.numbers["arrived"] for pair in pairs)
    dropped = np.median([pair.theory.numbers["dropped"] for pair in pairs])
    said = agreement(pairs)
    return (
        f"Prediction and outcome are {said}. In {beyond} of them the predicted end lies beyond the run. To "
        f"decouple the modes {dropped:.0%} of the measured matrices were dropped (median)."
    )


def _matrix(pairs: Sequence[Pair]) -> tables.Table:
    counted = matrix(pairs)
    came = [name for name in OUTCOMES if name != "diverged" or any(counted[s, name] for s in OUTCOMES[:2])]
    rows = [(f"predicted: {said}", *(str(counted[said, name]) for name in came)) for said in OUTCOMES[:2]]
    return tables.Table(("trials", *(f"observed: {name}" for name in came)), tuple(rows))


def _families(pairs: Sequence[Pair]) -> tables.Table:
    rows = []
    for name, own in grouped(pairs, lambda pair: f"{pair.family} predictor, {pair.target}"):
        said, came = (
            sum(getattr(pair, what) == "collapsed" for pair in own) for what in ("predicted", "observed")
        )
        rows.append((name, str(len(own)), str(said), str(came), str(sum(pair.agrees for pair in own))))
    head = ("predictor and target", "trials", "predicted collapsed", "observed collapsed", "the same")
    return tables.Table(head, tuple(rows))


def _disagreements(pairs: Sequence[Pair]) -> tables.Table:
    wrong = [pair for pair in pairs if not pair.agrees]
    rows = []
    for name, own in grouped(wrong, lambda pair: f"{pair.experiment}, {pair.arm}"):
        for what, same in grouped(own, lambda pair: f"{pair.predicted} / {pair.observed}"):
            seeds = ", ".join(str(pair.settings.seed) for pair in sorted(same, key=lambda p: p.settings.seed))
            rows.append((name, seeds, what, "; ".join(dict.fromkeys(r for p in same for r in suspects(p)))))
    head = ("arm", "seeds", "predicted / observed", "what parts theory and run")
    return tables.Table(head, tuple(rows) or ((tables.NONE,) * len(head),))


def _figures_say(found: Collected) -> str:
    """The spectra's and times' agreement in figures."""
    pairs = found.linear()
    both = [row for row in map(spectra, pairs) if row[0].size and row[1].size]
    times = [(p.theory.numbers["epochs"], p.settled) for p in pairs if "epochs" in p.theory.numbers]
    known = np.array([row for row in times if row[1] is not None], dtype=float)
    said = f"Near arms with a learned linear predictor, trials: {len(pairs)}."
    if both:
        shared = np.median([overlap(*row) for row in both])
        ranks = [(p.theory.numbers["rank"], p.run.numbers.get("z.effective_rank")) for p in pairs]
        first, second = np.array([row for row in ranks if row[1] is not None], dtype=float).reshape(-1, 2).T
        said += (
            f" Of the final spectrum of z a share of {shared:.2f} is as predicted (median of {len(both)}; 1 "
            f"is all). Effective rank, median: {np.median(first):.3g} predicted, {np.median(second):.3g} "
            "measured."
        )
    if known.size:
        ratio = np.median(known[:, 1] / known[:, 0])
        said += (
            f" {len(known)} of these trials settle before their last evaluation, at {ratio:.2g} times the "
            "predicted epoch (median)."
        )
    return said


def _waiting(found: Collected) -> str:
    arms = sum(map(len, found.none.values()))
    said = f"Theory has no word on {arms} arms, by reason:" if arms else "Theory reaches every arm."
    return said + (f" {found.waiting} trials wait for a prediction to be run." if found.waiting else "")


def _reasons(found: Collected) -> tables.Table:
    counted = sorted(
        ((len(arms), reason) for reason, arms in found.none.items()), key=lambda r: (-r[0], r[1])
    )
    rows = tuple((reason, str(count)) for count, reason in counted)
    return tables.Table(("reason", "arms"), rows or ((tables.NONE, "0"),))
