"""From settings to a finished run: the main job."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from stopgrad.data.batches import Batches
from stopgrad.data.sources import Dataset, load_dataset
from stopgrad.data.views import Views
from stopgrad.diagnostics.diagnosis import Diagnosis, Reading
from stopgrad.diagnostics.doctor import examine
from stopgrad.diagnostics.monitor import Monitor
from stopgrad.diagnostics.preflight import preflight
from stopgrad.errors import UsageError
from stopgrad.evaluation.knn import knn_accuracy
from stopgrad.evaluation.measures import Embedder, materialise, measure_learner
from stopgrad.files import write_text
from stopgrad.method import Learner, Method, SiameseLearner
from stopgrad.parts.target import EmaTarget, Memory
from stopgrad.training.build import (
    DataFacts,
    build_embedder,
    build_learner,
    load_weights,
    uses_channels_last,
)
from stopgrad.training.checkpoint import load_checkpoint
from stopgrad.training.compiled import Compiled, check_compile
from stopgrad.training.distributed import join_batch_norm, launch, peers, settle_buckets
from stopgrad.training.folder import MetricsLog, RunFolder, run_logger
from stopgrad.training.online import OnlineProbe
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.precision import resolve_device, resolve_precision, resolve_threads
from stopgrad.training.progress import Progress
from stopgrad.training.rescue import (
    MOST,
    Rescue,
    apply_changes,
    first_fix,
    read_rescues,
    transplant,
    write_rescues,
)
from stopgrad.training.results import evaluate_run
from stopgrad.training.settings import RunSettings, facts_of, read_yaml, validate
from stopgrad.training.side_by_side import SideBySide, TwoThreads, runs_side_by_side
from stopgrad.training.state import TrainState
from stopgrad.training.trainer import Collapsed, Diverged, Trainer

log = logging.getLogger(__name__)


def run(
    settings: RunSettings,
    out: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    show_progress: bool = True,
    check: bool = False,
) -> dict[str, Any]:
    """Pretrain, evaluate and export; returns the summary that `summary.json` holds.

    Args:
        settings: complete settings (see `stopgrad.training.settings.resolve`).
        out: the run folder; it must not hold a run yet unless ``resume``.
        resume: continue the run in ``out`` from its last checkpoint, to the same weights as without a stop.
        init_from: a checkpoint or run folder whose encoder and projector weights to start from.
        show_progress: whether to draw the bar on stderr.
        check: whether to try a batch first and look for what would go wrong.

    Raises:
        UsageError: for settings that cannot work here, before anything is written; for a fault that the
            preflight finds, before the first step.
        Interrupted: when SIGINT or SIGTERM stopped it; the checkpoint is written.
        PeerLost: when another process of the run is gone; the last checkpoint is kept.
    """
    settings = complete(settings)
    folder = RunFolder(out)
    settings, checkpoint = _where_to_resume(folder, settings, resume)
    fabric = launch(settings)  # nobody writes before everybody has looked
    with peers(fabric):
        return _run(settings, folder, fabric, checkpoint, init_from, show_progress, check)


def _run(
    settings: RunSettings,
    folder: RunFolder,
    fabric: Fabric,
    checkpoint: dict[str, Any] | None,
    init_from: Path | None,
    show_progress: bool,
    check: bool,
) -> dict[str, Any]:
    session = Session.open(settings, fabric)
    if init_from is not None and checkpoint is None:
        load_weights(session.learner, init_from)
    warnings = session.check_first_batch() if check else []
    while True:
        trainer = session.trainer(folder, checkpoint, show_progress)
        session.introduce(trainer.state.step)
        for warning in warnings:
            log.warning("preflight: %s", warning)
        warnings = []
        ended = _train(trainer)
        if ended.failure is None or not trainer.rescuable(ended.failure):
            compiled = None if trainer.compiled is None else trainer.compiled.mode
            return session.finish(folder, loss=ended.loss, diverged_at=ended.diverged_at, compiled=compiled)
        session, checkpoint = session.rescued(folder, ended.failure, trainer.state.step)


@dataclass(frozen=True)
class _Ended:
    """How a training ended: mean loss of the last epoch, the first bad step if it diverged, the failure."""

    loss: float
    diverged_at: int | None = None
    failure: Diagnosis | None = None


def _train(trainer: Trainer) -> _Ended:
    """Train to the end, or to a failure that is not to be trained on with."""
    try:
        with trainer.progress:
            return _Ended(trainer.fit())
    except Diverged as stop:
        log.error("%s", stop)
        monitor, last = trainer.monitor, Reading(stop.step, {}, math.nan)
        before = [r for r in monitor.readings if r.step is not None and r.step < stop.step]
        found = examine([*before, last], monitor.facts)
        return _Ended(math.nan, stop.step, found)
    except Collapsed as stop:
        log.error("%s", stop)
        return _Ended(trainer.state.epoch_loss, None, stop.diagnosis)
    finally:
        trainer.batches.close()
        if trainer.metrics is not None:
            trainer.metrics.close()


def complete(settings: RunSettings) -> RunSettings:
    """Settings whose precision and threads are those that "auto" stands for on this machine.

    Raises:
        UsageError: when the device is not there, cannot compute in the precision asked for, or cannot be
            compiled for as asked.
    """
    device = resolve_device(settings.device)
    check_compile(settings.compile, device, settings.accumulate)
    return settings.but(
        precision=resolve_precision(settings.precision, device),
        threads=resolve_threads(settings.threads, device, settings.encoder.name),
    )


@dataclass
class Session:
    """The objects of a run: data, views, learner, and how images reach it."""

    settings: RunSettings
    fabric: Fabric
    dataset: Dataset
    facts: DataFacts
    views: Views
    learner: Learner
    embedder: Embedder

    @classmethod
    def open(cls, settings: RunSettings, fabric: Fabric) -> "Session":
        """Load the data and build everything that the settings name, with weights drawn from the seed."""
        with fabric.rank_zero_first():  # it may have to download, or to index a folder
            dataset = load_dataset(settings.data)
        facts = DataFacts.of(dataset)
        learner = build_learner(settings, facts)
        embedder = build_embedder(settings, facts, fabric, learner)
        return cls(settings, fabric, dataset, facts, settings.make_views(), learner, embedder)

    def trainer(self, folder: RunFolder, checkpoint: dict[str, Any] | None, show_progress: bool) -> Trainer:
        """The loop, at the step of the checkpoint, with the run folder set up for it."""
        settings, fabric = self.settings, self.fabric
        threads = TwoThreads() if runs_side_by_side(settings, fabric) else None
        batches = self._batches(map if threads is None else threads.map)
        state = self._state()
        side_by_side = None if threads is None else SideBySide(self.learner, fabric, threads)
        monitor = Monitor(every=1, facts=facts_of(settings))
        if checkpoint is not None:
            state.load_state_dict(checkpoint)
            monitor.load_state_dict(checkpoint["monitor"])
            monitor.readings = folder.readings(until=state.step)
        metrics = None
        if fabric.is_global_zero:
            folder.path.mkdir(parents=True, exist_ok=True)
            write_text(folder.config, settings.to_yaml())
            run_logger(folder)
            metrics = MetricsLog(folder, state.step if checkpoint is not None else -1)
        show = show_progress and fabric.is_global_zero
        progress = Progress(settings.epochs * len(batches), done=state.step, visible=show)
        compiled = None
        if settings.compile != "none":
            compiled = Compiled(self.learner, settings.compile, fabric, progress)
        return Trainer(
            settings, self.facts, fabric, folder, state, batches, self.embedder.normalise,
            self._evaluator(state), metrics, progress, monitor, side_by_side, compiled,
            saved_step=state.step, rescuable=self._rescuable(folder),
        )  # fmt: skip

    def rescued(
        self, folder: RunFolder, found: Diagnosis, step: int
    ) -> tuple["Session", dict[str, Any] | None]:
        """The run back where it was well, with the first remedy: its new objects, and the checkpoint or None.

        The failed checkpoint goes first: a kill in between costs the time since the start, but mixes nothing.
        """
        fix = first_fix(found, self.settings)
        assert fix is not None
        checkpoint = _last_healthy(folder, found)
        settings = apply_changes(self.settings, fix[1])
        session = Session.open(settings, self.fabric)
        if checkpoint is not None:
            checkpoint = transplant(checkpoint, session.learner)
        if self.fabric.is_global_zero:
            folder.checkpoint.unlink(missing_ok=True)
            back_to = 0 if checkpoint is None else int(checkpoint["step"])
            rescue = Rescue(found.verdict, step, found.first_bad_step, back_to, fix[0].change, fix[1])
            before, first = read_rescues(folder)
            write_rescues(folder, [*before, rescue], first or self.settings.model_dump(mode="json"))
            log.warning("rescue: back to step %d, and now: %s", back_to, rescue.fix)
        self.fabric.barrier()
        return session, checkpoint

    def _rescuable(self, folder: RunFolder) -> Callable[[Diagnosis], bool]:
        """Whether the settings ask for a rescue, and there is one left that they can take."""
        done = self.fabric.broadcast(len(read_rescues(folder)[0]))
        asked = self.settings.on_collapse == "rescue" and done < MOST
        return lambda found: asked and first_fix(found, self.settings) is not None

    def introduce(self, step: int) -> None:
        """Write what runs where, and what was left out of the data, into the log."""
        weights = sum(w.numel() for w in self.learner.parameters() if w.requires_grad)
        log.info(
            "%s on %s, seed %d, from step %d: %d training images, %s trained weights, %s, %s, "
            "%d process(es), torch %s",
            self.settings.method, self.settings.data.name, self.settings.seed, step, len(self.dataset.train),
            f"{weights:,}", self.fabric.device, self.settings.precision, self.fabric.world_size,
            torch.__version__,
        )  # fmt: skip
        for skipped in self.dataset.skipped:
            log.warning("skipped %s: %s", skipped.path, skipped.reason)

    def _batches(self, each: Callable[..., Any] = map) -> Batches:
        """The training images as this rank sees them."""
        settings, fabric, method = self.settings, self.fabric, self.settings.sentence
        return Batches(
            self.dataset.train, self.views, settings.batch_size, seed=settings.seed, rank=fabric.global_rank,
            world=fabric.world_size, device=fabric.device, workers=settings.data.workers, each=each,
            count=method.views if isinstance(method, Method) else 2,
        )  # fmt: skip

    def check_first_batch(self) -> list[str]:
        """What `stopgrad.diagnostics.preflight` warns of, a line each; nothing where it cannot look.

        Raises:
            UsageError: for the first fault.
        """
        learner = self.learner
        if not isinstance(learner, SiameseLearner) or isinstance(learner.method.target, Memory):
            return []
        batches = self._batches()
        views = tuple(self.embedder.normalise(view).cpu() for view in next(batches.epoch(0)).views)
        batches.close()
        update = _follow if isinstance(learner.target, EmaTarget) else None
        optimizer = build_optimizer(self.settings.optimizer, learner)
        findings = preflight(learner, views, optimizer, update=update)
        lines = [f"{finding.check}: {finding.says}; {finding.fix}" for finding in findings]
        if findings and findings[0].level == "fault":
            raise UsageError(f"preflight: {lines[0]}")
        return lines

    def finish(self, folder: RunFolder, **training: Any) -> dict[str, Any]:
        """Evaluate on all parts and write summary, embedding and exported encoder.

        The summary is the first process's; the others have nothing, and are done before it.
        """
        untrained = build_learner(self.settings, self.facts).to(self.fabric.device)
        return evaluate_run(
            self._evaluated(), untrained, self.embedder, self.dataset, self.views, self.settings, folder,
            **training,
        )  # fmt: skip

    def _evaluated(self) -> Learner:
        """The learner for evaluation: its batch normalisation sees a batch of this process alone."""
        if self.fabric.world_size == 1:
            return self.learner
        twin = build_learner(self.settings, self.facts).to(self.fabric.device)
        twin.load_state_dict(self.learner.state_dict())
        return twin

    def _state(self) -> TrainState:
        fabric, settings = self.fabric, self.settings
        if uses_channels_last(self.learner, fabric.device):
            self.learner.to(memory_format=torch.channels_last)
        join_batch_norm(self.learner, fabric)
        fabric.to_device(self.learner)
        learner, optimizer = fabric.setup(self.learner, build_optimizer(settings.optimizer, self.learner))
        probe = probe_optimizer = None
        if self.facts.classes is not None:
            bare = OnlineProbe(self.learner.encoder.width, len(self.facts.classes))
            join_batch_norm(bare, fabric)
            fabric.to_device(bare)
            fused = fabric.device.type in ("cpu", "cuda")
            adam = torch.optim.AdamW(bare.parameters(), lr=1e-3, weight_decay=0, fused=fused)
            probe, probe_optimizer = fabric.setup(bare, adam)
        for module in (learner, probe):
            settle_buckets(module)
        return TrainState(learner, optimizer, probe, probe_optimizer, fabric.device)

    def _evaluator(self, state: TrainState) -> Callable[[], dict[str, Any]]:
        """The measures of an epoch row, on fixed subsets of the validation and labelled parts.

        All processes compute them together. What is drawn for it is forgotten, since the shares differ and
        the processes are to go on with the same state of the generator, which a checkpoint holds once.
        """
        own, size = self.settings.evaluation, self.settings.view_size
        val = materialise(self.dataset.val, own.images, size)
        labelled = None not in (val.labels, self.dataset.probe.labels, self.dataset.classes)
        bank = materialise(self.dataset.probe, own.images, size) if labelled else None
        classes = len(self.dataset.classes or ())

        def evaluate() -> dict[str, Any]:
            if self.fabric.world_size == 1:
                return measures(self.learner)
            cuda = [self.fabric.device] if self.fabric.device.type == "cuda" else []
            with torch.random.fork_rng(cuda):
                return measures(self._evaluated())

        def measures(learner: Learner) -> dict[str, Any]:
            plain, nodes, modes = measure_learner(learner, self.embedder, val, self.views)
            row: dict[str, Any] = {**nodes, "modes": modes} if modes else dict(nodes)
            if bank is None or val.labels is None or not torch.isfinite(plain.h).all():
                return row
            bank_h = self.embedder.embed_evaluating(learner, bank).h
            k = min(own.knn_k, len(bank))
            row["knn"] = knn_accuracy(
                plain.h, val.labels, bank_h, bank.labels, classes, k, own.knn_temperature,
                shares=self.embedder.shares,
            )  # fmt: skip
            if (probe := state.bare_probe) is not None:
                row["online_probe"] = probe.accuracy(plain.h, val.labels)
            return row

        return evaluate


def _follow(learner: nn.Module) -> None:
    """Move the EMA target of a learner as the trainer does after a step."""
    assert isinstance(learner, SiameseLearner)
    assert isinstance(learner.target, EmaTarget)
    learner.target.update(learner.online)


def _last_healthy(folder: RunFolder, found: Diagnosis) -> dict[str, Any] | None:
    """The last checkpoint from before a failure began, None where it began with the run."""
    if not folder.healthy.is_file():
        return None
    content = load_checkpoint(folder.healthy)
    since = found.first_bad_step
    return content if since is None or content["step"] < since else None


def _where_to_resume(
    folder: RunFolder, settings: RunSettings, resume: bool
) -> tuple[RunSettings, dict[str, Any] | None]:
    """The settings and the checkpoint to go on with, None for a fresh run; a folder holds one run only.

    A run that was rescued goes on with its changed settings, under the settings that it began with too.
    """
    if not folder.config.exists():
        return settings, None
    if not resume:
        raise UsageError(
            f"--out {folder.path}: holds a run already; add --resume to go on with it, or name another folder"
        )
    before = validate(read_yaml(folder.config))
    if settings.model_dump(mode="json") == read_rescues(folder)[1]:
        settings = before
    if before != settings:
        name = _first_difference(before.model_dump(mode="json"), settings.model_dump(mode="json"))
        raise UsageError(f"--resume: {name} differs from {folder.config}; leave it out to go on as before")
    return settings, load_checkpoint(folder.checkpoint) if folder.checkpoint.exists() else None


def _first_difference(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> str:
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and old != new:
            return _first_difference(old, new, f"{prefix}{key}.")
        if old != new:
            return f"{prefix}{key} ({old!r} then, {new!r} now)"
    return prefix
