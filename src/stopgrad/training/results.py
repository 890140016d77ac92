"""What a finished run is judged by: `summary.json`, `evaluation.npz`, the exported encoder.

Everything is chosen on training and validation images; the test part is read once, here.
"""

import statistics
from dataclasses import asdict, dataclass
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
from stopgrad.evaluation.measures import Embedder, Embedding, materialise, measure_learner
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
    compiled: str | None,
) -> dict[str, Any]:
    """Measure a trained learner on the test part, write all result files, and return the summary.

    Several processes embed and vote together; then the first one alone fits the linear probes, writes and
    returns the summary, and the others return nothing without waiting for it. ``compiled`` is the mode that
    this process compiled its training steps with, None if they were eager, or if there were none.
    """
    own, first = settings.evaluation, embedder.shares.rank == 0
    shown = materialise(dataset.test, settings.evaluation.images, settings.view_size)
    _, nodes, _ = measure_learner(learner, embedder, shown, views)
    probed = _Probed.of(learner, embedder, dataset, own)
    bare = _Probed.of(untrained, embedder, dataset, own) if own.control else None
    spread = _spread(embedder.embed_evaluating(untrained, shown).z) if own.control else {}
    pictures = materialise(dataset.test, SHOWN, embedder.size)
    embedding = embedder.embed_evaluating(learner, pictures)
    if not first:
        return {}
    verdict, evidence = diagnostics.judge({name: nodes[name] for name in ("z", "p")}, loss)
    z = nodes["z"]
    summary: dict[str, Any] = {
        "method": settings.method,
        "data": settings.data.name,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "compiled": compiled,
        "images_per_second": _throughput(folder),
        "loss": loss,
        **{name: z[name] for name in ("std", "effective_rank", "alignment", "uniformity")},
        **probed.figures(dataset),
        "verdict": verdict,
        "diverged_at_step": diverged_at,
        "evidence": [asdict(item) for item in evidence],
        **nodes,
        "rescues": [asdict(rescue) for rescue in read_rescues(folder)[0]],
        "untrained": None if bare is None else {**bare.figures(dataset), **spread},
        "skipped": [{"path": s.path, "reason": s.reason} for s in dataset.skipped],
        "run": str(folder.path),
        "stopgrad": version("stopgrad"),
    }
    write_text(folder.summary, to_json(summary, indent=2) + "\n")
    _save_embedding(folder, pictures, embedding, embedder.size, dataset)
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
    return _Probed.of(learner, embedder, dataset, settings).figures(dataset)


def probe_vectors(
    h_fit: Tensor, h_val: Tensor, h_test: Tensor, dataset: Dataset, settings: EvaluationSettings
) -> dict[str, float]:
    """The figures of `probe_features` for any vectors of the probe, validation and test images.

    Raises:
        UsageError: without labels, or for vectors that are not finite.
    """
    knn = _vote(h_fit, h_test, dataset, settings, device="cpu")
    return {"knn": knn, **_fit_probes((h_fit, h_val, h_test), dataset, "cpu")}


Features = tuple[Tensor, Tensor, Tensor]
"""Of the probe, the validation and the test images, (N, D) each."""


@dataclass(frozen=True)
class _Probed:
    """A learner's features and their kNN accuracy, which all processes make together.

    Both are None where there are no labels, or the features are not finite.
    """

    device: torch.device
    features: Features | None = None
    knn: float | None = None

    @classmethod
    def of(
        cls, learner: Learner, embedder: Embedder, dataset: Dataset, settings: EvaluationSettings
    ) -> "_Probed":
        if dataset.probe.labels is None or dataset.test.labels is None:
            return cls(embedder.device)
        parts = (dataset.probe, dataset.val, dataset.test)
        fit, val, test = (embedder.features(learner, part) for part in parts)
        if not all(bool(torch.isfinite(h).all()) for h in (fit, val, test)):
            return cls(embedder.device)
        knn = _vote(fit, test, dataset, settings, device=embedder.device, shares=embedder.shares)
        return cls(embedder.device, (fit, val, test), knn)

    def figures(self, dataset: Dataset) -> dict[str, float | None]:
        """All probes' accuracies; the linear ones are fitted here, by this process alone."""
        if self.features is None:
            return dict.fromkeys(PROBES)
        return {"knn": self.knn, **_fit_probes(self.features, dataset, self.device)}


def _vote(
    bank: Tensor, queries: Tensor, dataset: Dataset, settings: EvaluationSettings, **where: Any
) -> float:
    return knn_accuracy(
        queries, dataset.test.labels, bank, dataset.probe.labels, len(dataset.classes or ()),
        min(settings.knn_k, len(bank)), settings.knn_temperature, **where,
    )  # fmt: skip


def _fit_probes(features: Features, dataset: Dataset, device: torch.device | str) -> dict[str, float]:
    h_fit, h_val, h_test = features
    fit, val, test = dataset.probe, dataset.val, dataset.test
    chosen_on = None if val.labels is None else (h_val, val.labels)
    few = few_labels(fit.labels, LABELS_A_CLASS, seed=0)

    def linear(rows: Tensor | None, standardise: bool) -> float:
        h, labels = h_fit, fit.labels
        if rows is not None and labels is not None:
            h, labels = h[rows], labels[rows]
        return linear_probe(h, labels, h_test, test.labels, chosen_on, standardise, device=device).accuracy

    return {
        "linear_probe": linear(None, True),
        "linear_probe_raw": linear(None, False),
        "linear_probe_20": linear(few, True),
        "linear_probe_20_raw": linear(few, False),
    }


def _spread(z: Tensor) -> dict[str, float]:
    """What the projections are spread over before training."""
    return {
        "std": float(diagnostics.embedding_std(z)),
        "effective_rank": float(diagnostics.effective_rank(z)),
    }


def _save_embedding(
    folder: RunFolder, part: ArrayPart, embedding: Embedding, size: int, dataset: Dataset
) -> None:
    """Test images as the report shows them: features, projections, labels and small pictures."""
    thumbnails = [images for _, images in evaluation_batches(part, min(size, THUMBNAIL))]
    arrays: dict[str, np.ndarray] = {
        "h": embedding.h.numpy(),
        "z": embedding.z.numpy(),
        "thumbnails": torch.cat(thumbnails).mul(255).round().to(torch.uint8).numpy(),
        "ids": np.array(list(part.ids), dtype=str),
    }
    if part.labels is not None and dataset.classes is not None:
        arrays |= {"labels": part.labels.numpy(), "classes": np.array(dataset.classes, dtype=str)}
    with whole_file(folder.evaluation) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
