"""From settings to networks, for a fresh run and for one that lies on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stopgrad.data.sources import Dataset
from stopgrad.errors import UsageError
from stopgrad.evaluation.measures import Embedder
from stopgrad.evaluation.shares import Shares
from stopgrad.method import Learner, SiameseLearner, Supervised
from stopgrad.networks.encoders import build_encoder
from stopgrad.parts.target import Ema, EmaTarget
from stopgrad.training.checkpoint import load_checkpoint
from stopgrad.training.distributed import make_fabric
from stopgrad.training.folder import RunFolder
from stopgrad.training.precision import resolve_device
from stopgrad.training.settings import RunSettings, validate


class DataFacts(NamedTuple):
    """What the networks must know of the data; kept in the checkpoint, so that they can be built without it.

    ``mean`` and ``std`` are per channel, of images in [0, 1]; ``classes`` is None without labels; ``images``
    counts those for training.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] | None
    images: int

    @classmethod
    def of(cls, dataset: Dataset) -> "DataFacts":
        """The facts of a loaded data set; classes count only when the training images have labels."""
        classes = None if dataset.train.labels is None else dataset.classes
        return cls(dataset.channels, dataset.mean, dataset.std, classes, len(dataset.train))


def build_learner(settings: RunSettings, facts: DataFacts) -> Learner:
    """The learner that the settings name, on the CPU, its weights drawn from the seed.

    Raises:
        UsageError: for supervised training without labels.
    """
    torch.manual_seed(settings.seed)
    encoder = build_encoder(settings.encoder, facts.channels, settings.view_size)
    sentence = settings.sentence
    if not isinstance(sentence, Supervised):
        return sentence.build(encoder, settings.projector, facts.images)
    if facts.classes is None:
        raise UsageError(
            f"supervised: {settings.data.name} has no labels; sort its images into one folder a class"
        )
    return sentence.build(encoder, len(facts.classes))


def build_embedder(settings: RunSettings, facts: DataFacts, fabric: Fabric, learner: Learner) -> Embedder:
    """How images reach the learner in evaluation, and (``normalise``) in training."""
    mean = torch.tensor(facts.mean, device=fabric.device)[:, None, None]
    std = torch.tensor(facts.std, device=fabric.device)[:, None, None]
    channels_last = uses_channels_last(learner, fabric.device)

    def normalise(images: Tensor) -> Tensor:
        images = images.sub(mean).div_(std)
        return images.contiguous(memory_format=torch.channels_last) if channels_last else images

    return Embedder(
        settings.view_size, fabric.device, normalise, fabric.autocast, workers=settings.data.workers,
        shares=Shares(fabric.global_rank, fabric.world_size, fabric.device),
    )  # fmt: skip


def uses_channels_last(learner: nn.Module, device: torch.device) -> bool:
    """Whether convolutions run faster with channels last: wide ones do, on CPUs and on tensor cores."""
    convolutions = [m for m in learner.modules() if isinstance(m, nn.Conv2d)]
    return device.type in ("cpu", "cuda") and any(m.in_channels >= 64 for m in convolutions)


def load_weights(learner: Learner, source: Path) -> None:
    """Start from the encoder and projector of another run, which a target network starts as a copy of;
    everything else stays fresh.

    Raises:
        UsageError: when a weight is missing or of another shape.
    """
    path = RunFolder(source).checkpoint if source.is_dir() else source
    weights = load_checkpoint(path)["learner"]
    for name in ("encoder", "projector"):
        part: nn.Module = getattr(learner, name)
        own = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}
        try:
            part.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"--init-from {source}: its {name} does not fit this run ({reason})") from None
    follow_online(learner)


def follow_online(learner: Learner) -> None:
    """Make the target network, where there is one that starts so, a copy of the online network as it is."""
    if isinstance(learner, SiameseLearner) and isinstance(learner.target, EmaTarget):
        settings = learner.method.target
        if isinstance(settings, Ema) and settings.init == "copy":
            learner.target.network.load_state_dict(learner.online.state_dict())


@dataclass(frozen=True)
class LoadedRun:
    """A run on disk, ready to embed images: settings, facts of its data, learner at the last checkpoint."""

    folder: RunFolder
    settings: RunSettings
    facts: DataFacts
    learner: Learner
    embedder: Embedder
    step: int


def load_run(path: Path, device: str = "auto") -> LoadedRun:
    """Open a run folder at its last checkpoint; the data it was trained on need not be there.

    Raises:
        UsageError: when there is no run or no checkpoint, or when it is damaged.
    """
    folder = RunFolder.existing(path)
    content = load_checkpoint(folder.checkpoint)
    settings = validate(content["settings"])
    channels, mean, std, classes, images = content["data"]
    facts = DataFacts(channels, tuple(mean), tuple(std), classes and tuple(classes), images)
    learner = build_learner(settings, facts)
    learner.load_state_dict(content["learner"])
    half_unscaled = settings.precision == "fp16" and resolve_device(device) != "cuda"
    fabric = make_fabric(device, "fp32" if half_unscaled else settings.precision)
    fabric.to_device(learner.eval())
    embedder = build_embedder(settings, facts, fabric, learner)
    return LoadedRun(folder, settings, facts, learner, embedder, int(content["step"]))
