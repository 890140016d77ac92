"""What training changes: weights, optimiser, probe, counters. Saved and restored as one."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn

from stopgrad.method import Learner
from stopgrad.training.online import OnlineProbe


@dataclass
class TrainState:
    """All that a checkpoint holds beside the settings.

    The order of the data, the views and the schedules need no state: they are functions of the seed and of
    ``step``, the number of optimiser steps that are done.

    ``learner`` and ``probe`` are the modules as Fabric wrapped them. ``epoch_loss`` is the mean loss of the
    last whole epoch; ``loss_sum`` adds up the losses of this one, on the device, so that no step waits for
    it.
    """

    learner: _FabricModule
    optimizer: torch.optim.Optimizer
    probe: _FabricModule | None
    probe_optimizer: torch.optim.Optimizer | None
    device: torch.device
    step: int = 0
    epoch_loss: float = math.nan
    loss_sum: Tensor = field(init=False)
    _unchecked: list[Tensor] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        self.loss_sum = self.loss_sum.to(self.device)

    @property
    def bare_learner(self) -> Learner:
        """The learner itself, without the wrappers of Fabric and DDP."""
        learner = unwrap(self.learner)
        assert isinstance(learner, Learner)
        return learner

    @property
    def bare_probe(self) -> OnlineProbe | None:
        """The online probe itself, without wrappers."""
        probe = None if self.probe is None else unwrap(self.probe)
        assert probe is None or isinstance(probe, OnlineProbe)
        return probe

    @torch.no_grad()
    def record(self, loss: Tensor) -> None:
        """Count the loss of the step that is being made, a scalar without a graph."""
        self.loss_sum += loss
        self._unchecked.append(loss)

    def bad_step(self) -> int:
        """The first step since the last call whose loss was not finite, or -1; waits for the device."""
        losses, self._unchecked = self._unchecked, []
        finite = torch.stack(losses).isfinite().tolist() if losses else []
        steps = range(self.step - len(losses) + 1, self.step + 1)
        return next((step for step, good in zip(steps, finite, strict=True) if not good), -1)

    def state_dict(self) -> dict[str, Any]:
        """Everything, in plain values and tensors."""
        probe = self.bare_probe
        return {
            "step": self.step,
            "epoch_loss": self.epoch_loss,
            "loss_sum": self.loss_sum,
            "learner": self.bare_learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "probe": None if probe is None else probe.state_dict(),
            "probe_optimizer": None if self.probe_optimizer is None else self.probe_optimizer.state_dict(),
            "rng": _random_state(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken; ``optimizer`` may be None, for a fresh one."""
        self.step = int(content["step"])
        self.epoch_loss = float(content["epoch_loss"])
        self.loss_sum.copy_(content["loss_sum"])
        self.bare_learner.load_state_dict(content["learner"])
        if content["optimizer"] is not None:
            self.optimizer.load_state_dict(content["optimizer"])
        if self.probe_optimizer is not None and (probe := self.bare_probe) is not None:
            probe.load_state_dict(content["probe"])
            self.probe_optimizer.load_state_dict(content["probe_optimizer"])
        torch.set_rng_state(content["rng"]["cpu"])
        if torch.cuda.is_available() and "cuda" in content["rng"]:
            torch.cuda.set_rng_state(content["rng"]["cuda"])


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside Fabric's and DDP's wrappers."""
    while not isinstance(module, Learner | OnlineProbe):
        inner = module.module
        assert isinstance(inner, nn.Module)
        module = inner
    return module


def _random_state() -> dict[str, Tensor]:
    """State of torch's generators, which only encoders with dropout or stochastic depth draw from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states
