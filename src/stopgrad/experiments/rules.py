"""What decides a claim: rules that are written into an experiment before it is run.

A rule reads the numbers of an experiment's arms and gives one of four outcomes. Every rule can come out
against its claim. Trials of several seeds are compared seed by seed; a mean counts with its bootstrap
interval (:mod:`stopgrad.experiments.statistics`).

Legend: arm -> seed -> measure -> value; the seed of a trial that draws nothing is None.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from stopgrad.experiments.statistics import Estimate, estimate, paired

Outcome = Literal["holds", "holds under a condition", "does not hold here", "not reachable here"]
Numbers = Mapping[str, Mapping[int | None, Mapping[str, float]]]

HOLDS: Outcome = "holds"
CONDITIONAL: Outcome = "holds under a condition"
FAILS: Outcome = "does not hold here"
UNREACHABLE: Outcome = "not reachable here"


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        outcome: one of the four.
        why: the reason, with the figures that decided.
        statistics: these figures by name; those of a combined rule's parts are under ``parts``.
    """

    outcome: Outcome
    why: str
    statistics: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return {"outcome": self.outcome, "why": self.why, "statistics": self.statistics}


class Undecided(Exception):
    """A rule's figures are not there: a run diverged, or there are too few seeds."""

    def __init__(self, outcome: Outcome, why: str):
        super().__init__(why)
        self.verdict = Verdict(outcome, why)


class Rule(ABC):
    """Decides a claim from the numbers of its arms."""

    @abstractmethod
    def describe(self) -> str:
        """The rule in words."""

    @abstractmethod
    def arms(self) -> set[str]:
        """Names of the arms that it reads."""

    @abstractmethod
    def decide(self, numbers: Numbers) -> Verdict:
        """The verdict. `judge` is what to call."""

    def judge(self, numbers: Numbers) -> Verdict:
        """The verdict.

        Args:
            numbers: of every arm that the rule reads, arm -> seed -> measure -> value. A diverged run, which
                lacks measures, has ``diverged`` = 1.

        Raises:
            LookupError: if an arm, or a measure of a run that did not diverge, is missing: a mistake in the
                experiment's literals.
        """
        try:
            return self.decide(numbers)
        except Undecided as undecided:
            return undecided.verdict


@dataclass(frozen=True)
class Greater(Rule):
    """The measure of arm ``a`` exceeds that of arm ``b`` by more than ``by``, on average over the seeds.

    It holds where the interval of the mean difference lies above ``by`` as a whole.
    """

    a: str
    b: str
    measure: str
    by: float = 0.0

    def describe(self) -> str:
        """The rule in words."""
        by = f" by more than {self.by:g}" if self.by else ""
        return f"{self.measure}: {self.a} > {self.b}{by} (paired difference, its interval above {self.by:g})"

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return {self.a, self.b}

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        gap = _difference(numbers, self.a, self.b, self.measure)
        what = f"{self.measure} of {self.a} over {self.b}: {_said(gap)}"
        if gap.low > self.by:
            return Verdict(HOLDS, what, gap.to_dict())
        against = "it is the other way round" if gap.high < min(self.by, 0) else f"not above {self.by:g}"
        return Verdict(FAILS, f"{what}: {against}", gap.to_dict())


@dataclass(frozen=True)
class Indistinguishable(Rule):
    """The measures of two arms differ by less than ``margin`` on average over the seeds.

    It holds where the interval of the mean difference lies within (-margin, margin): no difference shown is
    not enough, the absence of one that matters is.
    """

    a: str
    b: str
    measure: str
    margin: float

    def __post_init__(self) -> None:
        if self.margin <= 0:
            raise ValueError(f"margin: {self.margin:g} is outside its domain (0, inf)")

    def describe(self) -> str:
        """The rule in words."""
        return (
            f"{self.measure}: {self.a} = {self.b} within {self.margin:g} (the interval of the paired "
            "difference within the margin)"
        )

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return {self.a, self.b}

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        gap = _difference(numbers, self.a, self.b, self.measure)
        within = -self.margin < gap.low and gap.high < self.margin
        what = f"{self.measure} of {self.a} over {self.b}: {_said(gap)}, margin {self.margin:g}"
        return Verdict(HOLDS if within else FAILS, what, gap.to_dict())


@dataclass(frozen=True)
class Within(Rule):
    """The mean of a measure lies in [low, high]: its interval does as a whole."""

    arm: str
    measure: str
    low: float = float("-inf")
    high: float = float("inf")

    def describe(self) -> str:
        """The rule in words."""
        return f"{self.measure} of {self.arm}: the interval of the mean {_range(self.low, self.high)}"

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return {self.arm}

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        of_seed = _values(numbers, self.arm, self.measure)
        _enough(of_seed)
        found = estimate(list(of_seed.values()))
        inside = self.low <= found.low and found.high <= self.high
        what = f"{self.measure} of {self.arm}: {_said(found)}, asked {_range(self.low, self.high)}"
        return Verdict(HOLDS if inside else FAILS, what, found.to_dict())


@dataclass(frozen=True)
class Always(Rule):
    """A measure lies in [low, high] in every trial of an arm, as a theorem's must."""

    arm: str
    measure: str
    low: float = float("-inf")
    high: float = float("inf")

    def describe(self) -> str:
        """The rule in words."""
        return f"{self.measure} of {self.arm} {_range(self.low, self.high)}, every trial"

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return {self.arm}

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        values = list(_values(numbers, self.arm, self.measure).values())
        lowest, highest = min(values), max(values)
        span = f"{lowest:.4g}" if lowest == highest else f"{lowest:.4g} to {highest:.4g}"
        what = f"{self.measure} of {self.arm}: {span}, asked {_range(self.low, self.high)}"
        inside = self.low <= lowest and highest <= self.high
        return Verdict(
            HOLDS if inside else FAILS, what, {"n": len(values), "smallest": lowest, "largest": highest}
        )


@dataclass(frozen=True)
class Pooled(Rule):
    """The mean of a measure over all trials of several arms, parts of one whole, lies in [low, high]."""

    pooled: tuple[str, ...]
    measure: str
    low: float = float("-inf")
    high: float = float("inf")

    def describe(self) -> str:
        """The rule in words."""
        return f"{self.measure}, mean over all {len(self.pooled)} arms {_range(self.low, self.high)}"

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return set(self.pooled)

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        values = [v for arm in self.pooled for v in _values(numbers, arm, self.measure).values()]
        mean = fmean(values)
        what = (
            f"{self.measure}, mean of {len(values)} trials: {mean:.4g}, asked {_range(self.low, self.high)}"
        )
        statistics = {"trials": len(values), "mean": mean, "smallest": min(values), "largest": max(values)}
        return Verdict(HOLDS if self.low <= mean <= self.high else FAILS, what, statistics)


@dataclass(frozen=True)
class Collapses(Rule):
    """At least a share ``fraction`` of an arm's seeds ends in collapse, complete or dimensional.

    ``node`` is where: "z", the projection, or "p", the prediction; "z_train" and "p_train" with batch
    normalisation in training mode. Accuracy is no part of it (`stopgrad.diagnostics.judge`). A diverged run
    has not collapsed.
    """

    arm: str
    fraction: float = 1.0
    node: Literal["z", "p", "z_train", "p_train"] = "z"

    def describe(self) -> str:
        """The rule in words."""
        return f"{self.node} of {self.arm} collapses on at least {self.fraction:.0%} of the seeds"

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return {self.arm}

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        return _share(numbers, self.arm, f"{self.node}.collapsed", self.fraction, "collapses")


@dataclass(frozen=True)
class Survives(Rule):
    """At least a share ``fraction`` of an arm's seeds ends without collapse, and without divergence."""

    arm: str
    fraction: float = 1.0
    node: Literal["z", "p", "z_train", "p_train"] = "z"

    def describe(self) -> str:
        """The rule in words."""
        return f"{self.node} of {self.arm} stays healthy on at least {self.fraction:.0%} of the seeds"

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return {self.arm}

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        return _share(numbers, self.arm, f"{self.node}.healthy", self.fraction, "stays healthy")


@dataclass(frozen=True)
class All(Rule):
    """Every one of the rules holds.

    The outcome is that of the worst: a rule that fails, then one that is not reachable, then one that holds
    under a condition.
    """

    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule):
        if not rules:
            raise ValueError("All: give at least one rule")
        object.__setattr__(self, "rules", rules)

    def describe(self) -> str:
        """The rule in words."""
        return "; and ".join(rule.describe() for rule in self.rules)

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return set().union(*(rule.arms() for rule in self.rules))

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        verdicts = [rule.judge(numbers) for rule in self.rules]
        outcome = next(o for o in (FAILS, UNREACHABLE, CONDITIONAL, HOLDS) if _any(verdicts, o))
        deciding = [verdict.why for verdict in verdicts if verdict.outcome == outcome]
        counted = "" if len(verdicts) == 1 else f"{len(deciding)} of {len(verdicts)} parts: "
        why = (
            f"all {len(verdicts)} parts hold"
            if counted and outcome == HOLDS
            else counted + "; ".join(deciding)
        )
        parts = [
            {"rule": rule.describe(), **verdict.to_dict()}
            for rule, verdict in zip(self.rules, verdicts, strict=True)
        ]
        return Verdict(outcome, why, {"parts": parts})


@dataclass(frozen=True)
class Under(Rule):
    """A claim as it stands, and as it stands under a condition.

    ``general`` decides whether it holds; where it does not, ``conditional`` decides whether it holds under
    the condition, which both are fixed before the run.
    """

    condition: str
    general: Rule
    conditional: Rule

    def describe(self) -> str:
        """The rule in words."""
        conditional = f"Under the condition '{self.condition}': {self.conditional.describe()}"
        return f"{self.general.describe()}. {conditional}"

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return self.general.arms() | self.conditional.arms()

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        general, conditional = self.general.judge(numbers), self.conditional.judge(numbers)
        statistics = {
            "condition": self.condition,
            "general": general.to_dict(),
            "conditional": conditional.to_dict(),
        }
        if general.outcome == HOLDS:
            return Verdict(HOLDS, general.why, statistics)
        if conditional.outcome in (HOLDS, CONDITIONAL):
            return Verdict(CONDITIONAL, f"{self.condition}: {conditional.why}", statistics)
        return Verdict(general.outcome, f"{general.why}; nor if {self.condition}", statistics)


@dataclass(frozen=True)
class Unreachable(Rule):
    """No run here can decide the claim; ``why`` says what it would take."""

    why: str

    def describe(self) -> str:
        """The rule in words."""
        return f"not decided here: {self.why}"

    def arms(self) -> set[str]:
        """Names of the arms that it reads."""
        return set()

    def decide(self, numbers: Numbers) -> Verdict:
        """See `Rule.decide`."""
        return Verdict(UNREACHABLE, self.why)


def _values(numbers: Numbers, arm: str, measure: str) -> dict[int | None, float]:
    """The measure of each seed."""
    if arm not in numbers or not numbers[arm]:
        raise LookupError(f"arm '{arm}': no numbers")
    found = {}
    for seed, values in numbers[arm].items():
        if measure in values:
            found[seed] = values[measure]
        elif values.get("diverged"):
            raise Undecided(FAILS, f"{arm}, seed {seed}: the run diverged, it has no {measure}")
        else:
            raise LookupError(f"arm '{arm}', seed {seed}: no measure '{measure}'. Known: {', '.join(values)}")
    return found


def _enough(seeds: Mapping[int | None, float]) -> None:
    """One seed gives no interval; one trial that draws nothing needs none."""
    if len(seeds) == 1 and None not in seeds:
        raise Undecided(UNREACHABLE, "one seed shows no interval; give two or more")


def _difference(numbers: Numbers, a: str, b: str, measure: str) -> Estimate:
    first, second = _values(numbers, a, measure), _values(numbers, b, measure)
    if first.keys() != second.keys():
        raise LookupError(f"arms '{a}' and '{b}': seeds {list(first)} and {list(second)} are no pairs")
    _enough(first)
    return paired(list(first.values()), [second[seed] for seed in first])


def _share(numbers: Numbers, arm: str, measure: str, fraction: float, verb: str) -> Verdict:
    values = list(_values(numbers, arm, measure).values())
    yes = round(sum(values))
    what = f"{arm} {verb} on {yes} of {len(values)} seeds, needed {fraction:.0%}"
    return Verdict(
        HOLDS if yes >= fraction * len(values) - 1e-9 else FAILS, what, {"n": len(values), "yes": yes}
    )


def _any(verdicts: list[Verdict], outcome: Outcome) -> bool:
    return any(verdict.outcome == outcome for verdict in verdicts)


def _range(low: float, high: float) -> str:
    if low == float("-inf"):
        return f"<= {high:g}"
    return f">= {low:g}" if high == float("inf") else f"in [{low:g}, {high:g}]"


def _said(found: Estimate) -> str:
    if found.n == 1:
        return f"{found.mean:.4g}"
    return f"{found.mean:.4g} (95 % interval {found.low:.4g} to {found.high:.4g}, n = {found.n})"
