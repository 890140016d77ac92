"""What a representation looks like, from its vectors alone. Needs torch and nothing else of this package.

Legend for all its files: N vectors of width D, one a row.
"""

from stopgrad.diagnostics.decomposition import (
    ExtraCosines,
    Gradient,
    Parts,
    decompose,
    decorrelation_pull,
    extra_cosines,
)
from stopgrad.diagnostics.diagnosis import Diagnosis, Evidence, Fix, Reading, Verdict
from stopgrad.diagnostics.doctor import examine
from stopgrad.diagnostics.gradients import (
    GradientNoise,
    gradient_noise_of_parts,
    gradient_noise_scale,
    gradient_norms,
)
from stopgrad.diagnostics.intervals import Interval, interval
from stopgrad.diagnostics.spectrum import (
    alpha_req,
    effective_rank,
    lidar,
    off_diagonal_covariance,
    participation_ratio,
    rankme,
    spectrum,
)
from stopgrad.diagnostics.spread import (
    alignment,
    center_norm,
    embedding_std,
    residual_norm,
    uniformity,
    unit,
)
from stopgrad.diagnostics.statistics import GroupStatistics, PairStatistics, VectorStatistics
from stopgrad.diagnostics.verdict import judge
from stopgrad.diagnostics.weights import (
    asymmetry,
    commutator_norm,
    eigenspace_alignment,
    eigenvector_cosine,
    negative_part,
    parameter_distance,
    predictor_optimality_gap,
    weight_spectrum,
)

__all__ = [
    "Diagnosis",
    "Evidence",
    "ExtraCosines",
    "Fix",
    "Gradient",
    "GradientNoise",
    "GroupStatistics",
    "Interval",
    "PairStatistics",
    "Parts",
    "Reading",
    "VectorStatistics",
    "Verdict",
    "alignment",
    "alpha_req",
    "asymmetry",
    "center_norm",
    "commutator_norm",
    "decompose",
    "decorrelation_pull",
    "effective_rank",
    "eigenspace_alignment",
    "eigenvector_cosine",
    "embedding_std",
    "examine",
    "extra_cosines",
    "gradient_noise_of_parts",
    "gradient_noise_scale",
    "gradient_norms",
    "interval",
    "judge",
    "lidar",
    "negative_part",
    "off_diagonal_covariance",
    "parameter_distance",
    "participation_ratio",
    "predictor_optimality_gap",
    "rankme",
    "residual_norm",
    "spectrum",
    "uniformity",
    "unit",
    "weight_spectrum",
]
