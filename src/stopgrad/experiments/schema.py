"""What an experiment of the ledger is made of: literals, fixed before the run.

An `Experiment` is a base and one changed setting per `Arm`, with the claim and the `Rule` that decides it.
Each arm is run once for every seed, the same seeds for all arms, so that arms are compared in pairs; one run
is a `Trial`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from stopgrad.experiments.rules import Rule

if TYPE_CHECKING:
    from stopgrad.experiments.scale import Scale

Kind = Literal["training", "exact"]
Paper = Literal["tian2021", "halvagal2023", "raft2021", "zhang2022"]

SEEDS = (1, 2, 3, 4, 5)
"""Of training experiments."""

QUICK_SEEDS = 2
QUICK: dict[str, Any] = {
    "recipe": "digits-smoke", "data": {"limit": 1024}, "epochs": 4, "evaluation": {"images": 256},
}  # fmt: skip
"""What a quick training trial changes: a quarter of the images, a sixth of the epochs, a smaller sample to
measure, which at this length takes longer than the training."""
EPOCHS = 24
"""Of a trial that says nothing of them: quick ones that say something are shortened as these are."""
MINUTES = 0.7
"""Of one such trial on one core, measured with both cores busy."""

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

        Two ways to write the same settings are one trial. The recipe's name is left out, its values are in;
        so is the place of the data, which are the same wherever they lie.

        Raises:
            UsageError: for settings that do not exist.
        """
        if self.kind == "exact":
            spec = {"kind": self.kind, "function": self.function, "arguments": dict(self.arguments)}
        else:
            from stopgrad.training.settings import resolve

            settings = resolve(self.arguments).model_dump(mode="json", exclude={"recipe"})
            settings["data"]["dir"] = None
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
    """One setting of what is varied.

    Attributes:
        name: short, for rules and tables.
        changes: what it changes in the experiment's base.
        at_scale: at a `Scale`, merged over ``changes``: the paper's own value of what is fitted to digits.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    at_scale: Mapping[str, Any] = field(default_factory=dict)


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
        quick: of a function that trains on digits by itself: literals that shorten it for a quick run. None:
            the function trains nothing.
        seeds: of the arms; none for functions that draw nothing or draw by a seed of their own.
        paper_numbers: arm -> measure -> the paper's value, accuracies in [0, 1].
        cost_minutes: expected time of all trials on one core.
        memory_gib: expected peak of one trial.
        rule_at: name of a scale -> the rule there, where it cannot be ``rule``.

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
    quick: Mapping[str, Any] | None = None
    seeds: tuple[int, ...] = ()
    paper_numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cost_minutes: float = 0.1
    memory_gib: float = 0.5
    rule_at: Mapping[str, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not self.id.startswith(f"{self.paper}-"):
            raise ValueError(f"{self.id}: must begin with '{self.paper}-'")
        if len(set(names)) != len(names):
            raise ValueError(f"{self.id}: two arms share a name")
        read = set[str]().union(*(rule.arms() for rule in (self.rule, *self.rule_at.values())))
        if strangers := (read | set(self.paper_numbers)) - set(names):
            raise ValueError(f"{self.id}: no arm '{min(strangers)}'")
        if names and self.trains and not self.seeds:
            raise ValueError(f"{self.id}: training needs seeds")
        if self.quick is not None and not self.function:
            raise ValueError(f"{self.id}: quick is for functions that train, arms have QUICK")

    @property
    def kind(self) -> Kind:
        """What its trials are."""
        return "training" if self.function is None else "exact"

    @property
    def trains(self) -> bool:
        """Whether networks are trained, by its arms or by its function."""
        return self.function is None or self.quick is not None

    def runs_at(self, scale: "Scale | None") -> bool:
        """Whether it can be run at a scale: a function that trains by itself knows the digits alone."""
        return scale is None or self.quick is None

    def rule_here(self, scale: "Scale | None" = None) -> Rule:
        """The rule that decides it at a scale; None: on digits."""
        return self.rule if scale is None else self.rule_at.get(scale.name, self.rule)

    def trials(
        self, seeds: int | None = None, quick: bool = False, scale: "Scale | None" = None
    ) -> dict[str, dict[int | None, Trial]]:
        """The trials, arm -> seed -> trial; the seed is None where the experiment has none.

        Args:
            seeds: train 1, ..., seeds in place of the experiment's own; where nothing is trained they stay,
                and where there is but one, of an experiment whose sample is its arms.
            quick: `QUICK_SEEDS` seeds and shorter training; what is exact stays exact.
            scale: train on its data with the paper's recipe, in place of digits.

        Raises:
            ValueError: if it cannot be run at the scale, or for a quick run at one.
        """
        if quick and scale is not None:
            raise ValueError("quick runs are of digits, not at a scale")
        if not self.runs_at(scale):
            raise ValueError(f"{self.id}: cannot be run at {scale and scale.name}")
        make = self._training if self.kind == "training" else self._exact
        chosen = self.chosen_seeds(seeds, quick)
        return {arm.name: {seed: make(arm, seed, quick, scale) for seed in chosen} for arm in self.arms}

    def chosen_seeds(self, seeds: int | None = None, quick: bool = False) -> tuple[int | None, ...]:
        """The seeds of its trials, see `trials`; (None,) where it has none."""
        count = seeds if seeds is not None else QUICK_SEEDS if quick else None
        if count is None or not self.trains or len(self.seeds) == 1:
            return self.seeds or (None,)
        return tuple(range(1, count + 1))

    def controls(self, seeds: int | None = None, quick: bool = False) -> dict[int, Trial]:
        """Of each seed that is trained on digits, the trial that probes the encoder it starts from."""
        from stopgrad.training.settings import merge, resolve

        if self.kind == "exact" or not self.arms:
            return {}
        arm = merge(self.base, self.arms[0].changes)
        data = resolve(merge(arm, QUICK) if quick else arm).data
        if data.name != "digits":
            return {}
        return {
            seed: control(seed, data.limit) for seed in self.chosen_seeds(seeds, quick) if seed is not None
        }

    def _exact(self, arm: Arm, seed: int | None, quick: bool, scale: "Scale | None") -> Trial:
        from stopgrad.training.settings import merge

        arguments = {**self.base, **arm.changes} | ({} if seed is None else {"seed": seed})
        return Trial("exact", merge(arguments, self.quick or {}) if quick else arguments, self.function)

    def _training(self, arm: Arm, seed: int | None, quick: bool, scale: "Scale | None") -> Trial:
        from stopgrad.training.settings import merge

        if scale is not None:
            changes = merge(merge(scale.base(self.paper), arm.changes), arm.at_scale)
            return Trial("training", merge(changes, {"seed": seed}))
        changes = merge(merge(self.base, arm.changes), {"seed": seed})
        return Trial("training", shortened(changes) if quick else changes)

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


def control(seed: int, limit: int | None = None) -> Trial:
    """The trial that probes the untrained encoder of the digits recipe: what every run should stand beside.

    The encoder's weights are drawn first, so that it is the same for all methods. ``limit`` is `data.limit`:
    the probes are fitted on as many images as those of the trained encoder.
    """
    arguments = {"seed": seed} | ({} if limit is None else {"limit": limit})
    return Trial("exact", arguments, "control.untrained")


def shortened(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training trial as a quick run has them; epochs that they name keep their proportion."""
    from stopgrad.training.settings import merge

    epochs = round(changes.get("epochs", EPOCHS) * QUICK["epochs"] / EPOCHS)
    return merge(merge(changes, QUICK), {"epochs": max(1, epochs)})
