"""The monitor: readings of a run while it trains, in anybody's loop, at a bounded share of its time.

Legend: B batch of one process, N rows that are read (at most `ROWS`, over all ranks), D width of a node.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stopgrad.diagnostics.attached import Attached
from stopgrad.diagnostics.diagnosis import Diagnosis, Reading
from stopgrad.diagnostics.doctor import examine
from stopgrad.diagnostics.gradients import norms_of_parts
from stopgrad.diagnostics.ranks import device_of_ranks, of_ranks, rank, world
from stopgrad.diagnostics.spread import alignment, view_noise
from stopgrad.diagnostics.statistics import VectorStatistics

# Rows of a node that a reading looks at, and numbers of a network whose movement it follows
ROWS, FOLLOWED = 256, 4096
# Share of the budget that is aimed at, as neither steps nor readings all take the same time
AIMED = 0.7


class Monitor:
    """Measures z, p and t of some steps and says whether, how and since when a run collapses.

    Call `step` in the loop, or `attach` it to a model and change nothing. Under torch.distributed every rank
    calls it; rows of all ranks are read together, and rank 0 writes.

    Args:
        every: steps from one reading to the next; None: as many as keep the monitor below ``budget``.
        budget: the monitor's share of the training time, in (0, 1), where ``every`` is None.
        out: file for the readings, one JSON object a line; None for none.
        writer: a TensorBoard ``SummaryWriter`` or anything with its ``add_scalar``; None for none.
        facts: what is known of the method, see `examine`; it names causes.
        first: the number of the first step, for a run that is resumed.

    Examples:
        >>> monitor = Monitor(every=1)
        >>> for step in range(3):
        ...     z = torch.ones(64, 8) + 1e-4 * torch.randn(64, 8)
        ...     _ = monitor.step(z, z + 1e-4 * torch.randn(64, 8), loss=-1.0)
        >>> monitor.verdict().verdict
        'complete-collapse'
    """

    def __init__(
        self,
        every: int | None = None,
        budget: float = 0.01,
        out: str | Path | None = None,
        writer: Any = None,
        facts: Mapping[str, Any] | None = None,
        first: int = 0,
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every: {every} must be at least 1")
        if not 0 < budget < 1:
            raise ValueError(f"budget: {budget:g} must be in (0, 1)")
        self.every, self.budget, self.facts = every, budget, dict(facts or {})
        self.readings: list[Reading] = []
        self._out = None if out is None else Path(out)
        self._writer = writer
        self._step, self._due = first, first
        self._began: float | None = None
        self._seconds_a_step, self._cost = 0.0, 0.0
        self._before: tuple[Tensor, Tensor] | None = None
        self._attached: Attached | None = None

    @property
    def due(self) -> bool:
        """Whether the coming step is read; what only a reading needs can be left out otherwise."""
        return self._step >= self._due

    def step(
        self,
        z1: Tensor,
        z2: Tensor,
        p1: Tensor | None = None,
        p2: Tensor | None = None,
        t1: Tensor | None = None,
        t2: Tensor | None = None,
        *,
        loss: Tensor | float | None = None,
        model: nn.Module | None = None,
        z_eval: Tensor | None = None,
        online: nn.Module | None = None,
        target: nn.Module | None = None,
        views: Sequence[Tensor] = (),
        scalars: Mapping[str, float] | None = None,
        at: int | None = None,
    ) -> Reading | None:
        """One training step, before or after its backward pass.

        Args:
            z1, z2: online projections of two views, (B, D).
            p1, p2: predictions, (B, D).
            t1, t2: the target's projections as the loss sees them, (B, D): detached, or the run leaks.
            loss: of the step.
            model: whose gradients are measured, by the names of its children; after the backward pass.
            z_eval: projections of some of the images in evaluation mode, (N, D); what batch normalisation
                hides shows there.
            online, target: a network and its slow copy, whose movement since the last reading is followed.
            views: raw views of the batch, each (B, ...); of the first two, `view_noise` measures sigma^2.
            scalars: further measures by name.
            at: number of the step, where not every step is handed over.

        Returns:
            The reading, or None for a step that is not read.
        """
        self._clock()
        if at is not None:
            self._step = at
        if not self.due:
            self._step += 1
            return None
        began = time.perf_counter()
        nodes = {"z": (z1, z2), "p": (p1, p2), "t": (t1, t2)}
        found = dict(scalars or {})
        if online is not None and target is not None:
            found |= self._movement(list(online.parameters()), list(target.parameters()))
        reading = self._read(nodes, loss, model, found, z_eval, views)
        self._take(reading, time.perf_counter() - began)
        return reading

    def verdict(self) -> Diagnosis:
        """The diagnosis of the readings so far.

        Raises:
            ValueError: before the first reading.
        """
        return examine(self.readings, self.facts)

    def state_dict(self, readings: bool = True) -> dict[str, Any]:
        """What a run that is resumed needs, in plain values and tensors.

        Args:
            readings: whether with all that it has read, which grows as long as the run does; not needed where
                they are kept elsewhere and given back as ``readings``.
        """
        kept = [asdict(reading) for reading in self.readings] if readings else []
        return {"readings": kept, "step": self._step, "due": self._due, "before": self._before}

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.readings = [Reading(**reading) for reading in content["readings"]]
        self._step, self._due = content["step"], content["due"]
        self._before = content["before"]

    def remember_loss(self, loss: float | None) -> Reading:
        """Add the loss to the last reading, which hooks cannot see; returns that reading."""
        self.readings[-1] = replace(self.readings[-1], loss=loss)
        return self.readings[-1]

    def attach(
        self,
        model: nn.Module,
        *,
        projector: str = "projector",
        predictor: str | None = None,
        encoder: str | None = None,
        target: str | Sequence[str] | None = None,
    ) -> Self:
        """Read a model by its own forward and backward passes, whenever its optimiser steps.

        Args:
            model: in training mode, its projections of two views of a batch are read.
            projector: name of the submodule whose outputs are z, such as "projection_head".
            predictor: name of the one whose outputs are p. With it, a gradient that reaches z around the
                predictor shows: a target that is not stopped.
            encoder: name of the one whose inputs are images; with it, z is looked at in evaluation mode too.
            target: name or names of slow copies, whose movement is followed.

        Returns:
            The monitor itself. `detach` undoes it.

        Raises:
            ValueError: for a name that the model does not have, or when it is attached already.
        """
        if self._attached is not None:
            raise ValueError("attach: the monitor is attached already, detach() first")
        names = (target,) if isinstance(target, str) else tuple(target or ())
        self._attached = Attached(
            model, projector, predictor, encoder, names, due=lambda: self.due, stepped=self._stepped
        )
        return self

    def detach(self) -> None:
        """Take all hooks off the model."""
        if self._attached is not None:
            self._attached.remove()
            self._attached = None

    def _clock(self) -> None:
        """Time of a step without the monitor's own, smoothed."""
        now = time.perf_counter()
        if self._began is not None:
            passed = max(now - self._began, 0.0)
            old = self._seconds_a_step
            self._seconds_a_step = passed if old == 0 else 0.9 * old + 0.1 * passed
        self._began = now

    def _take(self, reading: Reading, cost: float) -> None:
        """Keep and write a reading, and decide when the next one is due."""
        self.readings.append(reading)
        if rank() == 0:
            self._write(reading)
        # the first reading also loads what it needs: its time is no reading's
        self._cost = cost if len(self.readings) <= 2 else 0.7 * self._cost + 0.3 * cost
        self._due = self._step + self._interval()
        self._step += 1
        self._began = time.perf_counter()  # the monitor's time is not the step's

    def _interval(self) -> int:
        """Steps to the next reading, the same on all ranks."""
        if self.every is not None:
            return self.every
        step = self._seconds_a_step
        steps = (
            1
            if step == 0 or len(self.readings) == 1
            else math.ceil(self._cost / (AIMED * self.budget * step))
        )
        if world() > 1:
            agreed = torch.tensor(steps, device=device_of_ranks())
            dist.broadcast(agreed, 0)
            steps = int(agreed)
        return max(1, steps)

    def _stepped(self, seen: Attached) -> None:
        """After a step of the model that hooks are attached to."""
        self._clock()
        if not (self.due and seen.saw_views):
            self._step += not self.due
            return
        began = time.perf_counter()
        scalars = {**self._movement(seen.online, seen.slow), **seen.leak()}
        reading = self._read(seen.nodes(), seen.loss, None, scalars, seen.evaluated(), seen.images)
        reading.scalars.update(norms_of_parts(seen.parts))
        self._take(reading, time.perf_counter() - began)

    def _read(
        self,
        nodes: Mapping[str, tuple[Tensor | None, Tensor | None]],
        loss: Tensor | float | None,
        model: nn.Module | None,
        scalars: Mapping[str, float],
        z_eval: Tensor | None = None,
        views: Sequence[Tensor] = (),
    ) -> Reading:
        found = dict(scalars)
        targets = [t for t in nodes["t"] if t is not None]
        if targets:
            found.setdefault("target_gradient", float(any(t.requires_grad for t in targets)))
        if len(views) > 1 and views[0].shape == views[1].shape and len(views[0]) > 1:
            noise = fmean(of_ranks(view_noise(*views[:2])))
            found |= {"sigma2": noise} if math.isfinite(noise) else {}
        if model is not None:
            found |= norms_of_parts(dict(model.named_children()))
        with torch.no_grad():
            rows = {name: [_rows(x) for x in pair if x is not None] for name, pair in nodes.items()}
            measures = {name: _measures(views) for name, views in rows.items() if views}
            if z_eval is not None:
                measures["z_eval"] = _measures([_rows(z_eval)])
            z = rows["z"]
            if len(z) == 2:
                found["view_distance"] = float(alignment(*z))
            for name, other in (("prediction_distance", "p"), ("target_distance", "t")):
                if len(rows[other]) == 2 and len(z) == 2:
                    found[name] = float(alignment(z[0], rows[other][0]))
            first = nodes["z"][0]
            if first is not None:
                found |= {"batch": sum(of_ranks(float(len(first)))), "dim": float(first.flatten(1).shape[1])}
        own = loss.detach() if isinstance(loss, Tensor) else loss
        losses = of_ranks(None if own is None else float(own))
        return Reading(self._step, measures, sum(losses) / len(losses) if losses else None, found)

    @torch.no_grad()
    def _movement(self, online: Sequence[Tensor], target: Sequence[Tensor]) -> dict[str, float]:
        """How far the weights of both have moved since the last reading, relative to their size."""
        if not target:
            return {}
        now = _sample(online), _sample(target)
        before, self._before = self._before, now
        if before is None:
            return {}
        moved = [float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in zip(now, before, strict=True)]
        return {"online_moved": moved[0], "target_moved": moved[1]}

    def _write(self, reading: Reading) -> None:
        if self._out is not None:
            row = {"step": reading.step, "loss": reading.loss, **reading.nodes, **reading.scalars}
            self._out.parent.mkdir(parents=True, exist_ok=True)
            with self._out.open("a") as file:
                file.write(json.dumps(_finite(row)) + "\n")
        if self._writer is not None:
            for node, values in reading.nodes.items():
                for name, value in values.items():
                    self._writer.add_scalar(f"monitor/{node}/{name}", value, reading.step)
            for name, value in reading.scalars.items():
                self._writer.add_scalar(f"monitor/{name}", value, reading.step)


def _measures(views: Sequence[Tensor]) -> dict[str, Any]:
    """Measures of one node's rows (N, D), as `VectorStatistics` names them; of the first view."""
    statistics = VectorStatistics(views[0].shape[1])
    statistics.update(views[0])
    measures = statistics.compute(spectrum=False)
    return {name: value for name, value in measures.items() if value == value}


def _rows(x: Tensor) -> Tensor:
    """At most `ROWS` rows of all ranks, float32, without a graph. (N, D)"""
    own = x.detach().flatten(1)[: max(2, ROWS // world())].float().contiguous()
    if world() == 1:
        return own
    counts = [int(count) for count in of_ranks(float(len(own)))]  # the last batch may differ
    parts = [own.new_empty(max(counts), own.shape[1]) for _ in counts]
    dist.all_gather(parts, nn.functional.pad(own, (0, 0, 0, max(counts) - len(own))))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _sample(weights: Sequence[Tensor]) -> Tensor:
    """At most about `FOLLOWED` numbers of the weights, evenly spread, as a copy. (F,)"""
    stride = max(1, sum(w.numel() for w in weights) // FOLLOWED)
    return torch.cat([w.detach().flatten()[::stride].float() for w in weights])


def _finite(value: Any) -> Any:
    """As JSON has it: what is not finite is null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
