"""The monitor: readings of a run while it trains, in anybody's loop, at a bounded share of its time.

Legend: B batch of one process, N rows that are read (at most `ROWS`, over all ranks), D width of a node.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from stopgrad.diagnostics.diagnosis import Diagnosis, Reading
from stopgrad.diagnostics.doctor import examine
from stopgrad.diagnostics.gradients import gradient_norms
from stopgrad.diagnostics.spread import alignment, view_noise
from stopgrad.diagnostics.statistics import VectorStatistics

# Rows of a node that a reading looks at, images that it looks at in evaluation mode, and numbers of a network
# whose movement it follows
ROWS, EVALUATED, FOLLOWED = 256, 64, 4096
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
        self._before: tuple[Tensor, Tensor] | None = None
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

    def state_dict(self) -> dict[str, Any]:
        """What it has read so far, in plain values and tensors, for a run that is resumed."""
        readings = [asdict(reading) for reading in self.readings]
        return {"readings": readings, "step": self._step, "due": self._due, "before": self._before}

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
        z_eval: Tensor | None = None,
        views: Sequence[Tensor] = (),
    ) -> Reading:
        found = dict(scalars)
        targets = [t for t in nodes["t"] if t is not None]
        if targets:
            found.setdefault("target_gradient", float(any(t.requires_grad for t in targets)))
        if len(views) > 1 and views[0].shape == views[1].shape and len(views[0]) > 1:
            noise = fmean(_of_ranks(view_noise(*views[:2])))
            found |= {"sigma2": noise} if math.isfinite(noise) else {}
        if model is not None:
            found |= _gradient_norms(dict(model.named_children()))
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
                found |= {"batch": sum(_of_ranks(float(len(first)))), "dim": float(first.flatten(1).shape[1])}
        own = loss.detach() if isinstance(loss, Tensor) else loss
        losses = _of_ranks(None if own is None else float(own))
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


class _View:
    """One pass through the projector.

    Attributes:
        z, p: what came out, and what the predictor made of it, (B, D).
        gradients: at z, (B, D), float32: the "whole" one, and what of it came "through" the predictor.
    """

    def __init__(self, z: Tensor) -> None:
        self.z = z
        self.p: Tensor | None = None
        self.gradients: dict[str, Tensor] = {}

    def around(self) -> float | None:
        """Share of the gradient that did not come through the predictor; None where it is not known."""
        whole, through = (self.gradients.get(name) for name in ("whole", "through"))
        if whole is None or through is None or not (size := whole.norm()).isfinite():
            return None
        return float((whole - through).norm() / size.clamp(min=1e-30))


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
        self.monitor = monitor
        self.projector = _submodule(model, projector)
        self.predictor = None if predictor is None else _submodule(model, predictor)
        self.encoder = None if encoder is None else _submodule(model, encoder)
        self.targets = [_submodule(model, name) for name in targets]
        slow = {id(w) for module in self.targets for w in module.parameters()}
        self.online = [w for w in model.parameters() if id(w) not in slow]
        self._weights = {id(w) for w in self.online}
        self._clear()
        unseen = torch.compiler.disable  # a graph would keep what `due` was when it was made
        self._hooks = [
            self.projector.register_forward_hook(unseen(self._projected)),
            _inside(model).register_forward_hook(unseen(self._returned)),
            register_optimizer_step_post_hook(unseen(self._stepped)),
        ]
        if self.predictor is not None:
            self._hooks += [
                self.predictor.register_forward_pre_hook(unseen(self._entered)),
                self.predictor.register_forward_hook(unseen(self._predicted)),
            ]
        if self.encoder is not None:
            self._hooks.append(self.encoder.register_forward_pre_hook(unseen(self._seen)))
        torch.compiler.reset()  # what was compiled before knows of no hook

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._clear()

    def _clear(self) -> None:
        self._passed = False
        self._loss: Tensor | None = None
        self._features: torch.Size | None = None  # of what the projector is given, without the batch
        self._autocast: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        """A new batch, or with accumulation a new part of it."""
        self._views: list[_View] = []
        self._loose: list[Tensor] = []  # predictions of what is no z itself, such as a normalised one
        self._into: _View | None = None
        self._images: list[Tensor] = []
        self._backward = False

    def _reads(self, module: nn.Module) -> bool:
        return bool(self._hooks) and module.training and self.monitor.due

    def _projected(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (module.training and isinstance(output, Tensor)):
            return
        self._passed = True
        if not self._reads(module):
            return
        if self._backward:
            self._begin()
        view = _View(output)
        if output.requires_grad:
            output.register_hook(partial(self._arrives, view.gradients, "whole"))
        self._views.append(view)
        self._features = inputs[0].shape[1:] if inputs and isinstance(inputs[0], Tensor) else None

    def _entered(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Give the predictor an alias of z, whose gradient is what comes through the predictor."""
        self._into = None
        if not (self._reads(module) and inputs):
            return None
        self._into = next((view for view in self._views if view.z is inputs[0]), None)
        if self._into is None or not inputs[0].requires_grad:
            return None
        alias = inputs[0].view_as(inputs[0])
        alias.register_hook(partial(self._arrives, self._into.gradients, "through"))
        return (alias, *inputs[1:])

    def _arrives(self, gradients: dict[str, Tensor], name: str, gradient: Tensor) -> None:
        """Sum up: a predictor may be run on one z more than once, and a graph be walked more than once."""
        self._backward = True
        own = gradient.detach().float()
        gradients[name] = gradients[name] + own if name in gradients else own

    def _predicted(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (self._reads(module) and isinstance(output, Tensor)):
            return
        if self._into is None:
            self._loose.append(output)
        else:
            self._into.p = output

    def _seen(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._reads(module) and len(inputs) == 1 and isinstance(inputs[0], Tensor):
            if self._backward:
                self._begin()
            self._images.append(inputs[0].detach()[:EVALUATED])
            kind = inputs[0].device.type
            self._autocast = {
                "device_type": kind,
                "enabled": torch.is_autocast_enabled(kind),
                "dtype": torch.get_autocast_dtype(kind),
            }

    def _returned(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A model that computes its own loss."""
        if self._reads(module) and (loss := _loss_of(output)) is not None:
            self._loss = loss.detach()

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """After an optimiser of this model has moved it: a closure has run by then.

        Nothing has passed since the last step where a model has two optimisers, or one inside another; a
        step that a GradScaler leaves out does not come here.
        """
        if not self._passed:
            return
        if not any(id(w) in self._weights for group in optimizer.param_groups for w in group["params"]):
            return
        monitor = self.monitor
        monitor._clock()
        if monitor.due and self._views:
            began = time.perf_counter()
            monitor._take(self._reading(), time.perf_counter() - began)
        else:
            monitor._step += not monitor.due
        self._clear()

    def _reading(self) -> Reading:
        """Of the first two online views of a batch; with accumulation, of its last part."""
        first, second = self._pair()
        p = [view.p for view in (first, second) if view is not None and view.p is not None]
        p = (p or self._loose)[:2]
        if len(p) == 2 and p[0].shape != p[1].shape:
            p = p[:1]
        nodes: dict[str, tuple[Tensor | None, Tensor | None]] = {
            "z": (first.z, None if second is None else second.z),
            "p": (p[0] if p else None, p[1] if len(p) == 2 else None),
            "t": (None, None),
        }
        slow = [w for module in self.targets for w in module.parameters()]
        scalars = {**self.monitor._movement(self.online, slow), **self._leak()}
        reading = self.monitor._read(nodes, self._loss, None, scalars, self._evaluated(), self._images)
        parts = {"projector": self.projector, "predictor": self.predictor, "encoder": self.encoder}
        reading.scalars.update(_gradient_norms(parts))
        return reading

    def _pair(self) -> tuple[_View, _View | None]:
        """The first two that a gradient can reach, as one without may be a target; of one shape."""
        views = [view for view in self._views if view.z.requires_grad] or self._views
        first, *others = views
        return first, next((view for view in others if view.z.shape == first.z.shape), None)

    def _leak(self) -> dict[str, float]:
        """Whether z has a gradient that did not come through the predictor, on any rank."""
        shares = [share for view in self._views if (share := view.around()) is not None]
        # sums of few terms, made in another order
        rounding = 4 * max(torch.finfo(view.z.dtype).eps for view in self._views)
        found = _of_ranks(float(max(shares) > max(AROUND, rounding)) if shares else None)
        return {"target_gradient": max(found)} if found else {}

    @torch.no_grad()
    def _evaluated(self) -> Tensor | None:
        """z of the last images in evaluation mode; None without an encoder or its images.

        None too where what reaches the projector is not the encoder's output, flattened.
        """
        if self.encoder is None or not self._images:
            return None
        with (
            torch.autocast(**self._autocast, cache_enabled=False),
            torch.compiler.set_stance("force_eager"),
            _evaluating(self.encoder),
            _evaluating(self.projector),
        ):
            h = self.encoder(self._images[-1])
            if not isinstance(h, Tensor) or h.flatten(1).shape[1:] != self._features:
                return None
            z = self.projector(h.flatten(1))
        return z if isinstance(z, Tensor) else None


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
    counts = [int(count) for count in _of_ranks(float(len(own)))]  # the last batch may differ
    parts = [own.new_empty(max(counts), own.shape[1]) for _ in counts]
    dist.all_gather(parts, nn.functional.pad(own, (0, 0, 0, max(counts) - len(own))))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


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
    """The submodule of that name, inside its own wrappers; those on the way may be named or not."""
    known = dict(model.named_modules(remove_duplicate=False))
    plain: dict[str, nn.Module] = {}
    for path, module in known.items():
        plain.setdefault(_without_wrappers(path), module)
    found = known.get(name, plain.get(_without_wrappers(name)))
    if found is None:
        children = ", ".join(child for child, _ in _inside(model).named_children())
        raise ValueError(f"attach: the model has no submodule '{name}'; its children are {children}")
    return _inside(found)


def _without_wrappers(path: str) -> str:
    """Without the links of DistributedDataParallel, torch.compile and Fabric."""
    return ".".join(
        link for link in path.split(".") if link not in {"module", "_orig_mod", "_forward_module"}
    )


def _inside(module: nn.Module) -> nn.Module:
    """What DistributedDataParallel and torch.compile wrap, as often as they do."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _loss_of(output: Any) -> Tensor | None:
    """A scalar, or one that is called ``loss``, or the first of a tuple."""
    if isinstance(output, Mapping):
        output = output.get("loss")
    elif hasattr(output, "loss"):
        output = output.loss
    elif isinstance(output, tuple) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.ndim == 0 else None


def _of_ranks(value: float | None) -> list[float]:
    """The numbers of all ranks that have one; every rank must ask."""
    if _world() == 1:
        return [] if value is None else [value]
    own = torch.tensor([value is not None, value or 0.0], dtype=torch.float64, device=_device_of_ranks())
    parts = [torch.empty_like(own) for _ in range(_world())]
    dist.all_gather(parts, own)
    return [part[1].item() for part in parts if part[0]]


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
