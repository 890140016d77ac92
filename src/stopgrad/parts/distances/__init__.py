"""Distances between nodes and losses of whole batches, one family a file."""

from typing import Annotated, get_args

from pydantic import BeforeValidator, Field

from stopgrad.frozen import named
from stopgrad.parts.distances.contrastive import InfoNce, NtXent, SimpleContrastive, Triplet
from stopgrad.parts.distances.distance import Distance
from stopgrad.parts.distances.pairwise import Cosine, Euclidean, SquaredL2, cosine, euclidean, squared_l2
from stopgrad.parts.distances.redundancy import BarlowTwins, Decorrelation, VicReg
from stopgrad.parts.distances.sharpened import CrossEntropy
from stopgrad.parts.distances.whitening import StandardisedMse, WhitenedMse

AnyDistance = (
    Cosine
    | SquaredL2
    | Euclidean
    | CrossEntropy
    | InfoNce
    | NtXent
    | Triplet
    | SimpleContrastive
    | Decorrelation
    | BarlowTwins
    | VicReg
    | WhitenedMse
    | StandardisedMse
)

DistanceSettings = Annotated[AnyDistance, Field(discriminator="kind"), BeforeValidator(named)]

DISTANCES: dict[str, type[Distance]] = {
    kind.model_fields["kind"].default: kind for kind in get_args(AnyDistance)
}

__all__ = [
    "DISTANCES", "BarlowTwins", "Cosine", "CrossEntropy", "Decorrelation", "Distance", "DistanceSettings",
    "Euclidean", "InfoNce", "NtXent", "SimpleContrastive", "SquaredL2", "StandardisedMse", "Triplet",
    "VicReg", "WhitenedMse", "cosine", "euclidean", "squared_l2",
]  # fmt: skip
