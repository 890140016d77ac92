"""Several processes as one: the processes that torchrun started, and batch normalisation over all of them."""

import logging
import os
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad.training.precision import FABRIC, resolve_device
from stopgrad.training.settings import RunSettings


def launch(settings: RunSettings) -> Fabric:
    """Fabric for this process: alone, or one of those that torchrun started."""
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("WORLD_SIZE", 1))
    # every rank computes the same buffers: the joint batch's statistics, the averages, the memory of images
    strategy = DDPStrategy(broadcast_buffers=False) if world > 1 else "auto"
    fabric = make_fabric(
        settings.device, settings.precision, devices=local, num_nodes=world // local, strategy=strategy
    )
    fabric.launch()
    return fabric


def make_fabric(device: str, precision: str, **processes: Any) -> Fabric:
    """Fabric on a device by name, in "fp32", "bf16" or "fp16"."""
    # it announces its precision on stderr, where a mistake is to be one line alone
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=resolve_device(device), precision=FABRIC[precision], **processes)


def join_batch_norm(module: nn.Module, fabric: Fabric) -> nn.Module:
    """Make every batch normalisation of ``module`` use the statistics of the joint batch of all processes.

    Names of weights and buffers stay as they are, so the same checkpoint fits one process and many. On CUDA
    it is PyTorch's SyncBatchNorm, which has no CPU form; elsewhere it is `JointBatchNorm`.
    """
    if fabric.world_size == 1:
        return module
    if fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        setattr(module, name, join_batch_norm(child, fabric))
    return JointBatchNorm.of(module) if isinstance(module, _BatchNorm) else module


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes. Every process's loss depends on the sum, so its gradient is summed as well."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(x: Tensor) -> Tensor:
    return _SumOverProcesses.apply(x)


class JointBatchNorm(_BatchNorm):
    """Batch normalisation over the joint batch of all processes, for any device and any number of axes."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> "JointBatchNorm":
        """The same normalisation, sharing weights and buffers with ``norm``."""
        joint = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        joint._parameters, joint._buffers, joint.training = norm._parameters, norm._buffers, norm.training
        return joint

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes after the channels will do."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) per channel; in training, with mean and variance over all processes."""
        if not self.training:
            return super().forward(input)
        # statistics in half precision would lose the small variances
        x = input.float() if input.dtype.itemsize < 4 else input
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _sum_over_processes(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(axes)) / count
        self._move_running_statistics(mean.detach(), variance.detach() * count / max(count - 1, 1))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
