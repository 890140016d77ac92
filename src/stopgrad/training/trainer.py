"""The training loop: plain, on Lightning Fabric, resumable at any step."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stopgrad.data.batches import Batch, Batches
from stopgrad.diagnostics.attached import EVALUATED
from stopgrad.diagnostics.diagnosis import Diagnosis, Reading
from stopgrad.diagnostics.monitor import Monitor
from stopgrad.evaluation.measures import mode
from stopgrad.files import copy_file
from stopgrad.method import Nodes, SiameseLearner
from stopgrad.parts.ranks import joint
from stopgrad.parts.target import EmaTarget
from stopgrad.training.build import DataFacts
from stopgrad.training.checkpoint import save_checkpoint
from stopgrad.training.compiled import Compiled
from stopgrad.training.folder import MetricsLog, RunFolder
from stopgrad.training.memory import give_back
from stopgrad.training.optimizer import set_learning_rate
from stopgrad.training.precision import threads_of_an_operation
from stopgrad.training.progress import Progress
from stopgrad.training.settings import RunSettings
from stopgrad.training.side_by_side import SideBySide
from stopgrad.training.state import TrainState

log = logging.getLogger(__name__)

LOG_EVERY = 20
"""Optimiser steps between two step rows of the log."""


class Diverged(RuntimeError):
    """The loss stopped being a finite number.

    ``step`` is the first bad step, from 1; ``kept`` the step of the checkpoint that is left, 0 if none.
    """

    def __init__(self, step: int, kept: int):
        super().__init__(f"the loss is not finite at step {step}; the checkpoint of step {kept} is kept")
        self.step, self.kept = step, kept


class Collapsed(RuntimeError):
    """The readings are those of a failure, and the settings ask not to go on; the checkpoint is written."""

    def __init__(self, diagnosis: Diagnosis, step: int):
        super().__init__(f"stopped after step {step}: {advice(diagnosis)}")
        self.diagnosis, self.step = diagnosis, step


def advice(diagnosis: Diagnosis) -> str:
    """A diagnosis in one line: what, since when, why, and what to change first."""
    cause = f", {diagnosis.cause}" if diagnosis.cause else ""
    fix = f"; first to change: {diagnosis.fixes[0].change}" if diagnosis.fixes else ""
    return f"{diagnosis.verdict} since step {diagnosis.first_bad_step}{cause}{fix}"


class Interrupted(RuntimeError):
    """Somebody asked the run to stop; it is saved and can be resumed."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}; saved")
        self.signal_number, self.step = signal_number, step


@dataclass
class Trainer:
    """One run's loop. ``evaluate`` gives the epoch row's measures, on all ranks together; ``metrics`` is None
    but on rank 0."""

    settings: RunSettings
    facts: DataFacts
    fabric: Fabric
    folder: RunFolder
    state: TrainState
    batches: Batches
    normalise: Callable[[Tensor], Tensor]
    evaluate: Callable[[], dict[str, Any]]
    metrics: MetricsLog | None
    progress: Progress
    monitor: Monitor
    side_by_side: SideBySide | None = None
    compiled: Compiled | None = None
    saved_step: int = 0
    rescuable: Callable[[Diagnosis], bool] = lambda found: False

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.settings.epochs * len(self.batches)

    def fit(self) -> float:
        """Train from the state's step to the end; returns the mean loss of the last epoch.

        Raises:
            Diverged: when the loss is not finite; the last good checkpoint is kept.
            Interrupted: after SIGINT or SIGTERM, once a checkpoint is written.
            Collapsed: where the settings ask to stop then, or to be rescued, once a checkpoint is written.
        """
        per_epoch = len(self.batches)
        if self.state.step == 0:
            self._write_epoch_row(0, loss=None)
        with _signals() as asked:
            for epoch in range(self.state.step // per_epoch, self.settings.epochs):
                self._epoch(epoch, asked)
                self._check_finite()
                self.state.epoch_loss = float(self._all(self.state.loss_sum).mean()) / per_epoch
                self.state.loss_sum.zero_()
                self._write_epoch_row(epoch + 1, self.state.epoch_loss)
                self.save()
                if self._anybody(asked):
                    self._stop(asked)
                self._judge()
        return self.state.epoch_loss

    def save(self) -> None:
        """Write the checkpoint; only ever of a state whose losses were all finite."""
        self._check_finite()
        self._check_weights()
        content = {
            "settings": self.settings.model_dump(mode="json"),
            "data": list(self.facts),
            **self.state.state_dict(),
            "monitor": self.monitor.state_dict(readings=False),  # they are in the log
        }
        if self.fabric.is_global_zero:
            save_checkpoint(self.folder.checkpoint, content)
        self.saved_step = self.state.step
        self.fabric.barrier()

    def _epoch(self, epoch: int, asked: list[int]) -> None:
        start = self.state.step - epoch * len(self.batches)
        saved_at = time.perf_counter()
        self.state.learner.train()
        with threads_of_an_operation(self.settings.threads):
            for batch in self.batches.epoch(epoch, start):
                nodes, lr = self._step(batch)
                last = self.state.step % len(self.batches) == 0
                if last or self.state.step % LOG_EVERY == 0:
                    self._write_step_row(nodes, self._read(nodes, batch), lr)
                # several processes ask each other only now and then, for every question is a message; what
                # the last step of an epoch leaves is saved with the epoch's own row
                if last or (self.fabric.world_size > 1 and self.state.step % LOG_EVERY):
                    continue
                due = time.perf_counter() - saved_at > 60 * self.settings.checkpoint_minutes
                if self._anybody(asked or due):
                    self.save()
                    saved_at = time.perf_counter()
                    if self._anybody(asked):
                        self._stop(asked)

    def _stop(self, asked: list[int]) -> NoReturn:
        raise Interrupted(asked[0] if asked else signal.SIGTERM, self.state.step)

    def _step(self, batch: Batch) -> tuple[Nodes, float]:
        """One optimiser step over all accumulated parts of a batch."""
        state, settings = self.state, self.settings
        factor = settings.schedule.factor(state.step, self.steps, len(self.batches))
        lr = set_learning_rate(state.optimizer, factor)
        parts = settings.accumulate
        views = [self.normalise(view).chunk(parts) for view in batch.views]
        labels = batch.labels.chunk(parts) if batch.labels is not None else [None] * parts
        indices = batch.index.chunk(parts)
        rows = []
        for i, own in enumerate(zip(*views, strict=True)):
            rows.append(self._pass(own, labels[i], indices[i], last=i == parts - 1))
        if settings.optimizer.clip is not None:
            self.fabric.clip_gradients(
                state.learner, state.optimizer, max_norm=settings.optimizer.clip, error_if_nonfinite=False
            )
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        nodes = rows[0] if parts == 1 else _join(rows)
        state.record(nodes.loss)
        state.step += 1
        state.bare_learner.after_step(nodes, state.step / self.steps)
        self._train_probe(nodes, batch.labels)
        self.progress.advance(self.settings.batch_size)
        return nodes, lr

    def _read(self, nodes: Nodes, batch: Batch) -> Reading:
        """What the monitor sees of a step that is done; the same on all ranks."""
        learner = self.state.bare_learner
        seen = nn.Sequential(learner.encoder, learner.projector)
        with mode(seen, training=False), torch.no_grad(), self.fabric.autocast():
            z_eval = seen(self.normalise(batch.views[0][:EVALUATED]))
        online = target = None
        if isinstance(learner, SiameseLearner) and isinstance(learner.target, EmaTarget):
            online, target = learner.online, learner.target
        reading = self.monitor.step(
            *nodes.z[:2], *nodes.p[:2], loss=nodes.loss, z_eval=z_eval, online=online, target=target,
            views=batch.views, at=self.state.step,
        )  # fmt: skip
        assert reading is not None
        return reading

    def _judge(self) -> None:
        """Say so when the readings are those of a failure, and stop if that is asked for."""
        found, policy = self.monitor.verdict(), self.settings.on_collapse
        if found.verdict == "healthy":
            if policy == "rescue" and self.fabric.is_global_zero:
                copy_file(self.folder.checkpoint, self.folder.healthy)
            return
        stops = policy == "stop" and found.verdict.endswith("collapse")
        if stops or (policy == "rescue" and self.rescuable(found)):
            raise Collapsed(found, self.state.step)
        log.warning("%s", advice(found))

    def _pass(self, views: tuple[Tensor, ...], labels: Tensor | None, indices: Tensor, last: bool) -> Nodes:
        """Forward and backward pass over one accumulated part; the nodes come without a graph."""
        parts = self.settings.accumulate
        if self.side_by_side is not None:
            return _detached(self.side_by_side(views, labels, parts, indices))
        compiled = nullcontext() if self.compiled is None else self.compiled.in_place(views, labels, indices)
        with compiled, self.fabric.no_backward_sync(self.state.learner, enabled=not last):
            nodes: Nodes = self.state.learner(views, labels, indices)
            self.fabric.backward(nodes.loss / parts)
        return _detached(nodes)

    def _train_probe(self, nodes: Nodes, labels: Tensor | None) -> None:
        state = self.state
        if state.probe is None or state.probe_optimizer is None or labels is None:
            return
        joint = torch.cat([h.float() for h in nodes.h])
        scores = state.probe(joint)
        self.fabric.backward(torch.nn.functional.cross_entropy(scores, labels.repeat(len(nodes.h))))
        state.probe_optimizer.step()
        state.probe_optimizer.zero_grad(set_to_none=True)

    def _write_step_row(self, nodes: Nodes, reading: Reading, lr: float) -> None:
        self._check_finite()
        if self.metrics is None:
            return
        z = reading.nodes["z"]
        row = {
            "kind": "step",
            "step": self.state.step,
            "epoch": self.state.step / len(self.batches),
            "loss": float(nodes.loss),
            "std": z.get("std", math.nan),
            "effective_rank": z.get("effective_rank", math.nan),
            "lr": lr,
            "images_per_second": self.progress.measure_rate(),
            "reading": {"nodes": reading.nodes, "scalars": reading.scalars},
        }
        self.metrics.write(row)
        self.progress.show(row)

    def _write_epoch_row(self, epoch: int, loss: float | None) -> None:
        row = {"kind": "epoch", "step": self.state.step, "epoch": epoch, "loss": loss}
        if epoch % self.settings.evaluation.every == 0 or epoch == self.settings.epochs:
            row |= self.evaluate()
            give_back()
        if self.metrics is None:
            return
        self.metrics.write(row)
        self.progress.epoch(row)
        self.progress.skip_time()

    def _check_finite(self) -> None:
        own = torch.tensor(self.state.bad_step(), device=self.fabric.device)
        bad = [int(step) for step in self._all(own) if step >= 0]
        if bad:
            raise Diverged(min(bad), self.saved_step)

    def _check_weights(self) -> None:
        """A finite loss can have a gradient that is not; no checkpoint of such weights is ever written."""
        norms = torch._foreach_norm([w.detach() for w in self.state.bare_learner.parameters()])
        if not torch.isfinite(torch.stack(norms)).all():
            raise Diverged(self.state.step, self.saved_step)

    def _anybody(self, wish: object) -> bool:
        """Whether any rank wishes it: all ranks must save, or stop, at the same step."""
        if self.fabric.world_size == 1:
            return bool(wish)
        return bool(self._all(torch.tensor(bool(wish), device=self.fabric.device)).any())

    def _all(self, value: Tensor) -> Tensor:
        """The scalars that all ranks hold, (world,)."""
        return joint(value.reshape(1))


def _detached(nodes: Nodes) -> Nodes:
    """Without a graph and in float32, whatever the precision of the training."""
    h, z, p, t = (tuple(x.detach().float() for x in row) for row in (nodes.h, nodes.z, nodes.p, nodes.t))
    return Nodes(nodes.loss.detach(), h, z, p, t, nodes.indices)


def _join(rows: list[Nodes]) -> Nodes:
    """The nodes of a whole batch from those of its accumulated parts."""
    loss = torch.stack([nodes.loss for nodes in rows]).mean()
    columns = zip(*((nodes.h, nodes.z, nodes.p, nodes.t) for nodes in rows), strict=True)
    h, z, p, t = (tuple(torch.cat(views) for views in zip(*column, strict=True)) for column in columns)
    indices = [nodes.indices for nodes in rows if nodes.indices is not None]
    return Nodes(loss, h, z, p, t, torch.cat(indices) if indices else None)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """While open, SIGINT and SIGTERM are noted in the list instead of ending the process at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C means now
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are not ours to take
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
