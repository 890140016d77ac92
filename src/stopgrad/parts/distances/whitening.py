"""Squared distances after the batch was whitened, or standardised dimension by dimension.

Legend: B batch, D width, S rows of a slice; a query and a key are (B, D) each, row i of both from image i.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from stopgrad.diagnostics import unit
from stopgrad.errors import UsageError
from stopgrad.parts.distances.batch import BatchLoss
from stopgrad.parts.distances.pairwise import squared_l2
from stopgrad.parts.distances.redundancy import covariance, standardised


class WhitenedMse(BatchLoss):
    """W-MSE: squared distance of the whitened, then l2-normalised vectors, mean over the batch, in [0, 4].

    Each view is whitened by itself, in slices of ``slice`` rows (None: all B): centred, and multiplied by the
    inverse Cholesky factor of the covariance (1 - eps) C + eps I, C divided by S - 1.

    Source: Ermolov et al. 2021, section 3. The authors' code draws the slices at random, as many times as its
    ``w_iter`` says; here they are the rows in their order, once, since batches are random permutations. Its
    eps is 0 by default. Ours lets a factor exist where directions are dead, for variances around 1; where
    rounding leaves none nevertheless, the loss is NaN.

    Raises on call:
        UsageError: where a slice has no more rows than dimensions, or slices do not divide the batch.
    """

    kind: Literal["wmse"] = "wmse"
    normalises: ClassVar[bool] = False
    slice: int | None = Field(None, ge=2)
    eps: float = Field(1e-4, ge=0, lt=1)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar in [0, 4]."""
        return squared_l2(self.whitened(query), self.whitened(key))

    def whitened(self, x: Tensor) -> Tensor:
        """The rows (B, D) with mean 0 and, but for eps, covariance I in every slice."""
        (count, width), rows = x.shape, self.slice or len(x)
        if rows <= width:
            raise UsageError(f"distance.slice: whitening {width} dimensions needs more rows than {rows}")
        if count % rows:
            raise UsageError(f"distance.slice: slices of {rows} rows do not divide the batch of {count}")
        x = x.reshape(-1, rows, width)
        shrunk = (1 - self.eps) * covariance(x) + self.eps * torch.eye(width, dtype=x.dtype, device=x.device)
        factor, failed = torch.linalg.cholesky_ex(shrunk)
        factor = factor.masked_fill((failed > 0)[:, None, None], torch.nan)
        centred = x - x.mean(dim=1, keepdim=True)
        return torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT.reshape(count, width)

    def formula(self) -> str:
        """d(q, k) in one line."""
        where = "the batch" if self.slice is None else f"each slice of {self.slice} rows"
        return (
            f"d(q, k) = || Wq/||Wq|| - Wk/||Wk|| ||^2, Wx centred x times the inverse Cholesky factor of "
            f"{1 - self.eps:g} Cov(x) + {self.eps:g} I over {where}"
        )


class StandardisedMse(BatchLoss):
    """Half the squared distance, divided by D, of l2-normalised vectors that were standardised; in [0, 2].

    That is 1 less the correlation of query and key over the batch, mean over the dimensions. The batch
    normalisation comes after the l2, right before the squared distance, so that the centre is out of the
    loss: a shift of all l2-normalised queries makes no difference.

    Source: Zhang et al. 2022, section 4, without formula or code. The division by D is ours. What is
    standardised is sqrt(D) times the l2-normalised vectors, whose variances are near 1, so that the 1e-5 of
    `standardised` stays small at any width.
    """

    kind: Literal["standardised"] = "standardised"

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar in [0, 2]."""
        scale = math.sqrt(query.shape[-1])
        return 0.5 * (standardised(scale * unit(query)) - standardised(scale * unit(key))).square().mean()

    def formula(self) -> str:
        """d(q, k) in one line."""
        return "d(q, k) = 1/(2 D) || BN(q/||q||) - BN(k/||k||) ||^2, BN standardising over the batch"
