"""How often the doctor is right: broken and healthy runs on `digits`, judged while they train.

    python benchmarks/doctor.py --half choose              # the half that thresholds may be chosen on
    python benchmarks/doctor.py --half held-back --write   # once: benchmarks/results/doctor.md, doctor.json
    python benchmarks/doctor.py --half held-back --rescue --write   # benchmarks/results/rescue.md and .json

A broken run is broken on purpose, so that its class is known; a healthy one is a method of the catalogue that
its paper trains without collapse, and whose linear probe (validation images) does not end below the untrained
encoder's: those that do are listed, and count neither as healthy nor as broken. Both vary in method, seed,
batch size, learning rate and width. The monitor is attached by hooks to a plain loop over the project's own
learner; no run tells it anything else.

`--rescue` trains the broken runs of the half with `stopgrad pretrain --on-collapse rescue` and without, and
counts those that end well. What is broken by hand, in the data or the weights, no setting mends: it counts as
not rescued.

Complete collapse has to be named within 10 % of a run, whose length is half of the recipe's of `digits`.
The mean over further views without a predictor (`simsiam-eoa`) is no broken run, though its paper has it so:
with batch normalisation at the end its probe gains 13 points over the untrained encoder in this time.

The halves share no run: they differ in seeds and in which method meets which variation. Broken runs are
broken from the first step on, so the delay is the step of the first reading from which on the verdict is not
healthy. Intervals are Wilson's, 95 %.
"""

import argparse
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad.data.batches import Batches
from stopgrad.data.sources import ArrayPart, Dataset, Part, load_dataset
from stopgrad.diagnostics import examine
from stopgrad.diagnostics.monitor import Monitor
from stopgrad.evaluation.linear import linear_probe
from stopgrad.evaluation.measures import mode
from stopgrad.method import Learner
from stopgrad.postmortem.diagnose import diagnose
from stopgrad.training import pretrain
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.optimizer import build_optimizer, set_learning_rate
from stopgrad.training.settings import RunSettings, resolve

RESULTS = Path(__file__).parent / "results"
IMAGES, EPOCHS, EVERY = 2048, 24, 4

Break = Callable[[Learner], None]


@dataclass(frozen=True)
class Run:
    """One run: its settings, its class by construction, and what is broken by hand."""

    verdict: str
    changes: dict[str, Any]
    broken: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        """For the table."""
        own = {k: v for k, v in self.changes.items() if k != "method"}
        return " ".join([self.changes["method"], self.broken, json.dumps(own) if own else ""]).strip()


@dataclass(frozen=True)
class Outcome:
    """What the doctor said."""

    run: str
    verdict: str
    found: str
    final_std: float
    final_rank: float
    delay: int | None
    steps: int
    probe: float | None = None
    untrained: float | None = None

    @property
    def failed(self) -> bool:
        """Whether a run that should be healthy ended worse than it began."""
        return self.probe is not None and self.untrained is not None and self.probe < self.untrained


HEALTHY = (
    "simsiam", "byol", "byol-lp", "byol-lpi", "directpred", "directpred-text", "directpred-freq5",
    "directpred-partitions", "directcopy", "isoloss", "byol-prime", "raft", "raft-lp",
    "tan-raft-lp", "simsiam-inverse-predictor", "simsiam-two-fc", "simsiam-tanh-fc", "infonce", "simclr",
    "barlow-twins", "vicreg", "wmse", "byol-slp",
)  # fmt: skip
VARIED: tuple[dict[str, Any], ...] = (
    {},
    {"batch_size": 32},
    {"optimizer": {"lr": 0.15}},
    {"projector": {"out": 32}},
)


def runs(half: str) -> list[Run]:
    """Those of a half, two of each row."""
    found, turns = [], {"choose": (2, 3), "held-back": (6, 7)}[half]
    for place, name in enumerate(HEALTHY):
        for turn in turns:
            change = VARIED[(place + turn) % len(VARIED)]
            if name == "wmse" and "batch_size" in change:
                change = {"batch_size": 128}  # it whitens 16 dimensions
            if name == "vicreg":
                change = {**change, "optimizer": {"lr": 0.02}}  # its terms are weighted by 25
            found.append(Run("healthy", {"method": name, **change}, seed=10 + turn))
    plain = {"projector": {"final_bn": "none"}}
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("complete-collapse", {"method": "byol-np"}, ""),
        ("complete-collapse", {"method": "simsiam-np", **plain}, ""),
        ("complete-collapse", {"method": "byol-lp", "optimizer": {"weight_decay": 0.3}}, ""),
        ("dimensional-collapse", {"method": "simsiam-np"}, ""),
        ("dimensional-collapse", {"method": "simsiam-mirror"}, ""),
        ("predictor-collapse", {"method": "simsiam-symmetric-predictor"}, ""),
        # without both parts of the extra gradient it is the symmetric predictor, gradient by gradient
        ("predictor-collapse", {"method": "simsiam-no-extra"}, ""),
        ("diverged", {"method": "byol", "distance": "euclidean", "optimizer": {"lr": 30.0}}, ""),
        ("diverged", {"method": "simsiam", "distance": "euclidean", "optimizer": {"lr": 10.0}}, ""),
        ("frozen-target", {"method": "byol", "target": {"tau": 1.0}}, ""),
        ("frozen-target", {"method": "directpred", "target": {"tau": 1.0}}, ""),
        ("target-leak", {"method": "simsiam-nosg"}, ""),
        ("target-leak", {"method": "byol-nosg"}, ""),
        ("target-leak", {"method": "byol-lp", "target": {"kind": "same", "stop_gradient": False}}, ""),
        ("identical-views", {"method": "simsiam"}, "one view twice"),
        ("identical-views", {"method": "directpred"}, "one view twice"),
        ("normalisation-leak", {"method": "simsiam"}, "frozen statistics"),
        ("normalisation-leak", {"method": "byol"}, "frozen statistics"),
        ("dead-projector", {"method": "byol"}, "dead ReLU"),
        ("dead-projector", {"method": "simclr"}, "dead ReLU"),
        # on raw vectors it runs away from its teacher without bound
        ("nan-ahead", {"method": "raft-np", "distance": "euclidean", "optimizer": {"lr": 0.001}}, ""),
        ("constant-loss", {"method": "dino-centering",
                           "distance": {"kind": "cross-entropy", "temperature": 50.0,
                                        "teacher_temperature": 50.0}}, ""),
    ]  # fmt: skip
    for place, (verdict, changes, broken) in enumerate(rows):
        for turn in turns:
            change = {} if broken or turn % 2 == 0 else VARIED[1 + (place + turn // 2) % 2 * 2]
            merged = (
                {**change, **changes} if "projector" not in changes or "projector" not in change else changes
            )
            found.append(Run(verdict, merged, broken, seed=20 + turn))
    return found


def settings_of(run: Run) -> RunSettings:
    """A short run on `digits`."""
    return resolve({
        "recipe": "digits-smoke", "data": {"limit": IMAGES}, "epochs": EPOCHS, "seed": run.seed,
        "device": "cpu", "evaluation": {"control": False}, **run.changes,
    })  # fmt: skip


def judge(run: Run) -> Outcome:
    """Train, watch, and say from when on the verdict was not healthy."""
    torch.set_num_threads(1)
    settings = settings_of(run)
    dataset = load_dataset(settings.data)
    learner = build_learner(settings, DataFacts.of(dataset)).train()
    BREAKS.get(run.broken, lambda _: None)(learner)
    untrained = probe(learner, dataset) if run.verdict == "healthy" else None
    monitor = Monitor(every=EVERY).attach(learner, **names(learner))
    steps = train(run, settings, learner, dataset.train, monitor)
    found = outcome(run, monitor, steps)
    return found if untrained is None else replace(found, probe=probe(learner, dataset), untrained=untrained)


def probe(learner: Learner, dataset: Dataset) -> float:
    """Linear probe of the encoder on validation images, fitted on the training images, in [0, 1]."""

    @torch.no_grad()
    def features(part: Part) -> Tensor:
        assert isinstance(part, ArrayPart)
        return learner.encoder(part.images / 255)

    with mode(learner, training=False):
        fit, val = features(dataset.probe), features(dataset.val)
    return linear_probe(fit, dataset.probe.labels, val, dataset.val.labels).accuracy


def names(learner: Learner) -> dict[str, Any]:
    """What the monitor is told of the model, as a user would."""
    slow = getattr(learner, "target", None)
    has_target = slow is not None and any(True for _ in slow.parameters())
    return {
        "projector": "projector", "predictor": "predictor", "encoder": "encoder",
        "target": "target" if has_target else None,
    }  # fmt: skip


def train(run: Run, settings: RunSettings, learner: Learner, part: ArrayPart, monitor: Monitor) -> int:
    """A plain loop; ends where the loss is no number."""
    sentence = settings.sentence
    count = getattr(sentence, "views", 2)
    batches = Batches(part, settings.make_views(), settings.batch_size, seed=settings.seed, count=count)
    optimizer = build_optimizer(settings.optimizer, learner)
    total, step = EPOCHS * len(batches), 0
    for epoch in range(EPOCHS):
        for batch in batches.epoch(epoch):
            set_learning_rate(optimizer, settings.schedule.factor(step, total, len(batches)))
            views = [batch.views[0]] * 2 if run.broken == "one view twice" else list(batch.views)
            optimizer.zero_grad()
            nodes = learner(views, batch.labels, batch.index)
            nodes.loss.backward()
            seen = len(monitor.readings)
            optimizer.step()
            learner.after_step(nodes, (step + 1) / total)
            if len(monitor.readings) > seen:
                monitor.remember_loss(float(nodes.loss.detach()))
            step += 1
            if not math.isfinite(float(nodes.loss.detach())):
                return total
    return total


def outcome(run: Run, monitor: Monitor, steps: int) -> Outcome:
    """The last verdict, and since when it was not healthy at every reading."""
    readings = monitor.readings
    verdicts = [examine(readings[: i + 1]).verdict for i in range(len(readings))]
    first = len(verdicts)
    while first > 0 and verdicts[first - 1] != "healthy":
        first -= 1
    delay = readings[first].step if first < len(verdicts) else None
    z = readings[-1].nodes.get("z", {})
    std, rank = z.get("std", math.nan), z.get("effective_rank", math.nan)
    return Outcome(run.name, run.verdict, verdicts[-1], std, rank, delay, steps)


@dataclass(frozen=True)
class Rescued:
    """A broken run without and with rescue: verdict and kNN at the end, and the settings that changed."""

    run: str
    verdict: str
    left: str
    left_knn: float | None
    ended: str
    ended_knn: float | None
    changes: list[dict[str, Any]]


def rescue(run: Run) -> Rescued:
    """Train it twice: left alone, and rescued."""
    torch.set_num_threads(1)
    ends = []
    for policy in ("warn", "rescue"):
        with tempfile.TemporaryDirectory() as folder:
            summary = pretrain.run(
                settings_of(run).but(on_collapse=policy), Path(folder) / "run", show_progress=False
            )
            ends.append((verdict_of(Path(folder) / "run", summary), summary))
    (left, alone), (ended, helped) = ends
    changes = [done["changes"] for done in helped["rescues"]]
    return Rescued(run.name, run.verdict, left, alone["knn"], ended, helped["knn"], changes)


def verdict_of(folder: Path, summary: dict[str, Any]) -> str:
    """What `stopgrad diagnose` says of a run, and its summary of the test images: both must be content."""
    found = str(diagnose(folder)["verdict"])
    return str(summary["verdict"]) if found == "healthy" else found


def rescue_page(outcomes: list[Rescued], broken: int, half: str) -> Iterator[str]:
    """The rates, then every run."""
    tried = [o for o in outcomes if o.changes]
    yield f"# Rescue: broken runs of the half `{half}`, left alone and rescued\n"
    yield (
        f"`python benchmarks/doctor.py --half {half} --rescue`, {platform.machine()}, torch "
        f"{torch.__version__}. Both end after {EPOCHS} epochs; a run is well when `stopgrad diagnose` and "
        "its summary say healthy.\n"
    )
    yield "| | share |\n|---|---|"
    left, ended, mended = ([end == "healthy" for end in ends] for ends in (
        [o.left for o in outcomes], [o.ended for o in outcomes], [o.ended for o in tried],
    ))  # fmt: skip
    yield f"| well at the end, left alone | {share(sum(left), len(left))} |"
    yield f"| well at the end, rescued | {share(sum(ended), len(ended))} |"
    yield f"| of those that a rescue was tried on | {share(sum(mended), len(mended))} |"
    yield f"| of all broken runs, with those that no setting mends | {share(sum(ended), broken)} |"
    yield "\n| run | class | left alone | kNN | rescued | kNN | changed |\n|---|---|---|---|---|---|---|"
    for o in outcomes:
        knn = [f"{100 * k:.1f}" if k is not None else "-" for k in (o.left_knn, o.ended_knn)]
        changed = "; ".join(f"`{json.dumps(c)}`" for c in o.changes) or "-"
        yield f"| {o.run} | {o.verdict} | {o.left} | {knn[0]} | {o.ended} | {knn[1]} | {changed} |"


def freeze_statistics(learner: Learner) -> None:
    """Running statistics that never follow: evaluation sees the ones of another data set."""
    for module in [*learner.encoder.modules(), *learner.projector.modules()]:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.0
            assert module.running_mean is not None
            module.running_mean.fill_(5.0)


def kill_projector(learner: Learner) -> None:
    """A last ReLU below whose bias nothing passes."""
    last = [m for m in learner.projector.modules() if isinstance(m, nn.Linear)][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias.fill_(-1e3)
    assert isinstance(learner.projector, nn.Sequential)
    learner.projector.append(nn.ReLU())


BREAKS: dict[str, Break] = {"frozen statistics": freeze_statistics, "dead ReLU": kill_projector}


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def share(hits: int, n: int) -> str:
    low, high = wilson(hits, n)
    return f"{hits}/{n} = {100 * hits / max(n, 1):.1f} % ({100 * low:.0f}..{100 * high:.0f})"


def page(outcomes: list[Outcome], half: str) -> Iterator[str]:
    """The figures, then every run."""
    broken = [o for o in outcomes if o.verdict != "healthy"]
    healthy = [o for o in outcomes if o.verdict == "healthy" and not o.failed]
    failed = [o for o in outcomes if o.failed]
    yield f"# The doctor, judged on runs whose class is known: half `{half}`\n"
    yield f"`python benchmarks/doctor.py --half {half}`, {platform.machine()}, torch {torch.__version__}.\n"
    yield "| | target | found |\n|---|---|---|"
    complete = [o for o in broken if o.verdict == "complete-collapse"]
    rows = (
        ("broken runs recognised as broken", ">= 97 %", [o.found != "healthy" for o in broken]),
        ("broken runs given the right class", ">= 85 %", [o.found == o.verdict for o in broken]),
        ("false alarms on healthy runs", "<= 3 %", [o.found != "healthy" for o in healthy]),
        ("complete collapse named within 10 % of the run", "all",
         [o.delay is not None and o.delay <= 0.1 * o.steps for o in complete]),
    )  # fmt: skip
    for what, target, hits in rows:
        yield f"| {what} | {target} | {share(sum(hits), len(hits))} |"
    named = sum(o.found != "healthy" for o in failed)
    yield (
        f"\n{len(failed)} further runs were to be healthy, but their probe ended below the untrained "
        f"encoder's; the doctor found fault with {named} of them.\n"
    )
    yield "| class | runs | right class | delay, steps: median (min..max) |\n|---|---|---|---|"
    for verdict in dict.fromkeys(o.verdict for o in broken):
        own = [o for o in broken if o.verdict == verdict]
        delays = [o.delay for o in own if o.delay is not None]
        span = f"{median(delays):g} ({min(delays)}..{max(delays)})" if delays else "-"
        yield f"| {verdict} | {len(own)} | {share(sum(o.found == verdict for o in own), len(own))} | {span} |"
    yield "\n| run | class | verdict | delay | std | rank | probe, % | untrained |\n" + "|---" * 8 + "|"
    for o in outcomes:
        mark = o.found if o.found == o.verdict else f"**{o.found}**"
        delay = "-" if o.delay is None else f"{o.delay}/{o.steps}"
        verdict = "failed" if o.failed else o.verdict
        probes = ["" if x is None else f"{100 * x:.1f}" for x in (o.probe, o.untrained)]
        last = f"{o.final_std:.3f} | {o.final_rank:.1f} | {probes[0]} | {probes[1]}"
        yield f"| {o.run} | {verdict} | {mark} | {delay} | {last} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--half", choices=["choose", "held-back"], default="choose")
    parser.add_argument(
        "--write", action="store_true", help="write the page into benchmarks/results/, and its rows as JSON"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="runs whose name or class holds this")
    parser.add_argument("--rescue", action="store_true", help="rescue the broken runs")
    own = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    chosen = [run for run in runs(own.half) if own.only in f"{run.name} {run.verdict}"]
    with ProcessPoolExecutor(own.jobs) as pool:
        if own.rescue:
            chosen = [run for run in chosen if run.verdict != "healthy"]
            rescued = list(pool.map(rescue, [run for run in chosen if not run.broken]))
            report("rescue", rescue_page(rescued, len(chosen), own.half), rescued, own.write)
        else:
            outcomes = list(pool.map(judge, chosen))
            report("doctor", page(outcomes, own.half), outcomes, own.write)


def report(name: str, lines: Iterator[str], rows: Sequence[Outcome | Rescued], write: bool) -> None:
    """Print a page; write it, and its rows as JSON."""
    text = "\n".join(lines) + "\n"
    print(text)
    if write:
        (RESULTS / f"{name}.md").write_text(text)
        (RESULTS / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
