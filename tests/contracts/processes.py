"""What training makes of catalogue entries, and evaluation of a learner, for `test_processes.py`.

Alone, or in each of several processes:

python tests/ranks.py LAUNCHER WORLD processes.py OUT NAME...
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from stopgrad.data.sources import ArrayPart
from stopgrad.evaluation.knn import knn_accuracy
from stopgrad.evaluation.measures import Embedder, measure_learner
from stopgrad.evaluation.shares import Shares
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.distributed import join_batch_norm, launch, settle_buckets
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.settings import RunSettings, resolve

IMAGES, BATCH, STEPS = 96, 24, 3
FACTS = DataFacts(1, (0.3,), (0.25,), tuple("abcd"), images=IMAGES)
EVALUATED = 70
"""Images; eight batches of eight and one of six: no number of processes gets equal shares."""


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
    settle_buckets(learner)
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


def evaluate(shares: Shares) -> dict[str, Any]:
    """Measures of an untrained learner, its features, and kNN among them."""
    own = settings("byol")
    learner = build_learner(own, FACTS)
    embedder = Embedder(own.view_size, torch.device("cpu"), lambda x: x, nullcontext, 8, 0, shares)
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(256, (EVALUATED, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(4, (EVALUATED,), generator=generator)
    part = ArrayPart(images, labels, [str(i) for i in range(EVALUATED)])
    plain, nodes, _ = measure_learner(learner, embedder, part, own.make_views())
    linear = build_learner(settings("byol-lp"), FACTS)
    modes = measure_learner(linear, embedder, part, own.make_views()).modes
    few = embedder.embed_evaluating(learner, part.take(torch.arange(5))).h  # most processes have none
    knn = knn_accuracy(plain.h, labels, plain.h.roll(1, 0), labels.roll(1), 4, k=3, shares=shares)
    return {"h": plain.h, "few": few, "nodes": nodes, "modes": modes, "knn": knn}


def gradients_twice(fabric: Fabric) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the first and of the second backward pass of the same batch: DDP's own sums, float32."""
    torch.manual_seed(0)  # wide enough for several buckets
    net = torch.nn.Sequential(torch.nn.Linear(700, 700), torch.nn.ReLU(), torch.nn.Linear(700, 300))
    wrapped = fabric.setup(net)
    settle_buckets(wrapped)
    x = torch.randn(8, 700, generator=torch.Generator().manual_seed(fabric.global_rank))
    found = []
    for _ in range(2):
        net.zero_grad()
        fabric.backward(wrapped(x).square().sum())
        found.append([w.grad.clone() for w in net.parameters() if w.grad is not None])
    return found[0], found[1]


def main(out: Path, *names: str) -> None:
    fabric = launch(settings(names[0]))
    shares = Shares(fabric.global_rank, fabric.world_size, fabric.device)
    results: dict[str, Any] = {
        "evaluation": evaluate(shares),
        "gradients": gradients_twice(fabric),
        "entries": {},
    }
    for name in names:
        try:
            results["entries"][name] = train(name, fabric)
        except Exception as error:  # of one entry: the others are tested all the same
            results["entries"][name] = f"{type(error).__name__}: {error}"
    torch.save(results, out / f"{fabric.global_rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
