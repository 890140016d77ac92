"""No predictor: p = z."""

from typing import Literal

from torch import Tensor

from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.predictor import Predictor


class Identity(Frozen):
    """No predictor. Tian et al. 2021, section 2: the linear network then collapses."""

    kind: Literal["identity"] = "identity"

    def build(self, dim: int) -> "IdentityPredictor":
        """The module for projections of width ``dim``."""
        return IdentityPredictor()

    def equation(self) -> str:
        """How p_v is made, in one line."""
        return "p_v = z_v"


class IdentityPredictor(Predictor):
    """Returns its input."""

    def forward(self, z: Tensor) -> Tensor:
        """``z`` itself."""
        return z
