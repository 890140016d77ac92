"""Distances of a query from its own key alone, as functions and as settings of a method."""

from typing import ClassVar, Literal

from torch import Tensor

from stopgrad.diagnostics import Gradient, unit
from stopgrad.parts.distances.distance import Distance
from stopgrad.parts.precision import single


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """Negative cosine similarity, mean over the batch, in [-1, 1]; -1 is agreement.

    Source: Chen and He 2021, Eq. 1; BYOL's loss (Grill et al. 2020, Eq. 2) is 2 + 2 times this.
    """
    return -(unit(query) * unit(key)).sum(dim=-1).mean()


def squared_l2(query: Tensor, key: Tensor) -> Tensor:
    """Squared distance of the l2-normalised vectors, mean over the batch, in [0, 4].

    Source: Grill et al. 2020, Eq. 2; Shi et al. (RAFT), section 3. Equals 2 + 2 cosine(query, key).
    """
    return (unit(query) - unit(key)).square().sum(dim=-1).mean()


def euclidean(query: Tensor, key: Tensor) -> Tensor:
    """Half the squared distance of the raw vectors, mean over the batch, >= 0.

    Source: Tian et al. 2021, Eq. 1 (with the 1/2, which Halvagal et al. 2023 leave out).
    """
    return 0.5 * (single(query) - single(key)).square().sum(dim=-1).mean()


class Cosine(Distance):
    """`cosine`."""

    kind: Literal["cosine"] = "cosine"

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar in [-1, 1]."""
        return cosine(query, key)

    def formula(self) -> str:
        """d(q, k) in one line."""
        return "d(q, k) = -<q, k> / (||q|| ||k||)"

    def pull(self, query: Tensor, key: Tensor, basic: Tensor) -> Gradient | None:
        """The key, of which the other view's node of the query's kind is the basic part (Eq. 4)."""
        return Gradient(unit(basic), unit(key) - unit(basic))


class SquaredL2(Distance):
    """`squared_l2`."""

    kind: Literal["squared-l2"] = "squared-l2"

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar in [0, 4]."""
        return squared_l2(query, key)

    def formula(self) -> str:
        """d(q, k) in one line."""
        return "d(q, k) = || q/||q|| - k/||k|| ||^2"


class Euclidean(Distance):
    """`euclidean`."""

    kind: Literal["euclidean"] = "euclidean"
    normalises: ClassVar[bool] = False

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar >= 0."""
        return euclidean(query, key)

    def formula(self) -> str:
        """d(q, k) in one line."""
        return "d(q, k) = 1/2 ||q - k||^2"
