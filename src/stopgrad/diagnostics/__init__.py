"""What a representation looks like, from its vectors alone. Needs torch and nothing else of this package.

Legend for all its files: N vectors of width D, one a row.
"""

from stopgrad.diagnostics.decomposition import Gradient, Parts, decompose
from stopgrad.diagnostics.spectrum import effective_rank, spectrum
from stopgrad.diagnostics.spread import (
    alignment,
    center_norm,
    embedding_std,
    residual_norm,
    uniformity,
    unit,
)
from stopgrad.diagnostics.verdict import Evidence, Verdict, judge

__all__ = [
    "Evidence",
    "Gradient",
    "Parts",
    "Verdict",
    "alignment",
    "center_norm",
    "decompose",
    "effective_rank",
    "embedding_std",
    "judge",
    "residual_norm",
    "spectrum",
    "uniformity",
    "unit",
]
