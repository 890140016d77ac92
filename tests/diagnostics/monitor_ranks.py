"""What monitors read in every way of wrapping, for `test_monitor_wrapped.py`: alone, or as one of two ranks.

python monitor_ranks.py OUT RANK
"""

import copy
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from stopgrad.diagnostics.monitor import Monitor

WIDTH, DIM, BATCH, STEPS = 16, 8, 48, 3
NAMES = {"projector": "projector", "predictor": "predictor", "encoder": "encoder", "target": "slow"}


class Net(nn.Module):
    """Two views to the loss, rows for themselves: ranks that share a batch do what one process does."""

    def __init__(self, stops=True):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(WIDTH, 32), nn.LayerNorm(32), nn.Tanh())
        self.projector = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, DIM))
        self.predictor = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        self.slow = copy.deepcopy(nn.ModuleList([self.encoder, self.projector])).requires_grad_(False)
        self.stops = stops

    def nodes(self, x1, x2):
        z1, z2 = (self.projector(self.encoder(x)) for x in (x1, x2))
        t1, t2 = (z.detach() if self.stops else z for z in (z1, z2))
        return z1, z2, self.predictor(z1), self.predictor(z2), t1, t2

    def forward(self, x1, x2):
        _, _, p1, p2, t1, t2 = self.nodes(x1, x2)
        return loss_of(p1, p2, t1, t2)

    @torch.no_grad()
    def follow(self):
        fast = [*self.encoder.parameters(), *self.projector.parameters()]
        for own, other in zip(self.slow.parameters(), fast, strict=True):
            own.lerp_(other, 0.1)


def loss_of(p1, p2, t1, t2):
    cosines = [functional.cosine_similarity(p, t).mean() for p, t in ((p1, t2), (p2, t1))]
    return -sum(cosines) / 2


def fresh(stops=True, dtype=torch.float32):
    torch.manual_seed(0)
    return Net(stops).to(dtype)


def views(seed, dtype=torch.float32, count=BATCH):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, WIDTH, dtype=torch.float64, generator=generator)
    noise = torch.randn(2, count, WIDTH, dtype=torch.float64, generator=generator)
    return [(x + 0.3 * e).to(dtype) for e in noise]


def plain(readings):
    return [[r.step, r.nodes, r.loss, r.scalars] for r in readings]


def train(net, call, steps=STEPS, parts=1, after=lambda: None):
    """Steps on this rank's share of each joint batch, in ``parts``."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(parts):
            rows = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
            last = part == parts - 1
            with nullcontext() if last or call is net or not hasattr(call, "no_sync") else call.no_sync():
                (call(*(x[rows] for x in views(step * parts + part))) / parts).backward()
        optimizer.step()
        net.follow()
        after()


def wrapped(net):
    return DistributedDataParallel(net) if dist.is_initialized() else net


def by_step(folder):
    net, monitor = fresh(), Monitor(every=1, out=folder and folder / f"by_step-{dist.get_rank()}.jsonl")
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))

    def read():
        with torch.no_grad():
            nodes = net.nodes(*seen.pop())
        monitor.step(*nodes, loss=loss_of(*nodes[2:]), model=net)

    train(net, wrapped(net), after=read)
    return plain(monitor.readings)


def unequal(folder):
    """A last batch of which the ranks have different shares."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    rows = slice(0, 30) if world == 1 else (slice(0, 11), slice(11, 30))[rank]
    monitor = Monitor(every=1)
    for step in range(STEPS):
        monitor.step(*(x[rows] for x in views(step)))
    return plain(monitor.readings)


def attached_first(folder):
    net = fresh()
    out = folder and folder / f"attached_first-{dist.get_rank()}.jsonl"
    monitor = Monitor(every=1, out=out).attach(net, **NAMES)
    train(net, wrapped(net))
    return plain(monitor.readings)


def wrapped_first(folder):
    net = fresh()
    call = wrapped(net)
    monitor = Monitor(every=1).attach(call, **NAMES)
    train(net, call)
    return plain(monitor.readings)


def prefixed(folder):
    net = fresh()
    call = wrapped(net)
    monitor = Monitor(every=1).attach(call, **{role: f"module.{name}" for role, name in NAMES.items()})
    train(net, call)
    return plain(monitor.readings)


def compiled(folder):
    net = fresh()
    call = torch.compile(wrapped(net), backend="eager")
    monitor = Monitor(every=1).attach(call, **NAMES)
    train(net, call)
    return plain(monitor.readings)


def accumulated(folder):
    net = fresh()
    call = wrapped(net)
    monitor = Monitor(every=1).attach(call, **NAMES)
    train(net, call, parts=3)
    return plain(monitor.readings)


JOINT = {
    run.__name__: run
    for run in (by_step, unequal, attached_first, wrapped_first, prefixed, compiled, accumulated)
}


def leak_on_one_rank():
    net = fresh(stops=dist.get_rank() == 0)
    monitor = Monitor(every=1).attach(net, **NAMES)
    train(net, wrapped(net))
    return plain(monitor.readings)


def own_clocks():
    """Each rank with its own pace and its own idea of a budget."""
    rank = dist.get_rank()
    monitor, z = Monitor(budget=(0.5, 0.001)[rank]), views(rank)
    for _ in range(60):
        time.sleep((0.001, 0.002)[rank])
        monitor.step(*z)
    return plain(monitor.readings)


def own_clocks_attached():
    rank, net = dist.get_rank(), fresh()
    monitor = Monitor(budget=(0.5, 0.001)[rank]).attach(net, **NAMES)
    train(net, wrapped(net), steps=40, after=lambda: time.sleep((0.001, 0.002)[rank]))
    return plain(monitor.readings)


RANKS = {run.__name__: run for run in (leak_on_one_rank, own_clocks, own_clocks_attached)}


def main(out, rank):
    dist.init_process_group("gloo", init_method=f"file://{out.resolve()}/store", rank=rank, world_size=2)
    results = {name: run(out) for name, run in JOINT.items()} | {name: run() for name, run in RANKS.items()}
    (out / f"{rank}.json").write_text(json.dumps(results))
    dist.barrier()  # neither leaves while the other still talks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
