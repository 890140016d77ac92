"""The ledger: every experiment beside its verdict, our numbers beside the paper's."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from stopgrad.experiments import counterpart
from stopgrad.experiments.rules import UNREACHABLE, Numbers, Rule, Verdict
from stopgrad.experiments.schema import Experiment, Trial
from stopgrad.experiments.statistics import Summary, summarise
from stopgrad.experiments.store import Record, Store

if TYPE_CHECKING:
    from stopgrad.experiments.scale import Scale

Seed = TypeVar("Seed", int, int | None)
"""Of trials that always have one, and of those that may have none."""


@dataclass(frozen=True)
class Row:
    """One experiment as the store has it.

    Attributes:
        experiment: its literals.
        verdict: None while trials are missing.
        missing: identities of the trials that are not in the store (`Trial.identity`).
        records: arm -> seed -> finished trial.
        control: seed -> probes of the untrained encoder (`Experiment.controls`), for all arms; no rule reads
            them, and a verdict does not wait for them.
        predicted: arm -> seed -> what theory says of the trial's linear counterpart
            (:mod:`stopgrad.experiments.counterpart`), of arms that have one; no rule reads them either.
        so_far: what the rule says of the seeds that all arms have, two or more, while others are missing.
    """

    experiment: Experiment
    verdict: Verdict | None
    missing: frozenset[str]
    records: dict[str, dict[int | None, Record]]
    control: dict[int, Record] = field(default_factory=dict)
    predicted: dict[str, dict[int, Record]] = field(default_factory=dict)
    so_far: Verdict | None = None

    @property
    def numbers(self) -> Numbers:
        """Arm -> seed -> measure -> value."""
        return {
            arm: {seed: record.result.numbers for seed, record in of_seed.items()}
            for arm, of_seed in self.records.items()
        }

    @property
    def seconds(self) -> float:
        """That its finished trials took together, shared ones included."""
        return sum(record.seconds for of_seed in self.records.values() for record in of_seed.values())

    def summaries(self) -> dict[str, dict[str, Summary]]:
        """Arm -> measure -> n, mean and deviation over the seeds; measures that all seeds of the arm have."""
        return {arm: _summaries(list(of_seed.values())) for arm, of_seed in self.records.items()}

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return {
            "id": self.experiment.id,
            "claim": self.experiment.claim,
            "rule": self.experiment.rule.describe(),
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
            "so_far": None if self.so_far is None else self.so_far.to_dict(),
            "missing": len(self.missing),
            "seconds": round(self.seconds, 1),
            "numbers": {
                arm: {name: summary.to_dict() for name, summary in measures.items()}
                for arm, measures in self.summaries().items()
            },
            "untrained": {
                name: summary.to_dict() for name, summary in _summaries(list(self.control.values())).items()
            },
            "predicted": {
                arm: {name: summary.to_dict() for name, summary in _summaries(list(of_seed.values())).items()}
                for arm, of_seed in self.predicted.items()
            },
            "paper": {arm: dict(values) for arm, values in self.experiment.paper_numbers.items()},
        }


def _summaries(records: list[Record]) -> dict[str, Summary]:
    """Measure -> n, mean and deviation over trials, of measures that all have."""
    values = [record.result.numbers for record in records]
    shared = [name for name in values[0] if all(name in v for v in values)] if values else []
    return {name: summarise([v[name] for v in values]) for name in shared}


def row(
    experiment: Experiment,
    store: Store,
    *,
    seeds: int | None = None,
    quick: bool = False,
    scale: "Scale | None" = None,
    any_source: bool = False,
) -> Row:
    """The row of an experiment.

    Args:
        experiment: which.
        store: the finished trials.
        seeds, quick, scale: see `Experiment.trials`; what cannot be run at a scale is not reachable there.
        any_source: take the newest trial of the same spec whatever source made it (`Store.latest`), as a
            page of committed results does.

    Raises:
        LookupError: if the rule asks for a measure that its arms do not have.
    """
    if not experiment.runs_at(scale):
        from stopgrad.experiments.scale import HELD_ELSEWHERE

        return Row(experiment, Verdict(UNREACHABLE, f"not at this scale: {HELD_ELSEWHERE}"), frozenset(), {})
    look = store.latest if any_source else store.get
    trials = experiment.trials(seeds, quick, scale)
    records = {arm: _finished(of_seed, look) for arm, of_seed in trials.items()}
    missing = frozenset(
        trial.identity
        for arm, of_seed in trials.items()
        for seed, trial in of_seed.items()
        if seed not in records[arm]
    )
    control = _finished(experiment.controls(seeds, quick), look) if scale is None else {}
    beside = counterpart.trials(experiment, seeds, quick) if scale is None else {}
    predicted = {arm: _finished(of_seed, look) for arm, of_seed in beside.items()}
    whole = Row(experiment, None, missing, records, control, predicted)
    rule = experiment.rule_here(scale)
    if missing:
        return replace(whole, so_far=_so_far(rule, whole.numbers))
    return replace(whole, verdict=rule.judge(whole.numbers))


def _finished(trials: Mapping[Seed, Trial], look: Callable[[Trial], Record | None]) -> dict[Seed, Record]:
    """Those of some trials that are in the store."""
    return {seed: found for seed, trial in trials.items() if (found := look(trial)) is not None}


def _so_far(rule: Rule, numbers: Numbers) -> Verdict | None:
    """The rule on the seeds that all arms have."""
    shared = set.intersection(*(set(of_seed) for of_seed in numbers.values()))
    if len(shared) < 2:
        return None
    return rule.judge(
        {arm: {seed: own[seed] for seed in own if seed in shared} for arm, own in numbers.items()}
    )


def rows(experiments: Iterable[Experiment], store: Store, **options: Any) -> list[Row]:
    """`row` of each experiment."""
    return [row(experiment, store, **options) for experiment in experiments]
