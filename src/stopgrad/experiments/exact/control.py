"""The control of all trainings on digits: what the encoder is worth before them."""

from stopgrad.experiments.schema import DIGITS, Result
from stopgrad.training.distributed import launch
from stopgrad.training.precision import threads_of_an_operation
from stopgrad.training.pretrain import Session
from stopgrad.training.results import probe_features
from stopgrad.training.settings import merge, resolve


def untrained(seed: int, limit: int | None = None) -> Result:
    """The probes of a run's summary for the encoder that the digits recipe starts from with this seed.

    As ``evaluation.control`` of a run gives them, which measures them again in every run. Numbers: ``knn``,
    ``linear_probe``, ``linear_probe_raw``, ``linear_probe_20`` and ``linear_probe_20_raw``, accuracies in [0,
    1] on the test images, batch normalisation with its first statistics.

    Args:
        seed: of the weights.
        limit: fit the probes on the first so many training images; None: on all.
    """
    settings = resolve(merge(DIGITS, {"seed": seed, "data": {"limit": limit}}))
    session = Session.open(settings, launch(settings))
    with threads_of_an_operation(settings.threads):
        probes = probe_features(session.learner, session.embedder, session.dataset, settings.evaluation)
    return Result({name: value for name, value in probes.items() if value is not None})
