"""The trials that predict training runs, from the runs' linear counterparts
(:mod:`stopgrad.postmortem.counterpart`).
"""

from collections.abc import Mapping
from typing import Any

from stopgrad.experiments.schema import Experiment, Trial
from stopgrad.postmortem.counterpart import NoCounterpart, counterpart
from stopgrad.training.settings import RunSettings, resolve, validate

FUNCTION = "counterpart.predicted"


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
