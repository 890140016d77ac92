"""Predictors, one family a file, each as settings and module side by side."""

from typing import Annotated

from pydantic import Field

from stopgrad.parts.predictors.identity import Identity, IdentityPredictor
from stopgrad.parts.predictors.linear import Linear, LinearPredictor
from stopgrad.parts.predictors.mlp import Mlp, MlpPredictor
from stopgrad.parts.predictors.predictor import Predictor
from stopgrad.parts.predictors.spectral import DirectPred, Spectral

PredictorSettings = Annotated[Identity | Linear | Mlp | Spectral, Field(discriminator="kind")]

__all__ = [
    "DirectPred", "Identity", "IdentityPredictor", "Linear", "LinearPredictor", "Mlp", "MlpPredictor",
    "Predictor", "PredictorSettings", "Spectral",
]  # fmt: skip
