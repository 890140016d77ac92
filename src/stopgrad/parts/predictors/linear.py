"""A learned linear predictor, free or kept symmetric."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.predictor import Predictor

Init = Literal["default", "xavier", "identity"]


class Linear(Frozen):
    """p = W_p z (+ b). Source: Tian et al. 2021, Eq. 1 and Table 3.

    ``symmetric`` projects W_p onto the symmetric matrices after each optimiser step, which is the gradient
    step within them because the projection is linear and orthogonal.

    ``init``: ``default`` is PyTorch's; ``xavier`` is uniform by Xavier's rule with b = 0, as Tian et al.'s
    code draws a predictor anew; ``identity`` starts as p = z, the LPI of Shi et al. (RAFT). There is no start
    at zero: p = 0 has no direction, so a cosine loss has no gradient there.
    """

    kind: Literal["linear"] = "linear"
    bias: bool = False
    symmetric: bool = False
    init: Init = "default"

    def build(self, dim: int) -> "LinearPredictor":
        """The module for projections of width ``dim``."""
        return LinearPredictor(dim, self.bias, self.symmetric, self.init)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        start = {"default": "", "xavier": " from Xavier's start", "identity": " from I"}[self.init]
        symmetric = ", W_p <- (W_p + W_p^T)/2 after each step" if self.symmetric else ""
        return f"p_v = W_p z_v{' + b' if self.bias else ''}, W_p learned{start}{symmetric}"


class LinearPredictor(Predictor):
    """p = W_p z (+ b)."""

    def __init__(self, dim: int, bias: bool = False, symmetric: bool = False, init: Init = "default"):
        super().__init__()
        self.symmetric = symmetric
        self.linear = nn.Linear(dim, dim, bias=bias)
        if init == "xavier":
            nn.init.xavier_uniform_(self.linear.weight)
        elif init == "identity":
            nn.init.eye_(self.linear.weight)
        if bias and init != "default":
            nn.init.zeros_(self.linear.bias)
        self.after_step(())

    @property
    def matrix(self) -> Tensor:
        """W_p (D, D)."""
        return self.linear.weight

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return self.linear(z)

    @torch.no_grad()
    def after_step(self, z: Sequence[Tensor], t: Sequence[Tensor] = ()) -> None:
        """Project the weight onto the symmetric matrices, if asked."""
        if self.symmetric:
            weight = self.linear.weight
            weight.copy_((weight + weight.T) / 2)
