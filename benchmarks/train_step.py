"""A BYOL training epoch, images a second: stopgrad against lightly and stable-pretraining, at the same job.

    python benchmarks/train_step.py              # all cases, half an hour on 2 cores
    python benchmarks/train_step.py --write      # and benchmarks/results/train_step_CASE.md, .json
    python benchmarks/train_step.py --quick      # a smoke run on few images, in some minutes

All sides have the same encoder (one object, copied), the same heads and weights at the start (checked: one
loss on the same views agrees), SGD with momentum and weight decay at a constant rate, and the same constant
EMA. stable-pretraining's loss is a squared distance, 2 + 2 x that of the others, so its gradients are twice
theirs: the same work, though not the same training. Where it is not installed the others run without it.

`cifar`: ResNet-18 with the CIFAR stem, 10,000 coloured shapes of 32x32, batch 256, and views of one
distribution (SimCLR's without blur). `resnet18-96`: ResNet-18 with the ImageNet stem, 2,000 shapes of 96x96,
batch 64, SimCLR's views. `small`: the convnet of the bundled digits, 16x16, batch 64, with the `digits` views
against the same operations image by image, torchvision's where it has them; `small-256`: the same at the
first case's batch. With CUDA: `cuda`, the first case at batch 512; `cuda-224`: ResNet-50, shapes of 224x224
that are decoded already and lie in the host's memory, batch 128, SimCLR's views (all contenders at once take
up to 80 GB of the GPU's memory).

Ours is the loop of `stopgrad pretrain`: views, steps, step log, loss record; without labels, so without its
online probe. lightly's is its own BYOL example: its heads, loss and momentum update. stable-pretraining's is
its own CIFAR example: its `Module`, `forward.byol`, loss and `TeacherStudentCallback` under a Lightning
`Trainer`, without logger, checkpoints or progress bar, in a process of its own. Both read PIL images through
lightly's transforms in a torch DataLoader with a worker for each processor. "default" is what each does when
nothing is said about precision: lightly float32 as in its example, stable-pretraining float32 as the Trainer
does, ours `precision: auto`.

Threads: an operation of the peers' training has as many as torch takes by itself, one for each processor;
ours has what `threads: auto` stands for: the same for the ResNets, one for the small convnet, whose views
have a thread each instead. It takes effect in our turns alone. `--threads N` gives N to an operation on all
sides.

All contenders take turns, a block of steps each. A ratio is that of one turn, to the best peer: the one whose
median rate is the highest at that precision. The first turn warms up and is not counted. The peers' workers
are stopped (SIGSTOP) while it is not their turn and find their queue as they left it, so that they neither
take time from the others nor work ahead in it. Their start is never counted; nor are, on any side, evaluation
and checkpoints. kNN reads the encoder's features of held-out images with one piece of code, after equal
steps.
"""

import argparse
import copy
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from byol_epoch.cases import Case, select
from byol_epoch.ours import Stopgrad
from byol_epoch.peer import Lightly, LightlyByol
from byol_epoch.stable import Stable, installed
from byol_epoch.table import NAME_OF_STABLE, header, processors, table, write
from stopgrad.data.sources import Dataset
from stopgrad.data.views import evaluation_view
from stopgrad.evaluation.knn import knn_accuracy
from stopgrad.training.build import DataFacts, build_learner

Side = Stopgrad | Lightly | Stable


@dataclass
class Contender:
    """A side with its rates: images a second, turn by turn."""

    run: Side
    rates: list[float] = field(default_factory=list)


def measure(case: Case, workers: int) -> dict[str, Any]:
    """All turns of a case."""
    dataset = case.load()
    check_same_job(case, dataset)
    peers = ["lightly", NAME_OF_STABLE] if installed() else ["lightly"]
    # the recipe of digits says fp32
    auto = "fp32" if case.name.startswith("small") else case.settings("auto").precision
    default = [f"stopgrad {auto}", *(f"{peer} fp32" for peer in peers)]
    equal = [f"{side} {precision}" for precision in case.precisions for side in ("stopgrad", *peers)]
    sides: dict[str, Contender] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in dict.fromkeys([*equal, *default]):
                sides[name] = Contender(start(name, case, dataset, workers, Path(folder) / name))
            take_turns(case, sides)
            knn = {name: knn_of(sides[name].run.encoder, case, dataset) for name in default}
        finally:
            for contender in sides.values():
                contender.run.close()
    rates = {name: contender.rates for name, contender in sides.items()}
    pairs = [
        (precision, f"stopgrad {precision}", best([f"{peer} {precision}" for peer in peers], rates))
        for precision in case.precisions
    ]
    pairs.append(("default", default[0], best(default[1:], rates)))
    return {
        "case": case.name,
        "title": case.title,
        "peers": peers,
        "workers": workers,
        "threads": {"peers": torch.get_num_threads(), "stopgrad": case.settings("fp32").threads},
        "block": case.block,
        "steps": case.block * (case.turns + 1),
        "rates": rates,
        "knn": knn,
        "knn_untrained": knn_of(build_untrained(case, dataset), case, dataset),
        "ratios": {
            label: [a / b for a, b in zip(rates[ours], rates[peer], strict=True)]
            for label, ours, peer in pairs
        },
        "pairs": pairs,
    }


def start(name: str, case: Case, dataset: Dataset, workers: int, folder: Path) -> Side:
    """The contender of a name: a side and its precision."""
    side, precision = name.split()
    if side == "stopgrad":
        return Stopgrad(case, precision, dataset, folder)
    if side == "lightly":
        return Lightly(case, precision, dataset, workers)
    return Stable(case, precision, dataset, workers, folder)


def best(names: list[str], rates: dict[str, list[float]]) -> str:
    return max(names, key=lambda name: median(rates[name]))


def take_turns(case: Case, sides: dict[str, Contender]) -> None:
    """Every contender in every turn; the first is a warm-up."""
    for turn in range(case.turns + 1):
        for name, contender in sides.items():
            begun = time.perf_counter()
            contender.run.steps(case.block)
            if case.device == "cuda":
                torch.cuda.synchronize()
            rate = case.block * case.batch / (time.perf_counter() - begun)
            if turn:
                contender.rates.append(rate)
            print(f"{case.name} turn {turn}/{case.turns}  {name:23} {rate:9,.1f} images/s", flush=True)


def check_same_job(case: Case, dataset: Dataset) -> None:
    """One loss of ours and of lightly's, from their weights at the start and the same two views."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="see above; all by default")
    parser.add_argument("--quick", action="store_true", help="few images and steps, some minutes")
    parser.add_argument(
        "--write", action="store_true", help="write benchmarks/results/train_step_CASE.md, .json"
    )
    parser.add_argument("--block", type=int, help="steps of a turn")
    parser.add_argument("--turns", type=int, help="turns of each contender, after the warm-up")
    parser.add_argument("--workers", type=int, default=processors(), help="of a peer's DataLoader")
    parser.add_argument("--threads", type=int, help="of an operation, on all sides; see above")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up: workers may be stopped
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    names = ("block", "turns", "threads")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    chosen = select(parser, args.cases, args.quick)
    results = [measure(replace(case, **given), args.workers) for case in chosen]
    if not results:
        return
    print(f"\n{header()}.\n\n{table(results)}\n")
    if args.write:
        for result in results:
            write(result, header(), " ".join(["python", *sys.argv]))


if __name__ == "__main__":
    main()
