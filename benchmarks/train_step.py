"""A BYOL training epoch, images a second: stopgrad against lightly doing the same job.

    python benchmarks/train_step.py              # all cases, about 10 minutes on 2 cores
    python benchmarks/train_step.py --write      # and benchmarks/results/train_step_CASE.md, .json
    python benchmarks/train_step.py --quick      # a smoke run on few images, under a minute

Both sides have the same encoder (one object, copied), the same heads and weights at the start (checked: one
loss on the same views agrees), SGD with momentum and weight decay at a constant rate, and the same constant
EMA. `cifar`: ResNet-18 with the CIFAR stem, 10,000 coloured shapes of 32x32, batch 256, and views of one
distribution (SimCLR's without blur). `small`: the convnet of the bundled digits, 16x16, batch 64, with the
`digits` views against the same operations image by image, torchvision's where it has them; `small-256`: the
same at the first case's batch. With CUDA: `cuda`, the first case at batch 512.

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
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byol_epoch.cases import Case, cases
from byol_epoch.ours import Stopgrad
from byol_epoch.peer import Lightly, LightlyByol
from byol_epoch.table import header, processors, table, write
from stopgrad.data.sources import Dataset
from stopgrad.data.views import evaluation_view
from stopgrad.evaluation.knn import knn_accuracy
from stopgrad.training.build import DataFacts, build_learner


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
    # the recipe of digits says fp32
    auto = "fp32" if case.name.startswith("small") else case.settings("auto").precision
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
        for result in results:
            write(result, header(), " ".join(["python", *sys.argv]))


if __name__ == "__main__":
    main()
