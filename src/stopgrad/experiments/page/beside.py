"""Theory beside practice: what was predicted of every trained arm, and what came of it.

A prediction is the exact trial of :mod:`stopgrad.experiments.counterpart`, whose definitions are in
:mod:`stopgrad.experiments.exact.counterpart`; the outcome is what `stopgrad.diagnostics.judge` says of z on
test images. Here the two are counted. A trial that several experiments share counts once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stopgrad.errors import UsageError
from stopgrad.experiments.counterpart import (
    Counterpart,
    Grade,
    NoCounterpart,
    counterpart,
    prediction,
    settings_of,
)
from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import html, tables
from stopgrad.experiments.page.markdown import plain
from stopgrad.experiments.schema import Result, canonical
from stopgrad.experiments.store import Record, Store
from stopgrad.method import Method
from stopgrad.parts.target import Same
from stopgrad.report import sections as blocks
from stopgrad.report.page import section
from stopgrad.theory.figures import style
from stopgrad.training.settings import RunSettings

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Outcome = Literal["collapsed", "not collapsed", "diverged"]
OUTCOMES: tuple[Outcome, ...] = ("collapsed", "not collapsed", "diverged")
GRADES: dict[Grade, str] = {
    "near": "near: distance, rates or normalisation replaced",
    "far": "far: an MLP predictor replaced by a linear one",
}
HEADING = "Theory beside practice"
SETTLED = 0.1
"""Share of their last values within which std and effective rank of z stay once they have settled."""
MINOR = ("momentum", "schedule")
"""What is replaced in every run and says nothing of a single disagreement."""
LEAST = 1e-5
"""Smallest share of the variance that the spectra's picture shows."""

ABOUT = (
    "For every trained arm with a linear counterpart, the theory's prediction from the statistics of the "
    "untrained network of the same seed, made without a step of training: the encoder is taken as it starts, "
    "one linear layer is followed by the equations of Tian et al. 2021, and collapse is read from the modes "
    "that are left as it is from z. Definitions were fixed before outcomes were looked at, but for one that "
    "stopgrad.experiments.exact.counterpart names. Trials of one arm differ in the seed alone and are no "
    "independent cases."
)


@dataclass(frozen=True)
class Pair:
    """A trained trial and its prediction.

    Attributes:
        experiment, arm: the first that needs it.
        settings: of the run.
        counterpart: what theory was asked.
        theory, run: both results.
    """

    experiment: str
    arm: str
    settings: RunSettings
    counterpart: Counterpart
    theory: Result
    run: Result

    @property
    def predicted(self) -> Outcome:
        """What theory says of the end."""
        return "collapsed" if self.theory.numbers["collapsed"] else "not collapsed"

    @property
    def observed(self) -> Outcome:
        """What became of z; a run without a verdict on z diverged."""
        numbers = self.run.numbers
        if numbers.get("diverged") or "z.collapsed" not in numbers:
            return "diverged"
        return "collapsed" if numbers["z.collapsed"] else "not collapsed"

    @property
    def agrees(self) -> bool:
        """Whether both are the same."""
        return self.predicted == self.observed

    @property
    def family(self) -> str:
        """The run's predictor."""
        assert self.settings.predictor is not None
        return self.settings.predictor.kind

    @property
    def target(self) -> str:
        """Where the keys come from."""
        return target_of(self.settings)

    @property
    def settled(self) -> float | None:
        """The epoch from which z's measures stay near their last; None if that is the last one measured."""
        return settled(self.run.series)


@dataclass
class Collected:
    """All trained trials of some rows.

    Attributes:
        pairs: those whose prediction is in the store and reached an answer.
        none: reason -> arms without a counterpart, or whose data theory does not reach, "experiment arm".
        waiting: trials whose prediction is not in the store.
    """

    pairs: list[Pair] = field(default_factory=list)
    none: dict[str, set[str]] = field(default_factory=dict)
    waiting: int = 0

    def of(self, grade: Grade) -> list[Pair]:
        """The pairs of a grade."""
        return [pair for pair in self.pairs if pair.counterpart.grade == grade]


def collect(rows: Iterable[Row], store: Store) -> Collected:
    """The trained trials of the rows with their predictions, each once."""
    found, seen = Collected(), set[str]()
    for row in rows:
        if row.experiment.kind == "exact":
            continue
        for arm, of_seed in row.records.items():
            for record in of_seed.values():
                name = canonical(record.spec)
                if name not in seen:
                    seen.add(name)
                    _take(found, row.experiment.id, arm, record, store)
    return found


def matrix(pairs: Iterable[Pair]) -> dict[tuple[Outcome, Outcome], int]:
    """(predicted, observed) -> trials; all six cells, of which theory foresees no divergence."""
    counted = Counter((pair.predicted, pair.observed) for pair in pairs)
    return {(said, came): counted[said, came] for said in OUTCOMES[:2] for came in OUTCOMES}


def agreement(pairs: Sequence[Pair]) -> str:
    """In how many trials and arms both agree, beside the answer that is the same for all."""
    if not pairs:
        return "no trial has both"
    same = sum(pair.agrees for pair in pairs)
    arms: dict[tuple[str, str], list[bool]] = {}
    for pair in pairs:
        arms.setdefault((pair.experiment, pair.arm), []).append(pair.agrees)
    whole = sum(all(of_seed) for of_seed in arms.values())
    most, count = Counter(pair.observed for pair in pairs).most_common(1)[0]
    return (
        f"the same in {same} of {len(pairs)} trials, in all seeds of {whole} of {len(arms)} arms; "
        f'to say "{most}" of every trial is right in {count}'
    )


def settled(series: dict[str, list[Any]]) -> float | None:
    """First evaluated epoch from which std and effective rank of z stay near their last values, by `SETTLED`.

    None where they have not before the last one that was evaluated, or are missing.
    """
    columns = [series.get(name, []) for name in ("epoch", "z.std", "z.effective_rank")]
    rows = [row for row in zip(*columns, strict=False) if None not in row and row[0] >= 1]
    if len(rows) < 2:
        return None
    values = np.array(rows, dtype=float)
    near = (np.abs(values[:, 1:] - values[-1, 1:]) <= SETTLED * np.abs(values[-1, 1:])).all(axis=1)
    first = len(near) - int(np.argmin(near[::-1])) if not near.all() else 0
    return None if first >= len(near) - 1 else float(values[first, 0])


def target_of(settings: RunSettings) -> str:
    """Where a run's keys come from, in words."""
    if isinstance(settings.target, Same):
        return "stop-gradient alone" if settings.target.stop_gradient else "no stop-gradient"
    return "EMA"


def spectra(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured shares of z's variance, each descending with sum 1, or empty without one."""
    columns = pair.theory.series
    alive = np.array(columns["survives"], dtype=bool)
    ends = np.array([columns[name] for name in ("l_s", "s")], dtype=float)
    variance = np.where(alive, ends[0] * ends[1], 0.0)
    last: list[Any] = next((row for row in reversed(pair.run.series.get("z.spectrum", [])) if row), [])
    measured = np.array([value for value in last if value is not None], dtype=float)
    return _shares(variance), _shares(measured)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """What two spectra of sum 1 have in common, 0 to 1: the sum of the smaller of each two shares."""
    count = min(len(first), len(second))
    return float(np.minimum(first[:count], second[:count]).sum())


def markdown(rows: Sequence[Row], store: Store) -> str:
    """The section for `docs/results/ledger.md`."""
    found = collect(rows, store)
    lines = [f"## {HEADING}", "", plain(ABOUT), ""]
    for grade, name in GRADES.items():
        lines += [f"### {name[0].upper()}{name[1:]}", "", plain(_says(found.of(grade))), ""]
        if found.of(grade):
            lines += [*_markdown(_matrix(found.of(grade))), "", *_markdown(_families(found.of(grade))), ""]
    lines += ["### Where they disagree", "", *_markdown(_disagreements(found.pairs)), ""]
    lines += ["### Spectra and times", "", plain(_figures_say(found)), ""]
    lines += [
        "### Arms without a prediction",
        "",
        plain(_waiting(found)),
        "",
        *_markdown(_reasons(found)),
        "",
    ]
    return "\n".join(lines)


def sections(rows: Sequence[Row], store: Store) -> list[str]:
    """The section for the HTML page."""
    found = collect(rows, store)
    body = blocks.note(escape(ABOUT))
    for grade, name in GRADES.items():
        body += f"<h3>{escape(name[0].upper() + name[1:])}</h3><p>{escape(_says(found.of(grade)))}</p>"
        if found.of(grade):
            body += _html(_matrix(found.of(grade))) + _html(_families(found.of(grade)))
    body += f"<h3>Where they disagree</h3>{_html(_disagreements(found.pairs), numbers=False)}"
    body += f"<p>{escape(_figures_say(found))}</p>"
    body += html.picture(spectrum_figure(found)) + html.picture(time_figure(found))
    body += f"<h3>Arms without a prediction</h3><p>{escape(_waiting(found))}</p>{_html(_reasons(found))}"
    return [section("beside", HEADING, body)]


def spectrum_figure(found: Collected) -> "Figure":
    """Predicted against measured final spectrum of z of near arms with a linear predictor, a point a mode."""
    figure = style.canvas(
        "The spectrum of z that theory foresees, and the one that training leaves",
        "A point is the j-th largest share of an arm, mean over its seeds. On the line both are the same; "
        f"shares below {LEAST:g} are not drawn.",
        height=420,
    )
    for target, pairs in _by(_linear(found), lambda pair: pair.target):
        points = [
            _mean_spectra(of_arm) for _, of_arm in _by(pairs, lambda pair: f"{pair.experiment} {pair.arm}")
        ]
        both = np.hstack([p for p in points if p.size] or [np.empty((2, 0))])
        both = both[:, (both > LEAST).all(axis=0)]
        if both.size:
            _points(figure, both[0], both[1], target)
    if figure.data:
        style.line(figure, [LEAST, 1], [LEAST, 1], "the same", style.GREY, dash="dot", width=1)
        style.axes(figure, "predicted share of the variance of z", "measured share after training")
        figure.update_xaxes(type="log", exponentformat="power")
        figure.update_yaxes(type="log", exponentformat="power")
    return figure


def time_figure(found: Collected) -> "Figure":
    """Predicted time of arrival against the epoch when z settles, of near arms with a linear predictor."""
    figure = style.canvas(
        "When theory arrives, and when z settles",
        "A point is a trial. Measured: the first evaluated epoch from which std and effective rank of z stay "
        f"within {SETTLED:g} of their last values;<br>trials that settle no earlier are left out.",
        height=380,
    )
    for target, pairs in _by(_linear(found), lambda pair: pair.target):
        times = [(pair.theory.numbers.get("epochs"), pair.settled) for pair in pairs]
        known = np.array([row for row in times if None not in row], dtype=float)
        if known.size:
            _points(figure, known[:, 0], known[:, 1], target)
    if figure.data:
        ends = [min(min(t.x.min(), t.y.min()) for t in figure.data), max(t.x.max() for t in figure.data)]
        style.line(figure, ends, ends, "the same", style.GREY, dash="dot", width=1)
        style.axes(figure, "predicted epoch of arrival", "epoch from which z's measures rest")
        figure.update_xaxes(type="log", exponentformat="none")
        figure.update_yaxes(type="log", exponentformat="none")
    return figure


def _take(found: Collected, experiment: str, arm: str, record: Record, store: Store) -> None:
    """Add a trained trial to what was collected."""
    try:
        settings = settings_of(record.spec)
    except UsageError as error:  # a record of an older source
        found.none.setdefault(str(error), set()).add(f"{experiment} {arm}")
        return
    theirs, trial = counterpart(settings), prediction(settings)
    if isinstance(theirs, NoCounterpart) or trial is None:
        reason = theirs.reason if isinstance(theirs, NoCounterpart) else ""
        found.none.setdefault(reason, set()).add(f"{experiment} {arm}")
        return
    predicted = store.get(trial) or store.latest(trial)
    if predicted is None:
        found.waiting += 1
    elif not predicted.result.numbers["reached"]:
        reason = _short(str(predicted.result.series["reason"][0]))
        found.none.setdefault(reason, set()).add(f"{experiment} {arm}")
    else:
        found.pairs.append(Pair(experiment, arm, settings, theirs, predicted.result, record.result))


def _short(reason: str) -> str:
    """A reason without the figures of one seed."""
    return "lr: too large for the flow to stand for SGD" if reason.startswith("lr:") else reason


def _linear(found: Collected) -> list[Pair]:
    """Near pairs with a learned linear predictor."""
    return [pair for pair in found.of("near") if pair.family == "linear"]


def _by(pairs: Iterable[Pair], key: Callable[[Pair], str]) -> list[tuple[str, list[Pair]]]:
    return [(name, list(own)) for name, own in groupby(sorted(pairs, key=key), key)]


def _mean_spectra(pairs: Sequence[Pair]) -> np.ndarray:
    """Mean over the seeds of predicted and measured shares. (2, modes)"""
    rows = [row for row in map(spectra, pairs) if row[0].size and row[1].size]
    if not rows:
        return np.empty((2, 0))
    count = min(len(shares) for row in rows for shares in row)
    return np.array([[shares[:count] for shares in row] for row in rows]).mean(axis=0)


def _shares(values: np.ndarray) -> np.ndarray:
    total = values.sum()
    return np.sort(values)[::-1] / total if total > 0 else np.empty(0)


def _points(figure: "Figure", x: np.ndarray, y: np.ndarray, target: str) -> None:
    colours = {"EMA": style.BLUE, "stop-gradient alone": style.ORANGE, "no stop-gradient": style.RED}
    marker = {"size": 6, "color": colours[target], "opacity": 0.6}
    figure.add_scatter(x=x, y=y, mode="markers", name=target, marker=marker)


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
    for name, own in _by(pairs, lambda pair: f"{pair.family} predictor, {pair.target}"):
        said, came = (
            sum(getattr(pair, what) == "collapsed" for pair in own) for what in ("predicted", "observed")
        )
        rows.append((name, str(len(own)), str(said), str(came), str(sum(pair.agrees for pair in own))))
    head = ("predictor and target", "trials", "predicted collapsed", "observed collapsed", "the same")
    return tables.Table(head, tuple(rows))


def _disagreements(pairs: Sequence[Pair]) -> tables.Table:
    wrong = [pair for pair in pairs if not pair.agrees]
    rows = []
    for name, own in _by(wrong, lambda pair: f"{pair.experiment}, {pair.arm}"):
        for what, same in _by(own, lambda pair: f"{pair.predicted} / {pair.observed}"):
            seeds = ", ".join(str(pair.settings.seed) for pair in sorted(same, key=lambda p: p.settings.seed))
            rows.append((name, seeds, what, "; ".join(dict.fromkeys(r for p in same for r in suspects(p)))))
    head = ("arm", "seeds", "predicted / observed", "what parts theory and run")
    return tables.Table(head, tuple(rows) or ((tables.NONE,) * len(head),))


def suspects(pair: Pair) -> list[str]:
    """What lies between theory and a run and may have made the difference; no cause was isolated."""
    found = []
    if not pair.theory.numbers["arrived"]:
        when = pair.theory.numbers.get("epochs")
        lies = "never comes" if when is None else f"lies at epoch {when:.0f}"
        found.append(f"theory's end {lies}, the run has {pair.settings.epochs} epochs")
    found += [what for what in pair.counterpart.replaced if not what.startswith(MINOR)]
    if pair.predicted == "collapsed" and _decays(pair):
        found.append("weight decay, whose shrinking a normalising distance does not feel")
    return found


def _decays(pair: Pair) -> bool:
    """Whether the predicted collapse is one of weight decay: predictor and stop-gradient are both there."""
    method = pair.counterpart.method
    assert isinstance(method, Method)
    decay = pair.settings.optimizer.weight_decay > 0
    return decay and method.stops_gradient and method.predictor.kind != "identity"


def _figures_say(found: Collected) -> str:
    """The spectra's and times' agreement in figures."""
    pairs = _linear(found)
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


def _markdown(table: tables.Table) -> list[str]:
    lines = [table.head, *table.rows]
    made = [f"| {' | '.join(map(plain, cells))} |" for cells in lines]
    return [made[0], "|" + "---|" * len(table.head), *made[1:]]


def _html(table: tables.Table, numbers: bool = True) -> str:
    lines = [list(map(escape, row)) for row in table.rows]
    return blocks.table(list(map(escape, table.head)), lines, range(1, len(table.head)) if numbers else ())
