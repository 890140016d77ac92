"""From settings to a finished run: the main job."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stopgrad.data.batches import Batches
from stopgrad.data.sources import Dataset, load_dataset
from stopgrad.data.views import Views
from stopgrad.errors import UsageError
from stopgrad.evaluation.knn import knn_accuracy
from stopgrad.evaluation.measures import Embedder, materialise, measure_learner
from stopgrad.evaluation.results import evaluate_run
from stopgrad.files import write_text
from stopgrad.method import Learner, Supervised
from stopgrad.networks.encoders import build_encoder
from stopgrad.settings import RunSettings, read_yaml, validate
from stopgrad.training.checkpoint import load_checkpoint
from stopgrad.training.folder import MetricsLog, RunFolder, run_logger
from stopgrad.training.online import OnlineProbe
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.precision import FABRIC, resolve_device, resolve_precision
from stopgrad.training.progress import Progress
from stopgrad.training.state import TrainState
from stopgrad.training.trainer import Diverged, Trainer

log = logging.getLogger(__name__)


def run(
    settings: RunSettings,
    out: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Pretrain, evaluate, export, and write the report; returns the summary that `summary.json` holds.

    Args:
        settings: complete settings (see `stopgrad.settings.resolve`).
        out: the run folder; it must not hold a run yet unless ``resume``.
        resume: continue the run in ``out`` from its last checkpoint, to the same weights as without a stop.
        init_from: a checkpoint or run folder whose encoder and projector weights to start from.
        show_progress: whether to draw the bar on stderr.

    Raises:
        UsageError: for settings that cannot work here, before anything is written.
        Interrupted: when SIGINT or SIGTERM stopped it; the checkpoint is written.
    """
    settings = settings.but(precision=resolve_precision(settings.precision, resolve_device(settings.device)))
    folder = RunFolder(out)
    checkpoint = _checkpoint_to_resume(folder, settings, resume)
    fabric = _fabric(settings)
    dataset = load_dataset(settings.data)
    session = Session.open(settings, dataset, fabric)
    if init_from is not None and checkpoint is None:
        load_weights(session.learner, init_from)
    trainer = session.trainer(folder, checkpoint, show_progress)
    log.info("%s on %s, seed %d, %s", settings.method, settings.data.name, settings.seed, session.describe())
    for skipped in dataset.skipped:
        log.warning("skipped %s: %s", skipped.path, skipped.reason)
    try:
        with trainer.progress:
            loss = trainer.fit()
        diverged_at = None
    except Diverged as stop:
        log.error("%s", stop)
        loss, diverged_at = float("nan"), stop.step
    finally:
        trainer.batches.close()
        if trainer.metrics is not None:
            trainer.metrics.close()
    rate = trainer.images / trainer.seconds if trainer.seconds else 0.0
    return session.finish(folder, loss=loss, images_per_second=rate, diverged_at=diverged_at)


@dataclass
class Session:
    """The objects of a run: data, views, learner, and how images reach it."""

    settings: RunSettings
    fabric: Fabric
    dataset: Dataset
    views: Views
    learner: Learner
    embedder: Embedder

    @classmethod
    def open(cls, settings: RunSettings, dataset: Dataset, fabric: Fabric) -> "Session":
        """Build everything that the settings name, with weights drawn from the seed."""
        learner = build_learner(settings, dataset)
        mean = torch.tensor(dataset.mean, device=fabric.device)[:, None, None]
        std = torch.tensor(dataset.std, device=fabric.device)[:, None, None]
        channels_last = uses_channels_last(learner, fabric.device)

        def normalise(images: Tensor) -> Tensor:
            images = images.sub(mean).div_(std)
            return images.contiguous(memory_format=torch.channels_last) if channels_last else images

        embedder = Embedder(
            settings.view_size, fabric.device, normalise, fabric.autocast, workers=settings.data.workers
        )
        return cls(settings, fabric, dataset, settings.make_views(), learner, embedder)

    def trainer(self, folder: RunFolder, checkpoint: dict[str, Any] | None, show_progress: bool) -> Trainer:
        """The loop, at the step of the checkpoint, with the run folder set up for it."""
        settings, fabric = self.settings, self.fabric
        batches = Batches(
            self.dataset.train, self.views, settings.batch_size, seed=settings.seed, rank=fabric.global_rank,
            world=fabric.world_size, device=fabric.device, workers=settings.data.workers,
        )  # fmt: skip
        state = self._state()
        if checkpoint is not None:
            state.load_state_dict(checkpoint)
        self.learner = state.bare_learner
        metrics = None
        if fabric.is_global_zero:
            folder.path.mkdir(parents=True, exist_ok=True)
            write_text(folder.config, settings.to_yaml())
            run_logger(folder)
            metrics = MetricsLog(folder, state.step)
        show = show_progress and fabric.is_global_zero
        progress = Progress(settings.epochs * len(batches), done=state.step, visible=show)
        return Trainer(
            settings, fabric, folder, state, batches, self.embedder.normalise, self._evaluator(state),
            metrics, progress, saved_step=state.step,
        )  # fmt: skip

    def describe(self) -> str:
        """Machine and size, for the log."""
        weights = sum(w.numel() for w in self.learner.parameters() if w.requires_grad)
        return (
            f"{len(self.dataset.train)} training images, {weights:,} trained weights, {self.fabric.device}, "
            f"{self.settings.precision}, {self.fabric.world_size} process(es), torch {torch.__version__}"
        )

    def finish(self, folder: RunFolder, **training: Any) -> dict[str, Any]:
        """Evaluate on all parts and write summary, embedding, exported encoder and report."""
        summary: dict[str, Any] = {}
        if self.fabric.is_global_zero:
            untrained = build_learner(self.settings, self.dataset).to(self.fabric.device)
            summary = evaluate_run(
                self.learner, untrained, self.embedder, self.dataset, self.views, self.settings, folder,
                **training,
            )  # fmt: skip
        self.fabric.barrier()
        return summary

    def _state(self) -> TrainState:
        fabric, settings = self.fabric, self.settings
        if uses_channels_last(self.learner, fabric.device):
            self.learner.to(memory_format=torch.channels_last)
        fabric.to_device(self.learner)
        learner, optimizer = fabric.setup(self.learner, build_optimizer(settings.optimizer, self.learner))
        probe = probe_optimizer = None
        labels, classes = self.dataset.train.labels, self.dataset.classes
        if labels is not None and classes is not None:
            bare = fabric.to_device(OnlineProbe(self.learner.encoder.width, len(classes)))
            adam = torch.optim.AdamW(bare.parameters(), lr=1e-3, weight_decay=0)
            probe, probe_optimizer = fabric.setup(bare, adam)
        return TrainState(learner, optimizer, probe, probe_optimizer, fabric.device)

    def _evaluator(self, state: TrainState) -> Any:
        """The measures of an epoch row, on fixed subsets of the validation and labelled parts."""
        count, size = self.settings.evaluation.images, self.settings.view_size
        val = materialise(self.dataset.val, count, size)
        bank = materialise(self.dataset.probe, count, size) if self.dataset.probe.labels is not None else None
        classes = self.dataset.classes

        def evaluate() -> dict[str, Any]:
            plain, rows = measure_learner(state.bare_learner, self.embedder, val, self.views)
            row: dict[str, Any] = dict(rows)
            if bank is None or val.labels is None or classes is None or not torch.isfinite(plain.h).all():
                return row
            bank_h = self.embedder.embed_evaluating(state.bare_learner, bank).h
            own = self.settings.evaluation
            k = min(own.knn_k, len(bank))
            row["knn"] = knn_accuracy(
                plain.h, val.labels, bank_h, bank.labels, len(classes), k, own.knn_temperature
            )
            if (probe := state.bare_probe) is not None:
                row["online_probe"] = probe.accuracy(plain.h, val.labels)
            return row

        return evaluate


def build_learner(settings: RunSettings, dataset: Dataset) -> Learner:
    """The learner that the settings name, on the CPU, its weights drawn from the seed."""
    torch.manual_seed(settings.seed)
    encoder = build_encoder(settings.encoder, dataset.channels, settings.view_size)
    sentence = settings.sentence
    if isinstance(sentence, Supervised):
        if dataset.classes is None or dataset.train.labels is None:
            raise UsageError(
                f"supervised: {settings.data.name} has no labels; sort its images into one folder a class"
            )
        return sentence.build(encoder, len(dataset.classes))
    return sentence.build(encoder, settings.projector)


def load_weights(learner: nn.Module, source: Path) -> None:
    """Start from the encoder and projector of another run; everything else stays fresh.

    Raises:
        UsageError: when a weight is missing or of another shape.
    """
    path = RunFolder(source).checkpoint if source.is_dir() else source
    weights = load_checkpoint(path)["learner"]
    for name in ("encoder", "projector"):
        part: nn.Module = getattr(learner, name)
        own = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}
        try:
            part.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"--init-from {source}: its {name} does not fit this run ({reason})") from None


def uses_channels_last(learner: nn.Module, device: torch.device) -> bool:
    """Whether convolutions run faster with channels last: wide ones do, on CPUs and tensor cores."""
    convolutions = [m for m in learner.modules() if isinstance(m, nn.Conv2d)]
    return device.type in ("cpu", "cuda") and any(m.in_channels >= 64 for m in convolutions)


def _fabric(settings: RunSettings) -> Fabric:
    """One process, or the processes that torchrun started."""
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=resolve_device(settings.device),
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=FABRIC[settings.precision],
    )
    fabric.launch()
    return fabric


def _checkpoint_to_resume(folder: RunFolder, settings: RunSettings, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, or None for a fresh run; refuses to mix two runs in one folder."""
    if not folder.config.exists():
        return None
    if not resume:
        raise UsageError(
            f"--out {folder.path}: holds a run already; add --resume to go on with it, or name another folder"
        )
    before, now = validate(read_yaml(folder.config)), settings
    if before != now:
        name = _first_difference(before.model_dump(mode="json"), now.model_dump(mode="json"))
        raise UsageError(f"--resume: {name} differs from {folder.config}; leave it out to go on as before")
    return load_checkpoint(folder.checkpoint) if folder.checkpoint.exists() else None


def _first_difference(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> str:
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and old != new:
            return _first_difference(old, new, f"{prefix}{key}.")
        if old != new:
            return f"{prefix}{key} ({old!r} then, {new!r} now)"
    return prefix
