"""What losses of a whole batch have in common.

Legend: B batch, D width; a query and a key are (B, D) each, row i of both from image i.
"""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.parts.distances.distance import Distance
from stopgrad.parts.precision import full_precision, single


class BatchLoss(Distance):
    """A loss that compares the images of a batch, in float32 at least and without autocast.

    It needs the rows of all ranks and gives the loss of this one process; `Method` gathers them before.
    """

    of_batch: ClassVar[bool] = True

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar.

        Raises:
            UsageError: for fewer than two rows.
        """
        if len(query) < 2:
            raise UsageError(f"distance: '{self.kind}' compares the images of a batch, it needs two at least")
        with full_precision(query.device):
            return self.of_rows(single(query), single(key))

    @abstractmethod
    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D), of two rows at least and float32 at least, to a scalar."""
