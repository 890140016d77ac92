"""Losses that keep the dimensions of a batch apart: small correlations between them, variances kept up.

Legend: B batch, D width; a query and a key are (B, D) each, row i of both from image i.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from stopgrad.diagnostics import unit
from stopgrad.parts.distances.batch import BatchLoss

BATCH_NORM_EPS = 1e-5


def standardised(x: Tensor) -> Tensor:
    """The columns of ``x`` (B, D) with mean 0 and variance 1, as a batch normalisation without affine gives.

    The variance divides by B, and 1e-5 is added to it: a constant column becomes zeros.
    """
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    return (x - mean) * (variance + BATCH_NORM_EPS).rsqrt()


def covariance(x: Tensor) -> Tensor:
    """The covariance (..., D, D) of rows (..., B, D), divided by B - 1."""
    x = x - x.mean(dim=-2, keepdim=True)
    return x.mT @ x / (x.shape[-2] - 1)


def off_diagonal(matrix: Tensor) -> Tensor:
    """A square matrix (D, D) with zeros in place of its diagonal."""
    return matrix - matrix.diagonal().diag()


def _redundancy(x: Tensor) -> Tensor:
    """Sum of the squared off-diagonal covariances of rows (B, D), divided by D."""
    return off_diagonal(covariance(x)).square().sum() / x.shape[-1]


class Decorrelation(BatchLoss):
    """Sum of the squared covariances between different dimensions, divided by D; mean of query's and key's.

    >= 0. It does not compare a query with its key.

    ``normalise`` says what is done before: ``l2`` normalises the rows, and then full collapse is a minimum as
    well; ``batch`` standardises the columns, see `standardised`, so that shrinking does not lower it. To
    recover from a collapse (Fig. 5b) it must be ``batch``.

    Source: Zhang et al. 2022, section 3.4 and A.6, Algorithm 5, which names no normalisation. Covariances
    divide by B - 1, as there.
    """

    kind: Literal["decorrelation"] = "decorrelation"
    normalise: Literal["l2", "batch"] = "batch"

    @property
    def normalises(self) -> bool:  # type: ignore[override]  # here a setting decides it
        """Whether the lengths of the rows make no difference."""
        return self.normalise == "l2"

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar >= 0."""
        normalise = unit if self.normalise == "l2" else standardised
        return (_redundancy(normalise(query)) + _redundancy(normalise(key))) / 2

    def formula(self) -> str:
        """d(q, k) in one line."""
        how = "l2-normalised" if self.normalise == "l2" else "standardised over the batch"
        return f"d(q, k) = 1/2 sum_{{x = q, k}} sum_{{i != j}} Cov(x)_ij^2 / D, x {how}"


class BarlowTwins(BatchLoss):
    """The cross-correlation C of query and key, drawn to the identity: sum (1 - C_ii)^2 + redundancy C_ij^2.

    >= 0, and grows with D. C divides by B; the columns are standardised as by the authors' batch
    normalisation, whose 1e-5 is not in the paper's Eq. 2.

    Source: Zbontar et al. 2021, Eqs. 1 and 2; ``redundancy`` is their lambda, 5e-3 in the text and 0.0051 in
    their code, which in some versions also scales the loss (by 0.024). We follow the text.
    """

    kind: Literal["barlow-twins"] = "barlow-twins"
    normalises: ClassVar[bool] = False
    redundancy: float = Field(5e-3, ge=0)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar >= 0."""
        correlation = standardised(query).T @ standardised(key) / len(query)
        invariance = (1 - correlation.diagonal()).square().sum()
        return invariance + self.redundancy * off_diagonal(correlation).square().sum()

    def formula(self) -> str:
        """d(q, k) in one line."""
        return (
            f"d(q, k) = sum_i (1 - C_ii)^2 + {self.redundancy:g} sum_{{i != j}} C_ij^2, C the batch's "
            "cross-correlation of q and k"
        )


class VicReg(BatchLoss):
    """invariance s(q, k) + variance (v(q) + v(k)) / 2 + covariance (c(q) + c(k)), >= 0.

    s is the squared distance of a query from its key divided by D, mean over the batch; v the mean over the
    dimensions of max(0, gamma - sqrt(Var + eps)); c the sum of the squared covariances between different
    dimensions, divided by D. Variances and covariances divide by B - 1.

    Source: Bardes et al. 2022, Eqs. 1 to 6. Where the text and the authors' code differ we follow the code,
    whose scale the default weights are of: in the text s is not divided by D, and v(q) + v(k) is not halved.
    """

    kind: Literal["vicreg"] = "vicreg"
    normalises: ClassVar[bool] = False
    invariance: float = Field(25.0, ge=0)
    variance: float = Field(25.0, ge=0)
    covariance: float = Field(1.0, ge=0)
    gamma: float = Field(1.0, gt=0)
    eps: float = Field(1e-4, gt=0)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar >= 0."""
        invariance = (query - key).square().mean()
        variance = (self._hinge(query) + self._hinge(key)) / 2
        redundancy = _redundancy(query) + _redundancy(key)
        return self.invariance * invariance + self.variance * variance + self.covariance * redundancy

    def formula(self) -> str:
        """d(q, k) in one line."""
        return (
            f"d(q, k) = {self.invariance:g} ||q - k||^2 / D + {self.variance:g} (v(q) + v(k)) / 2 + "
            f"{self.covariance:g} (c(q) + c(k)), "
            f"v(x) = mean_i max(0, {self.gamma:g} - sqrt(Var(x_i) + {self.eps:g})), "
            "c(x) = sum_{i != j} Cov(x)_ij^2 / D"
        )

    def _hinge(self, x: Tensor) -> Tensor:
        return (self.gamma - (x.var(dim=0) + self.eps).sqrt()).relu().mean()
