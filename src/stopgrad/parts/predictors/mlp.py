"""The two-layer predictor of BYOL and SimSiam, free or with its layers tied."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.predictor import Predictor


class Mlp(Frozen):
    """p = W_2 relu(BN(W_1 z)) + b_2. Source: Grill et al. 2020, section 3.2; Chen and He 2021, section 4.

    ``hidden`` is the width between the two layers; ``bn`` normalises it, ``affine`` gives that
    normalisation a scale and a shift. ``bias`` is b_2, and without BN also W_1's; with BN it would cancel.

    ``symmetric`` ties the layers, W_2 = W_1^T, by projection after each optimiser step as Tian et al. 2021
    (Table 3, their code) do. At fixed statistics of BN the map then has a symmetric Jacobian.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(512, ge=1)
    bn: bool = True
    affine: bool = True
    bias: bool = True
    symmetric: bool = False

    def build(self, dim: int) -> "MlpPredictor":
        """The module for projections of width ``dim``."""
        return MlpPredictor(dim, self.hidden, self.bn, self.affine, self.bias, self.symmetric)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        inner = "BN(W_1 z_v)" if self.bn else f"W_1 z_v{' + b_1' if self.bias else ''}"
        plain = ", BN without scale and shift" if self.bn and not self.affine else ""
        tied = ", W_1 and W_2^T <- (W_1 + W_2^T)/2 after each step" if self.symmetric else ""
        return (
            f"p_v = W_2 relu({inner}){' + b_2' if self.bias else ''}, {self.hidden} hidden units{plain}{tied}"
        )


class MlpPredictor(Predictor):
    """Linear, batch normalisation, ReLU, Linear."""

    def __init__(
        self,
        dim: int,
        hidden: int = 512,
        bn: bool = True,
        affine: bool = True,
        bias: bool = True,
        symmetric: bool = False,
    ):
        super().__init__()
        self.symmetric = symmetric
        norm = [nn.BatchNorm1d(hidden, affine=affine)] if bn else []
        first = nn.Linear(dim, hidden, bias=bias and not bn)
        self.layers = nn.Sequential(first, *norm, nn.ReLU(inplace=True), nn.Linear(hidden, dim, bias=bias))
        self.after_step(())

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return self.layers(z)

    @torch.no_grad()
    def after_step(self, z: Sequence[Tensor], t: Sequence[Tensor] = ()) -> None:
        """Give both layers the mean of W_1 and W_2^T, if asked."""
        if self.symmetric:
            first, second = self.layers[0], self.layers[-1]
            assert isinstance(first, nn.Linear)
            assert isinstance(second, nn.Linear)
            tied = (first.weight + second.weight.T) / 2
            first.weight.copy_(tied)
            second.weight.copy_(tied.T)
