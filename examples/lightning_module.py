"""DirectPred with IsoLoss and a slow target in a LightningModule.

    pip install pytorch-lightning
    python examples/lightning_module.py     # handwritten digits at random pose, about 20 seconds on one core

`DirectPredModule` is all of it; the digits, their views and the network stand in for yours.

Shapes: B images in a batch, D width of a projection.
"""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import stopgrad as sg
from stopgrad.data.batches import Batches
from stopgrad.data.sources import Dataset, DataSettings, load_dataset
from stopgrad.data.views import evaluation_view, preset
from stopgrad.diagnostics import embedding_std
from stopgrad.evaluation.knn import knn_accuracy

DIM = 64


class DirectPredModule(pl.LightningModule):
    """Learns from batches of two views, (B, ...) each; checkpoints hold predictor and target."""

    def __init__(self, online: nn.Module, dim: int, tau: float = 0.98, lr: float = 2e-3) -> None:
        super().__init__()
        self.online, self.lr = online, lr
        self.predictor = sg.DirectPred(dim)
        self.target = sg.EmaTarget(online, tau)
        self.seen: list[Tensor] = []  # the projections since the last optimiser step

    def training_step(self, views: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, or of one part of it where gradients are accumulated."""
        x1, x2 = views
        z1, z2 = self.online(x1), self.online(x2)
        self.seen += [z1.detach(), z2.detach()]
        loss = sg.isoloss(z1, z2, self.predictor(z1), self.predictor(z2), self.target(x1), self.target(x2))
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser's step and what follows it, once however many batches were accumulated."""
        super().optimizer_step(*args, **kwargs)  # runs training_step and backward, too
        self.predictor.after_step(self.seen)
        self.target.update(self.online)
        self.seen.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The online network is all that is learned by gradients."""
        return torch.optim.AdamW(self.online.parameters(), lr=self.lr, weight_decay=1e-4)


# ---- the rest is only for running this file


def network() -> nn.Sequential:
    """Encoder and projector, (B, 1, 16, 16) -> (B, 128) -> (B, D)."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(),
    )  # fmt: skip
    projector = nn.Sequential(
        nn.Linear(128, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, DIM)
    )
    return nn.Sequential(encoder, projector)


class TwoViews(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of two augmented views of the digits, in a new order each epoch."""

    def __init__(self, data: Dataset) -> None:
        self.batches, self.epoch = Batches(data.train, preset("digits"), batch_size=64, seed=0), -1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        return (batch.views for batch in self.batches.epoch(self.epoch))


@torch.no_grad()
def report(title: str, online: nn.Sequential, data: Dataset) -> None:
    """Print how far projections of test images spread (0 is collapse), and the kNN accuracy of features."""
    online.eval()
    queries, bank = (online[0](evaluation_view(part.images, 16)) for part in (data.test, data.train))
    accuracy = knn_accuracy(queries, data.test.labels, bank, data.train.labels, classes=10)
    print(f"{title}  std {embedding_std(online[1](queries)):.2f}  kNN {accuracy:.3f}")
    online.train()


def main(epochs: int = 16, accumulate: int = 1) -> None:
    """Train on the digits and print how it went, beside the untrained network."""
    pl.seed_everything(0)
    data = load_dataset(DataSettings(name="digits"))
    module = DirectPredModule(network(), DIM)
    report("untrained  ", module.online, data)
    trainer = pl.Trainer(
        max_epochs=epochs, accumulate_grad_batches=accumulate, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TwoViews(data), batch_size=None))
    report(f"loss {trainer.callback_metrics['loss']:+.3f}", module.online, data)


if __name__ == "__main__":
    main()
