"""DirectPred with a correlation of its own on either side of random hyperplanes.

Legend: B batch, D width of the projection, n hyperplanes, K = 2n parts (the sides of each), V views.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from stopgrad.parts.precision import full_precision
from stopgrad.parts.predictors.moments import Moments, Rho, joined
from stopgrad.parts.predictors.predictor import ClosedForm
from stopgrad.parts.predictors.spectral import SpectralRule


class Partitioned(SpectralRule):
    """W_p that depends on where z lies. Source: Tian et al. 2021, section 4, "Feature-dependent W_p".

    ``partitions`` random hyperplanes through the mean of z each split the space in two parts, and every part
    k has the correlation F_k = E[z z^T | z in k]. Text and authors' code differ in what becomes of them:

    - ``code`` (default): every part has a W_k of its own, and p is the mean of W_k z over the ``partitions``
      parts that z lies in;
    - ``text``: one W_p for all, from the sum of the F_k.

    The authors split a batch at its own mean. Here it is the average mean of the steps so far, so that no
    prediction depends on the other images of its batch. ``rho`` and ``freq`` are those of `Spectral`.
    """

    kind: Literal["partitioned"] = "partitioned"
    partitions: int = Field(6, ge=1)
    reading: Literal["code", "text"] = "code"
    rho: Rho = 0.3
    freq: int = Field(1, ge=1)

    def build(self, dim: int) -> "PartitionMeanPredictor | PartitionSumPredictor":
        """The module for projections of width ``dim``."""
        module = PartitionMeanPredictor if self.reading == "code" else PartitionSumPredictor
        return module(dim, self)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        every = "step" if self.freq == 1 else f"{self.freq} steps"
        if self.reading == "code":
            p, f = f"mean of W_k z_v over the {self.partitions} parts k of z_v, W_k", "F_k"
        else:
            p, f = "W_p z_v, W_p", "sum_k F_k"
        average = "mean over the steps" if self.rho == "mean" else f"moving average of rate {self.rho:g}"
        return (
            f"p_v = {p} = U diag(p_j) U^T every {every}, p_j = {self.formula()}, "
            f"where U diag(s_j) U^T = {f}, F_k = E[z z^T | k] on the sides k of {self.partitions} random "
            f"hyperplanes through E[z], {average}"
        )


class PartitionPredictor(ClosedForm):
    """The correlations of the parts, for a rule that makes ``rows`` rows of W_p of them."""

    planes: Tensor

    def __init__(self, dim: int, rows: int, settings: Partitioned):
        parts = 2 * settings.partitions
        moments = Moments(settings.rho, correlations=(parts, dim, dim), shares=(parts,))
        super().__init__(dim, rows, settings.freq, moments)
        self.settings = settings
        self.centre = Moments(settings.rho, mean=(dim,))
        self.register_buffer("planes", torch.randn(dim, settings.partitions))

    def membership(self, z: Tensor) -> Tensor:
        """Whether each vector (B, D) lies in each part, (B, K) of ones and zeros; every row has n ones."""
        with full_precision(z.device):
            mean = self.centre.get_buffer("mean")
            above = (z.detach().to(mean.dtype) - mean) @ self.planes >= 0
        return torch.cat([above, ~above], dim=-1).to(mean.dtype)

    def observe(self, z: Sequence[Tensor], t: Sequence[Tensor]) -> None:
        """Move the mean, then every part's correlation and its share of the vectors."""
        joint = joined(z)
        self.centre.update(len(joint), mean=joint.sum(dim=0))
        parts = self.membership(joint).to(joint.dtype)
        correlations = torch.stack([(joint * part.unsqueeze(-1)).T @ joint for part in parts.unbind(dim=-1)])
        self.moments.update(len(joint), correlations=correlations, shares=parts.sum(dim=0))

    def part_correlations(self) -> Tensor:
        """F_k (K, D, D); zero for a part that no vector has been in."""
        shares = self.moments.get_buffer("shares")
        return self.moments.get_buffer("correlations") / shares.clamp(min=1e-12)[:, None, None]


class PartitionMeanPredictor(PartitionPredictor):
    """p = the mean of W_k z over the parts k that z lies in; ``linear`` holds the W_k below each other."""

    def __init__(self, dim: int, settings: Partitioned):
        super().__init__(dim, 2 * settings.partitions * dim, settings)

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        parts = self.membership(z)
        p = self.linear(z).unflatten(-1, (parts.shape[-1], -1))
        return (parts.to(p.dtype).unsqueeze(-1) * p).sum(dim=1) / self.settings.partitions

    def solve(self) -> Tensor:
        """All W_k below each other, (K D, D)."""
        return self.settings.weight(self.part_correlations()).flatten(0, 1)


class PartitionSumPredictor(PartitionPredictor):
    """p = W_p z with W_p from the sum of the parts' correlations."""

    def __init__(self, dim: int, settings: Partitioned):
        super().__init__(dim, dim, settings)

    def solve(self) -> Tensor:
        """W_p (D, D)."""
        return self.settings.weight(self.part_correlations().sum(dim=0))
