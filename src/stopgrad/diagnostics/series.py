"""The course of a diagnosis's evidence: each measure that it rests on, over all readings of a run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stopgrad.diagnostics.diagnosis import Diagnosis, Evidence, Reading, Verdict
from stopgrad.diagnostics.doctor import CONSTANT_OVER, GROWING, SETTLED, both_modes, measure_of


@dataclass(frozen=True)
class Series:
    """One measure over the steps of a run, beside what it is held against.

    Attributes:
        measure: its name, as in `Evidence`.
        of: the node it is of.
        steps: of the readings at which it is known, in their order.
        values: as many; NaN or infinite where the measure was not finite.
        threshold: what the values are held against; infinite where every number is well.
        below: whether the failure lies below the threshold, or above it; None where neither side is one and
            the threshold is the value that a collapsed loss comes to.
        says: what the evidence means.
    """

    measure: str
    of: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    threshold: float
    below: bool | None
    says: str


def evidence_series(readings: Sequence[Reading], diagnosis: Diagnosis) -> list[Series]:
    """The course of each evidence of a diagnosis, in its order; those without one are left out.

    A healthy diagnosis rests on the spread and the rank of z and p, whose failure lies below.

    Args:
        readings: those that were examined. What has no steps, such as a file, has no course.
        diagnosis: of these readings, by `examine`.
    """
    found = []
    for item in diagnosis.evidence:
        course = [
            (now.step, value)
            for i, now in enumerate(readings)
            if now.step is not None and (value := _value(readings, i, item)) is not None
        ]
        if course:
            threshold, below = _forbidden(item, diagnosis.verdict)
            steps, values = tuple(step for step, _ in course), tuple(value for _, value in course)
            found.append(Series(item.measure, item.of, steps, values, threshold, below, item.says))
    return found


def _forbidden(item: Evidence, verdict: Verdict) -> tuple[float, bool | None]:
    """The threshold, and on which side of it the failure lies."""
    if verdict == "healthy":
        return item.threshold, True
    if verdict == "complete-collapse" and item.measure == "loss":
        return item.threshold, None
    if not item.below and item.value < item.threshold:  # its size is above: it left downward
        return -item.threshold, True
    return item.threshold, item.below


def _value(readings: Sequence[Reading], i: int, item: Evidence) -> float | None:
    """The evidence's measure at reading i by the doctor's formula, None where it is not known."""
    derived = DERIVED.get(item.measure)
    if derived is not None:
        return derived(readings, i)
    now = readings[i]
    if item.measure == "loss":
        return now.loss
    value = now.nodes.get(item.of, {}).get(item.measure)
    for name in (item.measure, f"{item.measure}_{item.of}"):
        value = now.scalars.get(name) if value is None else value
    return None if value is None else float(value)


def _ratio(name: str) -> Callable[[Sequence[Reading], int], float | None]:
    """A measure of z in training mode over that in evaluation mode, once running statistics have settled."""

    def ratio(readings: Sequence[Reading], i: int) -> float | None:
        step = readings[i].step
        trained, evaluated = both_modes(readings[i])
        seen, real = trained.get(name), evaluated.get(name)
        if seen is None or real is None or (step is not None and step < SETTLED):
            return None
        return float(seen / max(real, 1e-12))

    return ratio


def _foretold(readings: Sequence[Reading], i: int) -> float | None:
    """log10 of the norm of z when its growth of the last readings goes on for as long as the run has been."""
    if i < GROWING:
        return None
    norms = [measure_of(r, "z", "norm") for r in readings[i - GROWING : i + 1]]
    if not all(0 < norm < math.inf for norm in norms):
        return None
    per_reading = math.log10(norms[-1] / norms[0]) / GROWING
    return math.log10(norms[-1]) + per_reading * (i + 1)


def _growth(readings: Sequence[Reading], i: int) -> float | None:
    """log10 of the factor between the norms of z at two readings."""
    before, now = (measure_of(r, "z", "norm") for r in (readings[max(i - 1, 0)], readings[i]))
    return math.log10(now / before) if i > 0 and 0 < before < math.inf and 0 < now < math.inf else None


def _loss_spread(readings: Sequence[Reading], i: int) -> float | None:
    """Range of the last losses over the size of the last one, or over 1 where that is smaller."""
    losses = [r.loss for r in readings[max(0, i + 1 - CONSTANT_OVER) : i + 1] if r.loss is not None]
    if len(losses) < CONSTANT_OVER:
        return None
    return (max(losses) - min(losses)) / max(abs(losses[-1]), 1.0)


DERIVED: dict[str, Callable[[Sequence[Reading], int], float | None]] = {
    "std_ratio": _ratio("std"),
    "effective_rank_ratio": _ratio("effective_rank"),
    "log10_norm": _foretold,
    "log10_growth": _growth,
    "loss_spread": _loss_spread,
}
