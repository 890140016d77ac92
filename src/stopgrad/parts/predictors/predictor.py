"""What every predictor can do.

Legend: B batch, D width of the projection; z_v and t_v (B, D) the online and the target projection of view v.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stopgrad.parts.precision import full_precision
from stopgrad.parts.predictors.eigenvectors import one_thread
from stopgrad.parts.predictors.moments import Moments


class Predictor(nn.Module):
    """A map of projections (B, D) to predictions (B, D).

    Whatever a predictor changes in itself beyond the optimiser's step happens in `after_step`, which the
    trainer calls once per training step: never in ``forward``, so evaluation changes nothing.
    """

    @property
    def matrix(self) -> Tensor | None:
        """W_p (D, D) of a predictor p = W_p z (+ b); None for any other, and while it has not been set."""
        return None

    def after_step(self, z: Sequence[Tensor], t: Sequence[Tensor] = ()) -> None:
        """Update the predictor after the optimiser's step.

        Args:
            z: the online projections of this step's views, each (B, D) and detached.
            t: the target projections of the same views in the same order; only `OptimalPredictor` reads them.
        """


class ClosedForm(Predictor, ABC):
    """p = W_p z with W_p set from averages over the training steps, where no gradient need reach it.

    W_p is set after the first step and after every ``freq``-th one from there on, as in the code of Tian et
    al. 2021; in between, the optimiser moves it freely, and its momentum is kept.

    Args:
        dim: width D of the projections.
        rows: rows of W_p, D for one matrix.
        freq: steps from one W_p to the next, >= 1.
        moments: the averages.
    """

    def __init__(self, dim: int, rows: int, freq: int, moments: Moments):
        super().__init__()
        self.freq, self.moments = freq, moments
        self.linear = nn.Linear(dim, rows, bias=False)
        # a weight that is overwritten at every step needs no gradient
        self.linear.weight.requires_grad_(freq > 1)

    @property
    def matrix(self) -> Tensor | None:
        """W_p (D, D), None before the first step and where the rows are those of several matrices."""
        weight = self.linear.weight
        return weight if self.moments.steps and len(weight) == weight.shape[1] else None

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return self.linear(z)

    @torch.no_grad()
    def after_step(self, z: Sequence[Tensor], t: Sequence[Tensor] = ()) -> None:
        """Move the averages by this step's projections and set W_p when its turn has come.

        Args:
            z: the raw projections of each view, (B, D): uncentred and not normalised.
            t: the raw target projections of the same views.
        """
        due = self.moments.steps % self.freq == 0
        with full_precision(z[0].device):
            self.observe(z, t)
            if due:
                with one_thread(self.linear.weight):
                    self.linear.weight.copy_(self.solve())

    @abstractmethod
    def observe(self, z: Sequence[Tensor], t: Sequence[Tensor]) -> None:
        """Move the averages by one step; nothing else does."""

    @abstractmethod
    def solve(self) -> Tensor:
        """W_p (rows, D) for the present averages."""
