"""The linear counterpart of a training run: the nearest method that theory reaches, and what was replaced.

`stopgrad.theory.predict` speaks of one linear layer, the Euclidean distance and plain SGD. Some parts of a
run have a stand-in there whose equations are the same in a named limit; where a part has none, the run has no
counterpart, and the reason is told. The stand-ins:

- a distance that only normalises (cosine, squared l2): Euclidean, of z and p divided by their lengths;
- for such a distance DirectPred's eps in the form of the code: that of the text. Both are one where the
  largest eigenvalue of E[z z^T] is 1, and a distance that normalises sees nothing else of the difference; the
  Euclidean one shrinks what the code's form makes larger than 1 for ever;
- a linear predictor's bias: none, since the theory is put on centred moments;
- momentum, schedules of rate and EMA, final batch normalisation: constants (how each is taken over, see
  `rates_of`, and :mod:`stopgrad.experiments.exact.counterpart`);
- an MLP predictor: a linear one. This changes what the predictor can do, and is called far; the others, near.

Adam and LARS have none: their steps are not along the gradient. Nor has weight decay that is not the same for
encoder and predictor, which the modes' conserved quantity needs.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from stopgrad.method import Method, Supervised
from stopgrad.parts.distances import Cosine, SquaredL2
from stopgrad.parts.gradient import Exact, StraightThrough
from stopgrad.parts.predictors import Linear, Mlp, Spectral
from stopgrad.parts.target import Ema
from stopgrad.theory.predict import DataStatistics, NoClosedForm, predict
from stopgrad.training.settings import RunSettings

Grade = Literal["near", "far"]


@dataclass(frozen=True)
class Counterpart:
    """What theory is asked in place of a run.

    Attributes:
        method: which `predict` reaches.
        replaced: what was replaced to get there, each in words; none for the theory's own method.
        grade: "far" where the predictor itself was replaced, else "near".
    """

    method: Method
    replaced: tuple[str, ...]
    grade: Grade


@dataclass(frozen=True)
class NoCounterpart:
    """Why theory has no word on a run."""

    reason: str


class Rates(NamedTuple):
    """A run's optimiser in the theory's terms.

    Attributes:
        lr: of a step, without what momentum adds.
        steps: of the run, in these units: `lr * steps` is the time it takes.
        epoch: one epoch's share of that time.
        alpha_p, eta: see `predict`.
    """

    lr: float
    steps: float
    epoch: float
    alpha_p: float
    eta: float


def counterpart(settings: RunSettings) -> Counterpart | NoCounterpart:
    """The linear counterpart of a run.

    What the data decide is left to `predict` on them: the rate may turn out too large for its flow.
    """
    method = settings.sentence
    if isinstance(method, Supervised):
        return NoCounterpart(_reason(method) or "")
    if not isinstance(method.gradient, Exact | StraightThrough):
        # with the Euclidean distance these are no methods, so that `predict` cannot be asked
        return NoCounterpart(
            f"gradient: the modes are of the exact gradient and of straight-through, not of "
            f"'{method.gradient.kind}'"
        )
    method, replaced = _nearest(method)
    grade: Grade = "far" if isinstance(settings.predictor, Mlp) else "near"
    reason = _reason(method) or _beyond_optimiser(settings, method)
    if reason is not None:
        return NoCounterpart(reason)
    return Counterpart(method, (*replaced, *_of_run(settings)), grade)


def rates_of(run: RunSettings, images: int) -> Rates:
    """A run's rates, for so many training images."""
    own = run.optimizer
    an_epoch = max(1, images // run.batch_size)
    steps = an_epoch * run.epochs
    mean = sum(run.schedule.factor(step, steps, an_epoch) for step in range(steps)) / steps
    twice, spread = _twice(run), 1 / (1 - own.momentum)
    lr = own.lr * mean * twice
    return Rates(lr, steps * spread, lr * spread * an_epoch, _alpha_p(run, mean), own.weight_decay / twice)


def rates_since(run: RunSettings, first: int, an_epoch: int) -> tuple[Rates, np.ndarray]:
    """A run's rates from its step ``first`` to its end, and the time that has passed at each of these steps.

    The schedule makes time go faster and slower and is not replaced by its mean but where it stands beside
    a rate that it does not move, that of a target network or of a predictor with a constant one.

    Args:
        run: the settings.
        first: a step before the last, from 0.
        an_epoch: steps of an epoch.

    Returns:
        The rates, and the times from 0 at ``first`` to `lr * steps` at the end. (steps - first + 1,)
    """
    own, steps = run.optimizer, an_epoch * run.epochs
    factors = np.array([run.schedule.factor(step, steps, an_epoch) for step in range(first, steps)])
    mean, twice, spread = float(factors.mean()), _twice(run), 1 / (1 - own.momentum)
    times = np.concatenate([[0.0], np.cumsum(own.lr * twice * spread * factors)])
    lr = own.lr * mean * twice
    rates = Rates(
        lr, (steps - first) * spread, lr * spread * an_epoch, _alpha_p(run, mean), own.weight_decay / twice
    )
    return rates, times


def without_momentum(method: Method, run: RunSettings) -> Method:
    """A run's counterpart for rates without momentum: beta = (1 - tau) / lr is of the time a step takes."""
    target = method.target
    if not isinstance(target, Ema):
        return method
    return method.but(target=target.but(tau=1 - (1 - target.tau) * (1 - run.optimizer.momentum)))


def _twice(run: RunSettings) -> float:
    return 2.0 if isinstance(run.distance, SquaredL2) else 1.0


def _alpha_p(run: RunSettings, mean: float) -> float:
    own = run.optimizer.predictor
    return own.lr_scale / (mean if own.constant_lr else 1.0)


def _nearest(method: Method) -> tuple[Method, list[str]]:
    """The method with its stand-ins, and these in words."""
    replaced = []
    normalises = isinstance(method.distance, Cosine | SquaredL2)
    predictor, target = method.predictor, method.target
    if normalises:
        replaced.append(f"{method.distance.kind} distance -> Euclidean, of z and p divided by their lengths")
        method = method.but(distance="euclidean")
    if normalises and isinstance(predictor, Spectral) and predictor.eps_form == "code":
        replaced.append("eps as in the code -> as in the text")
        method = method.but(predictor=predictor.but(eps_form="text"))
    if isinstance(predictor, Linear) and predictor.bias:
        replaced.append("the predictor's bias -> none, of centred moments")
        method = method.but(predictor=predictor.but(bias=False))
    if isinstance(predictor, Mlp):
        replaced.append("MLP predictor -> linear")
        method = method.but(predictor=Linear(symmetric=predictor.symmetric))
    if isinstance(target, Ema) and target.schedule == "cosine":
        replaced.append("EMA that slows down -> constant at its mean rate")
        method = method.but(target=target.but(schedule="constant", tau=(1 + target.tau) / 2))
    return method, replaced


def _of_run(settings: RunSettings) -> list[str]:
    """What is replaced besides the method, in words."""
    replaced = []
    if settings.projector.final_bn != "none":
        replaced.append("final batch normalisation -> none, of z divided by its deviations")
    if settings.optimizer.momentum > 0:
        replaced.append(f"momentum {settings.optimizer.momentum:g} -> a larger rate")
    if settings.schedule.name != "constant" or settings.schedule.warmup_epochs > 0:
        replaced.append("schedule of the rate -> its mean")
    return replaced


def _beyond_optimiser(settings: RunSettings, method: Method) -> str | None:
    own, predictor = settings.optimizer, settings.optimizer.predictor
    if own.name != "sgd":
        return f"optimizer: '{own.name}' does not step along the gradient; the modes are of SGD"
    if own.clip is not None:
        return "optimizer: clip bounds the gradient, which the modes' equations do not"
    if not isinstance(method.predictor, Linear):
        return None
    decay = own.weight_decay if predictor.weight_decay is None else predictor.weight_decay
    if predictor.decay == "group":
        decay *= predictor.lr_scale
    if decay != own.weight_decay:
        return "optimizer: the predictor's weight decay is not the encoder's; the modes are of one for both"
    return None


@lru_cache(maxsize=256)
def _reason(method: Method | Supervised) -> str | None:
    """Why `predict` does not reach a method whatever the data, None if it does."""
    # the rate is what it looks at last before it follows the modes: none is, with one that is too large
    found = predict(method, DataStatistics([0.5], [1.0]), lr=1e6, search=False)
    assert isinstance(found, NoClosedForm)
    return None if found.reason.startswith("lr:") else found.reason
