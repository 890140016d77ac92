"""BYOL unrolled: one file, plain PyTorch, nothing hidden (Grill et al. 2020).

    python examples/byol_in_one_file.py          # scikit-learn's digits at random pose, about a minute

Everything that the method needs stands here: encoder, heads, loss, stop-gradient, moving average, optimiser,
learning-rate schedule. It is the same method as ``stopgrad pretrain --method byol``: from the same weights
and the same views it gives the same losses, which ``tests/test_examples.py`` checks.

Shapes: B images in a batch, S image side in pixels, D width of a projection.
"""

import copy
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAU = 0.98  # share of the target that is kept at each step
LR, MOMENTUM, WEIGHT_DECAY = 0.2, 0.9, 4e-4


class Byol(nn.Module):
    """An online network that predicts, for one view, what a slow copy of itself makes of the other view."""

    def __init__(self, channels: int = 1, side: int = 16, hidden: int = 256, dim: int = 64):
        super().__init__()
        self.encoder = encoder(channels, side)
        self.projector = mlp(128, hidden, dim)
        self.predictor = mlp(dim, hidden, dim)
        self.target = copy.deepcopy(nn.Sequential(self.encoder, self.projector))
        self.target.requires_grad_(False)

    def loss(self, view1: Tensor, view2: Tensor) -> Tensor:
        """Negative cosine similarity of prediction and target across the views, (B, C, S, S) each.

        One forward pass per view: batch normalisation sees each view alone.
        """
        p1 = self.predictor(self.projector(self.encoder(view1)))
        p2 = self.predictor(self.projector(self.encoder(view2)))
        with torch.no_grad():  # the stop-gradient: what the prediction aims at is a constant
            t1, t2 = self.target(view1), self.target(view2)
        return -(cosine(p1, t2) + cosine(p2, t1)) / 2

    @torch.no_grad()
    def move_target(self, tau: float = TAU) -> None:
        """W_target <- tau W_target + (1 - tau) W_online.

        Weights only: the running statistics of the target's batch normalisation are its own.
        """
        online = [*self.encoder.parameters(), *self.projector.parameters()]
        for slow, fast in zip(self.target.parameters(), online, strict=True):
            slow.mul_(tau).add_(fast, alpha=1 - tau)


def encoder(channels: int, side: int) -> nn.Sequential:
    """Three strided convolutions and a linear layer, (B, C, S, S) -> (B, 128)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 32), (32, 64), (64, 128)):
        layers += [
            nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        side = (side + 1) // 2
    layers += [nn.Flatten(), nn.Linear(128 * side * side, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU()]
    return nn.Sequential(*layers)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """The shape of projector and predictor alike."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean cosine similarity of the rows of two (B, D) tensors."""
    return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(dim=1).mean()


def learning_rate(step: int, steps: int, warmup: int, peak: float = LR) -> float:
    """Linear warm-up over the first ``warmup`` steps, then half a cosine down to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def train(model: Byol, views: Iterable[tuple[Tensor, Tensor]], steps: int, warmup: int) -> list[float]:
    """Take one optimiser step per pair of views; returns the losses."""
    online = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(online, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    losses = []
    model.train()
    for step, (view1, view2) in enumerate(views):
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps, warmup)
        optimizer.zero_grad()
        loss = model.loss(view1, view2)
        loss.backward()
        optimizer.step()
        model.move_target()
        losses.append(loss.item())
    return losses


# ---- the rest is only for running this file: data, views, and a look at what was learned


def jitter(images: Tensor, light: float = 0.5) -> Tensor:
    """Turn, scale, move each image (B, 1, S, S) at random, change contrast and brightness, add noise."""
    count = len(images)

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(count) - 1) * limit

    turn, scale = uniform(0.35), torch.exp(uniform(0.2))
    rows = (
        torch.stack([scale * turn.cos(), -scale * turn.sin(), uniform(0.3)], dim=1),
        torch.stack([scale * turn.sin(), scale * turn.cos(), uniform(0.3)], dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = torch.exp(uniform(light)), uniform(light)
    moved = moved * contrast[:, None, None, None] + brightness[:, None, None, None]
    return moved + 0.04 * torch.randn_like(moved)


def digits(poses: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Handwritten digits at random poses and in random light: training images, labels, and those of test."""
    from sklearn.datasets import load_digits

    pixels, numbers = load_digits(return_X_y=True)
    small = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    images = F.interpolate(F.pad(small, [2] * 4), size=16, mode="bilinear")
    order = torch.randperm(len(images))
    test, train = order[:500], order[500:].repeat(poses)
    labels = torch.tensor(numbers)
    return jitter(images[train], light=0.3), labels[train], jitter(images[test], light=0.3), labels[test]


def batches(images: Tensor, epochs: int, size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Two views of each batch, epoch after epoch; what does not fill a batch is left out."""
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(size):
            if len(rows) == size:
                yield jitter(images[rows]), jitter(images[rows])


@torch.no_grad()
def knn_accuracy(model: Byol, train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Share of test images whose 20 nearest training images, by cosine of the features, vote right."""
    model.eval()
    bank, queries = (F.normalize(model.encoder(images), dim=1) for images in (train, test))
    votes = F.one_hot(labels[(queries @ bank.T).topk(20, dim=1).indices]).sum(dim=1)
    return float((votes.argmax(dim=1) == truth).float().mean())


@torch.no_grad()
def spread(model: Byol, images: Tensor) -> float:
    """Standard deviation of the l2-normalised projections times sqrt(D): 1 isotropic, 0 collapsed."""
    model.eval()
    z = F.normalize(model.projector(model.encoder(images)), dim=1)
    return float(z.std(dim=0).mean() * z.shape[1] ** 0.5)


def main(epochs: int = 25, batch_size: int = 64) -> None:
    """Train on the digits and print how it went, beside the untrained network."""
    torch.manual_seed(0)
    data = digits()
    model = Byol()
    print(f"untrained        std {spread(model, data[2]):.2f}  kNN {knn_accuracy(model, *data):.3f}")
    per_epoch = len(data[0]) // batch_size
    views = batches(data[0], epochs, batch_size)
    losses = train(model, views, epochs * per_epoch, warmup=2 * per_epoch)
    loss = sum(losses[-per_epoch:]) / per_epoch
    print(f"loss {loss:+.3f}      std {spread(model, data[2]):.2f}  kNN {knn_accuracy(model, *data):.3f}")


if __name__ == "__main__":
    main()
