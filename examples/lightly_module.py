"""lightly's BYOL with our predictor, loss and target in place of its own.

    pip install lightly
    python examples/lightly_module.py       # handwritten digits at random pose, about 30 seconds on one core

Backbone, projection head, transform and loader are as in lightly's BYOL example. `sg.DirectPred` stands for
its BYOLPredictionHead, `sg.isoloss` for NegativeCosineSimilarity, `sg.EmaTarget` for the two copies that it
keeps by deactivate_requires_grad and update_momentum.

Shapes: B images in a batch, D width of a projection.
"""

import torch
from lightly.models.modules import BYOLProjectionHead
from lightly.transforms.multi_view_transform import MultiViewTransform
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2 as T
from torchvision.transforms.functional import to_pil_image

import stopgrad as sg
from stopgrad.data.sources import Dataset, DataSettings, load_dataset
from stopgrad.data.views import evaluation_view
from stopgrad.diagnostics import embedding_std
from stopgrad.evaluation.knn import knn_accuracy

DIM = 64


class Byol(nn.Module):
    """lightly's BYOL module, with DirectPred and IsoLoss."""

    def __init__(self, backbone: nn.Module, width: int, tau: float = 0.98) -> None:
        super().__init__()
        self.backbone = backbone
        self.online = nn.Sequential(backbone, BYOLProjectionHead(width, 256, DIM))
        self.predictor = sg.DirectPred(DIM)
        self.target = sg.EmaTarget(self.online, tau)

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The loss of a batch, and its projections for `after_step`."""
        z1, z2 = self.online(x1), self.online(x2)
        loss = sg.isoloss(z1, z2, self.predictor(z1), self.predictor(z2), self.target(x1), self.target(x2))
        return loss, (z1, z2)

    def after_step(self, z: tuple[Tensor, Tensor]) -> None:
        """Once after each optimiser step: the predictor, then the target."""
        self.predictor.after_step(z)
        self.target.update(self.online)


def train(model: Byol, loader: DataLoader[tuple[list[Tensor], Tensor]], epochs: int) -> list[float]:
    """lightly's loop with one line more; returns the losses."""
    optimizer = torch.optim.AdamW(model.online.parameters(), lr=2e-3, weight_decay=1e-4)
    losses = []
    for _ in range(epochs):
        for (x1, x2), _labels in loader:
            loss, z = model(x1, x2)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            model.after_step(z)
            losses.append(loss.item())
    return losses


# ---- the rest is only for running this file


def small_backbone() -> nn.Sequential:
    """(B, 1, 16, 16) -> (B, 128)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(),
    )  # fmt: skip


def transform() -> MultiViewTransform:
    """lightly's two views. Its BYOLTransform is for photographs: digits must stay whole and upright."""
    view = T.Compose([
        T.Pad(4, padding_mode="edge"),  # else a black corner tells how the image was turned
        T.RandomAffine(20, translate=(0.05, 0.05), scale=(0.8, 1.25), shear=8),
        T.CenterCrop(16),
        T.ColorJitter(brightness=0.8, contrast=0.8),
        T.ToImage(),
        T.ToDtype(torch.float32, scale=True),
    ])  # fmt: skip
    return MultiViewTransform([view, view])


class Digits(TorchDataset[tuple[list[Tensor], Tensor]]):
    """The digits as torchvision shows its data sets: views of a Pillow image, and its label."""

    def __init__(self, data: Dataset) -> None:
        self.images = [to_pil_image(image) for image in data.train.images]
        self.labels, self.transform = data.train.labels, transform()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[list[Tensor], Tensor]:
        return self.transform(self.images[i]), self.labels[i]


@torch.no_grad()
def report(title: str, online: nn.Sequential, data: Dataset) -> None:
    """Print how far projections of test images spread (0 is collapse), and the kNN accuracy of features."""
    online.eval()
    queries, bank = (online[0](evaluation_view(part.images, 16)) for part in (data.test, data.train))
    accuracy = knn_accuracy(queries, data.test.labels, bank, data.train.labels, classes=10)
    print(f"{title}  std {embedding_std(online[1](queries)):.2f}  kNN {accuracy:.3f}")
    online.train()


def main(epochs: int = 8, images: int = 2048) -> None:
    """Train on the digits and print how it went, beside the untrained network."""
    torch.manual_seed(0)
    data = load_dataset(DataSettings(name="digits", limit=images))
    model = Byol(small_backbone(), width=128)
    report("untrained  ", model.online, data)
    loader = DataLoader(Digits(data), batch_size=32, shuffle=True, drop_last=True)
    losses = train(model, loader, epochs)
    last = losses[-len(loader) :]
    report(f"loss {sum(last) / len(last):+.3f}", model.online, data)


if __name__ == "__main__":
    main()
