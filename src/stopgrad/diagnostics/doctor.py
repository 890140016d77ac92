"""The doctor: from readings of a run to a failure class, its first bad step, its evidence, cause and fixes.

Rules are looked at in order, causes before symptoms: a run without stop-gradient also collapses, and what
has to be mended is the gradient. Each rule looks at one reading; it fires when it holds at the last reading
(and, where one reading can be an accident, at those before it), and the first bad step is the first of the
last unbroken row of readings at which it held.

The thresholds were chosen on one half of the runs of `benchmarks/doctor.py` and tried once on the other.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, overload

import torch
from torch import Tensor

from stopgrad.diagnostics.diagnosis import Diagnosis, Evidence, Reading, Verdict
from stopgrad.diagnostics.fingerprints import Fingerprint, fingerprint
from stopgrad.diagnostics.remedies import cause_of, fixes_for
from stopgrad.diagnostics.verdict import RANK_COLLAPSED, STD_COLLAPSED, judge

# Two views that agree to rounding are one: squared distance of l2-normalised projections
IDENTICAL = 1e-9
# A spread of z that is narrow, and by which factor it must have shrunk over so many readings
CONE, FALLEN, FALLEN_OVER = 0.1, 0.9, 3
# Share of z's spread below which p has collapsed on its own
PREDICTED = 0.05
# Share of rows that are zero in a projection that is dead, and the gradient's norm of one that learns nothing
DEAD_ROWS, DEAD_GRADIENT = 0.5, 1e-12
# Relative movement of parameters between two readings that counts as none
STILL = 1e-12
# Factor between the spread that batch normalisation shows in training and that in evaluation, and the steps
# that running statistics of momentum 0.1 need to forget their start
LEAK, SETTLED = 3.0, 50
# Readings over which norms must grow without a pause before overflow is foretold, and by which factor each
GROWING, GROWTH = 4, 1.3
# log10 of the largest norm whose square is still finite in single precision
OVERFLOW = 19.0
# log10 of the growth in one reading that, growing itself, cannot last
RUNAWAY = 0.3
# Spread of the loss, relative to its size, that counts as none, and that at ln K, over so many readings
CONSTANT, UNIFORM, CONSTANT_OVER = 1e-6, 1e-3, 5
# A loss above its start by this share of the range it had before is on its way out
RISEN = 0.5
# and one that is so many times larger than it was at first, of either sign, has left it
HUGE = 1e4
# Measures that are so or are not
CERTAIN = {"finite", "target_gradient", "target_moved", "view_distance", "zero_rows"}
MISSING = math.nan


@dataclass(frozen=True)
class Losses:
    """The losses of a run, K of which are known.

    Attributes:
        known: how many there are up to each reading.
        values: in their order. (K,) float64
        lowest: the smallest so far that is a number. (K,) float64
    """

    known: list[int]
    values: Tensor
    lowest: Tensor


class Course(Sequence[Reading]):
    """Readings of a run, and what is the same at all of them: a long run has 100,000."""

    def __init__(self, readings: Sequence[Reading]):
        self._readings = readings

    def __len__(self) -> int:
        return len(self._readings)

    @overload
    def __getitem__(self, i: int) -> Reading: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Reading]: ...
    def __getitem__(self, i: int | slice) -> Reading | Sequence[Reading]:
        return self._readings[i]

    @cached_property
    def losses(self) -> Losses:
        """The losses, read once."""
        losses = [reading.loss for reading in self]
        values = torch.tensor([loss for loss in losses if loss is not None], dtype=torch.float64)
        known = list(accumulate(int(loss is not None) for loss in losses))
        return Losses(known, values, values.where(~values.isnan(), math.inf).cummin(0).values)


@dataclass(frozen=True)
class Rule:
    """One failure class: what shows it at reading i of a run, and for how many readings it must."""

    verdict: Verdict
    shows: Callable[[Course, int], list[Evidence]]
    readings: int = 1


def examine(readings: Sequence[Reading], facts: Mapping[str, Any] | None = None) -> Diagnosis:
    """What is wrong with a run, if anything.

    Args:
        readings: in the order of their steps, at least one.
        facts: what is known of the method, as `Monitor` and the run folders know it: ``stops_gradient``,
            ``predictor`` (its kind), ``symmetric``, ``ema`` (tau or None), ``weight_decay``, ``sigma2``,
            ``tau``. They name the cause; the verdict does not depend on them.

    Raises:
        ValueError: without a reading.
    """
    if not readings:
        raise ValueError("readings: at least one is needed")
    course, last = Course(readings), len(readings) - 1
    measures = {name: dict(values) for name, values in readings[last].nodes.items()}
    for rule in RULES:
        first = _since(rule, course)
        if first is None:
            continue
        evidence = tuple(rule.shows(course, last))
        cause = cause_of(rule.verdict, facts or {}, readings)
        return Diagnosis(
            rule.verdict, _confidence(evidence), readings[first].step, evidence, cause,
            fixes_for(rule.verdict, cause), measures,
        )  # fmt: skip
    evidence = tuple(_spread(readings, last))
    return Diagnosis("healthy", _confidence(evidence), None, evidence, None, (), measures)


def _since(rule: Rule, readings: Course) -> int | None:
    """The first of the last unbroken row of readings at which a rule holds, if that is long enough."""
    first = len(readings)
    while first > 0 and rule.shows(readings, first - 1):
        first -= 1
    length = len(readings) - first
    return first if length >= min(rule.readings, len(readings)) and length > 0 else None


def _confidence(evidence: Sequence[Evidence]) -> float:
    """From how far the nearest measure is from its threshold: 0.5 at it, 0.91 at a factor of 10."""
    margins = [_margin(item) for item in evidence]
    return 0.5 + 0.5 * min(margins, default=1.0)


def _margin(item: Evidence) -> float:
    if item.measure in CERTAIN or not (math.isfinite(item.value) and item.threshold > 0):
        return 1.0
    factor = abs(math.log10(max(abs(item.value), 1e-30) / item.threshold))
    return factor / (factor + 0.22)


def measure_of(reading: Reading, node: str, name: str) -> float:
    """A measure of a node, NaN where it is not known."""
    value = reading.nodes.get(node, {}).get(name)
    return MISSING if value is None else float(value)


def _above(measure: str, of: str, value: float, threshold: float, says: str) -> list[Evidence]:
    """Evidence if the value is known and not below the threshold."""
    return [Evidence(measure, of, value, threshold, False, says)] if value >= threshold else []


def _below(measure: str, of: str, value: float, threshold: float, says: str) -> list[Evidence]:
    return [Evidence(measure, of, value, threshold, True, says)] if value < threshold else []


def _not_finite(readings: Sequence[Reading], i: int) -> list[Evidence]:
    now = readings[i]
    if now.loss is not None and not math.isfinite(now.loss):
        return [Evidence("loss", "loss", now.loss, math.inf, False, "the loss is not finite")]
    for node in ("z", "p", "t"):
        finite = now.nodes.get(node, {}).get("finite")
        if finite is not None and finite < 1:
            return [Evidence("finite", node, float(finite), 1.0, True, f"{node} holds NaN or infinity")]
    return []


def _rising(readings: Course, i: int) -> list[Evidence]:
    """The loss is out of all proportion, or its last quarter lies above its start by a share of its range."""
    losses, known = readings.losses, readings.losses.known[i]
    if known == 0:
        return []
    start, now = losses.values[0].item(), losses.values[known - 1].item()
    if abs(now) > (limit := HUGE * (1 + abs(start))):
        return [Evidence("loss", "loss", now, limit, False, "the loss is out of all proportion")]
    if known < 8:
        return []
    end = losses.values[known - known // 4 : known].mean().item()
    fallen = start - losses.lowest[known - 1].item()
    threshold = start + max(RISEN * fallen, 0.05 * abs(start))
    says = "the loss ends above where it began"
    return [Evidence("loss", "loss", end, threshold, False, says)] if end > threshold else []


def _identical(readings: Sequence[Reading], i: int) -> list[Evidence]:
    distance = readings[i].scalars.get("view_distance", MISSING)
    if not measure_of(readings[i], "z", "std") > STD_COLLAPSED / 10:
        return []
    return _below("view_distance", "z", distance, IDENTICAL, "both views are the same picture")


def _leak(readings: Sequence[Reading], i: int) -> list[Evidence]:
    flows = readings[i].scalars.get("target_gradient", MISSING)
    return _above("target_gradient", "t", flows, 0.5, "a gradient flows into the target")


def _frozen(readings: Sequence[Reading], i: int) -> list[Evidence]:
    now = readings[i].scalars
    if not now.get("online_moved", MISSING) > STILL:
        return []
    return _below(
        "target_moved", "target", now.get("target_moved", MISSING), STILL, "the target stands still"
    )


def _dead(readings: Sequence[Reading], i: int) -> list[Evidence]:
    rows = measure_of(readings[i], "z", "zero_rows")
    gradient = readings[i].scalars.get("gradient_norm_projector", MISSING)
    return [
        *_above("zero_rows", "z", rows, DEAD_ROWS, "the projector gives zeros"),
        *_below("gradient_norm", "projector", gradient, DEAD_GRADIENT, "no gradient reaches the projector"),
    ]


def _normalisation(readings: Sequence[Reading], i: int) -> list[Evidence]:
    """Training and evaluation of one network tell different stories; one of them is collapse, or nearly."""
    step = readings[i].step
    if step is not None and step < SETTLED:
        return []
    trained, evaluated = both_modes(readings[i])
    for name, floor in (("std", STD_COLLAPSED), ("effective_rank", RANK_COLLAPSED)):
        seen, real = trained.get(name, MISSING), evaluated.get(name, MISSING)
        if seen > floor and seen > LEAK * real:
            says = f"{name} is {seen:.3g} with the batch's statistics, {real:.3g} without them"
            return [Evidence(f"{name}_ratio", "z", seen / max(real, 1e-12), LEAK, False, says)]
    return []


def both_modes(reading: Reading) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures of z with batch normalisation in training and in evaluation mode, {} where not known."""
    nodes = reading.nodes
    if "z_eval" in nodes:
        return nodes["z"], nodes["z_eval"]
    return (nodes["z_train"], nodes["z"]) if "z_train" in nodes else ({}, {})


def _nan_ahead(readings: Sequence[Reading], i: int) -> list[Evidence]:
    """Norms that have grown by a factor at every reading, and ever faster, or so that they overflow when they
    go on so for as long as the run has been.
    """
    if i < GROWING:
        return []
    norms = [measure_of(r, "z", "norm") for r in readings[i - GROWING : i + 1]]
    if not all(0 < a < b / GROWTH for a, b in pairwise(norms)):
        return []
    growth = [math.log10(b / a) for a, b in pairwise(norms)]
    if all(a < b for a, b in pairwise(growth)) and growth[-1] > RUNAWAY:
        says = "norms grow by a factor at every reading, and ever faster"
        return _above("log10_growth", "z", growth[-1], RUNAWAY, says)
    expected = math.log10(norms[-1]) + sum(growth) / GROWING * (i + 1)
    return _above("log10_norm", "z", expected, OVERFLOW, "norms grow by a factor at every reading")


def _spread(readings: Sequence[Reading], i: int) -> list[Evidence]:
    nodes = readings[i].nodes
    known: dict[str, dict[str, Any]] = {node: nodes[node] for node in ("z", "p") if node in nodes}
    return judge(known, readings[i].loss or 0.0)[1]


def _fallen(readings: Sequence[Reading], i: int, node: str, measure: str) -> list[Evidence]:
    return [e for e in _spread(readings, i) if (e.of, e.measure) == (node, measure) and e.below]


def _predictor_side(readings: Sequence[Reading], i: int) -> list[Evidence]:
    """p hardly varies beside z, whose spread it is to predict; a linear predictor's p always varies less."""
    of_z = measure_of(readings[i], "z", "std")
    threshold = min(STD_COLLAPSED, PREDICTED * of_z) if of_z >= STD_COLLAPSED else 0.0
    of_p = measure_of(readings[i], "p", "std")
    return _below("std", "p", of_p, threshold, "all p point nearly the same way")


def _falling(readings: Sequence[Reading], i: int) -> list[Evidence]:
    """z lies in a narrow cone, and the cone closes or nothing opens it.

    Linear predictors begin in such a cone too, but theirs opens; without a predictor, p = z, none does.
    """
    now = measure_of(readings[i], "z", "std")
    if readings[i].scalars.get("prediction_distance", MISSING) < IDENTICAL:
        return _below("std", "z", now, CONE, "all z point nearly the same way, and no predictor parts them")
    if i < FALLEN_OVER:
        return []
    before = measure_of(readings[i - FALLEN_OVER], "z", "std")
    says = "all z point nearly the same way, and ever more so"
    return _below("std", "z", now, min(CONE, FALLEN * before), says)


def _complete(readings: Sequence[Reading], i: int) -> list[Evidence]:
    found = _fallen(readings, i, "z", "std") or _falling(readings, i)
    sign = _sign(readings[i])
    if found and sign is not None:
        found.append(Evidence("loss", "loss", readings[i].loss or 0.0, sign.value, False, sign.says))
    return found


def _dimensional(readings: Sequence[Reading], i: int) -> list[Evidence]:
    return _fallen(readings, i, "z", "effective_rank")


def _constant(readings: Sequence[Reading], i: int) -> list[Evidence]:
    losses = [r.loss for r in readings[max(0, i + 1 - CONSTANT_OVER) : i + 1] if r.loss is not None]
    if len(losses) < CONSTANT_OVER:
        return []
    spread = (max(losses) - min(losses)) / max(abs(losses[-1]), 1.0)
    sign = _sign(readings[i])
    # at ln K a softmax is uniform whatever the batch, and the loss stays within rounding of its logits
    threshold = UNIFORM if sign is not None and sign.says.startswith("ln") else CONSTANT
    says = "the loss does not move" + ("" if sign is None else f": {sign.says}")
    return _below("loss_spread", "loss", spread, threshold, says)


def _sign(reading: Reading) -> Fingerprint | None:
    return fingerprint(reading.loss, reading.scalars.get("batch"), reading.scalars.get("dim"))


RULES: tuple[Rule, ...] = (
    Rule("diverged", _not_finite),
    Rule("nan-ahead", _nan_ahead),
    Rule("diverged", _rising),
    Rule("identical-views", _identical),
    Rule("target-leak", _leak),
    Rule("frozen-target", _frozen, readings=2),
    Rule("dead-projector", _dead),
    Rule("normalisation-leak", _normalisation, readings=2),
    Rule("complete-collapse", _complete),
    Rule("dimensional-collapse", _dimensional),
    Rule("predictor-collapse", _predictor_side),
    Rule("constant-loss", _constant),
)
