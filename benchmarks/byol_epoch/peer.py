"""A peer's side: lightly's BYOL example, with its DataLoader and the weights of our learner."""

import copy
import os
import signal
from collections.abc import Iterator
from itertools import islice
from multiprocessing import active_children
from typing import Any

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.multi_view_transform import MultiViewTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from byol_epoch.cases import TAU, Case
from stopgrad.data.sources import Dataset
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.settings import RunSettings


class LightlyByol(nn.Module):
    """BYOL of lightly's parts, as its example puts them together, with the weights of our learner."""

    def __init__(self, settings: RunSettings, facts: DataFacts) -> None:
        super().__init__()
        ours: Any = build_learner(settings, facts)
        width, out = ours.encoder.width, settings.projector.out
        self.backbone = ours.encoder.body
        self.projection_head = BYOLProjectionHead(width, ours.projector[0].out_features, out)
        self.prediction_head = BYOLPredictionHead(out, ours.predictor.layers[0].out_features, out)
        self.projection_head.layers.load_state_dict(ours.projector.state_dict())
        self.prediction_head.layers.load_state_dict(ours.predictor.layers.state_dict())
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (B, D) of a view."""
        y = self.backbone(x).flatten(start_dim=1)
        return self.prediction_head(self.projection_head(y))

    def forward_momentum(self, x: Tensor) -> Tensor:
        """Target projections (B, D) of a view."""
        y = self.backbone_momentum(x).flatten(start_dim=1)
        return self.projection_head_momentum(y).detach()

    def loss(self, x0: Tensor, x1: Tensor) -> Tensor:
        """The symmetric loss of two views."""
        p0, z0 = self(x0), self.forward_momentum(x0)
        p1, z1 = self(x1), self.forward_momentum(x1)
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))


class Pictures(TorchDataset[list[Tensor]]):
    """Images in memory, made PIL and transformed one by one, as torchvision's CIFAR10 does."""

    def __init__(self, images: Tensor, transform: MultiViewTransform) -> None:
        self.images = images.movedim(1, -1).squeeze(-1).contiguous().numpy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.images[i]))


class Epochs:
    """Batches of one shuffled epoch after another: no worker waits at the end of an epoch."""

    def __init__(self, images: int, batch: int) -> None:
        self.images, self.batch = images, batch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(0)
        while True:
            order = torch.randperm(self.images, generator=generator)
            yield from order[: self.images // self.batch * self.batch].view(-1, self.batch).tolist()


class Lightly:
    """The loop of lightly's BYOL example."""

    def __init__(self, case: Case, precision: str, dataset: Dataset, workers: int) -> None:
        settings = case.settings(precision)
        self.device, self.precision = case.device, precision
        self.model = LightlyByol(settings, DataFacts.of(dataset)).to(case.device)
        own = settings.optimizer
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=own.lr, momentum=own.momentum, weight_decay=own.weight_decay
        )
        pictures = Pictures(dataset.train.images, case.transform(dataset))
        before = set(active_children())
        self.loader = iter(
            DataLoader(pictures, batch_sampler=Epochs(len(pictures), case.batch), num_workers=workers)
        )
        self.workers = set(active_children()) - before
        self._signal(signal.SIGSTOP)

    def steps(self, count: int) -> None:
        """Train for ``count`` steps, with the workers running."""
        self._signal(signal.SIGCONT)
        for x0, x1 in islice(self.loader, count):
            self._step(x0.to(self.device), x1.to(self.device))
        self._signal(signal.SIGSTOP)

    def _step(self, x0: Tensor, x1: Tensor) -> None:
        model = self.model
        update_momentum(model.backbone, model.backbone_momentum, m=TAU)
        update_momentum(model.projection_head, model.projection_head_momentum, m=TAU)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = model.loss(x0, x1)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @property
    def encoder(self) -> nn.Module:
        """What kNN reads."""
        return self.model.backbone

    def close(self) -> None:
        """Let the workers go on, to their end."""
        self._signal(signal.SIGCONT)
        del self.loader

    def _signal(self, number: int) -> None:
        for worker in self.workers:
            os.kill(worker.pid or 0, number)
