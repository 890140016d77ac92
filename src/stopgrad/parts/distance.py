"""How far a query is from its key: pure functions of two (B, D) tensors to a scalar."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn.functional import normalize

DistanceName = Literal["cosine", "squared-l2", "euclidean"]


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """Negative cosine similarity, mean over the batch, in [-1, 1]; -1 is agreement.

    Source: Chen and He 2021, Eq. 1; BYOL's loss (Grill et al. 2020, Eq. 2) is 2 + 2 times this.
    """
    return -(_unit(query) * _unit(key)).sum(dim=-1).mean()


def squared_l2(query: Tensor, key: Tensor) -> Tensor:
    """Squared distance of the l2-normalised vectors, mean over the batch, in [0, 4].

    Source: Grill et al. 2020, Eq. 2; Shi et al. (RAFT), section 3. Equals 2 + 2 cosine(query, key).
    """
    return (_unit(query) - _unit(key)).square().sum(dim=-1).mean()


def euclidean(query: Tensor, key: Tensor) -> Tensor:
    """Half the squared distance of the raw vectors, mean over the batch, >= 0.

    Source: Tian et al. 2021, Eq. 1 (with the 1/2, which Halvagal et al. 2023 leave out).
    """
    return 0.5 * (query - key).square().sum(dim=-1).mean()


def _unit(x: Tensor) -> Tensor:
    # float32: in half precision the norm of a wide vector overflows or loses the small components
    return normalize(x.float() if x.dtype.itemsize < 4 else x, dim=-1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": cosine,
    "squared-l2": squared_l2,
    "euclidean": euclidean,
}

FORMULAS: dict[str, str] = {
    "cosine": "d(q, k) = -<q, k> / (||q|| ||k||)",
    "squared-l2": "d(q, k) = || q/||q|| - k/||k|| ||^2",
    "euclidean": "d(q, k) = 1/2 ||q - k||^2",
}
