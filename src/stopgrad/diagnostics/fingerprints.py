"""Values at which losses stand still when a representation has collapsed, and what they mean.

A fingerprint says nothing by itself: a cosine loss may come near -1 in a run that is well. It counts only
together with the spread or the rank of the projections (`stopgrad.diagnostics.doctor`).

Legend: N images a batch, D width of the projection or number of prototypes.
"""

import math
from typing import NamedTuple

# How near a loss must be to count
NEAR = 2e-3


class Fingerprint(NamedTuple):
    """A loss's value and what it means when the projections do not vary."""

    value: float
    says: str


def fingerprints(batch: float | None = None, dim: float | None = None) -> list[Fingerprint]:
    """The known values, those of batch N and width D where these are given.

    >>> [round(sign.value, 3) for sign in fingerprints(batch=64)][-2:]
    [4.159, 4.844]
    """
    known = [
        Fingerprint(-1.0, "-1: every pair agrees in direction (cosine)"),
        Fingerprint(-2.0, "-2: both halves of a cosine loss at -1, added up"),
        Fingerprint(0.0, "0: every pair agrees (squared distance)"),
        Fingerprint(25 * (1 - 1e-2), "24.75: VICReg's variance hinge, all other terms zero"),
    ]
    if dim:
        known.append(Fingerprint(math.log(dim), f"ln {dim:g}: uniform over the {dim:g} prototypes"))
        known.append(Fingerprint(float(dim), f"{dim:g}: Barlow Twins without any correlation"))
    if batch and batch > 1:
        known.append(Fingerprint(math.log(batch), f"ln {batch:g}: InfoNCE, all keys alike"))
        known.append(Fingerprint(math.log(2 * batch - 1), f"ln(2 * {batch:g} - 1): NT-Xent, all pairs alike"))
    return known


def fingerprint(
    loss: float | None, batch: float | None = None, dim: float | None = None
) -> Fingerprint | None:
    """The nearest known value, if the loss is near one."""
    if loss is None or not math.isfinite(loss):
        return None
    nearest = min(fingerprints(batch, dim), key=lambda sign: abs(sign.value - loss))
    return nearest if abs(nearest.value - loss) <= NEAR * max(1.0, abs(nearest.value)) else None
