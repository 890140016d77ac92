"""What targets hold after some steps, for `test_target.py`: alone, or as one of two gloo processes.

python target_ranks.py RANK FOLDER
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stopgrad.parts.target import Ema, Memory

DIM, IMAGES, STEPS = 3, 12, 5
PARTS = (slice(0, 4), slice(4, 8))  # of a joint batch of 8
JOINT = slice(0, 8)
TARGETS = {"centring": Ema(tau=0.9, centring=0.8), "memory": Memory(momentum=0.7)}


def state(name: str, part: slice) -> dict[str, Tensor]:
    """State of a fresh target after steps on a part of each joint batch."""
    torch.manual_seed(0)
    net = nn.Linear(4, DIM).double()
    target = TARGETS[name].build(net, DIM, IMAGES).double()
    for _ in range(STEPS):
        x = torch.randn(2, 8, 4, dtype=torch.float64) + 1
        indices = torch.randperm(IMAGES)[:8]
        own = [view[part] for view in x]
        with torch.no_grad():
            net.weight.add_(torch.randn_like(net.weight))
            t = target.join([target.branch(view, net(view)) for view in own], indices[part])
            target.after_step(net, t, indices[part], 0.5)
    return target.state_dict()


def main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({name: state(name, PARTS[rank]) for name in TARGETS}, folder / f"{rank}.pt")
    dist.barrier()  # neither leaves while the other still talks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
