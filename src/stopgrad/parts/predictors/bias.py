"""A predictor of one learned vector."""

from typing import Literal

import torch
from torch import Tensor, nn

from stopgrad.diagnostics import unit
from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.predictor import Predictor


class Bias(Frozen):
    """p = z/||z|| + b. Source: Zhang et al. 2022, section 5, Table 5 and appendix A.8.

    The paper puts an l2 normalisation before its simple predictors, without which they do not train; the
    default does so. Against unit targets b then comes to rest at a multiple of the centre E[z/||z||].
    """

    kind: Literal["bias"] = "bias"
    normalise: bool = True

    def build(self, dim: int) -> "BiasPredictor":
        """The module for projections of width ``dim``."""
        return BiasPredictor(dim, self.normalise)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        return f"p_v = {'z_v/||z_v||' if self.normalise else 'z_v'} + b"


class BiasPredictor(Predictor):
    """Adds a vector that starts at zero."""

    def __init__(self, dim: int, normalise: bool = True):
        super().__init__()
        self.normalise = normalise
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return (unit(z) if self.normalise else z) + self.bias
