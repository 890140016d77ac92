"""Does it collapse? A verdict from the spread and the rank of z and p, with the evidence."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from stopgrad.diagnostics.diagnosis import Evidence

SpreadVerdict = Literal["healthy", "complete-collapse", "dimensional-collapse", "diverged"]

# Chosen on the half of `benchmarks/doctor.py` that is for choosing: linear predictors begin in a narrow cone
# and leave it, so that the spread of a run that is well can be as low as 0.06 for some hundred steps. Three
# equal directions are too few.
STD_COLLAPSED = 0.05
RANK_COLLAPSED = 3.1
# In narrow vectors healthy ranks are smaller too: this share of the width, but not below the least
SHARE_COLLAPSED, LEAST_RANK = 1 / 20, 1.5


def rank_threshold(dim: float) -> float:
    """The effective rank below which vectors of width ``dim`` have collapsed; 3.1 from a width of 62 on."""
    return min(RANK_COLLAPSED, max(LEAST_RANK, SHARE_COLLAPSED * dim))


def judge(vectors: Mapping[str, Mapping[str, Any]], loss: float) -> tuple[SpreadVerdict, list[Evidence]]:
    """The verdict of a run and what it rests on; accuracy is no part of it.

    Encoders of collapsed runs still probe well above chance, so only the vectors themselves decide:
    diverged when the loss or a measure is not finite, complete collapse when z hardly varies, dimensional
    collapse when it varies along a few directions only.

    Args:
        vectors: measures of "z", and of "p" where there is a predictor: ``std``, ``effective_rank``, and
            ``dim`` where the vectors may be narrow.
        loss: the training loss at the end.
    """
    evidence = []
    for of, measures in vectors.items():
        evidence.append(_std_evidence(of, measures["std"]))
        evidence.append(_rank_evidence(of, measures["effective_rank"], measures.get("dim", math.inf)))
    if not all(math.isfinite(number) for number in (loss, *(e.value for e in evidence))):
        return "diverged", evidence
    of_z = {e.measure: e.below for e in evidence if e.of == "z"}
    if of_z["std"]:
        return "complete-collapse", evidence
    if of_z["effective_rank"]:
        return "dimensional-collapse", evidence
    return "healthy", evidence


def _std_evidence(of: str, value: float) -> Evidence:
    below = value < STD_COLLAPSED
    says = f"all {of} point nearly the same way" if below else f"{of} spreads over the sphere"
    return Evidence("std", of, value, STD_COLLAPSED, below, says)


def _rank_evidence(of: str, value: float, dim: float) -> Evidence:
    threshold = rank_threshold(dim)
    below = value < threshold
    says = f"{of} varies along a few directions only" if below else f"{of} uses many directions"
    return Evidence("effective_rank", of, value, threshold, below, says)
