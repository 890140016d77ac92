"""The two-layer predictor of BYOL and SimSiam."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.predictor import Predictor


class Mlp(Frozen):
    """p = W_2 relu(BN(W_1 z)) + b_2. Source: Grill et al. 2020, section 3.2; Chen and He 2021, section 4.

    ``hidden`` is the width between the two layers; ``bn`` normalises it, ``affine`` gives that
    normalisation a scale and a shift. W_1 has a bias only without BN, where it is not cancelled.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(512, ge=1)
    bn: bool = True
    affine: bool = True

    def build(self, dim: int) -> "MlpPredictor":
        """The module for projections of width ``dim``."""
        return MlpPredictor(dim, self.hidden, self.bn, self.affine)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        inner = "BN(W_1 z_v)" if self.bn else "W_1 z_v + b_1"
        return f"p_v = W_2 relu({inner}) + b_2, {self.hidden} hidden units"


class MlpPredictor(Predictor):
    """Linear, batch normalisation, ReLU, Linear."""

    def __init__(self, dim: int, hidden: int = 512, bn: bool = True, affine: bool = True):
        super().__init__()
        norm = [nn.BatchNorm1d(hidden, affine=affine)] if bn else []
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden, bias=not bn), *norm, nn.ReLU(inplace=True), nn.Linear(hidden, dim)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return self.layers(z)
