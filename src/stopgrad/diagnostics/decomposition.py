"""Centre and residual of rows, and of the gradient that a method adds to a naive Siamese network's.

Source: Zhang et al. 2022, sections 3.1 to 3.3. Rows are (N, D).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.diagnostics.spread import unit


class Parts(NamedTuple):
    """Rows as centre (D,), their mean, and residual (N, D), what is left."""

    center: Tensor
    residual: Tensor


def decompose(rows: Tensor) -> Parts:
    """o and r of rows (N, D), which are taken as they are; `unit` normalises.

    Raises:
        ValueError: unless rows is a matrix with at least one row.
    """
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"rows: must be a matrix of at least one row, its shape is {tuple(rows.shape)}")
    center = rows.mean(dim=0)
    return Parts(center, rows - center)


@dataclass(frozen=True)
class Gradient:
    """Minus the gradient by the anchors, (N, D), as a basic and an extra part.

    Attributes:
        basic: what the naive Siamese network has.
        extra: G_e, what the method adds.
    """

    basic: Tensor
    extra: Tensor

    @property
    def full(self) -> Tensor:
        """basic + extra. (N, D)"""
        return self.basic + self.extra

    @property
    def o_e(self) -> Tensor:
        """The extra gradient's centre. (D,)"""
        return decompose(self.extra).center

    @property
    def r_e(self) -> Tensor:
        """The extra gradient's residual. (N, D)"""
        return decompose(self.extra).residual

    def target(self, *, center: bool = True, residual: bool = True) -> Tensor:
        """sg(basic + the parts of G_e that are kept), for a loss -<anchor, target> with just that gradient.

        ``residual=False`` is "removing r_e" of Tables 3 and 4, ``center=False`` "removing o_e". (N, D)
        """
        o_e, r_e = decompose(self.extra)
        return (self.basic + (o_e if center else 0.0) + (r_e if residual else 0.0)).detach()


class ExtraCosines(NamedTuple):
    """Cosines of the extra gradient's components, each in [-1, 1]; see `extra_cosines`."""

    o_e_o_z: float
    o_e_o_p: float
    r_e_decorrelation: float


def extra_cosines(gradient: Gradient, z: Tensor, p: Tensor | None = None) -> ExtraCosines:
    """What o_e and r_e point along: the centres of z and p, and the way that de-correlates z.

    o_e against o_z or o_p is below zero where the method de-centres them; r_e against `decorrelation_pull` is
    above zero where it de-correlates. Source: Zhang et al. 2022, sections 3.2 to 3.5, Figs. 5a and 5c.

    Args:
        gradient: of the method, (N, D), such as `Gradient(unit(p_b), unit(z_b) - unit(p_b))` for SimSiam.
        z: projections of the anchors (N, D), not yet normalised.
        p: their predictions (N, D), where there is a predictor; o_e_o_p is NaN without.

    Returns:
        The cosines, r_e's of the matrices as vectors; NaN where one of the two is zero.
    """
    o_e = gradient.o_e
    return ExtraCosines(
        _cosine(o_e, decompose(unit(z)).center),
        _cosine(o_e, decompose(unit(p)).center) if p is not None else torch.nan,
        _cosine(gradient.r_e, decorrelation_pull(z)),
    )


def decorrelation_pull(z: Tensor) -> Tensor:
    """Minus the gradient of `off_diagonal_covariance` by the l2-normalised rows, (N, D).

    Source: Zhang et al. 2022, A.6. Its rows sum to zero.

    Raises:
        ValueError: unless z is a matrix with at least two rows.
    """
    if z.ndim != 2 or len(z) < 2:
        raise ValueError(f"z: must be a matrix of at least two rows, its shape is {tuple(z.shape)}")
    count, dim = z.shape
    residual = decompose(unit(z)).residual
    covariance = residual.T @ residual / (count - 1)
    off_diagonal = covariance - covariance.diagonal().diag()
    return -4 / (dim * (count - 1)) * residual @ off_diagonal


def _cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.flatten().double(), b.flatten().double()
    return float(a @ b / (a.norm() * b.norm()))
