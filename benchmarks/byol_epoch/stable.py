"""Another peer's side: stable-pretraining's BYOL, in a process of its own that is stopped between its turns.

Of its own, because the library changes the process that imports it: settings of the allocator, loggers, parts
of Lightning; and it writes below the home folder, which is another one there.
"""

import os
import signal
from importlib.util import find_spec
from io import BytesIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from byol_epoch.cases import Case
from stopgrad.data.sources import Dataset
from stopgrad.training.build import DataFacts, build_learner


def installed() -> bool:
    """Whether the library is there."""
    return find_spec("stable_pretraining") is not None


class Stable:
    """The process and its workers: they run while steps are asked for, and are stopped (SIGSTOP) else."""

    def __init__(self, case: Case, precision: str, dataset: Dataset, workers: int, home: Path) -> None:
        home.mkdir()
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        given = (theirs, case, precision, workers, torch.get_num_threads(), home)
        self.process = context.Process(target=serve, args=given)
        self.process.start()
        theirs.close()
        learner: Any = build_learner(case.settings(precision), DataFacts.of(dataset))
        self._encoder: nn.Module = learner.encoder.body
        try:
            self.pipe.recv()  # it has its group now, and waits
        except BaseException:
            self.process.kill()
            raise
        self._signal(signal.SIGSTOP)

    def steps(self, count: int) -> None:
        """Train for ``count`` steps."""
        self._signal(signal.SIGCONT)
        self.pipe.send(count)
        self.pipe.recv()
        self._signal(signal.SIGSTOP)

    @property
    def encoder(self) -> nn.Module:
        """What kNN reads."""
        self._signal(signal.SIGCONT)
        self.pipe.send("weights")
        self._encoder.load_state_dict(torch.load(BytesIO(self.pipe.recv_bytes())))
        self._signal(signal.SIGSTOP)
        return self._encoder

    def close(self) -> None:
        """Let the process end; kill it if it does not."""
        # told, since workers that were forked after it hold the pipe open
        if self.process.is_alive():
            self.pipe.send(None)
        self._signal(signal.SIGCONT)
        self.process.join(60)
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.process.is_alive():
            os.killpg(self.process.pid or 0, number)


def serve(pipe: Connection, case: Case, precision: str, workers: int, threads: int, home: Path) -> None:
    """What the process does: train as it is told through the pipe."""
    os.setpgid(0, 0)  # so that a signal reaches the workers too
    os.environ |= {"HOME": str(home), "SPT_CACHE_DIR": str(home), "LOGURU_LEVEL": "ERROR"}
    os.chdir(home)
    torch.set_num_threads(threads)
    from byol_epoch.stable_byol import train  # imports the library, which looks at HOME

    train(pipe, case, precision, workers)
