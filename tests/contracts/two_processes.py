"""What training makes of every catalogue entry, for `test_two_processes.py`: alone, or as torchrun's ranks.

python two_processes.py OUT
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from stopgrad.catalog import CATALOG
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.distributed import join_batch_norm, launch
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.settings import RunSettings, resolve

IMAGES, BATCH, STEPS = 96, 24, 3
FACTS = DataFacts(1, (0.3,), (0.25,), tuple("abcd"), images=IMAGES)


def settings(name: str) -> RunSettings:
    changes = {"view_size": 8, "projector": {"hidden": (16,), "out": 8}, "device": "cpu", "precision": "fp32"}
    return resolve({"method": name, "recipe": "digits-smoke", **changes})


def views_of(own: RunSettings) -> int:
    return getattr(own.sentence, "views", 2)


def train(name: str, fabric: Fabric) -> dict[str, Any]:
    """Losses of a few steps, gradients of the first and the state after the last, on this rank's rows.

    The learner is wrapped as `Session` wraps it, and a step is the trainer's.
    """
    own = settings(name)
    bare = build_learner(own, FACTS).to(torch.float64)
    join_batch_norm(bare, fabric)
    learner, optimizer = fabric.setup(bare, build_optimizer(own.optimizer, bare))
    rows = slice(
        *(rank * BATCH // fabric.world_size for rank in (fabric.global_rank, fabric.global_rank + 1))
    )
    generator = torch.Generator().manual_seed(1)
    losses, gradients = [], {}
    for step in range(STEPS):
        x = torch.randn(BATCH, 1, own.view_size, own.view_size, dtype=torch.float64, generator=generator)
        views = [
            x + 0.5 * torch.randn(x.shape, dtype=x.dtype, generator=generator) for _ in range(views_of(own))
        ]
        indices = torch.randperm(IMAGES, generator=generator)[:BATCH]
        labels = indices % len(FACTS.classes or ())
        nodes = learner([view[rows] for view in views], labels[rows], indices[rows])
        fabric.backward(nodes.loss)
        losses.append(nodes.loss.detach())
        if step == 0:
            gradients = {key: w.grad.clone() for key, w in bare.named_parameters() if w.grad is not None}
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        bare.after_step(nodes, (step + 1) / STEPS)
    return {"losses": torch.stack(losses), "gradients": gradients, "state": dict(bare.state_dict())}


def main(out: Path) -> None:
    fabric = launch(settings(next(iter(CATALOG))))
    assert fabric.world_size == 2
    results: dict[str, Any] = {}
    for name in CATALOG:
        try:
            results[name] = train(name, fabric)
        except Exception as error:  # of one entry: the others are tested all the same
            results[name] = f"{type(error).__name__}: {error}"
    torch.save(results, out / f"{fabric.global_rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
