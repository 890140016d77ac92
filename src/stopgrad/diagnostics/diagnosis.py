"""What the doctor says: a failure class, how sure, since when, by which evidence, what to change first."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Verdict = Literal[
    "healthy",
    "complete-collapse",
    "dimensional-collapse",
    "predictor-collapse",
    "diverged",
    "frozen-target",
    "target-leak",
    "identical-views",
    "normalisation-leak",
    "dead-projector",
    "nan-ahead",
    "constant-loss",
]
VERDICTS: tuple[str, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Evidence:
    """One measure that a diagnosis rests on.

    Attributes:
        measure: its name, such as "std".
        of: the node it is of: "z", "p", "t", "loss", "target" ...
        value: what was measured.
        threshold: what it is held against.
        below: whether the value is below the threshold.
        says: what that means, in a few words.
    """

    measure: str
    of: str
    value: float
    threshold: float
    below: bool
    says: str


@dataclass(frozen=True)
class Fix:
    """Something to change, with what it should do and where that is known from."""

    change: str
    effect: str
    source: str


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with its reasons.

    Attributes:
        verdict: one of `VERDICTS`.
        confidence: in [0, 1].
        first_bad_step: the first step read at which the failure showed; None where nothing failed, or where
            there was one reading without a step, as of a file.
        evidence: the measures it rests on.
        cause: why, in the terms of the theory, or None where several causes look alike.
        fixes: what to change, the most promising first.
        measures: the last reading's measures by node.
    """

    verdict: Verdict
    confidence: float
    first_bad_step: int | None
    evidence: tuple[Evidence, ...]
    cause: str | None = None
    fixes: tuple[Fix, ...] = ()
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """What was measured at one step.

    Attributes:
        step: from 0; None for what has no steps, such as a file.
        nodes: measures of "z", "p" and "t", each as `VectorStatistics.compute` names them.
        loss: of the step.
        scalars: other measures by name, see `stopgrad.diagnostics.monitor.Monitor`.
    """

    step: int | None
    nodes: dict[str, dict[str, Any]]
    loss: float | None = None
    scalars: dict[str, float] = field(default_factory=dict)
