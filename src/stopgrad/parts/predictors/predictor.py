"""What every predictor can do."""

from collections.abc import Sequence

from torch import Tensor, nn


class Predictor(nn.Module):
    """A map of projections (B, D) to predictions (B, D).

    Whatever a predictor changes in itself beyond the optimiser's step happens in `after_step`, which the
    trainer calls once per training step: never in ``forward``, so evaluation changes nothing.
    """

    def after_step(self, z: Sequence[Tensor]) -> None:
        """Update the predictor after the optimiser's step.

        Args:
            z: the online projections of this step's views, each (B, D) and detached.
        """
