"""What theory and its papers expect of a combination of parts: a line each, with its source.

A line that begins with "Collapse" says that the combination is known to lose its representation.
"""

# ruff: noqa: D102 - what the members of Sentence are is said where Method has them
from typing import Protocol

from stopgrad.parts.distances import DistanceSettings
from stopgrad.parts.gradient import Decomposed, GradientSettings, StraightThrough, Tangential
from stopgrad.parts.pairing import INVERSE, MIRROR, SYMMETRIC, Pair
from stopgrad.parts.predictors import (
    Bias,
    Identity,
    Linear,
    Mlp,
    Optimal,
    Partitioned,
    PredictorSettings,
    Spectral,
    TanhFc,
    TwoFc,
)
from stopgrad.parts.target import Ema, Expectation, Memory, Target


class Sentence(Protocol):
    """The parts of a method, and what they amount to; `stopgrad.method.Method` is one."""

    @property
    def target(self) -> Target: ...
    @property
    def predictor(self) -> PredictorSettings: ...
    @property
    def gradient(self) -> GradientSettings: ...
    @property
    def pairing(self) -> tuple[Pair, ...]: ...
    @property
    def distance(self) -> DistanceSettings: ...
    @property
    def stops_gradient(self) -> bool: ...
    @property
    def functions(self) -> set[str]: ...


PULLING = ("cosine", "squared-l2", "euclidean")
"""Distances that do nothing but draw a query to its key."""

OF_DISTANCE = {
    "infonce": "InfoNCE's negatives take the centre away (o_e) and, weighted by likeness, correlations "
    "between dimensions too (r_e); a high temperature leaves only the first (Zhang et al. 2022, section "
    "3.5).",
    "nt-xent": "The negatives prevent collapse; the loss rewards uniformity on the sphere, more so with "
    "larger batches (Chen et al. 2020, section 5).",
    "triplet": "One random negative prevents collapse by its centre; its residual is noise (Zhang et al. "
    "2022, section 3.2).",
    "simple-contrastive": "All negatives push alike: the centre goes, correlations between dimensions stay "
    "(Zhang et al. 2022, A.7).",
    "decorrelation": "Nothing draws the views together: it spreads the dimensions of batch-normalised "
    "vectors, and raises m_r fast from near collapse (Zhang et al. 2022, Figure 5b).",
    "barlow-twins": "Standardising takes the centre away, the off-diagonal terms the correlations: "
    "collapse has the highest loss (Zbontar et al. 2021, section 2).",
    "vicreg": "The variance term is a barrier against complete collapse, the covariance term against "
    "dimensional collapse (Bardes et al. 2022, section 4).",
    "wmse": "Whitened vectors have unit covariance, so that they cannot collapse; batches must have more "
    "rows than dimensions, better several times as many (Ermolov et al. 2021, section 3).",
    "standardised": "Batch normalisation right before the MSE takes the centre of the normalised vectors "
    "away, which before the l2 norm it would not (Zhang et al. 2022, section 4).",
    "cross-entropy": "Centring alone would end uniform, sharpening alone in one dimension; both together "
    "prevent either collapse (Caron et al. 2021, section 5.3).",
}


def expectations(method: Sentence) -> list[str]:
    """The lines for a method; never empty."""
    lines = [*_of_stopping(method), *_of_pairing(method), *_of_target(method), *_of_gradient(method)]
    return [*lines, *_of_predictor(method), *_of_distance(method)]


def _of_stopping(method: Sentence) -> list[str]:
    if method.distance.kind not in PULLING:
        return []
    lines = []
    if not method.stops_gradient:
        lines.append(
            "Collapse: without stop-gradient the linear model loses every mode when the augmentation's "
            "noise or the weight decay is positive in every direction (Tian et al. 2021, Theorem 2)."
        )
    if isinstance(method.predictor, Identity) and not _slow_or_centred(method):
        if any(pair.weight < 0 for pair in method.pairing):
            lines.append(
                "Without a predictor, running away from the teacher only opposes alignment: it keeps the "
                "views apart and ended below an untrained encoder (Shi et al. 2020, Table 1)."
            )
        else:
            lines.append(
                "Collapse: without a predictor the linear model obeys W' = -W (X' + eta I), so W -> 0, "
                "with or without stop-gradient (Tian et al. 2021, section 2)."
            )
    return lines


def _slow_or_centred(method: Sentence) -> bool:
    target = method.target
    return isinstance(target, Memory | Expectation) or (
        isinstance(target, Ema) and target.centring is not None
    )


def _of_pairing(method: Sentence) -> list[str]:
    if method.pairing == MIRROR:
        return [
            "Collapse: with the gradient on the path without predictor the extra gradient holds the centre "
            "with a positive share, and feeds it (Zhang et al. 2022, sections 2.3 and 3.3)."
        ]
    if method.pairing == SYMMETRIC:
        return [
            "Encoder and predictor are one naive Siamese network, whose output p collapses; z, which the "
            "predictor reads, need not (Zhang et al. 2022, Table 2)."
        ]
    if method.pairing == INVERSE:
        return [
            "The target passes a learned inverse of the predictor: near SimSiam, a little below it, as far "
            "as the inverse is exact (Zhang et al. 2022, Figure 3)."
        ]
    crossed = [pair for pair in method.pairing if pair.key.startswith("t") and pair.query[1:] == pair.key[1:]]
    aligned = any(pair.query.startswith("p") and pair.key.startswith("p") for pair in method.pairing)
    if crossed and aligned and not isinstance(method.predictor, Identity):
        return [
            "For a predictor that ends in a linear layer, L_RAFT(theta, -W) = L_BYOL'(theta, W) - 4b: "
            "running away from the teacher and following it are one method (from Shi et al. 2020, "
            "Theorem 5.1)."
        ]
    return []


def _of_target(method: Sentence) -> list[str]:
    if isinstance(method.target, Memory):
        return [
            "The moving average of each image keeps training from collapse without a predictor, for it "
            "moves slowly; not because it averages over augmentations (Zhang et al. 2022, Table 1)."
        ]
    if isinstance(method.target, Expectation):
        return [
            "Collapse: a mean over augmentations of the same batch does not stand in for a predictor "
            "(Zhang et al. 2022, Table 1)."
        ]
    return []


def _of_gradient(method: Sentence) -> list[str]:
    gradient = method.gradient
    if isinstance(gradient, StraightThrough):
        return [
            "IsoLoss: lambda_m times its gradient is the plain one's in every eigenmode of the predictor, "
            "so that small modes learn as fast as large ones (Halvagal et al. 2023, section 4)."
        ]
    if isinstance(gradient, Tangential):
        return [
            "Through the l2 norm only the tangential part reaches the weights anyway: the gradients are "
            "those of the exact loss (Shi et al. 2020, Theorem 5.1)."
        ]
    if not isinstance(gradient, Decomposed) or (gradient.center and gradient.residual):
        return []
    if gradient.center:
        return ["o_e alone takes the centre away and prevents collapse (Zhang et al. 2022, Tables 3 and 4)."]
    if gradient.residual and method.distance.kind == "cosine":
        return ["r_e alone prevents collapse by de-correlating the dimensions (Zhang et al. 2022, Table 4)."]
    return [
        "Collapse: without o_e nothing takes the centre away, and "
        + (
            "a random negative's r_e is noise"
            if gradient.residual
            else "without r_e nothing spreads the rest"
        )
        + " (Zhang et al. 2022, Tables 3 and 4)."
    ]


def _of_predictor(method: Sentence) -> list[str]:
    predictor, lines = method.predictor, []
    if isinstance(predictor, Linear | Spectral | Partitioned) and method.stops_gradient:
        lines.append(
            "A linear predictor: the modes obey s = p^2/alpha_p + exp(-2 eta t) c, and collapse is "
            "unavoidable for eta > tau^2 / (4 (1 + sigma^2)) (Tian et al. 2021, section 3)."
        )
    if isinstance(predictor, Spectral | Partitioned):
        lines.append(
            "W_p shares its eigenspace with the correlation of z by construction; eps lifts its small "
            "eigenvalues and keeps weak modes from dying (Tian et al. 2021, section 4)."
        )
    if isinstance(predictor, Optimal):
        lines.append(
            "A predictor at its optimum at every instant leaves the encoder no growth: W W^T only decays, "
            "as exp(-2 eta t) (Tian et al. 2021, Observation 2 and Table 1)."
        )
    if isinstance(predictor, Mlp) and method.stops_gradient and not method.functions:
        lines.append("An MLP predictor has no closed form; SimSiam and BYOL train with it in practice.")
    if isinstance(predictor, Bias):
        lines.append(
            "The bias comes to rest at a multiple of the centre of z and takes it out of the gradient: "
            "enough against complete collapse, not against correlation (Zhang et al. 2022, section 4 and "
            "A.8)."
        )
    if isinstance(predictor, TwoFc | TanhFc):
        lines.append(
            "Linear in z: it learns the correlations between dimensions, which suffices (Zhang et al. "
            "2022, Table 5)."
        )
    return lines


def _of_distance(method: Sentence) -> list[str]:
    line = OF_DISTANCE.get(method.distance.kind)
    return [] if line is None else [line]
