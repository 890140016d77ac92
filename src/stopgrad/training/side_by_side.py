"""Both views of a batch at once, a thread each: for encoders whose operations are too small to be shared.

The threads of a small operation wait for each other longer than they work, and ten times longer where the
machine has other work to do. The two views of a batch meet in the loss alone, so that two threads with a view
each wait for each other twice in a step. No bit of the result depends on which of them is first, nor on the
number of processors.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad.method import Branch, Learner, Method, Nodes
from stopgrad.networks.encoders import CONVNET_S
from stopgrad.training.settings import RunSettings


def runs_side_by_side(settings: RunSettings, fabric: Fabric) -> bool:
    """Whether `SideBySide` can take a run: two views, one process on the CPU, one thread, convnet-s, eager.

    timm's networks may draw random numbers in their forward pass, and a loss that runs the predictor again
    would have the batch normalisation of one view in it. Compiled networks in two threads at once have
    crashed the process (PyTorch 2.15).
    """
    eager = settings.compile == "none"
    alone = eager and fabric.device.type == "cpu" and fabric.world_size == 1 and settings.threads == 1
    method = settings.sentence
    in_branches = not isinstance(method, Method) or (method.views == 2 and not method.calls_predictor)
    return alone and settings.encoder.name == CONVNET_S and in_branches


class TwoThreads:
    """The caller's thread and another one, which ends with this object."""

    def __init__(self) -> None:
        # how many threads an operation may use is a property of the thread that calls it
        self._pool = ThreadPoolExecutor(1, "first-view", torch.set_num_threads, (1,))

    def map(self, function: Callable[..., Any], *pairs: Iterable[Any]) -> tuple[Any, Any]:
        """The built-in ``map`` over two items, the second in the caller's thread."""
        first, second = zip(*pairs, strict=True)
        running = self._pool.submit(function, *first)
        own = function(*second)
        return running.result(), own


class SideBySide:
    """Forward and backward pass of a learner on the CPU, a thread for each view.

    The second view goes through a twin of the learner: the same weights, but batch normalisation of its own,
    whose statistics the learner takes after each pass, as if the first view had come first. Both gradients
    of a weight meet in autograd, which adds them one at a time: from nothing on, so that their order makes no
    difference.

    Args:
        learner: in training mode. Its `branch` draws no random numbers, which two threads would draw in any
            order, and changes no buffers but those of batch normalisation.
        fabric: of a single process; its precision holds in both threads.
        threads: where the views go.
    """

    def __init__(self, learner: Learner, fabric: Fabric, threads: TwoThreads) -> None:
        self.learner, self.twin = learner, _twin(learner)
        self.fabric, self.threads = fabric, threads
        self._weights = [w for w in learner.parameters() if w.requires_grad]
        norms, twins = _norms(learner), _norms(self.twin)
        for norm in twins:  # of the last batch alone
            norm.momentum, norm.num_batches_tracked = 1.0, None
        self._counts = [norm.get_buffer("num_batches_tracked") for norm in norms]
        self._statistics, self._last = _statistics(norms), _statistics(twins)
        self._momenta = [cast(float, norm.momentum) for norm in norms for _ in ("mean", "var")]

    def __call__(
        self, views: tuple[Tensor, ...], labels: Tensor | None, parts: int, indices: Tensor | None = None
    ) -> Nodes:
        """Add the gradients of the loss over ``parts`` to those of the weights.

        Returns:
            The nodes as leaves: no gradient goes from them to the weights any more.
        """
        branches = self.threads.map(self._branch, (self.learner, self.twin), views)
        leaves = [_cut(branch) for branch in branches]
        with self.fabric.autocast():
            nodes = self.learner.join(leaves, labels, indices)
        self.fabric.backward(nodes.loss / parts)
        with self._gradients_of_before_aside():
            self.threads.map(_backward, branches, leaves)
        self._take_statistics()
        return nodes

    def _branch(self, learner: Learner, x: Tensor) -> Branch:
        with self.fabric.autocast():  # a property of the thread as well
            return learner.branch(x)

    @contextmanager
    def _gradients_of_before_aside(self) -> Iterator[None]:
        """What the join and earlier parts left is added last: of three numbers the order does matter."""
        before = [(w, w.grad) for w in self._weights if w.grad is not None]
        for w, _ in before:
            w.grad = None
        yield
        for w, gradient in before:
            w.grad = gradient if w.grad is None else w.grad.add_(gradient)

    @torch.no_grad()
    def _take_statistics(self) -> None:
        torch._foreach_lerp_(self._statistics, self._last, self._momenta)
        torch._foreach_add_(self._counts, 1)


def _twin(learner: Learner) -> Learner:
    """A copy with the same weights and buffers, but a batch normalisation of its own."""
    kept = {id(buffer) for norm in _norms(learner) for buffer in norm.buffers()}
    shared = [*learner.parameters(), *(b for b in learner.buffers() if id(b) not in kept)]
    return copy.deepcopy(learner, {id(x): x for x in shared})


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def _statistics(norms: list[_BatchNorm]) -> list[Tensor]:
    return [norm.get_buffer(f"running_{name}") for norm in norms for name in ("mean", "var")]


def _cut(branch: Branch) -> Branch:
    """The nodes as leaves of a new graph; what was one tensor stays one, as t and z of SimSiam."""
    leaves = {id(x): x.detach().requires_grad_(x.requires_grad) for x in branch}
    return Branch(*(leaves[id(x)] for x in branch))


def _backward(branch: Branch, leaves: Branch) -> None:
    """From the loss's gradients at the leaves to those of the weights."""
    reached = {id(x): (x, leaf.grad) for x, leaf in zip(branch, leaves, strict=True) if leaf.grad is not None}
    if reached:
        nodes, gradients = zip(*reached.values(), strict=True)
        torch.autograd.backward(nodes, gradients)
