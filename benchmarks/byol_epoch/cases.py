"""What is compared: encoder, images, batch and precision, and how many steps each side takes in turn."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from lightly.transforms.multi_view_transform import MultiViewTransform

from byol_epoch.data import digits, shapes
from byol_epoch.peer_views import digits_of_torchvision, simclr_of_lightly
from stopgrad.data.sources import Dataset
from stopgrad.training.pretrain import complete
from stopgrad.training.settings import RunSettings, resolve

TAU = 0.99
RESNET = {
    "recipe": "cifar",
    "data": {"name": "cifar10"},
    "evaluation": {"every": 1000},
}
SMALL = {"recipe": "digits", "data": {"name": "digits"}, "evaluation": {"every": 1000}}


@dataclass(frozen=True)
class Case:
    """One comparison.

    A turn has ``block`` steps; the defaults take ``turns``, the other contenders ``equal``. kNN classifies
    ``evaluated`` held-out images among as many training images.
    """

    name: str
    title: str
    device: str
    batch: int
    precisions: tuple[str, ...]
    block: int
    turns: int
    equal: int
    evaluated: int
    load: Callable[[], Dataset]
    changes: dict[str, Any]
    transform: Callable[[Dataset], MultiViewTransform]
    threads: int | Literal["auto"] = "auto"

    def settings(self, precision: str) -> RunSettings:
        """The run's settings, at the same constant rates as the peer's."""
        same = {
            "method": "byol",
            "target": {"kind": "ema", "tau": TAU, "schedule": "constant"},
            "schedule": {"name": "constant", "warmup_epochs": 0},
            "batch_size": self.batch,
            "device": self.device,
            "epochs": 1000,
        }
        settings = resolve({**self.changes, **same})
        return complete(settings.but(precision=precision, threads=self.threads))


def cases(quick: bool) -> dict[str, Case]:
    """The cases; ``quick`` has fewer images, and batches of 32 for the ResNet on the CPU."""
    images, evaluated = (1024, 128) if quick else (10_000, 2048)
    cifar = Case(
        "cifar", f"CIFAR ResNet-18, {images:,} images of 32x32, batch {32 if quick else 256}", "cpu",
        batch=32 if quick else 256, precisions=("fp32", "bf16"), block=1 if quick else 3,
        turns=2 if quick else 12, equal=2, evaluated=evaluated, load=lambda: shapes(images, evaluated),
        changes=RESNET, transform=simclr_of_lightly,
    )  # fmt: skip
    small = Case(
        "small", "convnet-s, 4,096 digits of 16x16, batch 64", "cpu", batch=64, precisions=("fp32",),
        block=16 if quick else 64, turns=2 if quick else 9, equal=9, evaluated=1024, load=digits,
        changes=SMALL, transform=digits_of_torchvision,
    )  # fmt: skip
    cuda = replace(
        cifar, name="cuda", title="CIFAR ResNet-18 on CUDA, 10,000 images of 32x32, batch 512",
        device="cuda", batch=512, precisions=("bf16",), block=19, turns=2 if quick else 9, equal=9,
        load=lambda: shapes(10_000, evaluated),
    )  # fmt: skip
    large = replace(
        small, name="small-256", title="convnet-s, 4,096 digits of 16x16, batch 256", batch=256,
        block=4 if quick else 16,
    )  # fmt: skip
    known = {"cifar": cifar, "small": small, "small-256": large}
    return known | ({"cuda": cuda} if torch.cuda.is_available() else {})
