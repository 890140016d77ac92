"""Averages over the training steps of statistics of the joint batch: what closed-form predictors are made of.

Legend: B batch of one process, D width of the projection, V views.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stopgrad.parts.precision import single
from stopgrad.parts.ranks import joint_means

Rho = Annotated[float, Field(ge=0, lt=1)] | Literal["mean"]
"""Share of an average that is kept per step (Tian et al. 2021, Eq. 19), or the mean of all steps so far."""


class Moments(nn.Module):
    """Averages that are moved once per training step, in `update` alone, and saved with the weights.

    The first step sets them. Under ``torch.distributed`` every rank holds what one process would hold on the
    joint batch. They are float32 whatever the precision of the training.

    Args:
        rho: share that is kept per step, in [0, 1), or "mean".
        shapes: shape of each average by its name; each is a buffer of that name.

    Examples:
        >>> moments = Moments(0.5, mean=(1,))
        >>> moments.update(2, mean=torch.tensor([6.0]))
        >>> moments.update(2, mean=torch.tensor([2.0]))
        >>> moments.mean
        tensor([2.])
    """

    def __init__(self, rho: float | Literal["mean"], **shapes: tuple[int, ...]):
        super().__init__()
        self.rho, self.steps = rho, 0
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    @torch.no_grad()
    def update(self, count: int, **sums: Tensor) -> None:
        """Move every average by one step.

        Args:
            count: samples of this process.
            sums: for every average, the sum of its statistic over these samples.
        """
        self.steps += 1
        fresh = 1 / self.steps if self.rho == "mean" else 1 - self.rho if self.steps > 1 else 1.0
        for name, mean in joint_means(sums, count).items():
            average = self.get_buffer(name)
            average.lerp_(mean.to(average.dtype), fresh)

    def get_extra_state(self) -> Tensor:
        """The number of steps taken, a host-side count."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of steps."""
        self.steps = int(state)

    @staticmethod
    def equation(rho: float | Literal["mean"], name: str, batch: str) -> str:
        """How the average ``name`` follows the statistic ``batch`` of each step, in one line."""
        if rho == "mean":
            return f"{name} = mean of {batch} over the steps"
        return f"{name} <- {rho:g} {name} + {1 - rho:g} {batch}"


def joined(views: Sequence[Tensor]) -> Tensor:
    """Vectors of all views below each other, (V B, D), detached and float32 at least."""
    joint = torch.cat([view.detach() for view in views])
    return single(joint)
