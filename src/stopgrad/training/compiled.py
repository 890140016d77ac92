"""The networks of a step as code that `torch.compile` makes; where it cannot, as they are.

What is compiled is `Learner.branch`, all networks that one view goes through, as one graph forward and one
back. It takes its place for the passes of training alone: evaluation, copies of the learner and the names of
its weights know nothing of it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.method import Learner
from stopgrad.parts.ranks import joint
from stopgrad.training.progress import Progress
from stopgrad.training.settings import Compile

log = logging.getLogger(__name__)

RECORDING = ("reduce-overhead", "max-autotune")
"""Modes that record CUDA graphs, on CUDA."""


def check_compile(mode: Compile, device: str, accumulate: int) -> None:
    """Raise where a mode cannot do what it is for.

    Raises:
        UsageError: for ``reduce-overhead`` anywhere but on CUDA, where it would be ``default``; for CUDA
            graphs, whose tensors the next pass overwrites, with batches in several parts.
    """
    if mode == "reduce-overhead" and device != "cuda":
        raise UsageError(f"compile: reduce-overhead records CUDA graphs, the device is {device}; use default")
    if mode in RECORDING and device == "cuda" and accumulate > 1:
        raise UsageError(
            f"compile: {mode} records CUDA graphs, whose gradients do not outlive a pass; "
            f"with accumulate {accumulate} use default"
        )


class Compiled:
    """A learner's `branch`, compiled for batches of one size.

    Compiling is tried in a pass of its own that leaves nothing behind, so that a run takes the same steps
    wherever it is resumed, and goes on as if nothing had been where compiling fails.

    Args:
        learner: without wrappers.
        mode: of `torch.compile`; not "none".
        fabric: with the processes and the precision of the run.
        progress: whose clock does not count the compiling, and which says if it failed.
    """

    def __init__(self, learner: Learner, mode: Compile, fabric: Fabric, progress: Progress) -> None:
        self._learner, self._mode, self._fabric, self._progress = learner, mode, fabric, progress
        self._branch = torch.compile(learner.branch, mode=mode, dynamic=False)
        self._works: bool | None = None  # nobody has tried

    @property
    def mode(self) -> Compile | None:
        """What the steps are compiled with; None where they are not, or not yet."""
        return self._mode if self._works else None

    @contextmanager
    def in_place(
        self, views: tuple[Tensor, ...], labels: Tensor | None, indices: Tensor | None
    ) -> Iterator[None]:
        """While open, the learner's branch is the compiled one, if it can be; for a pass over this batch."""
        if self._works is None:
            self._try(views, labels, indices)
        if not self._works:
            yield
            return
        with self._replaced():
            yield

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        if self._fabric.device.type == "cuda":  # the tensors of the last pass may be overwritten
            torch.compiler.cudagraph_mark_step_begin()
        own = vars(self._learner)  # an attribute in front of the class's method
        own["branch"] = self._branch
        try:
            yield
        finally:
            del own["branch"]

    def _try(self, views: tuple[Tensor, ...], labels: Tensor | None, indices: Tensor | None) -> None:
        """Compile, and find out on all processes whether it works."""
        torch.compiler.reset()  # what another run of this process compiled is not to decide for this one
        start = time.perf_counter()
        cause = self._failure(views, labels, indices)
        failed = torch.tensor(cause is not None, device=self._fabric.device)
        where = joint(failed.reshape(1)).nonzero().flatten().tolist()
        self._works = not where
        if where:
            cause = self._fabric.broadcast(cause, src=where[0])
        if self._fabric.is_global_zero:
            self._say(cause, time.perf_counter() - start)
        self._progress.skip_time()

    def _say(self, cause: str | None, seconds: float) -> None:
        if cause is None:
            log.info("compiled (%s) in %.1f s", self._mode, seconds)
            return
        line = f"compile: {self._mode} failed, the run goes on eagerly: {cause}"
        log.warning("%s", line)
        self._progress.note(line)

    def _failure(
        self, views: tuple[Tensor, ...], labels: Tensor | None, indices: Tensor | None
    ) -> str | None:
        """Go forth and back once, leaving nothing behind; returns what went wrong, in a line."""
        learner = self._learner
        weights = [w for w in learner.parameters() if w.requires_grad]
        before = [(buffer, buffer.clone()) for buffer in learner.buffers()]
        cuda = [self._fabric.device] if self._fabric.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(cuda):
                with self._replaced(), self._fabric.autocast():
                    loss = learner(views, labels, indices).loss
                torch.autograd.grad(loss, weights, allow_unused=True)  # leaves .grad, and DDP, alone
        except Exception as error:  # of any compiler; what is not of it will be raised again
            reason = str(error).partition("Set TORCHDYNAMO_VERBOSE")[0]
            return f"{type(error).__name__}: {' '.join(reason.split())}"[:200]
        finally:
            with torch.no_grad():
                for buffer, content in before:
                    buffer.copy_(content)
        return None
