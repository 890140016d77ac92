"""Evaluation by several processes: who embeds which images, and how the results come together.

Shapes: N rows over all processes, D width.
"""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Shares:
    """This process among those that evaluate together; alone by default.

    All processes call the same methods in the same order: they are collective. ``device`` is where messages
    pass.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def of(self, count: int, unit: int = 1) -> slice:
        """This process's rows of ``count``: contiguous, and whole groups of ``unit`` rows but for the last.

        The first process has some wherever there are any.
        """
        return self._all(count, unit)[self.rank]

    def gather(self, own: Tensor, count: int, unit: int = 1) -> Tensor:
        """The rows (N, D) of all processes on the CPU, from each one's share `of` them.

        Every process gets all rows. A share without rows has any width.
        """
        if self.world == 1:
            return own
        width = torch.tensor(own.shape[1], device=self.device)
        dist.broadcast(width, 0)
        rows = torch.empty(count, int(width), dtype=own.dtype)
        for rank, share in enumerate(self._all(count, unit)):
            if rank == self.rank and len(own):
                rows[share] = own.cpu()
            for part in rows[share].split(ROWS_AT_ONCE):
                message = part.to(self.device)
                dist.broadcast(message, rank)
                part.copy_(message)
        return rows

    def sum(self, value: int) -> int:
        """The sum of a whole number over all processes."""
        if self.world == 1:
            return value
        total = torch.tensor(value, device=self.device)
        dist.all_reduce(total)
        return int(total)

    def _all(self, count: int, unit: int) -> list[slice]:
        groups = -(-count // unit)
        ends = [min(count, unit * -(-groups * (rank + 1) // self.world)) for rank in range(self.world)]
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


ALONE = Shares()
