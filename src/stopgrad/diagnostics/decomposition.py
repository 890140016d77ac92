"""Centre and residual of rows, and of the gradient that a method adds to a naive Siamese network's.

Source: Zhang et al. 2022, sections 3.1 to 3.3. Rows are (N, D).
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


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
