"""The monitor: readings of a run while it trains, in anybody's loop, at a bounded share of its time.

Legend: B batch of one process, N rows that are read (at most `ROWS`, over all ranks), D width of a node.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from stopgrad.diagnostics.diagnosis import Diagnosis, Reading
from stopgrad.diagnostics.doctor import examine
from stopgrad.diagnostics.gradients import gradient_norms
from stopgrad.diagnostics.spread import alignment
from stopgrad.diagnostics.statistics import VectorStatistics

# Rows of a node that a reading looks at, images that it looks at in evaluation mode, and numbers of a network
# whose movement it follows
ROWS, EVALUATED, FOLLOWED = 256, 64, 65_536
# Share of the budget that is aimed at, as neither steps nor readings all take the same time
AIMED = 0.7
# Share of the gradient at z that may come around the predictor before it counts as a leak
AROUND = 1e-3


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

    Example:
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
        self._attached: _Attached | None = None

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
        scalars: Mapping[str, float] | None = None,
    ) -> Reading | None:
        """One training step, before or after its backward pass.

        Args:
            z1, z2: online projections of two views, (B, D).
            p1, p2: predictions, (B, D).
            t1, t2: the target's projections as the loss sees them, (B, D): detached, or the run leaks.
            loss: of the step.
            model: whose gradients are measured, by the names of its children; after the backward pass.
            scalars: further measures by name.

        Returns:
            The reading, or None for a step that is not read.
        """
        self._clock()
        if not self.due:
            self._step += 1
            return None
        began = time.perf_counter()
        reading = self._read({"z": (z1, z2), "p": (p1, p2), "t": (t1, t2)}, loss, model, scalars or {})
        self._take(reading, time.perf_counter() - began)
        return reading

    def verdict(self) -> Diagnosis:
        """The diagnosis of the readings so far.

        Raises:
            ValueError: before the first reading.
        """
        return examine(self.readings, self.facts)

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
        self._attached = _Attached(self, model, projector, predictor, encoder, names)
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
        if _rank() == 0:
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
        if _world() > 1:
            agreed = torch.tensor(steps, device=_device_of_ranks())
            dist.broadcast(agreed, 0)
            steps = int(agreed)
        return max(1, steps)

    def _read(
        self,
        nodes: Mapping[str, tuple[Tensor | None, Tensor | None]],
        loss: Tensor | float | None,
        model: nn.Module | None,
        scalars: Mapping[str, float],
    ) -> Reading:
        found = dict(scalars)
        targets = [t for t in nodes["t"] if t is not None]
        if targets:
            found.setdefault("target_gradient", float(any(t.requires_grad for t in targets)))
        if model is not None:
            found |= _gradient_norms(dict(model.named_children()))
        with torch.no_grad():
            rows = {name: [_rows(x) for x in pair if x is not None] for name, pair in nodes.items()}
            measures = {name: _measures(views) for name, views in rows.items() if views}
            z = rows["z"]
            if len(z) == 2:
                found["view_distance"] = float(alignment(*z))
            for name, other in (("prediction_distance", "p"), ("target_distance", "t")):
                if len(rows[other]) == 2 and len(z) == 2:
                    found[name] = float(alignment(z[0], rows[other][0]))
            first = nodes["z"][0]
            if first is not None:
                found |= {"batch": float(len(first) * _world()), "dim": float(first.flatten(1).shape[1])}
        value = float(loss.detach()) if isinstance(loss, Tensor) else loss
        return Reading(self._step, measures, value, found)

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


class _Attached:
    """The hooks of one monitor on one model."""

    def __init__(
        self,
        monitor: Monitor,
        model: nn.Module,
        projector: str,
        predictor: str | None,
        encoder: str | None,
        targets: tuple[str, ...],
    ) -> None:
        self.monitor, self.model = monitor, model
        self.projector = _submodule(model, projector)
        self.predictor = None if predictor is None else _submodule(model, predictor)
        self.encoder = None if encoder is None else _submodule(model, encoder)
        self.targets = [_submodule(model, name) for name in targets]
        slow = {id(w) for module in self.targets for w in module.parameters()}
        self.online = [w for w in model.parameters() if id(w) not in slow]
        self._weights = {id(w) for w in self.online}
        self._before: tuple[Tensor, Tensor] | None = None
        self._clear()
        self._hooks = [
            self.projector.register_forward_hook(torch.compiler.disable(self._projected)),
            register_optimizer_step_post_hook(self._stepped),
        ]
        if self.predictor is not None:
            self._hooks += [
                self.predictor.register_forward_pre_hook(torch.compiler.disable(self._entered)),
                self.predictor.register_forward_hook(torch.compiler.disable(self._predicted)),
            ]
        if self.encoder is not None:
            self._hooks.append(self.encoder.register_forward_pre_hook(torch.compiler.disable(self._seen)))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _clear(self) -> None:
        self._z: list[Tensor] = []
        self._p: list[Tensor] = []
        self._images: list[Tensor] = []
        self._total: dict[int, Tensor] = {}
        self._through: dict[int, Tensor] = {}

    def _projected(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not (self.monitor.due and module.training and isinstance(output, Tensor)):
            return
        if output.requires_grad:
            place = len(self._z)
            output.register_hook(lambda gradient: self._total.__setitem__(place, gradient.detach()))
        self._z.append(output)

    def _entered(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Give the predictor an alias of z, whose gradient is what comes through the predictor."""
        if not (self.monitor.due and module.training and inputs):
            return None
        place = next((i for i, z in enumerate(self._z) if z is inputs[0]), None)
        if place is None or not inputs[0].requires_grad:
            return None
        alias = inputs[0].view_as(inputs[0])
        alias.register_hook(partial(self._passes, place))
        return (alias, *inputs[1:])

    def _passes(self, place: int, gradient: Tensor) -> None:
        """A predictor may be run on one z more than once."""
        before = self._through.get(place)
        self._through[place] = gradient.detach() if before is None else before + gradient.detach()

    def _predicted(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self.monitor.due and module.training and isinstance(output, Tensor):
            self._p.append(output)

    def _seen(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.monitor.due and module.training and inputs and isinstance(inputs[0], Tensor):
            self._images.append(inputs[0].detach())

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """After an optimiser of this model has moved it: a closure has run by then."""
        if not any(id(w) in self._weights for group in optimizer.param_groups for w in group["params"]):
            return
        monitor = self.monitor
        monitor._clock()
        if not monitor.due or len(self._z) < 2:
            monitor._step += not monitor.due
            self._clear()
            return
        began = time.perf_counter()
        monitor._take(self._reading(), time.perf_counter() - began)
        self._clear()

    def _reading(self) -> Reading:
        """Of the last two views that passed: with accumulation, those of the last part."""
        z, p = self._z[-2:], self._p[-2:]
        scalars = {**self._movement(), **self._leak()}
        nodes: dict[str, tuple[Tensor | None, Tensor | None]] = {
            "z": (z[0], z[1]),
            "p": (p[0], p[1]) if len(p) == 2 else (None, None),
            "t": (None, None),
        }
        reading = self.monitor._read(nodes, None, None, scalars)
        evaluated = self._evaluated()
        if evaluated is not None:
            reading.nodes["z_eval"] = _measures([_rows(evaluated)])
        parts = {"projector": self.projector, "predictor": self.predictor, "encoder": self.encoder}
        reading.scalars.update(_gradient_norms(parts))
        return reading

    def _leak(self) -> dict[str, float]:
        """Whether z has a gradient that did not come through the predictor."""
        known = [place for place in self._total if place in self._through]
        shares = [
            (self._total[i] - self._through[i]).norm() / self._total[i].norm().clamp(min=1e-30) for i in known
        ]
        return {"target_gradient": float(max(shares) > AROUND)} if shares else {}

    @torch.no_grad()
    def _evaluated(self) -> Tensor | None:
        """z of the last images in evaluation mode; None without an encoder or its images."""
        if self.encoder is None or not self._images:
            return None
        with _evaluating(self.encoder), _evaluating(self.projector):
            h = self.encoder(self._images[-1][:EVALUATED])
            z = self.projector(h.flatten(1))
        return z if isinstance(z, Tensor) else None

    @torch.no_grad()
    def _movement(self) -> dict[str, float]:
        """How far target and online network have moved since the last reading, relative to their size."""
        if not self.targets:
            return {}
        now = (
            _sample([w for module in self.targets for w in module.parameters()]),
            _sample(self.online),
        )
        before, self._before = self._before, now
        if before is None:
            return {}
        moved = [float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in zip(now, before, strict=True)]
        return {"target_moved": moved[0], "online_moved": moved[1]}


def _measures(views: Sequence[Tensor]) -> dict[str, Any]:
    """Measures of one node's rows (N, D), as `VectorStatistics` names them; of the first view."""
    statistics = VectorStatistics(views[0].shape[1])
    statistics.update(views[0])
    measures = statistics.compute()
    return {name: value for name, value in measures.items() if name != "spectrum" and value == value}


def _rows(x: Tensor) -> Tensor:
    """At most `ROWS` rows of all ranks, float32, without a graph. (N, D)"""
    own = x.detach().flatten(1)[: max(2, ROWS // _world())].float().contiguous()
    if _world() == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(_world())]
    dist.all_gather(parts, own)
    return torch.cat(parts)


def _gradient_norms(parts: Mapping[str, nn.Module | None]) -> dict[str, float]:
    """Norm of the gradient of each part that has one."""
    weights = {name: list(part.parameters()) for name, part in parts.items() if part is not None}
    known = {name: own for name, own in weights.items() if any(w.grad is not None for w in own)}
    return {f"gradient_norm_{name}": norm for name, norm in gradient_norms(known).items()}


def _sample(weights: Sequence[Tensor]) -> Tensor:
    """At most about `FOLLOWED` numbers of the weights, evenly spread, as a copy. (F,)"""
    stride = max(1, sum(w.numel() for w in weights) // FOLLOWED)
    return torch.cat([w.detach().flatten()[::stride].float() for w in weights])


def _submodule(model: nn.Module, name: str) -> nn.Module:
    known = dict(model.named_modules())
    if name not in known:
        children = ", ".join(child for child, _ in model.named_children())
        raise ValueError(f"attach: the model has no submodule '{name}'; its children are {children}")
    return known[name]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; every submodule is afterwards as it was."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def _finite(value: Any) -> Any:
    """As JSON has it: what is not finite is null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _device_of_ranks() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
