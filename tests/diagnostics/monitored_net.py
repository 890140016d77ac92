"""A small network for the monitor's tests, its batches, and steps on them: alone, or as one rank of several.

Shapes: B rows of a batch, `WIDTH` inputs, `DIM` outputs.
"""

import copy
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from stopgrad.diagnostics import alignment

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


def step_on(net, loss):
    loss.backward()
    torch.optim.SGD(net.parameters(), lr=0.0).step()


def distance(net, x1, x2):
    with torch.no_grad():
        z1, z2 = (net.projector(net.encoder(x)) for x in (x1, x2))
        return float(alignment(z1, z2))
