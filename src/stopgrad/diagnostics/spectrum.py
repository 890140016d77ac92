"""How many directions a representation uses: singular values, effective rank."""

import torch
from torch import Tensor

from stopgrad.diagnostics.spread import unit


def spectrum(x: Tensor, largest: int | None = None) -> Tensor:
    """Shares of the variance of the l2-normalised rows along the principal axes, descending, sum 1.

    Args:
        x: vectors (N, D).
        largest: how many to return; all min(N, D) by default.

    Returns:
        Shares in [0, 1]; all zero when the rows do not vary at all.
    """
    rows = unit(x)
    values = _singular_values(rows).square()
    total = values.sum()
    return torch.where(total > 0, values / total.clamp(min=torch.finfo(values.dtype).tiny), 0.0)[:largest]


def effective_rank(x: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values of the centred rows, in [1, min(N - 1, D)].

    1 when the rows do not vary or vary along one line only. Source: Roy and Vetterli 2007; RankMe (Garrido et
    al. 2023) is the same without centring and with an epsilon inside the logarithm, which makes a
    collapsed matrix read above 1.

    Rows that agree to rounding error count as not varying: singular values below eps max(N, D) times the
    largest norm are zero.
    """
    values = _singular_values(x.float() if x.dtype.itemsize < 4 else x)
    total = values.sum()
    shares = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum().exp()


def _singular_values(x: Tensor) -> Tensor:
    """Singular values of the centred rows, descending, with rounding error of the centring set to zero."""
    centred = x - x.mean(dim=0)
    values = torch.linalg.svdvals(centred)
    noise = torch.finfo(x.dtype).eps * max(x.shape) * x.norm(dim=-1).max()
    return torch.where(values > noise, values, 0.0)
