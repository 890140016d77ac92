"""What Tian et al. 2021 measure on a learned predictor (Fig. 2): the one claim here that trains.

Legend: N images, D width of the projection; W_p (D, D) the predictor, F (D, D) the correlation E[z z^T].
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stopgrad import diagnostics
from stopgrad.data.sources import load_dataset
from stopgrad.experiments import trials
from stopgrad.experiments.schema import DIGITS, Result
from stopgrad.method import Learner
from stopgrad.parts.predictors.linear import LinearPredictor
from stopgrad.training.build import build_learner, load_run
from stopgrad.training.pretrain import run
from stopgrad.training.settings import merge, resolve


def figure2(weight_decay: float, seed: int, changes: Mapping[str, Any] | None = None) -> Result:
    """Fig. 2: what training makes of a free linear predictor without bias, measured on validation images.

    Numbers, at the start (``_start``) and at the end (``_end``): ``asymmetry`` and ``negative`` by
    `stopgrad.diagnostics`, and ``alignment``, the mean |cos| of the angle between u and W_p u over the
    eigenvectors u of F; ``asymmetry_left`` and ``negative_left``, end over start, and ``alignment_gain``, end
    less start. Series, at the end: eigenvalues ``p`` of W_p and ``s`` of F, and the ``cosine`` of each u.
    ``changes`` are further settings of the run.
    """
    own = {
        "method": "byol-lp", "optimizer": {"weight_decay": weight_decay}, "seed": seed,
        "evaluation": {"every": 10**6},
    }  # fmt: skip
    settings = resolve(merge(merge(DIGITS, own), changes or {}))
    with trials.temporary_run() as folder:
        run(settings, folder, show_progress=False)
        trained = load_run(folder, device="cpu")
    images = load_dataset(settings.data).val
    start, end = (
        _of_learner(learner, trained.embedder.embed_evaluating(learner, images).z)
        for learner in (build_learner(settings, trained.facts), trained.learner)
    )
    numbers = {f"{name}_start": value for name, value in start.numbers.items()}
    numbers |= {f"{name}_end": value for name, value in end.numbers.items()}
    for name in ("asymmetry", "negative"):
        numbers[f"{name}_left"] = end.numbers[name] / start.numbers[name]
    numbers["alignment_gain"] = end.numbers["alignment"] - start.numbers["alignment"]
    return Result(numbers, end.series)


def predictor_measures(W_p: Tensor, z: Tensor) -> Result:
    """Asymmetry and negative share of W_p (D, D), its alignment with the correlation of z (N, D), spectra."""
    F = z.T @ z / len(z)
    cosines = diagnostics.eigenvector_cosine(W_p, F)
    numbers = {
        "asymmetry": float(diagnostics.asymmetry(W_p)),
        "negative": float(diagnostics.negative_part(W_p)),
        "alignment": float(cosines.mean()),
    }
    spectra = {"p": diagnostics.weight_spectrum(W_p), "s": diagnostics.weight_spectrum(F), "cosine": cosines}
    return Result(numbers, {name: values.tolist() for name, values in spectra.items()})


def _of_learner(learner: Learner, z: Tensor) -> Result:
    predictor = learner.predictor
    assert isinstance(predictor, LinearPredictor)
    return predictor_measures(predictor.linear.weight.detach(), z)
