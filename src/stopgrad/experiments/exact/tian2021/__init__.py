"""The exact claims of Tian et al. 2021 (DirectPred), and what they measure on a trained predictor."""

from stopgrad.experiments.exact.tian2021.matrices import figure7, figure8, figure9
from stopgrad.experiments.exact.tian2021.modes import figure3, figure4, figure5, observations
from stopgrad.experiments.exact.tian2021.nonisotropic import appendix_d, figure10
from stopgrad.experiments.exact.tian2021.theorems import (
    decoupled,
    integral,
    lemma1,
    theorem1,
    theorem2,
    theorem3,
    without_predictor,
)
from stopgrad.experiments.exact.tian2021.trained import figure2

__all__ = [
    "appendix_d",
    "decoupled",
    "figure2",
    "figure3",
    "figure4",
    "figure5",
    "figure7",
    "figure8",
    "figure9",
    "figure10",
    "integral",
    "lemma1",
    "observations",
    "theorem1",
    "theorem2",
    "theorem3",
    "without_predictor",
]
