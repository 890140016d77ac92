"""What an experiment of the ledger is made of: literals, fixed before the run.

An `Experiment` is a base and one changed setting per `Arm`, with the claim and the `Rule` that decides it.
Each arm is run once for every seed, the same seeds for all arms, so that arms are compared in pairs; one run
is a `Trial`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from stopgrad.experiments.rules import Rule

Kind = Literal["training", "exact"]
Paper = Literal["tian2021", "halvagal2023", "raft2021", "zhang2022"]

SEEDS = (1, 2, 3, 4, 5)
"""Of training experiments."""

QUICK_SEEDS = 2
QUICK: dict[str, Any] = {"recipe": "digits-smoke"}
"""What a quick training trial changes: half the images and a third of the epochs, as that recipe has it."""

DIGITS: dict[str, Any] = {
    "data": {"name": "digits"},
    # the same bits whatever else the machine does
    "device": "cpu", "precision": "fp32", "threads": 1,
    # the epochs' rows are for the figures; the untrained encoder is one figure for all arms
    "evaluation": {"every": 4, "control": False},
}  # fmt: skip
"""The base of every training experiment on the bundled digits."""


@dataclass(frozen=True)
class Trial:
    """One run, and all that decides its numbers.

    Attributes:
        kind: "training", a pretraining run, or "exact", a function on the theory.
        arguments: of a training trial the changes, as `stopgrad.training.settings.resolve` takes them, seed
            included; of an exact one the function's keyword literals.
        function: of an exact trial its dotted name inside `stopgrad.experiments.exact`.
    """

    kind: Kind
    arguments: Mapping[str, Any]
    function: str | None = None

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What tells trials apart, as JSON has it: for training, the complete settings.

        Two ways to write the same settings are one trial. The recipe's name is left out, its values are in.

        Raises:
            UsageError: for settings that do not exist.
        """
        if self.kind == "exact":
            spec = {"kind": self.kind, "function": self.function, "arguments": dict(self.arguments)}
        else:
            from stopgrad.training.settings import resolve

            settings = resolve(self.arguments).model_dump(mode="json", exclude={"recipe"})
            spec = {"kind": self.kind, "settings": settings}
        return dict(json.loads(canonical(spec)))

    @cached_property
    def identity(self) -> str:
        """`spec` as one line: equal trials have equal ones."""
        return canonical(self.spec)


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces; the same content gives the same text.

    Raises:
        ValueError: for numbers that are not finite.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Result:
    """What a trial gives.

    Attributes:
        numbers: measures by name, all finite; one that is not is left out.
        series: lists for the figures, of numbers, of lists of these, or of None where one is not finite.
    """

    numbers: dict[str, float]
    series: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One setting of what is varied: its name and what it changes in the experiment's base."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A claim of a paper, how it is tested and what decides it.

    Attributes:
        id: paper and place, such as "tian2021-tbl1".
        paper, section: where the claim stands.
        title: what is looked at, a few words.
        claim: what is said to hold, in our words and in the form that can be true.
        rule: decides it.
        arms: what is varied.
        base: settings that all arms share.
        function: of an exact experiment, see `Trial`; None: the arms are trained.
        seeds: of the arms; none for functions that draw nothing or draw by a seed of their own.
        paper_numbers: arm -> measure -> the paper's value, accuracies in [0, 1].
        cost_minutes: expected time of all trials on one core.
        memory_gib: expected peak of one trial.

    Raises:
        ValueError: if the parts do not go together.
    """

    id: str
    paper: Paper
    section: str
    title: str
    claim: str
    rule: Rule
    arms: tuple[Arm, ...] = (Arm("all"),)
    base: Mapping[str, Any] = field(default_factory=dict)
    function: str | None = None
    seeds: tuple[int, ...] = ()
    paper_numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cost_minutes: float = 0.1
    memory_gib: float = 0.5

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not self.id.startswith(f"{self.paper}-"):
            raise ValueError(f"{self.id}: must begin with '{self.paper}-'")
        if len(set(names)) != len(names):
            raise ValueError(f"{self.id}: two arms share a name")
        if strangers := (self.rule.arms() | set(self.paper_numbers)) - set(names):
            raise ValueError(f"{self.id}: no arm '{min(strangers)}'")
        if names and not self.function and not self.seeds:
            raise ValueError(f"{self.id}: training needs seeds")

    @property
    def kind(self) -> Kind:
        """What its trials are."""
        return "training" if self.function is None else "exact"

    def trials(self, seeds: int | None = None, quick: bool = False) -> dict[str, dict[int | None, Trial]]:
        """The trials, arm -> seed -> trial; the seed is None where the experiment has none.

        Args:
            seeds: train 1, ..., seeds in place of the experiment's own; exact experiments keep theirs.
            quick: `QUICK_SEEDS` seeds and `QUICK` settings for training; exact experiments stay exact.
        """
        if self.kind == "exact":
            return {
                arm.name: {seed: self._exact(arm, seed) for seed in self.seeds or (None,)}
                for arm in self.arms
            }
        count = seeds if seeds is not None else QUICK_SEEDS if quick else None
        chosen = self.seeds if count is None else tuple(range(1, count + 1))
        return {arm.name: {seed: self._training(arm, seed, quick) for seed in chosen} for arm in self.arms}

    def _exact(self, arm: Arm, seed: int | None) -> Trial:
        arguments = {**self.base, **arm.changes} | ({} if seed is None else {"seed": seed})
        return Trial("exact", arguments, self.function)

    def _training(self, arm: Arm, seed: int, quick: bool) -> Trial:
        from stopgrad.training.settings import merge

        changes = merge(merge(self.base, arm.changes), {"seed": seed})
        return Trial("training", merge(changes, QUICK) if quick else changes)

    def to_dict(self) -> dict[str, Any]:
        """What `stopgrad reproduce list --json` says of it."""
        return {
            "id": self.id,
            "paper": self.paper,
            "section": self.section,
            "title": self.title,
            "claim": self.claim,
            "rule": self.rule.describe(),
            "kind": self.kind,
            "arms": {arm.name: dict(arm.changes) for arm in self.arms},
            "seeds": list(self.seeds),
            "paper_numbers": {arm: dict(values) for arm, values in self.paper_numbers.items()},
            "cost": {"minutes": self.cost_minutes, "memory_gib": self.memory_gib},
        }
