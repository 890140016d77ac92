"""What monitors read in every way of wrapping, for `test_monitor_ranks.py`: alone, or as one of two ranks.

python monitor_ranks.py OUT RANK
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from monitored_net import NAMES, STEPS, fresh, loss_of, train, views
from torch.nn.parallel import DistributedDataParallel

from stopgrad.diagnostics.monitor import Monitor


def plain(readings):
    return [[r.step, r.nodes, r.loss, r.scalars] for r in readings]


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
