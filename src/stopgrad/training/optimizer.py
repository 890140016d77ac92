"""Optimisers and learning-rate schedules.

Terms of the theory (Tian et al. 2021, Eqs. 2-4): alpha is the learning rate, alpha_p the predictor's rate
as a multiple of it, eta the weight decay. PyTorch's ``weight_decay`` IS eta: its update multiplies it by the
learning rate, so weights shrink by alpha eta per step.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from stopgrad.errors import require
from stopgrad.frozen import Frozen
from stopgrad.method import Learner


class PredictorOptimizerSettings(Frozen):
    """How the predictor's weights move, apart from the rest.

    ``lr_scale`` is alpha_p. ``weight_decay`` is the predictor's eta, None for the same as the rest.
    ``decay`` says what it multiplies: "theory" shrinks W_p by lr * eta per step whatever alpha_p is, as the
    balance of Theorem 1 needs; "group" shrinks it by lr * alpha_p * eta, as a plain parameter group does.
    ``constant_lr`` keeps the predictor's rate at its peak instead of following the schedule (Chen and
    He 2021, section 4.2).
    """

    lr_scale: float = Field(1.0, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    decay: Literal["theory", "group"] = "theory"
    constant_lr: bool = False


class OptimizerSettings(Frozen):
    """Which optimiser, at which rate.

    ``lr`` is used as it is: it is never rescaled by the batch size. ``weight_decay`` is eta;
    ``decay_all`` applies it to biases and normalisation too, as the papers' SGD does (LARS then also adapts
    them). ``clip`` bounds the gradient's norm.
    """

    name: Literal["sgd", "adamw", "lars"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    decay_all: bool = True
    clip: float | None = Field(None, gt=0)
    predictor: PredictorOptimizerSettings = PredictorOptimizerSettings()


class ScheduleSettings(Frozen):
    """Linear warm-up over ``warmup_epochs``, then a cosine from the peak to ``final`` times the peak."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = Field(0, ge=0)
    final: float = Field(0.0, ge=0, le=1)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The learning rate at ``step`` (from 0) of ``steps``, as a share of its peak."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return (step + 1) / warmup
        if self.name == "constant":
            return 1.0
        done = (step - warmup) / max(steps - warmup, 1)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


def build_optimizer(settings: OptimizerSettings, learner: Learner) -> torch.optim.Optimizer:
    """The optimiser of a learner's trainable weights, in at most four groups: rest and predictor, with and
    without decay. A group's ``peak`` is its learning rate at the top of the schedule.

    Raises:
        MissingExtra: for LARS without timm.
    """
    # an inverse predictor is one as well
    heads = [learner.predictor, *(m for name, m in learner.named_children() if name == "inverse")]
    predictor = {id(w) for head in heads for w in head.parameters()}
    weights = [w for w in learner.parameters() if w.requires_grad]
    groups = [
        *_groups(settings, [w for w in weights if id(w) not in predictor], of_predictor=False),
        *_groups(settings, [w for w in weights if id(w) in predictor], of_predictor=True),
    ]
    # a fused optimiser takes off the scale of fp16 within its own step, after which it is too late to clip
    fused = settings.clip is None and _can_be_fused(weights)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, fused=fused)
    lars = require("timm.optim", "vision").Lars
    return lars(groups, lr=settings.lr, momentum=settings.momentum)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Give every group its peak rate times ``factor``; returns the rate of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * (1.0 if group["constant_lr"] else factor)
    return float(optimizer.param_groups[0]["lr"])


def _groups(
    settings: OptimizerSettings, weights: list[nn.Parameter], of_predictor: bool
) -> list[dict[str, Any]]:
    decay, peak = settings.weight_decay, settings.lr
    if of_predictor:
        own = settings.predictor
        decay = decay if own.weight_decay is None else own.weight_decay
        peak = settings.lr * own.lr_scale
        # PyTorch multiplies the decay by the group's own rate, so the theory's convention divides it out
        decay = decay / own.lr_scale if own.decay == "theory" else decay
    flat = [] if settings.decay_all else [w for w in weights if w.ndim <= 1]
    kept = {id(w) for w in flat}
    common = {"lr": peak, "peak": peak, "constant_lr": of_predictor and settings.predictor.constant_lr}
    groups: Iterable[dict[str, Any]] = (
        {"params": [w for w in weights if id(w) not in kept], "weight_decay": decay, **common},
        {"params": flat, "weight_decay": 0.0, **common},
    )
    return [group for group in groups if group["params"]]


def _can_be_fused(weights: list[nn.Parameter]) -> bool:
    return all(w.device.type in ("cpu", "cuda") and w.is_floating_point() for w in weights)
