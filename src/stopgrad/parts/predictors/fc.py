"""The linear predictors of Zhang et al. 2022, section 5, Table 5: two FC layers, and Tanh(FC)."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear

from stopgrad.diagnostics import unit
from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.predictor import Predictor


class TwoFc(Frozen):
    """p = W_2 W_1 z/||z|| + b. Source: Zhang et al. 2022, section 5, Table 5 (FC + FC + Bias).

    It is their MLP without BN and ReLU, hence the ``hidden`` units of the MLP and no bias on W_1. The paper
    calls it equivalent to one FC layer; that holds only where ``hidden`` is at least the width of z, since
    W_2 W_1 has rank ``hidden`` at most. ``normalise`` is the paper's l2 layer before it.
    """

    kind: Literal["two-fc"] = "two-fc"
    hidden: int = Field(512, ge=1)
    normalise: bool = True

    def build(self, dim: int) -> "TwoFcPredictor":
        """The module for projections of width ``dim``."""
        return TwoFcPredictor(dim, self.hidden, self.normalise)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        z = "z_v/||z_v||" if self.normalise else "z_v"
        return f"p_v = W_2 W_1 {z} + b, {self.hidden} hidden units"


class TwoFcPredictor(Predictor):
    """Linear without bias, Linear with bias."""

    def __init__(self, dim: int, hidden: int = 512, normalise: bool = True):
        super().__init__()
        self.normalise = normalise
        self.layers = nn.Sequential(nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim))

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return self.layers(unit(z) if self.normalise else z)


class TanhFc(Frozen):
    """One FC layer whose weights tanh keeps in (-1, 1). Source: Zhang et al. 2022, section 5, Table 5.

    The text can be read in two ways. ``in-place`` (default: "after every iteration"): p = W z and
    W <- tanh(W) after each step, which also pulls W to zero, as fast as sqrt(3 / (2 k)) after k steps without
    a gradient. ``reparameterised``: p = tanh(W) z. ``normalise`` is the paper's l2 layer before it.
    """

    kind: Literal["tanh-fc"] = "tanh-fc"
    reading: Literal["in-place", "reparameterised"] = "in-place"
    normalise: bool = True

    def build(self, dim: int) -> "InPlaceTanhPredictor | TanhWeightPredictor":
        """The module for projections of width ``dim``."""
        module = InPlaceTanhPredictor if self.reading == "in-place" else TanhWeightPredictor
        return module(dim, self.normalise)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        z = "z_v/||z_v||" if self.normalise else "z_v"
        if self.reading == "in-place":
            return f"p_v = W {z}, W <- tanh(W) after each step"
        return f"p_v = tanh(W) {z}"


class InPlaceTanhPredictor(Predictor):
    """p = W z, W <- tanh(W) after each step."""

    def __init__(self, dim: int, normalise: bool = True):
        super().__init__()
        self.normalise = normalise
        self.linear = nn.Linear(dim, dim, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return self.linear(unit(z) if self.normalise else z)

    @torch.no_grad()
    def after_step(self, z: Sequence[Tensor], t: Sequence[Tensor] = ()) -> None:
        """W <- tanh(W)."""
        self.linear.weight.tanh_()


class TanhWeightPredictor(Predictor):
    """p = tanh(W) z."""

    def __init__(self, dim: int, normalise: bool = True):
        super().__init__()
        self.normalise = normalise
        self.linear = nn.Linear(dim, dim, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return linear(unit(z) if self.normalise else z, self.linear.weight.tanh())
