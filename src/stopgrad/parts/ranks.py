"""What several processes have to tell each other, so that they do what one does on the joint batch."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes that train together; 1 outside torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def joint(x: Tensor) -> Tensor:
    """The rows (B, ...) of all ranks below each other, (W B, ...), in the order of the ranks; with a graph.

    A loss of the joint batch is the same number on every rank. Each rank's rows get the sum of the gradients
    that all ranks compute, so that the mean over ranks, which DDP takes, is the gradient of that one loss.
    """
    if world_size() == 1:
        return x
    return _Joint.apply(x)


def joint_means(sums: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Sums over this process's ``count`` samples as means over the samples of all ranks, in one message."""
    if world_size() == 1:
        return {name: total / count for name, total in sums.items()}
    first = next(iter(sums.values()))
    flat = torch.cat([*(total.reshape(-1) for total in sums.values()), first.new_full((1,), count)])
    dist.all_reduce(flat)
    parts = (flat[:-1] / flat[-1]).split([total.numel() for total in sums.values()])
    return {name: part.view_as(total) for (name, total), part in zip(sums.items(), parts, strict=True)}


class _Joint(torch.autograd.Function):
    # the one of torch.distributed.nn goes back by an all-to-all, which gloo does not have everywhere

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(world_size())[dist.get_rank()]
