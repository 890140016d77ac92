"""What gradient the projection receives through the predictor."""

from typing import Literal

from torch import Tensor

GradientName = Literal["exact", "straight-through"]


def straight_through(z: Tensor, p: Tensor) -> Tensor:
    """A tensor with the value of ``p`` whose gradient goes to ``z`` as if the predictor were the identity.

    With a predictor that is symmetric and set in closed form, a plain loss on this tensor has exactly the
    gradients of IsoLoss. Source: Halvagal et al. 2023, section 4; `z + sg(p - z)` is our reading of it.
    """
    return z + (p - z).detach()
