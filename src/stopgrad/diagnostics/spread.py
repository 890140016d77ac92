"""How l2-normalised vectors lie on the sphere: spread, centre and residual, alignment, uniformity."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

PAIRS_AT_ONCE = 512
"""Rows whose distances from all others are held in memory together."""


def unit(x: Tensor) -> Tensor:
    """The rows of ``x`` (N, D) divided by their l2 norms, in float32 at least; a zero row stays zero."""
    return normalize(x.float() if x.dtype.itemsize < 4 else x, dim=-1)


def double(x: Tensor) -> Tensor:
    """``x`` in float64, on the CPU where its device has no such numbers."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def matrix(x: Tensor) -> Tensor:
    """``x`` (N, D) in float64.

    Raises:
        ValueError: unless it is a matrix with at least one row.
    """
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x: must be a matrix of at least one row, its shape is {tuple(x.shape)}")
    return double(x)


def embedding_std(x: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation of the l2-normalised rows, times sqrt(D).

    In [0, 1]: 1 for an isotropic cloud, 0 when all rows point the same way. The population form (division
    by N), so that the bound of 1 is exact. Source: Chen and He 2021, section 4.1, scaled by sqrt(D).

    >>> float(embedding_std(torch.ones(5, 3)))
    0.0
    """
    return unit(x).std(dim=0, correction=0).mean() * math.sqrt(x.shape[-1])


def center_norm(x: Tensor) -> Tensor:
    """m_o: the norm of the mean of the l2-normalised rows, in [0, 1]; 1 is complete collapse.

    Source: Zhang et al. 2022, section 3.1. With `residual_norm`: m_o^2 + m_r^2 = 1.
    """
    return unit(x).mean(dim=0).norm()


def residual_norm(x: Tensor) -> Tensor:
    """m_r: root mean square distance of the l2-normalised rows from their mean, in [0, 1]; 0 is collapse."""
    rows = unit(x)
    return (rows - rows.mean(dim=0)).square().sum(dim=-1).mean().sqrt()


def view_noise(x1: Tensor, x2: Tensor) -> float:
    """sigma^2: the variance that two views of an image do not share, over that which they do.

    Args:
        x1, x2: the views' raw inputs, (B, ...), B at least 2.

    Returns:
        In [0, inf]; infinite where two views of an image are no more alike than two images.

    Source: Tian et al. 2021, section 3, where the noise of the augmentation is isotropic.
    """
    first, second = (x.detach().flatten(1).float() for x in (x1, x2))
    noise = _variance(first - second) / 2
    shared = _variance(torch.cat([first, second])) - noise
    return noise / shared if shared > 0 else math.inf


def _variance(rows: Tensor) -> float:
    # of small images in a seventh of the time of Tensor.var
    return float((rows - rows.mean(dim=0)).square().mean()) * len(rows) / (len(rows) - 1)


def alignment(x1: Tensor, x2: Tensor) -> Tensor:
    """E ||x1 - x2||^2 of l2-normalised rows of two views (N, D), in [0, 4]; 0 is perfect agreement.

    Source: Shi et al. (RAFT), section 3, L_align; their tables divide it by D, which this does not.
    """
    return (unit(x1) - unit(x2)).square().sum(dim=-1).mean()


def uniformity(x: Tensor) -> Tensor:
    """log E exp(-2 ||x_i - x_j||^2) over the pairs i != j of l2-normalised rows, in [-8, 0]; 0 is collapse.

    Lower is more uniform. In float64, time O(N^2 D), memory O(N). Source: Shi et al. (RAFT), section 3.

    Raises:
        ValueError: for fewer than two rows.
    """
    count = len(x)
    if count < 2:
        raise ValueError(f"uniformity needs at least 2 rows, got {count}")
    rows = unit(double(x))
    squares = rows.square().sum(dim=-1)
    sums = []
    for start in range(0, count, PAIRS_AT_ONCE):
        block = slice(start, start + PAIRS_AT_ONCE)
        distances = squares[block, None] + squares - 2 * rows[block] @ rows.T
        exponents = -2 * distances.clamp(min=0)
        exponents.diagonal(offset=start).fill_(-torch.inf)
        sums.append(exponents.flatten().logsumexp(dim=0))
    return torch.stack(sums).logsumexp(dim=0) - math.log(count * (count - 1))
