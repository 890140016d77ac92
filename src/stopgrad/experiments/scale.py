"""The ledger's trainings at the papers' own scale: other data, the papers' recipes, the same arms and rules.

A `Scale` replaces the base of every training experiment, `stopgrad.experiments.schema.DIGITS`: the recipe of
the experiment's paper (`stopgrad.training.recipes`), with the views and the encoder that go with the data.
What an arm changes goes over it.

Time and memory are estimates by formulas, not measurements (`cost`): nothing here was run at these scales.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stopgrad.data.sources.archives import Official, locate
from stopgrad.data.sources.cifar import CIFAR10, CIFAR100
from stopgrad.data.sources.folder import load_folder
from stopgrad.data.sources.settings import DataSettings
from stopgrad.data.sources.stl10 import STL10
from stopgrad.data.sources.tiny_imagenet import TINY_IMAGENET
from stopgrad.data.views import preset
from stopgrad.errors import unknown
from stopgrad.experiments.schema import Experiment, Paper
from stopgrad.method import Method
from stopgrad.networks.encoders import EncoderSettings, build_encoder
from stopgrad.networks.heads import build_projector
from stopgrad.parts.target import Ema, Expectation, Memory
from stopgrad.training.settings import RunSettings, merge, resolve

PEAK = 312e12
"""Operations a second of an NVIDIA A100 in bfloat16, dense, as its data sheet has it."""
SHARE = 0.1
"""Of `PEAK` that training a ResNet on small images is taken to reach."""
CPU = 1e11
"""Operations a second of a CPU in float64 that the linear probes are taken to reach."""
PROBES = 2 * 7 * 500
"""Steps of L-BFGS of both probes on all labels at most: strengths times iterations (`evaluation.linear`)."""
GIB = 2**30
WORKSPACE = 1.5 * GIB
"""Of a process on a GPU beside its tensors; of one on a CPU with PyTorch loaded, about the same."""

HELD_ELSEWHERE = "its function trains on digits by itself; run it without --scale"
"""Why an experiment cannot be run at a scale."""


@dataclass(frozen=True)
class Scale:
    """A data set that the training experiments can be run on.

    Attributes:
        name: of the flag.
        data: its name among `stopgrad.data.sources.DATASETS`.
        bases: what goes over the recipe, for each paper.
        images: for training, after a tenth is held out as the validation part where there is none.
        labelled: training images with labels, which the probes are fitted on.
        classes: number of classes.
        in_memory: bytes of all images, 0 where they are decoded from files in every epoch.
        official: its archive; None for a folder of images.
        dir: where it lies.
    """

    name: str
    data: str
    bases: Mapping[Paper, Mapping[str, Any]]
    images: int
    labelled: int
    classes: int
    in_memory: int
    official: Official | None = None
    dir: Path | None = None

    def at(self, place: Path | None) -> "Scale":
        """The scale with its data in ``place``."""
        return replace(self, dir=place)

    def base(self, paper: Paper) -> dict[str, Any]:
        """Settings that all arms of a paper's experiments share."""
        place = None if self.dir is None else str(self.dir)
        return merge({"data": {"name": self.data, "dir": place}, **COMMON}, self.bases[paper])

    def require(self, download: bool = False) -> None:
        """Look for the data, which an archive is not opened for; a folder's files are indexed, once.

        Args:
            download: fetch the official archive where it is missing.

        Raises:
            UsageError: if they are missing, in the words that ``stopgrad pretrain`` has for it.
        """
        settings = DataSettings(name=self.data, dir=self.dir, download=download)
        if self.official is not None:
            locate(self.official, settings)
        else:
            load_folder(settings)


COMMON: dict[str, Any] = {
    "device": "auto", "precision": "auto", "threads": "auto", "evaluation": {"every": 10, "control": False},
}  # fmt: skip


def _bases(
    views: str | dict[str, Any], size: int, **of_paper: Mapping[str, Any]
) -> dict[Paper, dict[str, Any]]:
    """The papers' recipes with the views of a data set, and what a paper has otherwise."""
    recipes: dict[Paper, str] = {
        "tian2021": "directpred", "halvagal2023": "isoloss", "raft2021": "raft", "zhang2022": "zhang2022",
    }  # fmt: skip
    own = {"views": views, "view_size": size}
    return {paper: {"recipe": recipes[paper], **own, **of_paper.get(paper, {})} for paper in recipes}


def _full_colour(name: str) -> dict[str, Any]:
    """A preset's views with colour distortion at strength 1 in place of 1/2 (Chen et al. 2020, SimCLR)."""
    views = preset(name).model_dump(mode="json")
    strong = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    for ops in (views["first"], views["second"]):
        ops[:] = [op | strong if op["op"] == "color_jitter" else op for op in ops]
    return views


# Shi et al. 2020, appendix C, enlarge the images to 96 pixels
ENLARGED = {"views": "simclr-96", "view_size": 96}
CIFAR = _bases("simclr-32", 32, raft2021=ENLARGED)
# Halvagal et al. 2023, appendix D: blur at 96 pixels alone, colours at full strength for STL-10
STL = _bases("simclr-96", 96, halvagal2023={"views": _full_colour("simclr-96")})
TINY = _bases("simclr-96", 64, raft2021=ENLARGED, halvagal2023={"views": "simclr-32"})
# ImageNet: ResNet-50 at 224 pixels. Of the four papers Tian et al. 2021 alone trained there (section 4, Table
# 9): 300 epochs of BYOL's recipe; a batch of 4096 is made of 16 parts of 256, whose statistics batch
# normalisation sees, for one GPU. For SimSiam that of Chen and He 2021; for the others their own.
IMAGENET = _bases(
    "simclr-96",
    224,
    tian2021={"recipe": "byol", "views": "byol-224", "epochs": 300, "accumulate": 16},
    zhang2022={"recipe": "simsiam"},
)
for _base in IMAGENET.values():
    _base["encoder"] = {"name": "resnet50"}

SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale("cifar10", "cifar10", CIFAR, 45_000, 45_000, 10, 60_000 * 3072, CIFAR10.official),
        Scale("cifar100", "cifar100", CIFAR, 45_000, 45_000, 100, 60_000 * 3072, CIFAR100.official),
        Scale("stl10", "stl10", STL, 104_500, 4_500, 10, 113_000 * 27_648, STL10),
        Scale("tiny-imagenet", "tiny-imagenet", TINY, 90_000, 90_000, 200, 110_000 * 12_288, TINY_IMAGENET),
        # train/ and val/, the test part held out of train/
        Scale("imagenet", "folder", IMAGENET, 1_153_051, 1_153_051, 1000, 0),
    )
}


def named(name: str, place: Path | None = None) -> Scale:
    """The scale of a name, with its data in ``place``.

    Raises:
        UsageError: for an unknown name.
    """
    if name not in SCALES:
        raise unknown("--scale", name, list(SCALES))
    return SCALES[name].at(place)


@dataclass(frozen=True)
class Cost:
    """What the trials of an experiment at a scale should take, all together; memory is of one trial.

    Attributes:
        trials: how many.
        gpu_hours: of training, by `operations` at `SHARE` of `PEAK`.
        probe_hours: of the final linear probes on a CPU at `CPU`, at most.
        gpu_memory_gib: see `gpu_bytes`; the largest of the arms.
        memory_gib: of the machine: the images, and the probes' features in float64 twice.
    """

    trials: int = 0
    gpu_hours: float = 0.0
    probe_hours: float = 0.0
    gpu_memory_gib: float = 0.0
    memory_gib: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in three digits, and how they were come by."""
        numbers = {name: float(f"{value:.3g}") for name, value in vars(self).items() if name != "trials"}
        basis = (
            "an estimate, not a measurement: operations of forward and backward passes x images x epochs x "
            f"trials at {SHARE:.0%} of {PEAK / 1e12:g} TFLOP/s (an A100 in bfloat16); the linear probes on "
            f"a CPU, at most, at {CPU / 1e9:g} GFLOP/s"
        )
        return {"trials": self.trials, **numbers, "basis": basis}


def cost(experiment: Experiment, scale: Scale, seeds: int | None = None) -> Cost:
    """What an experiment whose arms are trained costs at a scale."""
    costs = []
    for of_seed in experiment.trials(seeds, scale=scale).values():
        settings = resolve(next(iter(of_seed.values())).arguments)
        width = _body(settings.encoder, settings.view_size).width
        hours = operations(settings, scale.images) / (PEAK * SHARE) / 3600
        probe = PROBES * 4 * scale.labelled * width * scale.classes / CPU / 3600
        features = 2 * 8 * scale.labelled * width
        costs.append(
            Cost(
                len(of_seed),
                len(of_seed) * hours,
                len(of_seed) * probe,
                gpu_bytes(settings, scale.images) / GIB,
                (scale.in_memory + features + WORKSPACE) / GIB,
            )
        )
    return Cost(
        sum(c.trials for c in costs),
        sum(c.gpu_hours for c in costs),
        sum(c.probe_hours for c in costs),
        max(c.gpu_memory_gib for c in costs),
        max(c.memory_gib for c in costs),
    )


def describe(experiment: Experiment, scale: Scale) -> dict[str, Any]:
    """`Experiment.to_dict` of an experiment at a scale: its arms' changes, and the cost, there."""
    said = experiment.to_dict() | {"scale": scale.name, "rule": experiment.rule_here(scale).describe()}
    if not experiment.runs_at(scale):
        return said | {"cost": None, "not_at_this_scale": HELD_ELSEWHERE}
    if experiment.kind == "exact":
        return said
    arms = {arm.name: merge(arm.changes, arm.at_scale) for arm in experiment.arms}
    base = scale.at(None).base(experiment.paper)
    return said | {"arms": arms, "base": base, "cost": cost(experiment, scale).to_dict()}


@dataclass(frozen=True)
class _Counts:
    """Of a network, for one image: operations of a forward pass, numbers kept for the backward pass, weights.

    A multiplication and an addition are two operations; layers of weights alone are counted.
    """

    operations: float = 0.0
    kept: float = 0.0
    weights: int = 0
    width: int = 0


def operations(settings: RunSettings, images: int) -> float:
    """Of a whole training: per trained view a forward pass and twice as much backward, per other view one.

    Other views are those that the target alone sees: both again through an EMA target, all but the first of
    an expectation.
    """
    body, head = _body(settings.encoder, settings.view_size), _heads(settings)
    target = settings.target
    trained, others = (1, target.views - 1) if isinstance(target, Expectation) else (2, 0)
    others += 2 if isinstance(target, Ema) else 0
    per_image = (3 * trained + others) * (body.operations + head.operations)
    return per_image * images * settings.epochs


def gpu_bytes(settings: RunSettings, images: int) -> float:
    """Memory of a training on a GPU: float32 weights, gradients and averages, bfloat16 activations."""
    body, head = _body(settings.encoder, settings.view_size), _heads(settings)
    target, batch = settings.target, settings.batch_size / settings.accumulate
    trained = 1 if isinstance(target, Expectation) else 2
    copies = 2 + (2 if settings.optimizer.name == "adamw" else 1) + isinstance(target, Ema)
    remembered = 4 * images * settings.projector.out if isinstance(target, Memory) else 0
    tensors = 4 * copies * (body.weights + head.weights) + 2 * batch * trained * (body.kept + head.kept)
    return tensors + remembered + WORKSPACE


@cache
def _body(encoder: EncoderSettings, size: int) -> _Counts:
    """Of an encoder for RGB images of a size; on the meta device, where nothing is computed."""
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    rows = 2
    with torch.device("meta"):
        network = build_encoder(encoder, 3, size)
        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(torch.zeros(rows, 3, size, size))
    own = {weight.untyped_storage()._cdata for weight in network.parameters()}
    kept = sum(tensor.numel() for key, tensor in saved.items() if key not in own)
    weights = sum(weight.numel() for weight in network.parameters())
    return _Counts(counter.get_total_flops() / rows, kept / rows, weights, network.width)


def _heads(settings: RunSettings) -> _Counts:
    """Of projector and predictor, from the sizes of their matrices; of a layer three vectors are kept."""
    sentence = settings.sentence
    if not isinstance(sentence, Method):
        return _Counts()
    with torch.device("meta"):
        width = _body(settings.encoder, settings.view_size).width
        heads = (
            build_projector(settings.projector, width),
            sentence.predictor.build(settings.projector.out),
        )
    weights = [weight for head in heads for weight in head.parameters()]
    matrices = [weight for weight in weights if weight.ndim == 2]
    return _Counts(
        2.0 * sum(w.numel() for w in matrices),
        3.0 * sum(len(w) for w in matrices),
        sum(w.numel() for w in weights),
    )
