"""Linear probe: multinomial logistic regression on frozen features.

Shapes: N training images, V validation images, M test images, D features, K classes.
"""

import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.evaluation.vectors import check_labels, check_vectors

GRID = tuple(10.0**exponent for exponent in range(-4, 3))
"""Inverse regularisation strengths tried, for features scaled to unit variance."""
HELD_OUT = 0.2
"""Fraction of each class's training images that chooses C where no validation part is given."""
MAX_ITERATIONS = 500
ONE_THREAD_UP_TO = 10**8
"""N * D * K below which a second BLAS thread costs more than it gives: 4096 x 128 x 10 on two busy cores
took 0.6 s with one thread and 2.3 s with two."""


@dataclass(frozen=True)
class ProbeResult:
    """Result of a linear probe.

    Attributes:
        accuracy: fraction in [0, 1] on the test part.
        c: the chosen inverse regularisation strength: C of scikit-learn's ``LogisticRegression``, for the
            standardised features or, with ``standardise=False``, for the features as given.
        validation_accuracy: fraction in [0, 1] that chose it.
    """

    accuracy: float
    c: float
    validation_accuracy: float


@dataclass(frozen=True)
class _Part:
    features: np.ndarray
    labels: np.ndarray


def linear_probe(
    train: Tensor,
    train_labels: Tensor | None,
    test: Tensor,
    test_labels: Tensor | None,
    validation: tuple[Tensor, Tensor] | None = None,
    standardise: bool = True,
    seed: int = 0,
) -> ProbeResult:
    """Fit on the training part by L-BFGS, choose C without the test part, score on the test part.

    C is the best of :data:`GRID` on the validation part (the strongest regularisation among equals); with
    no validation part, on a stratified fifth of the training part. The classifier that is scored is fitted
    on the whole training part.

    Args:
        train: (N, D) features.
        train_labels: (N,) class indices.
        test: (M, D) features.
        test_labels: (M,) class indices.
        validation: features (V, D) and class indices (V,).
        standardise: divide each feature by its own standard deviation over the training part. If not, all
            features by one common scale, which changes what ``GRID`` means and leaves the model that of
            the raw features.
        seed: of the stratified split.

    Raises:
        UsageError: no labels, a single class, NaN or infinity, widths that differ, or too few labels to
            hold some out.
    """
    fit_part = _part(train, train_labels, "linear probe, training part")
    test_part = _part(test, test_labels, "linear probe, test part")
    if len(np.unique(fit_part.labels)) < 2:
        raise UsageError("linear probe, training part: all labels are of one class; it needs two or more")
    if validation is None:
        choose_fit, choose_score = _held_out(fit_part, seed)
    else:
        choose_fit, choose_score = fit_part, _part(*validation, "linear probe, validation part")
    for part in (choose_score, test_part):
        if part.features.shape[1] != fit_part.features.shape[1]:
            raise UsageError(
                f"linear probe: {part.features.shape[1]} features against {fit_part.features.shape[1]} "
                "of the training part; embed both with the same encoder"
            )
    work = fit_part.features.size * len(np.unique(fit_part.labels))
    with threadpool_limits(1) if work < ONE_THREAD_UP_TO else nullcontext():
        mean, scale = _moments(choose_fit.features, standardise)
        classifier, validation_accuracy = _choose(
            _Part((choose_fit.features - mean) / scale, choose_fit.labels),
            _Part((choose_score.features - mean) / scale, choose_score.labels),
        )
        if validation is None:
            mean, scale = _moments(fit_part.features, standardise)
            classifier = _fit((fit_part.features - mean) / scale, fit_part.labels, classifier.C)
        accuracy = classifier.score((test_part.features - mean) / scale, test_part.labels)
    strength = float(classifier.C)
    # ||w / s||^2 / (2 C) = ||w||^2 / (2 C s^2): C in units of the features as given.
    c = strength if standardise else strength / float(scale) ** 2
    return ProbeResult(accuracy=float(accuracy), c=c, validation_accuracy=validation_accuracy)


def few_labels(labels: Tensor | None, per_class: int, seed: int) -> Tensor:
    """Indices (int64, ascending) of ``per_class`` random images of each class, or all of a smaller class.

    Raises:
        UsageError: no labels, or ``per_class`` below 1.
    """
    if per_class < 1:
        raise UsageError(f"labels a class: {per_class} is below 1")
    known = check_labels(labels, 0 if labels is None else len(labels), "few labels").cpu().numpy()
    chosen = [members[:per_class] for members in _shuffled_classes(known, seed)]
    return torch.from_numpy(np.sort(np.concatenate(chosen))) if chosen else torch.empty(0, dtype=torch.int64)


def _part(features: Tensor, labels: Tensor | None, what: str) -> _Part:
    check_vectors(features, what)
    known = check_labels(labels, len(features), what)
    return _Part(features.detach().cpu().double().numpy(), known.cpu().numpy())


def _shuffled_classes(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def _held_out(part: _Part, seed: int) -> tuple[_Part, _Part]:
    # At least one of each class that has two; a class with a single image is only fitted.
    score = np.zeros(len(part.labels), dtype=bool)
    for members in _shuffled_classes(part.labels, seed):
        score[members[: min(len(members) - 1, max(1, round(HELD_OUT * len(members))))]] = True
    if not score.any():
        raise UsageError(
            "linear probe: one label a class leaves none to choose the regularisation on; "
            "give more labels or a validation part"
        )
    return (
        _Part(part.features[~score], part.labels[~score]),
        _Part(part.features[score], part.labels[score]),
    )


def _moments(features: np.ndarray, standardise: bool) -> tuple[np.ndarray, np.ndarray]:
    # Centring changes nothing in the model (its intercept is not regularised) and much in the speed.
    mean = features.mean(axis=0)
    variance = features.var(axis=0)
    # Rounding leaves a constant feature a variance of about (eps * mean)^2, not to be blown up to 1.
    variance[variance <= (10 * np.finfo(np.float64).eps * np.abs(mean)) ** 2] = 0.0
    scale = np.sqrt(variance if standardise else variance.mean())
    return mean, np.where(scale == 0.0, 1.0, scale)


def _fit(features: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        # Stopped at MAX_ITERATIONS is near enough: the accuracy has settled long before the weights.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(features, labels)


def _choose(fit_part: _Part, score_part: _Part) -> tuple[LogisticRegression, float]:
    best, best_accuracy = None, -1.0
    # Each from zero: started from its neighbour, a weakly regularised fit stops where it started, and
    # would be chosen for what the neighbour can do.
    for strength in GRID:
        classifier = _fit(fit_part.features, fit_part.labels, strength)
        accuracy = float(classifier.score(score_part.features, score_part.labels))
        if accuracy > best_accuracy:
            best, best_accuracy = classifier, accuracy
    return best, best_accuracy
