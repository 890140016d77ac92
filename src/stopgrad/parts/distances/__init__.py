"""Distances between nodes and losses of whole batches, one family a file."""

from typing import Annotated, get_args

from pydantic import BeforeValidator, Field

from stopgrad.frozen import named
from stopgrad.parts.distances.distance import Distance
from stopgrad.parts.distances.pairwise import Cosine, Euclidean, SquaredL2, cosine, euclidean, squared_l2

AnyDistance = Cosine | SquaredL2 | Euclidean

DistanceSettings = Annotated[AnyDistance, Field(discriminator="kind"), BeforeValidator(named)]

DISTANCES: dict[str, type[Distance]] = {
    kind.model_fields["kind"].default: kind for kind in get_args(AnyDistance)
}

__all__ = [
    "DISTANCES", "Cosine", "Distance", "DistanceSettings", "Euclidean", "SquaredL2", "cosine", "euclidean",
    "squared_l2",
]  # fmt: skip
