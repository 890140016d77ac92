"""Our side: the trainer of `stopgrad pretrain`."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lightning_fabric import Fabric
from torch import nn

from byol_epoch.cases import Case
from stopgrad.data.batches import Batch, Batches
from stopgrad.data.sources import Dataset
from stopgrad.training.build import DataFacts, build_embedder, build_learner
from stopgrad.training.folder import RunFolder
from stopgrad.training.precision import FABRIC
from stopgrad.training.pretrain import Session


class Block:
    """Batches of which an epoch gives at most ``most``: the trainer's epoch then ends with the turn."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.most = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """At most ``most`` batches of an epoch, from number ``start`` on."""
        return islice(self.batches.epoch(epoch, start), self.most)


class Stopgrad:
    """The trainer of `stopgrad pretrain`, stopped after each turn as a signal would stop it."""

    def __init__(self, case: Case, precision: str, dataset: Dataset, out: Path) -> None:
        settings = case.settings(precision)
        fabric = Fabric(accelerator=case.device, devices=1, precision=FABRIC[settings.precision])
        facts = DataFacts.of(dataset)
        self.learner = build_learner(settings, facts)
        embedder = build_embedder(settings, facts, fabric, self.learner)
        session = Session(settings, fabric, dataset, facts, settings.make_views(), self.learner, embedder)
        self.trainer = session.trainer(RunFolder(out), None, show_progress=False)
        self.blocks = Block(self.trainer.batches)
        self.trainer.batches = self.blocks

    def steps(self, count: int) -> None:
        """Train for ``count`` steps."""
        goal = self.trainer.state.step + count
        while (step := self.trainer.state.step) < goal:
            epoch, done = divmod(step, len(self.blocks))
            self.blocks.most = min(goal - step, len(self.blocks) - done)
            self.trainer._epoch(epoch, [])

    @property
    def encoder(self) -> nn.Module:
        """What kNN reads."""
        return self.learner.encoder

    def close(self) -> None:
        """Close the log."""
        if self.trainer.metrics is not None:
            self.trainer.metrics.close()
