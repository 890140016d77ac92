"""The ledger: every experiment beside its verdict, our numbers beside the paper's."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stopgrad.experiments.rules import Numbers, Verdict
from stopgrad.experiments.schema import Experiment
from stopgrad.experiments.statistics import Summary, summarise
from stopgrad.experiments.store import Record, Store


@dataclass(frozen=True)
class Row:
    """One experiment as the store has it.

    Attributes:
        experiment: its literals.
        verdict: None while trials are missing.
        missing: trials that are not in the store.
        records: arm -> seed -> finished trial.
    """

    experiment: Experiment
    verdict: Verdict | None
    missing: int
    records: dict[str, dict[int | None, Record]]

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
        found: dict[str, dict[str, Summary]] = {}
        for arm, of_seed in self.numbers.items():
            values = list(of_seed.values())
            shared = [name for name in values[0] if all(name in v for v in values)] if values else []
            found[arm] = {name: summarise([v[name] for v in values]) for name in shared}
        return found

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return {
            "id": self.experiment.id,
            "claim": self.experiment.claim,
            "rule": self.experiment.rule.describe(),
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
            "missing": self.missing,
            "seconds": round(self.seconds, 1),
            "numbers": {
                arm: {name: summary.to_dict() for name, summary in measures.items()}
                for arm, measures in self.summaries().items()
            },
            "paper": {arm: dict(values) for arm, values in self.experiment.paper_numbers.items()},
        }


def row(
    experiment: Experiment,
    store: Store,
    *,
    seeds: int | None = None,
    quick: bool = False,
    any_source: bool = False,
) -> Row:
    """The row of an experiment.

    Args:
        experiment: which.
        store: the finished trials.
        seeds, quick: see `Experiment.trials`.
        any_source: take the newest trial of the same spec whatever source made it (`Store.latest`), as a
            page of committed results does.

    Raises:
        LookupError: if the rule asks for a measure that its arms do not have.
    """
    look = store.latest if any_source else store.get
    records: dict[str, dict[int | None, Record]] = {}
    missing = 0
    for arm, trials in experiment.trials(seeds, quick).items():
        records[arm] = {}
        for seed, trial in trials.items():
            record = look(trial)
            if record is None:
                missing += 1
            else:
                records[arm][seed] = record
    whole = Row(experiment, None, missing, records)
    return whole if missing else Row(experiment, experiment.rule.judge(whole.numbers), 0, records)


def rows(experiments: Iterable[Experiment], store: Store, **options: Any) -> list[Row]:
    """`row` of each experiment."""
    return [row(experiment, store, **options) for experiment in experiments]
