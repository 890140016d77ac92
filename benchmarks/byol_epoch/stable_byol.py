"""stable-pretraining's BYOL as its CIFAR example puts it together, driven by Lightning's Trainer."""

import logging
import warnings
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any

import lightning as pl
import stable_pretraining as spt
import torch
from stable_pretraining.callbacks import ModuleRegistryCallback, TeacherStudentCallback
from stable_pretraining.forward import byol
from torch import Tensor
from torch.utils.data import DataLoader

from byol_epoch.cases import TAU, Case
from byol_epoch.peer import Epochs, Pictures
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.precision import FABRIC
from stopgrad.training.settings import RunSettings

KEPT = (ModuleRegistryCallback, TeacherStudentCallback)


class Samples(Pictures):
    """The same pictures and transform, in the dictionaries that the library passes on."""

    def __getitem__(self, i: int) -> Any:
        return as_sample(super().__getitem__(i))


def as_sample(views: list[Tensor]) -> dict[str, list[dict[str, Tensor]]]:
    return {"views": [{"image": view} for view in views]}


class Turns(pl.Callback):
    """Steps as they are asked for through the pipe; the training waits between them."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.left = pipe, 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Wait for the first turn."""
        self._wait(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *others: Any) -> None:
        """Count the step, and wait after the last of a turn."""
        self.left -= 1
        if not self.left:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            self._wait(trainer, pl_module)

    def _wait(self, trainer: Any, module: Any) -> None:
        self.pipe.send("ready")
        while (asked := self.pipe.recv()) == "weights":
            weights = BytesIO()
            torch.save(module.backbone.student.state_dict(), weights)
            self.pipe.send_bytes(weights.getvalue())
        if asked is None:
            trainer.should_stop = True
        else:
            self.left = asked


def build(settings: RunSettings, facts: DataFacts) -> Any:
    """The library's module with our learner's networks, so that the weights at the start are the same."""
    ours: Any = build_learner(settings, facts)
    backbone, projector = (
        spt.TeacherStudentWrapper(part, base_ema_coefficient=TAU, final_ema_coefficient=TAU)
        for part in (ours.encoder.body, ours.projector)
    )
    own = settings.optimizer
    sgd = {"type": "SGD", "lr": own.lr, "momentum": own.momentum, "weight_decay": own.weight_decay}
    return spt.Module(
        forward=byol, backbone=backbone, projector=projector, predictor=ours.predictor.layers,
        byol_loss=spt.losses.BYOLLoss(),
        optim={"optimizer": sgd, "scheduler": {"type": "ConstantLR", "factor": 1.0}},
    )  # fmt: skip


def added(callback: pl.Callback) -> bool:
    return type(callback).__module__.startswith("stable_pretraining")


def check_same_job(settings: RunSettings, facts: DataFacts) -> None:
    """Both losses of the same two views: its is a squared distance, 2 + 2 x ours."""
    x0, x1 = torch.rand(2, 16, facts.channels, settings.view_size, settings.view_size)
    ours = build_learner(settings, facts)((x0, x1)).loss
    theirs = build(settings, facts)(as_sample([x0, x1]), stage="fit")["loss"]
    torch.testing.assert_close(theirs, 2 + 2 * ours, rtol=1e-4, atol=1e-5)


def train(pipe: Connection, case: Case, precision: str, workers: int) -> None:
    """Train until the pipe says None."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    spt.set(verbose="ERROR")
    dataset = case.load()
    settings, facts = case.settings(precision), DataFacts.of(dataset)
    check_same_job(settings, facts)
    pictures = Samples(dataset.train.images, case.transform(dataset))
    trainer = pl.Trainer(
        accelerator=case.device, devices=1, precision=FABRIC[settings.precision], max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[TeacherStudentCallback(), Turns(pipe)],
    )  # fmt: skip
    # it adds a dozen to any trainer, which log, watch the machine and write files; its module needs one
    trainer.callbacks = [one for one in trainer.callbacks if isinstance(one, KEPT) or not added(one)]
    # one epoch without an end: no worker waits for the next
    batches = Epochs(len(pictures), case.batch)
    trainer.fit(build(settings, facts), DataLoader(pictures, batch_sampler=batches, num_workers=workers))
