"""A learned linear predictor, free or kept symmetric."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.predictor import Predictor


class Linear(Frozen):
    """p = W_p z (+ b). Source: Tian et al. 2021, Eq. 1 and Table 3.

    ``symmetric`` projects W_p onto the symmetric matrices after each optimiser step, which is the gradient
    step within them because the projection is linear and orthogonal.
    """

    kind: Literal["linear"] = "linear"
    bias: bool = False
    symmetric: bool = False

    def build(self, dim: int) -> "LinearPredictor":
        """The module for projections of width ``dim``."""
        return LinearPredictor(dim, self.bias, self.symmetric)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        symmetric = ", W_p <- (W_p + W_p^T)/2 after each step" if self.symmetric else ""
        return f"p_v = W_p z_v{' + b' if self.bias else ''}, W_p learned{symmetric}"


class LinearPredictor(Predictor):
    """p = W_p z (+ b) with PyTorch's default initialisation, symmetrised if asked."""

    def __init__(self, dim: int, bias: bool = False, symmetric: bool = False):
        super().__init__()
        self.symmetric = symmetric
        self.linear = nn.Linear(dim, dim, bias=bias)
        self.after_step(())

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return self.linear(z)

    @torch.no_grad()
    def after_step(self, z: Sequence[Tensor]) -> None:
        """Project the weight onto the symmetric matrices, if asked."""
        if self.symmetric:
            weight = self.linear.weight
            weight.copy_((weight + weight.T) / 2)
