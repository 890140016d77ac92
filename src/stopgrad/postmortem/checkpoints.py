"""Encoders from other people's checkpoints: whose keys they are, and how they map to ours.

A mapping is exact or it is refused: every weight and statistic of the encoder must be found, with its shape,
and the checkpoint must hold nothing more of that encoder.

Legend: C channels, S image side.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stopgrad.errors import UsageError, require
from stopgrad.networks.encoders import RESNETS, TIMM_PREFIX, Encoder, EncoderSettings, build_encoder
from stopgrad.postmortem.files import WEIGHTS, read_torch

CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Where frameworks put the weights inside a checkpoint."""
HEADS = {
    *("fc", "head", "heads", "classifier", "linear"),
    *("projector", "projection_head", "predictor", "prediction_head"),
}
"""What may stand beside an encoder's own keys: it comes after the features."""
SLOW = ("momentum", "teacher", "target", "ema", "encoder_k")
"""Words in the prefix of the network that follows, which is not the one that learns."""
COUNTER = "num_batches_tracked"
CIFAR_SIZE, IMAGENET_SIZE = 32, 224

Rename = Callable[[str], str]


@dataclass(frozen=True)
class Layout:
    """How somebody else names the weights of a network that timm builds.

    Attributes:
        name: what to call it.
        rename: timm's key to theirs.
        relu: whether an activation follows the first batch norm.
    """

    name: str
    rename: Rename
    relu: bool = True


@dataclass(frozen=True)
class Match:
    """Where an encoder lies in a checkpoint: under which prefix, in which layout, how many of its keys."""

    prefix: str
    layout: Layout
    found: int

    def key(self, own: str) -> str:
        """The checkpoint's key for the encoder's own."""
        return self.prefix + self.layout.rename(own)


@dataclass(frozen=True)
class Foreign:
    """An encoder with a checkpoint's weights, in evaluation mode, and how they were found.

    Attributes:
        encoder: on the CPU.
        library: whose keys they look like.
        prefix: of the encoder's keys.
        layout: how the keys are named.
        keys: how many of the encoder's keys were matched: all.
        others: prefixes of further networks of the same kind, such as a momentum encoder.
        ignored: what else the checkpoint holds, by first name.
        notes: what was assumed.
    """

    encoder: Encoder
    library: str
    prefix: str
    layout: str
    keys: int
    others: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]


def load_foreign(path: Path, model: str, image_size: int | None = None) -> Foreign:
    """The encoder ``model`` with the weights of a checkpoint.

    Channels and stem are read off the weights' shapes.

    Args:
        path: .pt, .pth, .ckpt, .bin or .safetensors: a state dict, or a checkpoint with one inside.
        model: ``timm/NAME``, ``resnet18`` or ``resnet50``.
        image_size: S; by default 32 for a CIFAR stem, else what timm's model was made for.

    Raises:
        UsageError: a file that is no checkpoint or needs code to be read, an unknown model, weights that are
            not exactly those of the model.
        MissingExtra: without timm.
    """
    weights = read_weights(path)
    settings = _settings(model)
    encoder = _build(settings, 3, image_size or _usual_size(settings))
    match, others = _find(path, encoder, weights, model)
    first = next(name for name, w in encoder.body.state_dict().items() if w.ndim == 4)
    shape = weights[match.key(first)].shape
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise UsageError(
            f"{path}: '{match.key(first)}' has shape {tuple(shape)}; images have 1 or 3 channels"
        )
    cifar = settings.stem != "auto" and shape[-1] == 3
    settings = settings.but(stem="cifar") if cifar else settings
    size = image_size or (CIFAR_SIZE if cifar else _usual_size(settings))
    if cifar or shape[1] != 3 or size != encoder.image_size:
        encoder = _build(settings, int(shape[1]), size)
    _load(path, encoder, weights, match, model)
    library = _library(weights, match)
    notes = _adapt(encoder.body, match, library, cifar)
    return Foreign(
        encoder.eval(), library, match.prefix, match.layout.name, match.found, others,
        _ignored(encoder, weights, match, others), notes,
    )  # fmt: skip


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's state dict by name.

    Raises:
        UsageError: no such file, of another kind, or without a state dict.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if path.suffix.lower() not in WEIGHTS:
        raise UsageError(f"{path}: a checkpoint ends in {', '.join(WEIGHTS)}, not '{path.suffix}'")
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{path}: not a safetensors file, or damaged ({error})") from None
    content = read_torch(path)
    if isinstance(content, Mapping) and {"format", "learner"} <= content.keys():
        raise UsageError(f"{path}: a checkpoint of stopgrad; name its run folder, without --model")
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if _is_mapping(content) else {}
    if not tensors:
        raise UsageError(f"{path}: no state dict in it, at the top or under {', '.join(CONTAINERS)}")
    return tensors


def _is_mapping(content: Any) -> bool:
    return isinstance(content, Mapping)


def _settings(model: str) -> EncoderSettings:
    name = model.removeprefix(TIMM_PREFIX)
    if name in RESNETS:
        return EncoderSettings(name=name, stem="imagenet")
    if not model.startswith(TIMM_PREFIX):
        raise UsageError(f"--model {model}: expected timm/NAME, {' or '.join(RESNETS)}")
    return EncoderSettings(name=model)


def _usual_size(settings: EncoderSettings) -> int:
    """S that timm's pretrained weights of a model were made for."""
    timm = require("timm", "vision")
    pretrained = timm.get_pretrained_cfg(settings.name.removeprefix(TIMM_PREFIX), allow_unregistered=True)
    return IMAGENET_SIZE if pretrained is None else int(pretrained.input_size[-1])


def _build(settings: EncoderSettings, channels: int, size: int) -> Encoder:
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away
        return build_encoder(settings, channels, size)


# ---- finding the encoder's keys


def _layouts(body: nn.Module) -> tuple[Layout, ...]:
    """The ways in which a network is named elsewhere; ResNets have several, others timm's alone."""
    plain = Layout("by name", lambda key: key)
    if not (hasattr(body, "conv1") and hasattr(body, "layer4")):
        return (plain,)
    children = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    lightly = {name: i for i, name in enumerate(children)}
    return (
        plain,
        # torchvision's and timm's children in nn.Sequential, as lightly's examples have them
        Layout("by number of the child", lambda key: _numbered(key, children)),
        Layout("by name, with 'shortcut'", _shortcut),
        # lightly's ResNetGenerator: its children lack the activation that its forward pass has
        Layout("by number, with 'shortcut'", lambda key: _shortcut(_numbered(key, lightly)), relu=False),
    )


def _numbered(key: str, numbers: Mapping[str, int]) -> str:
    first, _, rest = key.partition(".")
    return f"{numbers[first]}.{rest}" if first in numbers else key


def _shortcut(key: str) -> str:
    return key.replace(".downsample.", ".shortcut.")


def _needed(encoder: Encoder) -> dict[str, Tensor]:
    """What decides the features: all but the counters of batch norm, which evaluation does not read."""
    return {key: w for key, w in encoder.body.state_dict().items() if not key.endswith(COUNTER)}


def _find(
    path: Path, encoder: Encoder, weights: Mapping[str, Tensor], model: str
) -> tuple[Match, tuple[str, ...]]:
    """The encoder that learned, and the prefixes of others that are there as completely."""
    needed = list(_needed(encoder))
    matches = [m for layout in _layouts(encoder.body) for m in _matches(layout, needed, weights)]
    complete = sorted((m for m in matches if m.found == len(needed)), key=_preference)
    if not complete:
        _refuse(path, max(matches, key=lambda m: m.found, default=None), needed, weights, model)
    others = {m.prefix for m in complete} - {complete[0].prefix}
    return complete[0], tuple(sorted(others))


def _matches(layout: Layout, needed: list[str], weights: Mapping[str, Tensor]) -> Iterator[Match]:
    theirs = {layout.rename(key) for key in needed}
    counts: Counter[str] = Counter()
    for key in weights:
        words = key.split(".")
        starts = [0, *accumulate(len(word) + 1 for word in words[:-1])]
        counts.update(key[:start] for start in starts if key[start:] in theirs)
    for prefix, found in counts.items():
        yield Match(prefix, layout, found)


def _preference(match: Match) -> tuple[bool, int, str]:
    """Before all what learns, then the shortest prefix."""
    slow = any(word in match.prefix.lower() for word in SLOW)
    return slow, len(match.prefix), match.prefix


def _refuse(
    path: Path, best: Match | None, needed: list[str], weights: Mapping[str, Tensor], model: str
) -> NoReturn:
    found = 0 if best is None else best.found
    message = f"{path}: {found} of {len(needed)} keys of {model} found"
    if best is not None:
        absent = next(key for key in map(best.key, needed) if key not in weights)
        message += f" under '{best.prefix}', the first missing is '{absent}'"
    begins = sorted({_first_name(key, "") for key in weights})
    raise UsageError(
        f"{message}; the checkpoint's names begin with {', '.join(begins[:8])}; "
        "give the --model that it was trained as"
    )


def _load(path: Path, encoder: Encoder, weights: Mapping[str, Tensor], match: Match, model: str) -> None:
    """Fill the encoder with the weights that were matched.

    Raises:
        UsageError: a shape differs, or the checkpoint's encoder has more keys than the model.
    """
    needed = _needed(encoder)
    for key, own in needed.items():
        theirs = weights[match.key(key)]
        if theirs.shape != own.shape:
            differ = sum(weights[match.key(k)].shape != w.shape for k, w in needed.items())
            raise UsageError(
                f"{path}: {differ} of {len(needed)} keys of {model} have another shape, the first is "
                f"'{match.key(key)}', {tuple(theirs.shape)} and not {tuple(own.shape)}; give the --model "
                "that it was trained as, or its --image-size"
            )
    known = {match.key(key) for key in needed}
    heads = HEADS | _classifiers(encoder.body)
    more = [
        key for key in weights
        if key.startswith(match.prefix) and key not in known and not key.endswith(COUNTER)
        and not _is_head(key.removeprefix(match.prefix), heads)
    ]  # fmt: skip
    if match.prefix == "":  # other networks stand beside it
        own_names = {key.partition(".")[0] for key in known}
        more = [key for key in more if key.partition(".")[0] in own_names]
    if more:
        raise UsageError(
            f"{path}: its encoder has {len(more)} keys that {model} has not, the first is '{more[0]}'; "
            "give the --model that it was trained as"
        )
    state = encoder.body.state_dict()
    state |= {key: weights[match.key(key)].to(state[key].dtype) for key in needed}
    encoder.body.load_state_dict(state, strict=True)


def _is_head(key: str, heads: set[str]) -> bool:
    return any(key == head or key.startswith(f"{head}.") for head in heads)


def _classifiers(body: nn.Module) -> set[str]:
    """The names that timm gives the classifier of a model, which ours is built without."""
    names = getattr(body, "default_cfg", {}).get("classifier") or ()
    return {names} if isinstance(names, str) else set(names)


def _ignored(
    encoder: Encoder, weights: Mapping[str, Tensor], match: Match, others: tuple[str, ...]
) -> tuple[str, ...]:
    """What is neither the encoder's nor another such network's, by first name."""
    known = {match.key(key) for key in _needed(encoder)}
    left = {
        (match.prefix if key.startswith(match.prefix) else "", key)
        for key in weights
        if key not in known and not key.endswith(COUNTER) and not key.startswith(others)
    }
    return tuple(sorted({prefix + _first_name(key, prefix) for prefix, key in left}))


def _first_name(key: str, prefix: str) -> str:
    return key.removeprefix(prefix).partition(".")[0]


# ---- whose it is, and what follows from that


def _library(weights: Mapping[str, Tensor], match: Match) -> str:
    """Whose names the keys look like; it decides nothing but the padding of solo-learn's CIFAR stem."""
    top = {key.partition(".")[0] for key in weights}
    if match.prefix == "":
        return "plain state dict"
    if top & {"projection_head", "prediction_head", "backbone_momentum"}:
        return "lightly"
    if "student" in match.prefix or top & {"callbacks_modules", "callbacks_metrics"}:
        return "stable-pretraining"
    if match.prefix in ("backbone.", "encoder.") and _is_solo_learn(top):
        return "solo-learn"
    if match.prefix == "backbone." and "projector" in top:
        return "stable-pretraining"
    return "unknown"


def _is_solo_learn(top: set[str]) -> bool:
    """It always trains a linear classifier beside the method; its slow network is momentum_backbone."""
    return "momentum_backbone" in top or {"classifier", "projector"} <= top


def _adapt(body: nn.Module, match: Match, library: str, cifar: bool) -> tuple[str, ...]:
    """Make the network compute as theirs does where no weight tells the difference; says what was done."""
    notes = []
    if cifar and library == "solo-learn":
        convolution: Any = body.conv1
        convolution.padding = (2, 2)
        notes.append("3x3 stem with padding 2, as solo-learn's")
    elif cifar:
        notes.append("3x3 stem with padding 1 and no max-pool")
    if not match.layout.relu:
        body.act1 = nn.Identity()
        notes.append("no activation after the first batch norm, as lightly's children in nn.Sequential")
    return tuple(notes)
