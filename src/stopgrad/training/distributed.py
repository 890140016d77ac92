"""Several processes as one: those that torchrun or srun started, and batch normalisation over all of them."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from stopgrad.errors import PeerLost, UsageError
from stopgrad.training.precision import FABRIC, resolve_device
from stopgrad.training.settings import RunSettings

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others before it gives up. One that died is noticed at once, by its
closed connection or by torchrun; this is for one that hangs. The longest that is waited for is the first
process, which alone downloads or indexes the data."""


def launch(settings: RunSettings) -> Fabric:
    """Fabric for this process: alone, or one of those that torchrun or SLURM's srun started.

    Raises:
        UsageError: when srun's variables do not say how many processes a node has, or nodes differ in it.
        PeerLost: when not all processes came within `TIMEOUT`.
    """
    environment = cluster()
    world = environment.world_size()
    if world == 1:
        return make_fabric(settings.device, settings.precision)
    _quieten()
    # every rank computes the same buffers: the joint batch's statistics, the averages, the memory of images
    strategy = DDPStrategy(cluster_environment=environment, broadcast_buffers=False, timeout=TIMEOUT)
    local = int(os.environ["LOCAL_WORLD_SIZE" if started_by_torchrun() else "SLURM_NTASKS_PER_NODE"])
    nodes, rest = divmod(world, local)
    if rest:
        raise UsageError(f"{world} processes, {local} a node: every node must run as many processes")
    fabric = make_fabric(
        settings.device, settings.precision, devices=local, num_nodes=nodes, strategy=strategy
    )
    try:
        _meet_again(fabric.device, environment)
        fabric.launch()
    except RuntimeError as error:
        if (reason := _failed_message(error)) is None:
            raise
        raise PeerLost(f"not all of the {world} processes came together ({reason})") from error
    return fabric


def _quieten() -> None:
    """Leave out what DDP tells every process at every start and nobody has to do anything about."""
    # the new name is not in the oldest PyTorch that this package takes
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
    # of 1x1 kernels in channels_last, whose elements lie alike under both strides
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")


def _meet_again(device: torch.device, environment: ClusterEnvironment) -> None:
    """Open the process group of processes that torchrun restarted on one machine.

    The store in which they look for each other still holds the addresses of those that died (PyTorch 2.15):
    they look in a part of it of their own. On many machines the number of restarts is not the same on all.
    """
    told = os.environ
    restart = int(told.get("TORCHELASTIC_RESTART_COUNT", 0))
    shared = started_by_torchrun() and told.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not (restart and shared and told["LOCAL_WORLD_SIZE"] == told["WORLD_SIZE"]):
        return
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    store = dist.TCPStore(environment.main_address, environment.main_port, is_master=False, timeout=TIMEOUT)
    dist.init_process_group(
        "nccl" if cuda else "gloo", store=dist.PrefixStore(f"restart-{restart}", store),
        rank=environment.global_rank(), world_size=environment.world_size(), timeout=TIMEOUT,
        device_id=device if cuda else None,
    )  # fmt: skip


def cluster() -> ClusterEnvironment:
    """Who started this process, and which of how many it is.

    torchrun before SLURM, for srun may start torchrun. A batch script is not itself a process of the job:
    only what srun starts belongs to a step, and a shell that srun opens trains alone.

    Raises:
        UsageError: under srun without ``--ntasks-per-node``.
    """
    if started_by_torchrun():
        return TorchElasticEnvironment()
    tasks = int(os.environ.get("SLURM_NTASKS", 1))
    if tasks == 1 or "SLURM_STEP_ID" not in os.environ or not SLURMEnvironment.detect():
        return LightningEnvironment()
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UsageError(f"SLURM: {tasks} tasks, but not how many a node has; give --ntasks-per-node too")
    return SLURMEnvironment(auto_requeue=False)


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return bool(TorchElasticEnvironment.detect())


def restartable() -> bool:
    """Whether this job goes on with a run that it finds: torchrun may restart it, or SLURM has requeued it.

    May, for on many machines torchrun says only where a process failed that it is a restart.
    """
    if started_by_torchrun():
        return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0
    return int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def make_fabric(device: str, precision: str, **processes: Any) -> Fabric:
    """Fabric on a device by name, in "fp32", "bf16" or "fp16"; of this process alone by default."""
    processes = processes or {"devices": 1, "plugins": LightningEnvironment()}
    # it announces its precision on stderr, where a mistake is to be one line alone
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=resolve_device(device), precision=FABRIC[precision], **processes)


@contextmanager
def peers(fabric: Fabric) -> Iterator[None]:
    """While open, a failed message to another process is a `PeerLost` that says what to do.

    gloo and NCCL raise different errors, and gloo plain RuntimeErrors, known by their text alone.

    Raises:
        PeerLost: when another process died, or did not answer within `TIMEOUT`.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or (reason := _failed_message(error)) is None:
            raise
        raise PeerLost(
            f"process {fabric.global_rank} of {fabric.world_size} lost another one ({reason}); the last "
            "checkpoint is kept: start the job again with --resume, or let torchrun --max-restarts do so"
        ) from error


_FAILED_MESSAGE = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|Timed out waiting", re.I)


def _failed_message(error: RuntimeError) -> str | None:
    """The reason in a sentence, if the error is of a message between processes."""
    text = str(error)
    if not isinstance(error, dist.DistError) and not _FAILED_MESSAGE.search(text):
        return None
    return text.splitlines()[0].rpartition("] ")[2].partition(". ")[0][:160]


def settle_buckets(module: nn.Module | None) -> None:
    """Make DDP lay out its buckets of gradients as it will keep them, before the first step.

    It lays them out anew after the first backward pass, and with more than two processes the order of a sum,
    so its rounding, depends on where in a bucket a gradient lies: without this a resumed run would take its
    first step with other rounding than one that never stopped. The pass is of a loss that is zero.
    """
    wrapped = getattr(module, "_forward_module", None)  # Fabric's wrapper is around DDP's
    if module is None or not isinstance(wrapped, DistributedDataParallel):
        return
    weights = [w for w in module.parameters() if w.requires_grad]
    wrapped.reducer.prepare_for_backward([])
    torch.stack([(w * 0).sum() for w in weights]).sum().backward()
    wrapped.reducer._rebuild_buckets()
    for w in weights:
        w.grad = None


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


class _JointNormalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) per channel over the joint batch, and the two statistics.

    One message a pass each way, of the processes' own statistics and of their own sums: for vectors this
    short, gloo gathers three times faster than it reduces. All processes have batches of one size. Every
    process's loss depends on the joint statistics, so that the gradients of all reach each.
    """

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(_axes(x))  # torch.var_mean takes ten times as long on a CPU
        variance = (x - _wide(mean, x)).square_().mean(_axes(x))
        means, variances = _from_processes(torch.stack([mean, variance]))
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        inverse = (variance + eps).rsqrt()
        scale = weight * inverse
        context.save_for_backward(x, weight, mean, inverse)
        context.mark_non_differentiable(mean, variance)
        return torch.addcmul(_wide(bias - mean * scale, x), x, _wide(scale, x)), mean, variance

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse = context.saved_tensors
        out = gradients[0]
        unit = (x - _wide(mean, x)).mul_(_wide(inverse, x))
        own = torch.stack([out.sum(_axes(x)), (out * unit).sum(_axes(x))])
        count = x.numel() // x.shape[1] * dist.get_world_size()
        shift, slope = _from_processes(own).sum(1) / count
        centred = out - torch.addcmul(_wide(shift, x), unit, _wide(slope, x))
        return centred.mul_(_wide(weight * inverse, x)), own[1], own[0], None


def _from_processes(rows: Tensor) -> Tensor:
    """(R, C) of each process -> (R, world, C)."""
    every = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(every, rows)
    return torch.stack(every, dim=1)


def _axes(x: Tensor) -> list[int]:
    """All but the channels'."""
    return [axis for axis in range(x.ndim) if axis != 1]


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    """(C,) as (1, C, 1, ...), with as many axes as ``x``."""
    return channels.view([1, -1] + [1] * (x.ndim - 2))


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
        ones = x.new_ones(self.num_features)
        weight, bias = (self.weight, self.bias) if self.affine else (ones, torch.zeros_like(ones))
        out, mean, variance = _JointNormalise.apply(x, weight, bias, self.eps)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        self._move_running_statistics(mean, variance * count / max(count - 1, 1))
        return out.to(input.dtype)

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
