"""DirectPred with IsoLoss and a slow target in a plain PyTorch loop.

    python examples/plain_torch.py          # handwritten digits at random pose, about 20 seconds on one core

`train` is the loop; the digits, their views and the network stand in for yours.

Shapes: B images in a batch, D width of a projection.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

import stopgrad as sg
from stopgrad.data.batches import Batches
from stopgrad.data.sources import Dataset, DataSettings, load_dataset
from stopgrad.data.views import evaluation_view, preset
from stopgrad.diagnostics import embedding_std
from stopgrad.evaluation.knn import knn_accuracy

DIM = 64
TAU = 0.98  # share of the target that is kept at each step
LR, WEIGHT_DECAY = 2e-3, 1e-4


def train(
    online: nn.Module, predictor: sg.DirectPred, target: sg.EmaTarget, views: Iterable[tuple[Tensor, Tensor]]
) -> list[float]:
    """Take one optimiser step per pair of views; returns the losses."""
    optimizer = torch.optim.AdamW(online.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    losses = []
    for x1, x2 in views:
        z1, z2 = online(x1), online(x2)
        loss = sg.isoloss(z1, z2, predictor(z1), predictor(z2), target(x1), target(x2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        predictor.after_step((z1, z2))
        target.update(online)
        losses.append(loss.item())
    return losses


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


@torch.no_grad()
def report(title: str, online: nn.Sequential, data: Dataset) -> None:
    """Print how far projections of test images spread (0 is collapse), and the kNN accuracy of features."""
    online.eval()
    queries, bank = (online[0](evaluation_view(part.images, 16)) for part in (data.test, data.train))
    accuracy = knn_accuracy(queries, data.test.labels, bank, data.train.labels, classes=10)
    print(f"{title}  std {embedding_std(online[1](queries)):.2f}  kNN {accuracy:.3f}")
    online.train()


def main(epochs: int = 16) -> None:
    """Train on the digits and print how it went, beside the untrained network."""
    torch.manual_seed(0)
    data = load_dataset(DataSettings(name="digits"))
    online = network()
    predictor, target = sg.DirectPred(DIM), sg.EmaTarget(online, TAU)
    report("untrained  ", online, data)
    batches = Batches(data.train, preset("digits"), batch_size=64, seed=0)
    views = (batch.views for epoch in range(epochs) for batch in batches.epoch(epoch))
    losses = train(online, predictor, target, views)
    last = losses[-len(batches) :]
    report(f"loss {sum(last) / len(last):+.3f}", online, data)


if __name__ == "__main__":
    main()
