"""What is compared: encoder, images, batch and precision, and how many steps each side takes in turn."""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from lightly.transforms.multi_view_transform import MultiViewTransform

from byol_epoch.data import digits, shapes
from byol_epoch.peer_views import digits_of_torchvision, simclr_of_lightly
from stopgrad.data.sources import Dataset
from stopgrad.training.pretrain import complete
from stopgrad.training.settings import RunSettings, resolve

TAU = 0.99
RARELY = {"evaluation": {"every": 1000}}
RESNET = {"recipe": "cifar", "data": {"name": "cifar10"}, **RARELY}
RESNET_96 = {"recipe": "stl10", "data": {"name": "stl10"}, **RARELY}
RESNET_224 = {**RESNET_96, "view_size": 224, "encoder": {"name": "resnet50"}}
SMALL = {"recipe": "digits", "data": {"name": "digits"}, **RARELY}


@dataclass(frozen=True)
class Case:
    """One comparison.

    A turn has ``block`` steps, and each contender has ``turns`` of them after the one that warms up. kNN
    classifies ``evaluated`` held-out images among as many training images. All can be sent to a process.
    """

    name: str
    title: str
    device: str
    batch: int
    precisions: tuple[str, ...]
    block: int
    turns: int
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
    """The cases; ``quick`` has fewer images and turns, and small batches for the ResNets on the CPU."""
    images, evaluated, turns = (1024, 128, 2) if quick else (10_000, 512, 6)
    cifar = Case(
        "cifar", f"CIFAR ResNet-18, {images:,} images of 32x32, batch {32 if quick else 256}", "cpu",
        batch=32 if quick else 256, precisions=("fp32", "bf16"), block=1 if quick else 2, turns=turns,
        evaluated=evaluated, load=partial(shapes, images, evaluated), changes=RESNET,
        transform=partial(simclr_of_lightly, size=32, blur=0.0),
    )  # fmt: skip
    larger = replace(
        cifar, name="resnet18-96", batch=16 if quick else 64, block=1 if quick else 5, changes=RESNET_96,
        title=f"ResNet-18, {images // 5:,} images of 96x96, batch {16 if quick else 64}",
        load=partial(shapes, images // 5, evaluated, 96),
        transform=partial(simclr_of_lightly, size=96, blur=0.5),
    )  # fmt: skip
    small = Case(
        "small", "convnet-s, 4,096 digits of 16x16, batch 64", "cpu", batch=64, precisions=("fp32",),
        block=16 if quick else 64, turns=2 if quick else 9, evaluated=1024, load=digits,
        changes=SMALL, transform=digits_of_torchvision,
    )  # fmt: skip
    small_256 = replace(
        small, name="small-256", title="convnet-s, 4,096 digits of 16x16, batch 256", batch=256,
        block=4 if quick else 16,
    )  # fmt: skip
    cuda = replace(
        cifar, name="cuda", title="CIFAR ResNet-18 on CUDA, 10,000 images of 32x32, batch 512",
        device="cuda", batch=512, precisions=("bf16",), block=19, load=partial(shapes, 10_000, evaluated),
    )  # fmt: skip
    # as many images as are not kept on the GPU (`stopgrad.data.batches.ON_DEVICE`): each batch travels
    cuda_224 = replace(
        cuda, name="cuda-224", batch=128, block=8, evaluated=128, changes=RESNET_224,
        title="ResNet-50 on CUDA, 16,384 decoded images of 224x224, batch 128",
        load=partial(shapes, 1024, 128, 224, copies=16),
        transform=partial(simclr_of_lightly, size=224, blur=0.5),
    )  # fmt: skip
    return {case.name: case for case in (cifar, larger, small, small_256, cuda, cuda_224)}


def select(parser: ArgumentParser, names: Sequence[str] | None, quick: bool) -> list[Case]:
    """The cases of these names, all by default; says which are left out for want of a GPU."""
    known = cases(quick)
    for name in names or ():
        if name not in known:
            parser.error(f"--cases {name}: known here are {', '.join(known)}")
    chosen = [known[name] for name in names or known]
    for case in chosen:
        if case.device == "cuda" and not torch.cuda.is_available():
            print(f"{case.name}: no GPU here")
    return [case for case in chosen if case.device == "cpu" or torch.cuda.is_available()]
