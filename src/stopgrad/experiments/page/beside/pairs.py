"""Trained trials with their predictions: found in the ledger's rows, compared and counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np

from stopgrad.experiments.counterpart import settings_of
from stopgrad.experiments.ledger import Row
from stopgrad.experiments.schema import Result, canonical
from stopgrad.experiments.store import Record
from stopgrad.method import Method
from stopgrad.parts.target import Same
from stopgrad.postmortem.counterpart import Counterpart, Grade, NoCounterpart, counterpart
from stopgrad.training.settings import RunSettings

Outcome = Literal["collapsed", "not collapsed", "diverged"]
OUTCOMES: tuple[Outcome, ...] = ("collapsed", "not collapsed", "diverged")
SETTLED = 0.1
"""Share of their last values within which std and effective rank of z stay once they have settled."""
MINOR = ("momentum", "schedule")
"""What is replaced in every run and says nothing of a single disagreement."""


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

    def linear(self) -> list[Pair]:
        """Near pairs with a learned linear predictor."""
        return [pair for pair in self.of("near") if pair.family == "linear"]


def collect(rows: Iterable[Row]) -> Collected:
    """The trained trials of the rows with their predictions, each once."""
    found, seen = Collected(), set[str]()
    for row in rows:
        if row.experiment.kind == "exact":
            continue
        for arm, of_seed in row.records.items():
            predicted = row.predicted.get(arm, {})
            for seed, record in of_seed.items():
                name = canonical(record.spec)
                if name not in seen and seed is not None:
                    seen.add(name)
                    _take(found, row.experiment.id, arm, record, predicted.get(seed))
    return found


def _take(found: Collected, experiment: str, arm: str, record: Record, predicted: Record | None) -> None:
    """Add a trained trial to what was collected."""
    settings = settings_of(record.spec)
    theirs = counterpart(settings)
    if isinstance(theirs, NoCounterpart):
        found.none.setdefault(theirs.reason, set()).add(f"{experiment} {arm}")
    elif predicted is None:
        found.waiting += 1
    elif not predicted.result.numbers["reached"]:
        reason = _short(str(predicted.result.series["reason"][0]))
        found.none.setdefault(reason, set()).add(f"{experiment} {arm}")
    else:
        found.pairs.append(Pair(experiment, arm, settings, theirs, predicted.result, record.result))


def _short(reason: str) -> str:
    """A reason without the figures of one seed."""
    return "lr: too large for the flow to stand for SGD" if reason.startswith("lr:") else reason


def grouped(pairs: Iterable[Pair], key: Callable[[Pair], str]) -> list[tuple[str, list[Pair]]]:
    """The pairs of each key, sorted by it."""
    return [(name, list(own)) for name, own in groupby(sorted(pairs, key=key), key)]


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


def spectra(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured shares of z's variance, each descending with sum 1, or empty without one."""
    columns = pair.theory.series
    alive = np.array(columns["survives"], dtype=bool)
    ends = np.array([columns[name] for name in ("l_s", "s")], dtype=float)
    variance = np.where(alive, ends[0] * ends[1], 0.0)
    last: list[Any] = next((row for row in reversed(pair.run.series.get("z.spectrum", [])) if row), [])
    measured = np.array([value for value in last if value is not None], dtype=float)
    return _shares(variance), _shares(measured)


def _shares(values: np.ndarray) -> np.ndarray:
    total = values.sum()
    return np.sort(values)[::-1] / total if total > 0 else np.empty(0)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """What two spectra of sum 1 have in common, 0 to 1: the sum of the smaller of each two shares."""
    count = min(len(first), len(second))
    return float(np.minimum(first[:count], second[:count]).sum())
