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
  :mod:`stopgrad.experiments.exact.counterpart`);
- an MLP predictor: a linear one. This changes what the predictor can do, and is called far; the others, near.

Adam and LARS have none: their steps are not along the gradient. Nor has weight decay that is not the same for
encoder and predictor, which the modes' conserved quantity needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from stopgrad.experiments.schema import Experiment, Trial
from stopgrad.method import Method, Supervised
from stopgrad.parts.distances import Cosine, SquaredL2
from stopgrad.parts.gradient import Exact, StraightThrough
from stopgrad.parts.predictors import Linear, Mlp, Spectral
from stopgrad.parts.target import Ema
from stopgrad.theory.predict import DataStatistics, NoClosedForm, predict
from stopgrad.training.settings import RunSettings, resolve, validate

Grade = Literal["near", "far"]
FUNCTION = "counterpart.predicted"


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


def prediction(settings: RunSettings) -> Trial | None:
    """The exact trial that predicts a run; None if it has no counterpart."""
    found = counterpart(settings)
    if isinstance(found, NoCounterpart):
        return None
    arguments = {
        "settings": settings.model_dump(mode="json", exclude={"recipe", "seed"}),
        "method": found.method.model_dump(mode="json"),
        "seed": settings.seed,
    }
    return Trial("exact", arguments, FUNCTION)


def trials(
    experiment: Experiment, seeds: int | None = None, quick: bool = False
) -> dict[str, dict[int, Trial]]:
    """The predictions beside an experiment's training trials, arm -> seed -> trial.

    Args:
        experiment: which; exact ones have none.
        seeds, quick: see `Experiment.trials`.

    Returns:
        Arms without a counterpart are left out.
    """
    if experiment.kind == "exact":
        return {}
    found: dict[str, dict[int, Trial]] = {}
    for arm, of_seed in experiment.trials(seeds, quick).items():
        for seed, trial in of_seed.items():
            predicted = prediction(resolve(trial.arguments))
            if predicted is not None and seed is not None:
                found.setdefault(arm, {})[seed] = predicted
    return found


def settings_of(spec: Mapping[str, Any]) -> RunSettings:
    """The settings of a training trial from its `Trial.spec`.

    Raises:
        UsageError: if a newer source no longer knows one of them.
    """
    return validate(spec["settings"])


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
