"""A BYOL training epoch, images a second: stopgrad against lightly doing the same job.

    python benchmarks/train_step.py              # all cases, about 10 minutes on 2 cores
    python benchmarks/train_step.py --write      # and benchmarks/results/train_step.md, train_step.json
    python benchmarks/train_step.py --quick      # a smoke run on few images, under a minute

Both sides have the same encoder (one object, copied), the same heads and weights at the start (checked: one
loss on the same views agrees), SGD with momentum and weight decay at a constant rate, and the same constant
EMA. `cifar`: ResNet-18 with the CIFAR stem, 10,000 coloured shapes of 32x32, batch 256, and views of one
distribution (SimCLR's without blur). `small`: the convnet of the bundled digits, 16x16, batch 64, with the
`digits` views against the same operations image by image, torchvision's where it has them. With CUDA: `cuda`,
the first case at batch 512.

Ours is the loop of `stopgrad pretrain`: views, steps, step log, loss record; without labels, so without its
online probe. The peer is lightly's own BYOL example: its heads, loss, momentum update and transforms on PIL
images in a torch DataLoader with a worker for each processor. "default" is what either does when nothing is
said about precision: lightly float32 as in its example, ours `precision: auto`.

Threads: an operation of lightly's training has as many as torch takes by itself, one for each processor; ours
has what `threads: auto` stands for: the same for the ResNet, one for the small convnet, whose views have a
thread each instead. It takes effect in our turns alone. `--threads N` gives N to an operation on both sides.

All contenders take turns, a block of steps each, and the ratio is that of one turn. The first turn warms up
and is not counted. The peer's workers are stopped (SIGSTOP) while it is not its turn and find their queue as
they left it, so that they neither take time from ours nor work ahead in it. Their start is never counted; nor
are, on either side, evaluation and checkpoints. kNN reads the encoder's features of held-out images with one
piece of code, after equal steps.
"""

import argparse
import copy
import json
import math
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import SimCLRTransform
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from stopgrad.data.batches import Batch, Batches
from stopgrad.data.sources import ArrayPart, Dataset, DataSettings, load_dataset
from stopgrad.data.views import evaluation_view
from stopgrad.evaluation.knn import knn_accuracy
from stopgrad.training.build import DataFacts, build_embedder, build_learner
from stopgrad.training.folder import RunFolder
from stopgrad.training.precision import FABRIC
from stopgrad.training.pretrain import Session, complete
from stopgrad.training.settings import RunSettings, resolve

RESULTS = Path(__file__).parent / "results"
TAU = 0.99


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
        self.images = images.movedim(1, -1).squeeze(-1).numpy()
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


@dataclass
class Contender:
    """A side with its rates: images a second, turn by turn."""

    run: Stopgrad | Lightly
    turns: int
    rates: list[float] = field(default_factory=list)


def measure(case: Case, workers: int) -> dict[str, Any]:
    """All turns of a case."""
    dataset = case.load()
    check_same_job(case, dataset)
    pairs = comparisons(case)
    long = {name for label, *names in pairs if label == "default" for name in names}
    sides: dict[str, Contender] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in dict.fromkeys(name for _, *names in pairs for name in names):
                side, precision = name.split()
                run: Stopgrad | Lightly = (
                    Lightly(case, precision, dataset, workers)
                    if side == "lightly"
                    else Stopgrad(case, precision, dataset, Path(folder) / precision)
                )
                sides[name] = Contender(run, case.turns if name in long else min(case.equal, case.turns))
            take_turns(case, sides)
            knn = {name: knn_of(sides[name].run.encoder, case, dataset) for name in sides if name in long}
        finally:
            for contender in sides.values():
                contender.run.close()
    return {
        "case": case.name,
        "title": case.title,
        "workers": workers,
        "threads": {"lightly": torch.get_num_threads(), "stopgrad": case.settings("fp32").threads},
        "block": case.block,
        "steps": case.block * (case.turns + 1),
        "rates": {name: contender.rates for name, contender in sides.items()},
        "knn": knn,
        "knn_untrained": knn_of(build_untrained(case, dataset), case, dataset),
        "ratios": {
            label: [a / b for a, b in zip(sides[ours].rates, sides[peer].rates, strict=False)]
            for label, ours, peer in pairs
        },
        "pairs": pairs,
    }


def comparisons(case: Case) -> list[tuple[str, str, str]]:
    """(what is compared, our contender, the peer)."""
    equal = [(precision, f"stopgrad {precision}", f"lightly {precision}") for precision in case.precisions]
    auto = case.settings("auto").precision if case.name != "small" else "fp32"  # as the recipe of digits says
    return [*equal, ("default", f"stopgrad {auto}", "lightly fp32")]


def take_turns(case: Case, sides: dict[str, Contender]) -> None:
    """Every contender in every turn; the first is a warm-up."""
    for turn in range(case.turns + 1):
        for name, contender in sides.items():
            if turn > contender.turns:
                continue
            start = time.perf_counter()
            contender.run.steps(case.block)
            if case.device == "cuda":
                torch.cuda.synchronize()
            rate = case.block * case.batch / (time.perf_counter() - start)
            if turn:
                contender.rates.append(rate)
            print(f"{case.name} turn {turn}/{case.turns}  {name:14} {rate:9,.1f} images/s", flush=True)


def check_same_job(case: Case, dataset: Dataset) -> None:
    """One loss of both sides, from their weights at the start and the same two views."""
    settings, facts = case.settings("fp32"), DataFacts.of(dataset)
    x0, x1 = torch.rand(2, 16, dataset.channels, settings.view_size, settings.view_size)
    ours = build_learner(settings, facts)((x0, x1)).loss
    torch.testing.assert_close(LightlyByol(settings, facts).loss(x0, x1), ours, rtol=1e-4, atol=1e-5)


def build_untrained(case: Case, dataset: Dataset) -> nn.Module:
    return build_learner(case.settings("fp32"), DataFacts.of(dataset)).encoder


@torch.no_grad()
def knn_of(encoder: nn.Module, case: Case, dataset: Dataset) -> float:
    """kNN accuracy of the validation images among training images, features in evaluation mode, float32."""
    device, count = case.device, case.evaluated
    encoder = copy.deepcopy(encoder).to(device).eval()
    mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (dataset.mean, dataset.std))

    def embed(images: Tensor) -> Tensor:
        size = images.shape[-1]
        parts = (evaluation_view(part.to(device), size) for part in images.split(256))
        return torch.cat([encoder((part - mean) / std).flatten(1).cpu() for part in parts])

    bank, queries = dataset.probe, dataset.val
    return knn_accuracy(
        embed(queries.images[:count]), queries.labels[:count], embed(bank.images[:count]),
        bank.labels[:count], classes=10,
    )  # fmt: skip


def shapes(train: int, val: int) -> Dataset:
    """Ten classes of 32x32 colour images: five shapes, striped or checked, at random pose and in random hues.

    Colours and place say nothing of the class, so that raw pixels do not give it away.
    """
    rng = np.random.RandomState(0)
    count = train + val
    labels = rng.randint(0, 10, count)
    centre = (np.arange(32) + 0.5) / 16 - 1
    u = np.empty((count, 32, 32), np.float32)
    v = np.empty_like(u)
    angle, scale = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.5, 0.8, count)
    shift = rng.uniform(-0.3, 0.3, (count, 2))
    x, y = centre[None, None, :] - shift[:, :1, None], centre[None, :, None] - shift[:, 1:, None]
    cos, sin = ((f(angle) / scale)[:, None, None] for f in (np.cos, np.sin))
    u, v = cos * x + sin * y, cos * y - sin * x
    radius, side = np.hypot(u, v), np.maximum(abs(u), abs(v))
    masks = [
        radius < 0.9,
        side < 0.75,
        (radius < 0.95) & (radius > 0.5),
        (np.minimum(abs(u), abs(v)) < 0.25) & (side < 0.9),
        (v > -0.6) & (v + 1.7 * abs(u) < 0.8),
    ]
    inside = np.select([(labels % 5 == i)[:, None, None] for i in range(5)], masks)
    stripes, across = np.sin(9 * u), np.sin(9 * v)
    texture = 0.75 + 0.25 * np.sign(np.where((labels < 5)[:, None, None], stripes, stripes * across))
    colours = rng.uniform(0, 1, (2, count, 3, 1, 1))
    image = np.where(inside[:, None], colours[0] * texture[:, None], colours[1])
    image = image + rng.normal(0, 0.05, image.shape)
    images = torch.from_numpy(np.rint(image.clip(0, 1) * 255).astype(np.uint8))
    return split(images, torch.from_numpy(labels.astype(np.int64)), train)


def split(images: Tensor, labels: Tensor, train: int) -> Dataset:
    """A data set whose training part shows no labels to the trainer; ``probe`` has them for kNN."""
    ids = [str(i) for i in range(len(images))]
    probe = ArrayPart(images[:train], labels[:train], ids[:train])
    held_out = ArrayPart(images[train:], labels[train:], ids[train:])
    pixels = probe.images.float() / 255
    mean, std = (tuple(f(pixels, dim=(0, 2, 3)).tolist()) for f in (torch.mean, torch.std))
    return Dataset(
        name="shapes", classes=tuple("0123456789"), channels=images.shape[1], mean=mean, std=std,
        train=replace(probe, labels=None), val=held_out, test=held_out, probe=probe, skipped=(),
    )  # fmt: skip


def digits() -> Dataset:
    """The bundled digits, with labels for kNN alone."""
    dataset = load_dataset(DataSettings(name="digits"))
    return replace(dataset, train=replace(dataset.train, labels=None), probe=dataset.train)


def simclr_of_lightly(dataset: Dataset) -> MultiViewTransform:
    """lightly's own transform as it says to set it for CIFAR: half the jitter, no blur."""
    normalise = {"mean": list(dataset.mean), "std": list(dataset.std)}
    return SimCLRTransform(
        input_size=32, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0, normalize=normalise
    )


def digits_of_torchvision(dataset: Dataset) -> MultiViewTransform:
    """The `digits` views image by image: torchvision's operations where it has them, else tensor code."""
    size = dataset.train.images.shape[-1]
    view = v2.Compose(
        [
            v2.Pad(size // 2, padding_mode="edge"),  # RandomAffine fills with a colour, not with the edge
            v2.RandomAffine(
                degrees=20, translate=(0.0375, 0.0375), scale=(0.8, 1.25), shear=8.6,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([v2.Lambda(box_blur)], p=0.5),
            v2.Lambda(tone),
            v2.RandomApply([v2.Lambda(cutout)], p=0.3),
            v2.Normalize(dataset.mean, dataset.std),
        ]
    )  # fmt: skip
    return MultiViewTransform(transforms=[view, view])


def box_blur(image: Tensor) -> Tensor:
    mean = nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
    return image.lerp(mean, random.random())


def tone(image: Tensor) -> Tensor:
    """Contrast about the mean, brightness, noise."""
    mean = image.mean()
    image = ((image - mean) * math.exp(random.uniform(-0.4, 0.4)) + mean).clamp_(0, 1)
    image = image.add_(random.uniform(-0.3, 0.3)).clamp_(0, 1)
    return image.add_(torch.randn_like(image), alpha=random.uniform(0, 0.08)).clamp_(0, 1)


def cutout(image: Tensor) -> Tensor:
    top, left = random.randint(0, image.shape[1] - 4), random.randint(0, image.shape[2] - 4)
    image[:, top : top + 4, left : left + 4] = image.mean()
    return image


RESNET = {
    "recipe": "cifar",
    "data": {"name": "cifar10"},
    "evaluation": {"every": 1000},
}
SMALL = {"recipe": "digits", "data": {"name": "digits"}, "evaluation": {"every": 1000}}


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
    known = {"cifar": cifar, "small": small}
    return known | ({"cuda": cuda} if torch.cuda.is_available() else {})


def header() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    names = ("stopgrad", "lightly", "torch", "torchvision", "timm", "pillow")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{model}, {processors()} processors{device}; {torch.get_num_threads()} threads of torch; "
        f"Python {platform.python_version()}, {versions}"
    )


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(results: Sequence[dict[str, Any]]) -> str:
    blocks = []
    for result in results:
        lines = [
            f"## {result['case']}: {result['title']}",
            "",
            f"Turns of {result['block']} steps; {result['workers']} DataLoader workers for lightly; threads",
            f"for an operation: {', '.join(f'{side} {n}' for side, n in result['threads'].items())}.",
            "",
            "| | images/s, median (min..max) | turns | kNN after "
            f"{result['steps']} steps (untrained {result['knn_untrained']:.3f}) |",
            "|---|---|---|---|",
        ]
        for name, rates in result["rates"].items():
            knn = f"{result['knn'][name]:.3f}" if name in result["knn"] else ""
            spread = f"{median(rates):,.1f} ({min(rates):,.1f}..{max(rates):,.1f})"
            lines.append(f"| {name} | {spread} | {len(rates)} | {knn} |")
        lines += ["", "| | stopgrad / lightly, median of turns (min..max) |", "|---|---|"]
        for label, ours, peer in result["pairs"]:
            ratios = result["ratios"][label]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
            what = f"default: {ours} / {peer}" if label == "default" else f"equal precision, {label}"
            lines.append(f"| {what} | {spread} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="cifar, small, cuda; all by default")
    parser.add_argument("--quick", action="store_true", help="few images and steps, under a minute")
    parser.add_argument(
        "--write", action="store_true", help="write benchmarks/results/train_step_CASE.md, .json"
    )
    parser.add_argument("--block", type=int, help="steps of a turn")
    parser.add_argument("--turns", type=int, help="turns of the default contenders, after the warm-up")
    parser.add_argument("--equal", type=int, help="turns of the contenders that stand for one precision only")
    parser.add_argument("--workers", type=int, default=processors(), help="of lightly's DataLoader")
    parser.add_argument("--threads", type=int, help="of an operation, on both sides; see above")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up: workers may be stopped
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    known = cases(args.quick)
    names = ("block", "turns", "equal", "threads")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    for name in args.cases or known:
        if name not in known:
            parser.error(f"--cases {name}: known here are {', '.join(known)}")
    results = [measure(replace(known[name], **given), args.workers) for name in args.cases or known]
    print(f"\n{header()}.\n\n{table(results)}\n")
    if args.write:
        RESULTS.mkdir(exist_ok=True)
        for result in results:
            write(result, header(), " ".join(["python", *sys.argv]))


def write(result: dict[str, Any], machine: str, command: str) -> None:
    """One page and one JSON file a case, with the command that made it."""
    stem = RESULTS / f"train_step_{result['case']}"
    how = f"Written by `{command}`, whose docstring says how it is measured"
    stem.with_suffix(".md").write_text(f"# A BYOL training epoch\n\n{how}. {machine}.\n\n{table([result])}\n")
    content = {"command": command, "machine": machine, **result}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
