"""Linear probe: multinomial logistic regression on frozen features, by L-BFGS on the whole training part.

The optimum, the start, the steps and where they end are those of scikit-learn's ``LogisticRegression``; here
the loss and its gradient are summed over parts of the rows, so that no second copy of a large training part
is needed, and on a GPU where there is one.

Shapes: N training images, V validation images, M test images, D features, K classes, B rows of a part.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import minimize
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
DOUBLE_UP_TO = 2**27
"""N * D up to which everything is computed in float64 on the CPU, at most 1 GiB of it; beyond, in float32 on
the device asked for, in parts that are standardised whenever they are needed if they do not fit there."""
SCORES_AT_ONCE = 2**24
"""B * K at most."""
ROWS_AT_ONCE = 16_384


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
    features: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> "_Part":
        return _Part(self.features[rows], self.labels[rows])


@dataclass(frozen=True)
class _Rows:
    """Standardised features (B, D) and labels (1, B) part by part, where and in what they are computed with.

    ``mean`` (D,) and ``scale`` (D,) or () are float64 on the CPU.
    """

    part: _Part
    mean: Tensor
    scale: Tensor
    classes: int
    device: torch.device
    dtype: torch.dtype

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._kept or self._made()

    @cached_property
    def _kept(self) -> list[tuple[Tensor, Tensor]] | None:
        """All parts, if there is room for them."""
        size = self.part.features.numel() * self.dtype.itemsize
        room = DOUBLE_UP_TO * 8
        if self.device.type == "cuda":
            room = torch.cuda.mem_get_info(self.device)[0] // 2
        return list(self._made()) if size <= room else None

    def _made(self) -> Iterator[tuple[Tensor, Tensor]]:
        mean, scale = (x.to(self.device, self.dtype) for x in (self.mean, self.scale))
        size = max(1, SCORES_AT_ONCE // self.classes)
        for x, labels in zip(self.part.features.split(size), self.part.labels.split(size), strict=True):
            yield (x.to(self.device, self.dtype) - mean) / scale, labels[None].to(self.device)


def linear_probe(
    train: Tensor,
    train_labels: Tensor | None,
    test: Tensor,
    test_labels: Tensor | None,
    validation: tuple[Tensor, Tensor] | None = None,
    standardise: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
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
        device: where a training part of more than :data:`DOUBLE_UP_TO` numbers is fitted, in float32.

    Raises:
        UsageError: no labels, a single class, NaN or infinity, widths that differ, or too few labels to
            hold some out.
    """
    fit_part = _part(train, train_labels, "linear probe, training part")
    test_part = _part(test, test_labels, "linear probe, test part")
    known = fit_part.labels.unique()
    if len(known) < 2:
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
    one_thread = fit_part.features.numel() * len(known) < ONE_THREAD_UP_TO
    solver = _Solver.of(fit_part, device)
    with threadpool_limits(1) if one_thread else nullcontext():
        standard = _moments(choose_fit.features, standardise)
        classifier, strength, validation_accuracy = solver.choose(choose_fit, choose_score, standard)
        if validation is None:
            standard = _moments(fit_part.features, standardise)
            classifier = solver.fit(fit_part, standard, strength)
        accuracy = classifier.score(test_part)
    # ||w / s||^2 / (2 C) = ||w||^2 / (2 C s^2): C in units of the features as given.
    c = strength if standardise else strength / float(standard[1]) ** 2
    return ProbeResult(accuracy=accuracy, c=c, validation_accuracy=validation_accuracy)


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
    return _Part(features.detach(), check_labels(labels, len(features), what).cpu().contiguous())


def _shuffled_classes(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def _held_out(part: _Part, seed: int) -> tuple[_Part, _Part]:
    # At least one of each class that has two; a class with a single image is only fitted.
    score = torch.zeros(len(part.labels), dtype=torch.bool)
    for members in _shuffled_classes(part.labels.numpy(), seed):
        score[members[: min(len(members) - 1, max(1, round(HELD_OUT * len(members))))]] = True
    if not score.any():
        raise UsageError(
            "linear probe: one label a class leaves none to choose the regularisation on; "
            "give more labels or a validation part"
        )
    return part.take(~score), part.take(score)


def _moments(features: Tensor, standardise: bool) -> tuple[Tensor, Tensor]:
    """Mean (D,), and scale (D,) or the common one (), float64 on the CPU."""
    # Centring changes nothing in the model (its intercept is not regularised) and much in the speed.
    parts = features.split(ROWS_AT_ONCE)
    mean = sum((part.double().sum(dim=0).cpu() for part in parts), torch.zeros(())) / len(features)
    squares = (((part.double().cpu() - mean) ** 2).sum(dim=0) for part in parts)
    variance = sum(squares, torch.zeros(())) / len(features)
    # Rounding leaves a constant feature a variance of about (eps * mean)^2, not to be blown up to 1.
    variance[variance <= (10 * torch.finfo(torch.float64).eps * mean.abs()) ** 2] = 0.0
    scale = (variance if standardise else variance.mean()).sqrt()
    return mean, torch.where(scale == 0.0, 1.0, scale)


@dataclass(frozen=True)
class _Solver:
    """Which classes there are, and where and in what a fit is computed."""

    known: Tensor
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, part: _Part, device: torch.device | str) -> "_Solver":
        known, device = part.labels.unique(), torch.device(device)
        # Metal has no float64, in which losses are summed
        if part.features.numel() <= DOUBLE_UP_TO or device.type == "mps":
            device = torch.device("cpu")
        double = part.features.numel() <= DOUBLE_UP_TO
        return cls(known, device, torch.float64 if double else torch.float32)

    def rows(self, part: _Part, standard: tuple[Tensor, Tensor]) -> _Rows:
        places = torch.searchsorted(self.known, part.labels)
        return _Rows(_Part(part.features, places), *standard, len(self.known), self.device, self.dtype)

    def choose(
        self, fit_part: _Part, score_part: _Part, standard: tuple[Tensor, Tensor]
    ) -> tuple["_Classifier", float, float]:
        """The best classifier of the grid on ``score_part``, its strength and its accuracy there."""
        found: tuple[_Classifier, float, float] | None = None
        rows = self.rows(fit_part, standard)
        # Each from zero: started from its neighbour, a weakly regularised fit stops where it started, and
        # would be chosen for what the neighbour can do.
        for strength in GRID:
            classifier = _Classifier(self, standard, _minimise(rows, strength))
            accuracy = classifier.score(score_part)
            if found is None or accuracy > found[2]:
                found = classifier, strength, accuracy
        assert found is not None
        return found

    def fit(self, part: _Part, standard: tuple[Tensor, Tensor], strength: float) -> "_Classifier":
        return _Classifier(self, standard, _minimise(self.rows(part, standard), strength))


@dataclass(frozen=True)
class _Classifier:
    """Weights (K, D + 1), the intercepts last, of standardised features; (1, D + 1) for two classes."""

    solver: _Solver
    standard: tuple[Tensor, Tensor]
    weights: Tensor

    def score(self, part: _Part) -> float:
        """Fraction in [0, 1] of the rows whose label has the largest score; unknown labels have none."""
        rows = self.solver.rows(part, self.standard)
        places = torch.cat([_scores(x, self.weights.to(x)).argmax(dim=0).cpu() for x, _ in rows._made()])
        return float((self.solver.known[places] == part.labels).double().mean())


def _minimise(rows: _Rows, strength: float) -> Tensor:
    """Weights (K, D + 1) that minimise the mean loss of ``rows`` plus ||w||^2 / (2 C N).

    Stopped at MAX_ITERATIONS is near enough: the accuracy has settled long before the weights.
    """
    count, width = rows.part.features.shape
    # of two classes the first scores zero: the same model, and C means what it means elsewhere
    shape = (rows.classes if rows.classes > 2 else 1, width + 1)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(flat).view(shape)
        loss, gradient = _loss(rows, weights)
        penalised = weights[:, :-1]
        loss = loss / count + float(penalised.square().sum()) / (2 * strength * count)
        gradient = gradient.div_(count)
        gradient[:, :-1] += penalised / (strength * count)
        return loss, gradient.flatten().numpy()

    # tolerances and line search as scikit-learn sets them
    options = {"maxiter": MAX_ITERATIONS, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}
    found = minimize(objective, np.zeros(shape).ravel(), method="L-BFGS-B", jac=True, options=options)
    return torch.from_numpy(found.x).view(shape)


def _scores(x: Tensor, weights: Tensor) -> Tensor:
    """(K, B): a class a row, in which products and softmax take half the time of a class a column."""
    scores = torch.addmm(weights[:, -1:], weights[:, :-1], x.T)
    return scores if len(scores) > 1 else torch.cat([torch.zeros_like(scores), scores])


def _loss(rows: _Rows, weights: Tensor) -> tuple[float, Tensor]:
    """The summed cross-entropy, and its gradient like ``weights``, float64 on the CPU."""
    weights = weights.to(rows.device, rows.dtype)
    gradient = torch.zeros_like(weights)
    loss = torch.zeros((), dtype=torch.float64, device=rows.device)
    for x, labels in rows:
        log_p = _scores(x, weights).log_softmax(dim=0)
        loss -= log_p.gather(0, labels).sum(dtype=torch.float64)
        residual = log_p.exp_()
        residual.scatter_(0, labels, residual.gather(0, labels) - 1)
        residual = residual[-len(weights) :]
        gradient[:, :-1].addmm_(residual, x)
        gradient[:, -1] += residual.sum(dim=1)
    return float(loss), gradient.cpu().double()
