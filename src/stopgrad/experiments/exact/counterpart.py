"""What theory predicts of a training run before its first step, from the statistics of the untrained network.

The theory is of one linear layer W (:mod:`stopgrad.theory.predict`). It is put at the last linear layer of
the projector, z = W h + b: h is what the untrained network in front of it makes of the run's own views, and
is taken as given data for the whole run, though training changes it. That is the largest step from theory to
practice here, and no setting removes it. All that follows was fixed before any outcome was looked at, but for
what is said of the length of p: that came in when nine trials were known, none of them collapsed and all nine
predicted so with it and without.

Data. X and X' are the moments of h of two views of `IMAGES` training images, batch normalisation in training
mode. They are centred: h has a large mean, whose own mode lives on when all z have become one and the same
vector, which `stopgrad.diagnostics.judge` calls complete collapse. Without it, what is left is the variance
of z, and a bias, of the layer or of a linear predictor, has nothing else to act on. What couples the mean to
the other modes is left out with it.

Lengths. The cosine of vectors whose lengths are all N is the Euclidean distance of vectors divided by N:
for a distance that normalises, h is divided by the root mean square length of z at the start, and a learned
W_p by that of p over that of z, a factor r that makes its own rate 1 / r^2 times as large. Final batch
normalisation divides each component of z: W's rows take the ratios of these divisors, h the common size.
Squared l2 is twice the cosine, so that rates count twice.

Modes. X and X' do not commute; their joint modes are those of `DataStatistics.from_matrices`, which may drop
a share of `TOLERANCE`. Those of largest l_d, which grow fastest, are kept: at most d, since W of d rows can
hold no more apart, and at most `MODES`, for time. Mode u starts from s = |W u|^2 and, for a linear predictor,
p = v^T W_p v with v = W u / |W u|; for an MLP p is the slope of its output along v over z along v, by least
squares. A W_p set from the correlation depends on the size of z, which a normalising distance does not see:
where the text's form stands for the code's, s is scaled so that the largest eigenvalue of the uncentred
E[z z^T] is 1 at the start, where both forms are the same; the text's own form gets z as it is.

Rates. A step moves the weights by the peak rate times the schedule's mean; momentum m passes every gradient
on over 1 / (1 - m) steps, so that time is lr mean(schedule) / (1 - m) a step. alpha_p is the predictor's
peak rate over the encoder's, divided by the schedule's mean if it keeps its peak. An EMA whose tau rises to 1
is replaced by one that passes on its mean share, (1 - tau) / 2.

Collapse. A mode that survives leaves z the variance f = l_s s. Predicted is complete collapse where no mode
survives, dimensional collapse where the effective rank of the f is below `rank_threshold` of the width of z,
as `judge` has it. It is of the end, which may lie far beyond the run: `arrived` says whether it does.

Shapes: N images, n1 inputs of the layer, d outputs, n modes, n <= min(n1, d, `MODES`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad.data.sources import ArrayPart, DataSettings, load_dataset
from stopgrad.diagnostics.spectrum import rank_of
from stopgrad.diagnostics.verdict import rank_threshold
from stopgrad.errors import UsageError
from stopgrad.evaluation.measures import materialise, mode
from stopgrad.experiments.exact.rounding import rounded
from stopgrad.experiments.schema import Result
from stopgrad.method import Method, SiameseLearner
from stopgrad.parts.predictors import Linear, Spectral
from stopgrad.parts.predictors.linear import LinearPredictor
from stopgrad.postmortem.counterpart import Rates, rates_of, without_momentum
from stopgrad.theory.predict import DataStatistics, NoClosedForm, Prediction, predict
from stopgrad.theory.predict.data import joint_modes
from stopgrad.theory.statistics import Moments
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.settings import RunSettings, validate

IMAGES = 1024
MODES = 32
TOLERANCE = 0.5
"""Share of X or X' off their joint eigenbasis with which modes are still spoken of."""
ARRIVED = 0.9
"""Share of z's variance whose modes have arrived when a run is said to have."""


@dataclass(frozen=True, eq=False)
class Start:
    """The untrained network as the theory sees it.

    Attributes:
        data: eigenvalues of the kept modes, with the share that was dropped to decouple them. (n,)
        s0, p0: see `predict`. (n,) each
        left_out: share of the trace of Sigma_s in modes that are not kept, in [0, 1].
        width: d.
        pace: 1 / r^2, by which a learned predictor's rate is multiplied.
    """

    data: DataStatistics
    s0: np.ndarray
    p0: np.ndarray
    left_out: float
    width: int
    pace: float = 1.0


def predicted(settings: Mapping[str, Any], method: Mapping[str, Any], seed: int) -> Result:
    """The prediction for a run, as the module's head defines it.

    Args:
        settings: of the run, complete but for the seed, as JSON has them.
        method: the linear counterpart (:mod:`stopgrad.postmortem.counterpart`), as JSON has it.
        seed: of the run.

    Returns:
        Numbers: ``reached``, 1, or 0 where theory turns out not to reach with these data, which leaves only
        the series ``reason``. ``collapsed``, 0 or 1; ``surviving`` of ``modes``; ``rank``, the effective rank
        of the end, 0 without a surviving mode; ``dropped`` and ``left_out``, see `Start`; ``finished``, 1 if
        every mode arrives within the run; ``epochs``, when the modes with nine tenths of z's variance (at the
        end; of a complete collapse, at the start) have arrived, absent if never; ``arrived``, 1 if that is
        within the run. Series: ``l_d`` and ``l_s`` of the modes, their ends ``p`` and ``s``, ``epochs`` when
        they arrive, None for never, and whether each ``survives``.

    Raises:
        UsageError: for settings that do not exist, or whose data are not there.
    """
    run, theory = validate({**settings, "seed": seed}), Method.model_validate(method)
    facts, images = _images(run.data, run.view_size)
    rates = rates_of(run, facts.images)
    try:
        start = start_of(run, theory, facts, images)
    except UsageError as error:  # the tolerance
        return unreached(str(error))
    found = predict(
        without_momentum(theory, run),
        start.data,
        lr=rates.lr,
        alpha_p=rates.alpha_p * start.pace,
        eta=rates.eta,
        p0=start.p0,
        s0=start.s0,
        steps=max(1, round(rates.steps)),
        search=False,
    )
    if isinstance(found, NoClosedForm):
        return unreached(found.reason)
    return outcome(found, start, rates, run.epochs)


def unreached(reason: str) -> Result:
    """The result where theory does not reach with these data."""
    return Result({"reached": 0.0}, {"reason": [reason]})


def outcome(found: Prediction, start: Start, rates: Rates, epochs: int) -> Result:
    """The numbers and series of a prediction for a run of so many epochs."""
    columns = {
        name: np.array([getattr(m, name) for m in found.modes]) for name in ("l_d", "l_s", "p", "s", "time")
    }
    alive = np.array([m.survives for m in found.modes])
    variance = np.where(alive, columns["l_s"] * columns["s"], 0.0)
    rank = effective_rank(variance)
    when = arrival(columns["time"], variance if alive.any() else columns["l_s"] * start.s0) / rates.epoch
    numbers = {
        "reached": 1.0,
        "collapsed": float(rank < rank_threshold(start.width)),
        "surviving": float(alive.sum()),
        "modes": float(len(alive)),
        "rank": rank,
        "dropped": start.data.dropped,
        "left_out": start.left_out,
        "finished": float(bool(found.finished)),
        "epochs": when,
        "arrived": float(when <= epochs),
    }
    series = {name: rounded(columns[name]) for name in ("l_d", "l_s", "p", "s")}
    series |= {"epochs": rounded(columns["time"] / rates.epoch), "survives": alive.astype(int).tolist()}
    return Result(numbers, series)


def effective_rank(variance: np.ndarray) -> float:
    """Effective rank of vectors with these variances along their axes, 0 where all are 0. (n,)"""
    return float(rank_of(torch.from_numpy(variance))) if variance.any() else 0.0


def arrival(times: np.ndarray, weights: np.ndarray) -> float:
    """When the modes with a share of `ARRIVED` of the weights have arrived; inf for never. (n,) each"""
    order = np.argsort(times, kind="stable")
    there = np.cumsum(weights[order]) >= ARRIVED * weights.sum() * (1 - 1e-12)
    return float(times[order][np.argmax(there)])


def start_of(run: RunSettings, theory: Method, facts: DataFacts, images: ArrayPart) -> Start:
    """The untrained network of a run as its counterpart sees it.

    Raises:
        UsageError: if the moments are off their joint eigenbasis by more than `TOLERANCE`.
    """
    learner = build_learner(run, facts)
    assert isinstance(learner, SiameseLearner)
    assert run.distance is not None
    h, before, z, p = _nodes(learner, run, facts, images)
    moments = Moments.empty(h.shape[-1], centred=True)
    moments.update(*h)
    W = _last_linear(learner).weight.detach().double().numpy()
    common = 1.0
    if run.projector.final_bn != "none":
        variances = before.flatten(0, 1).var(dim=0, correction=0).numpy()
        common = float(variances.mean())
        W = W * np.sqrt(common / variances)[:, None]
    length, pace = 1.0, 1.0
    if run.distance.normalises:
        length = _length(z)
        pace = length / _length(p) if isinstance(theory.predictor, Linear) else 1.0
    data, basis = decoupled(*(m / (common * length) for m in (moments.X, moments.X_prime)))
    kept = np.argsort(-data.l_d, kind="stable")[: min(len(W), MODES)]
    whole = data.l_s.sum()
    data = DataStatistics(data.l_d[kept], data.l_s[kept], data.dropped)
    towards = W @ basis[:, kept]
    s0 = (towards**2).sum(axis=0)
    return Start(
        data,
        s0 * _size(run, theory, z, length),
        _slopes(learner, theory, towards / np.sqrt(s0), z, p) * math.sqrt(pace),
        float(1 - data.l_s.sum() / whole),
        len(W),
        pace,
    )


def decoupled(X: np.ndarray, X_prime: np.ndarray) -> tuple[DataStatistics, np.ndarray]:
    """The modes of moments of which up to `TOLERANCE` may be dropped, and their directions, a column each.

    Raises:
        UsageError: beyond that.
    """
    return joint_modes(X, X_prime, TOLERANCE)


def _length(rows: Tensor) -> float:
    """Mean square length of rows. (..., d)"""
    return float(rows.square().sum(dim=-1).mean())


def _size(run: RunSettings, theory: Method, z: Tensor, length: float) -> float:
    """What s is multiplied by, where z was divided by a length, squared, that a W_p set from z does see."""
    ours, theirs = run.predictor, theory.predictor
    if not isinstance(ours, Spectral) or not isinstance(theirs, Spectral):
        return 1.0
    if ours.eps_form == theirs.eps_form:
        return length if ours.eps_form == "text" else 1.0
    rows = z.flatten(0, 1)
    largest = float(torch.linalg.eigvalsh(rows.T @ rows / len(rows))[-1])
    return length / largest


def _slopes(learner: SiameseLearner, theory: Method, v: np.ndarray, z: Tensor, p: Tensor) -> np.ndarray:
    """p at the start along the unit vectors v (d, n); 0 for predictors that are not learned. (n,)"""
    if not isinstance(theory.predictor, Linear):
        return np.zeros(v.shape[1])
    if isinstance(learner.predictor, LinearPredictor):
        W_p = learner.predictor.linear.weight.detach().double().numpy()
        return np.asarray(((W_p @ v) * v).sum(axis=0))
    along = torch.from_numpy(v)
    z, p = ((rows - rows.mean(dim=0)) @ along for rows in (z.flatten(0, 1), p.flatten(0, 1)))
    return ((z * p).sum(dim=0) / z.square().sum(dim=0)).numpy()


def _nodes(
    learner: SiameseLearner, run: RunSettings, facts: DataFacts, images: ArrayPart
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input h and output of the last linear layer, z and p of both views, float64. (2, N, ...) each"""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = _last_linear(learner).register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    shift, scale = (torch.tensor(values)[:, None, None] for values in (facts.mean, facts.std))
    views = run.make_views()(images.images, torch.arange(len(images)), seed=run.seed, epoch=0)
    try:
        with torch.no_grad(), mode(learner, training=True):
            made = [learner.embed((view - shift) / scale)[1:] for view in views]
    finally:
        handle.remove()
    h, before = (torch.stack(rows).double() for rows in zip(*seen, strict=True))
    z, p = (torch.stack(rows).double() for rows in zip(*made, strict=True))
    return h, before, z, p


def _last_linear(learner: SiameseLearner) -> nn.Linear:
    return [module for module in learner.projector.modules() if isinstance(module, nn.Linear)][-1]


@lru_cache(maxsize=2)
def _images(data: DataSettings, size: int) -> tuple[DataFacts, ArrayPart]:
    """Facts of the data set, and the same `IMAGES` of its training images at every call."""
    dataset = load_dataset(data)
    return DataFacts.of(dataset), materialise(dataset.train, IMAGES, size)
