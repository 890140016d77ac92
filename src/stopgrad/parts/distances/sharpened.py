"""Vectors as distributions over their dimensions, the key's sharper than the query's.

Legend: B batch, D width; a query and a key are (B, D) each, row i of both from image i.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from stopgrad.parts.distances.distance import Distance
from stopgrad.parts.precision import single


class CrossEntropy(Distance):
    """Cross-entropy of the query's softmax from the key's, mean over the batch, >= 0; a temperature for each.

    Source: Caron et al. 2021 (DINO), Eq. 1. The centring of the teacher, without which it collapses, belongs
    to the target. In the text the teacher's temperature rises from 0.04 to 0.07 over the first 30 epochs;
    here it is constant, as by default in their code.
    """

    kind: Literal["cross-entropy"] = "cross-entropy"
    normalises: ClassVar[bool] = False
    temperature: float = Field(0.1, gt=0)
    teacher_temperature: float = Field(0.04, gt=0)

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar >= 0."""
        wanted = (single(key) / self.teacher_temperature).softmax(dim=-1)
        return -(wanted * (single(query) / self.temperature).log_softmax(dim=-1)).sum(dim=-1).mean()

    def formula(self) -> str:
        """d(q, k) in one line."""
        return (
            f"d(q, k) = -sum_j softmax(k / {self.teacher_temperature:g})_j "
            f"log softmax(q / {self.temperature:g})_j"
        )
