"""Predictors, one family a file, each as settings and module side by side."""

from typing import Annotated

from pydantic import Field

from stopgrad.parts.predictors.bias import Bias, BiasPredictor
from stopgrad.parts.predictors.fc import TanhFc, TwoFc
from stopgrad.parts.predictors.identity import Identity, IdentityPredictor
from stopgrad.parts.predictors.linear import Linear, LinearPredictor
from stopgrad.parts.predictors.mlp import Mlp, MlpPredictor
from stopgrad.parts.predictors.optimal import Optimal, OptimalPredictor
from stopgrad.parts.predictors.partitioned import Partitioned
from stopgrad.parts.predictors.predictor import ClosedForm, Predictor
from stopgrad.parts.predictors.spectral import DirectPred, Spectral

PredictorSettings = Annotated[
    Identity | Linear | Mlp | Bias | TwoFc | TanhFc | Spectral | Partitioned | Optimal,
    Field(discriminator="kind"),
]

__all__ = [
    "Bias", "BiasPredictor", "ClosedForm", "DirectPred", "Identity", "IdentityPredictor", "Linear",
    "LinearPredictor", "Mlp", "MlpPredictor", "Optimal", "OptimalPredictor", "Partitioned", "Predictor",
    "PredictorSettings", "Spectral", "TanhFc", "TwoFc",
]  # fmt: skip
