"""What a finished run is judged by: `summary.json`, `evaluation.npz`, the exported encoder.

Everything is chosen on training and validation images; the test part is read once, here.
"""

import statistics
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad import diagnostics
from stopgrad.data.batches import evaluation_batches
from stopgrad.data.sources import ArrayPart, Dataset
from stopgrad.data.views import Views
from stopgrad.evaluation.knn import knn_accuracy
from stopgrad.evaluation.linear import few_labels, linear_probe
from stopgrad.evaluation.measures import Embedder, materialise, measure_learner, mode
from stopgrad.exports import export_encoder
from stopgrad.files import to_json, whole_file, write_text
from stopgrad.method import Learner
from stopgrad.training.folder import RunFolder
from stopgrad.training.rescue import read_rescues
from stopgrad.training.settings import EvaluationSettings, RunSettings

LABELS_A_CLASS = 20
SHOWN = 5000
"""At most so many test images go into `evaluation.npz`."""
THUMBNAIL = 48
PROBES = ("knn", "linear_probe", "linear_probe_raw", "linear_probe_20", "linear_probe_20_raw")


def evaluate_run(
    learner: Learner,
    untrained: Learner,
    embedder: Embedder,
    dataset: Dataset,
    views: Views,
    settings: RunSettings,
    folder: RunFolder,
    *,
    loss: float,
    diverged_at: int | None,
) -> dict[str, Any]:
    """Measure a trained learner on the test part, write all result files, and return the summary."""
    shown = materialise(dataset.test, settings.evaluation.images, settings.view_size)
    _, nodes = measure_learner(learner, embedder, shown, views)
    verdict, evidence = diagnostics.judge({name: nodes[name] for name in ("z", "p")}, loss)
    z, own = nodes["z"], settings.evaluation
    summary: dict[str, Any] = {
        "method": settings.method,
        "data": settings.data.name,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "images_per_second": _throughput(folder),
        "loss": loss,
        **{name: z[name] for name in ("std", "effective_rank", "alignment", "uniformity")},
        **probe_features(learner, embedder, dataset, own),
        "verdict": verdict,
        "diverged_at_step": diverged_at,
        "evidence": [asdict(item) for item in evidence],
        **nodes,
        "rescues": [asdict(rescue) for rescue in read_rescues(folder)[0]],
        "untrained": _control(untrained, embedder, dataset, shown, own) if own.control else None,
        "skipped": [{"path": s.path, "reason": s.reason} for s in dataset.skipped],
        "run": str(folder.path),
        "stopgrad": version("stopgrad"),
    }
    write_text(folder.summary, to_json(summary, indent=2) + "\n")
    _save_embedding(folder, learner, embedder, dataset)
    if verdict != "diverged":
        info = {"mean": dataset.mean, "std": dataset.std, "method": settings.method}
        export_encoder(learner.encoder, folder.exported, "safetensors", info)
    return summary


def _throughput(folder: RunFolder) -> float:
    """Median of the run's step rows in images per second, over all its processes; 0 when there is none."""
    rates = [row["images_per_second"] for row in folder.rows() if row["kind"] == "step"]
    return statistics.median(rates) if rates else 0.0


def probe_features(
    learner: Learner, embedder: Embedder, dataset: Dataset, settings: EvaluationSettings
) -> dict[str, float | None]:
    """kNN and linear probes of the encoder's features h, accuracies in [0, 1] on the test part.

    kNN votes among the labelled training images. The linear probes choose their regularisation on the
    validation part; ``_20`` ones are fitted with 20 labels a class, ``_raw`` ones without standardising.
    All are None when there are no labels or the features are not finite.
    """
    if dataset.probe.labels is None or dataset.test.labels is None:
        return dict.fromkeys(PROBES)
    with mode(learner, training=False):
        features = [embedder.embed(learner, part).h for part in (dataset.probe, dataset.val, dataset.test)]
    if not all(bool(torch.isfinite(h).all()) for h in features):
        return dict.fromkeys(PROBES)
    fit, val, test = features
    return dict(probe_vectors(fit, val, test, dataset, settings))


def probe_vectors(
    h_fit: Tensor, h_val: Tensor, h_test: Tensor, dataset: Dataset, settings: EvaluationSettings
) -> dict[str, float]:
    """The figures of `probe_features` for any vectors of the probe, validation and test images.

    Raises:
        UsageError: without labels, or for vectors that are not finite.
    """
    fit, val, test = dataset.probe, dataset.val, dataset.test
    chosen_on = None if val.labels is None else (h_val, val.labels)
    few = few_labels(fit.labels, LABELS_A_CLASS, seed=0)

    def linear(rows: Tensor, standardise: bool) -> float:
        labels = fit.labels[rows] if fit.labels is not None else None
        return linear_probe(h_fit[rows], labels, h_test, test.labels, chosen_on, standardise).accuracy

    everything = torch.arange(len(fit))
    k = min(settings.knn_k, len(fit))
    return {
        "knn": knn_accuracy(
            h_test, test.labels, h_fit, fit.labels, len(dataset.classes or ()), k, settings.knn_temperature
        ),
        "linear_probe": linear(everything, True),
        "linear_probe_raw": linear(everything, False),
        "linear_probe_20": linear(few, True),
        "linear_probe_20_raw": linear(few, False),
    }


def _control(
    untrained: Learner, embedder: Embedder, dataset: Dataset, shown: ArrayPart, own: EvaluationSettings
) -> dict[str, Any]:
    """What the encoder is worth before training: probes, and the spread of its projections."""
    z = embedder.embed_evaluating(untrained, shown).z
    spread = {
        "std": float(diagnostics.embedding_std(z)),
        "effective_rank": float(diagnostics.effective_rank(z)),
    }
    return {**probe_features(untrained, embedder, dataset, own), **spread}


def _save_embedding(folder: RunFolder, learner: Learner, embedder: Embedder, dataset: Dataset) -> None:
    """The test images as the report shows them: features, projections, labels and small pictures."""
    part = materialise(dataset.test, SHOWN, embedder.size)
    with mode(learner, training=False):
        embedding = embedder.embed(learner, part)
    pictures = [images for _, images in evaluation_batches(part, min(embedder.size, THUMBNAIL))]
    arrays: dict[str, np.ndarray] = {
        "h": embedding.h.numpy(),
        "z": embedding.z.numpy(),
        "thumbnails": torch.cat(pictures).mul(255).round().to(torch.uint8).numpy(),
        "ids": np.array(list(part.ids), dtype=str),
    }
    if part.labels is not None and dataset.classes is not None:
        arrays |= {"labels": part.labels.numpy(), "classes": np.array(dataset.classes, dtype=str)}
    with whole_file(folder.evaluation) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
