"""What one rank of two makes of `joint`, for `test_ranks.py`: alone on the joint batch, or with the other.

python joint_ranks.py RANK FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stopgrad.parts.ranks import joint

ROWS = 10


def batch_loss(z: Tensor) -> Tensor:
    """No mean over rows: the volume of their scatter, with a weight that depends on the row's place."""
    weighted = z * torch.arange(1, len(z) + 1, dtype=z.dtype)[:, None]
    return torch.logdet(weighted.T @ z + weighted.T @ weighted + torch.eye(z.shape[1], dtype=z.dtype))


class Network(nn.Module):
    """A small network with a loss of its batch, which reads the joint rows twice: raw, and squared."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.layers(x)
        rows = joint(z)
        return {"z": z, "rows": rows, "loss": batch_loss(rows) + joint(z.square()).prod(dim=1).sum().tanh()}


def outcome(part: slice, wrap: Any = lambda network: network) -> dict[str, Any]:
    """Loss, joint rows, gradients by the weights and by this process's z for a part of the joint batch."""
    torch.manual_seed(0)
    network = Network().double()
    x = torch.randn(ROWS, 4, dtype=torch.float64)
    model = wrap(network)  # DDP has to live until the gradients are there
    out = model(x[part])
    out["z"].retain_grad()
    out["loss"].backward()
    found = {key: value.detach() for key, value in out.items()}
    return found | {"weights": [w.grad for w in network.parameters()], "by_z": out["z"].grad}


def main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    half = ROWS // 2
    found = outcome(slice(rank * half, (rank + 1) * half), DistributedDataParallel)
    strided = torch.arange(12.0).view(3, 4).T[:, :2] + 100 * rank
    found |= {
        "single": joint(torch.full((2, 3), float(rank))),
        "strided": joint(strided),
        "graph": joint(torch.ones(1, 1)).requires_grad,
    }
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()  # neither leaves while the other still talks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
