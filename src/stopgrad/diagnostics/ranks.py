"""What the processes of torch.distributed tell each other; one process alone is rank 0 of 1."""

import torch
import torch.distributed as dist


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def device_of_ranks() -> torch.device:
    """Where the tensors lie that they exchange."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def of_ranks(value: float | None) -> list[float]:
    """The numbers of all ranks that have one; every rank must ask."""
    if world() == 1:
        return [] if value is None else [value]
    own = torch.tensor([value is not None, value or 0.0], dtype=torch.float64, device=device_of_ranks())
    parts = [torch.empty_like(own) for _ in range(world())]
    dist.all_gather(parts, own)
    return [part[1].item() for part in parts if part[0]]
