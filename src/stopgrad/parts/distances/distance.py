"""What every distance can do.

Legend: B batch, D width; a query and a key are nodes of the loss, (B, D) each, row i of both from image i.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from stopgrad.diagnostics import Gradient
from stopgrad.frozen import Frozen


class Distance(Frozen, ABC):
    """How far queries are from their keys: a pure function of two (B, D) tensors to a scalar."""

    kind: str  # first, so that settings files open with it; the subclasses say which

    of_batch: ClassVar[bool] = False
    """Whether it is more than a mean over pairs: rows then meet those of all ranks."""
    normalises: ClassVar[bool] = True
    """Whether the lengths of the rows make no difference."""

    @abstractmethod
    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar."""

    @abstractmethod
    def formula(self) -> str:
        """d(q, k) in one line."""

    def pull(self, query: Tensor, key: Tensor, basic: Tensor) -> Gradient | None:
        """Minus the gradient by the l2-normalised query, as a basic and an extra part (B, D); no mean over B.

        Args:
            query: (B, D), raw like the others.
            key: (B, D), what the query is drawn to.
            basic: (B, D), what it would be drawn to in a network without a predictor or negatives.

        Returns:
            None where the gradient has no such parts. Source: Zhang et al. 2022, section 3.
        """
        return None
