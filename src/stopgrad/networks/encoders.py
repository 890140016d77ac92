"""Encoders: image batch in, one feature vector per image out.

Shapes: B batch, C channels, S image side in pixels, D output features (``Encoder.width``).
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from stopgrad.errors import UsageError, require, unknown
from stopgrad.frozen import Frozen

Stem = Literal["auto", "imagenet", "cifar"]

CONVNET_S = "convnet-s"
RESNETS = ("resnet18", "resnet50")
TIMM_PREFIX = "timm/"
KNOWN = [CONVNET_S, *RESNETS, "timm/NAME"]
CIFAR_STEM_UP_TO = 48
"""Largest image side in pixels for which ``stem="auto"`` takes the CIFAR stem."""


class EncoderSettings(Frozen):
    """Which encoder to build.

    Attributes:
        name: ``convnet-s`` (small, for CPUs), ``resnet18``, ``resnet50``, or ``timm/NAME`` for any
            model of timm, with random weights.
        stem: first layers of a ResNet. ``imagenet``: 7x7 convolution of stride 2 and max-pool (He et
            al. 2016, table 1). ``cifar``: 3x3 convolution of stride 1, no max-pool (Chen et al. 2020,
            SimCLR, appendix B.9). ``auto``: ``cifar`` for images of at most 48 pixels a side.
    """

    name: str = CONVNET_S
    stem: Stem = "auto"


class Encoder(nn.Module):
    """A network with what is needed to build it again.

    Attributes:
        body: the network itself; its ``state_dict`` has the keys of the library it comes from.
        settings: as built, with ``stem="auto"`` of a ResNet resolved.
        channels: C.
        image_size: S that the encoder was built for.
        width: D.
    """

    def __init__(
        self, body: nn.Module, settings: EncoderSettings, channels: int, image_size: int, width: int
    ) -> None:
        super().__init__()
        self.body = body
        self.settings = settings
        self.channels = channels
        self.image_size = image_size
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, C, S, S)."""
        features: Tensor = self.body(images)
        return features


def build_encoder(settings: EncoderSettings, channels: int, image_size: int) -> Encoder:
    """An encoder with random weights, drawn from torch's global generator.

    Raises:
        UsageError: unknown name; a stem for a network that is not a ResNet; a network that cannot take
            images of this size.
        MissingExtra: ResNets and ``timm/NAME`` without timm.
    """
    if settings.name in RESNETS:
        stem = _resolve(settings.stem, image_size)
        settings = settings.model_copy(update={"stem": stem})
        body = _timm_model(settings.name, channels, image_size)
        if stem == "cifar":
            _set_cifar_stem(body, channels)
    elif settings.stem != "auto":
        raise UsageError(
            f"encoder.stem: '{settings.stem}' is for {' and '.join(RESNETS)}, not {settings.name}; "
            "leave it at 'auto'"
        )
    elif settings.name == CONVNET_S:
        body = _convnet_s(channels, image_size)
    elif settings.name.startswith(TIMM_PREFIX):
        body = _timm_model(settings.name.removeprefix(TIMM_PREFIX), channels, image_size)
    else:
        raise unknown("encoder.name", settings.name, KNOWN)
    width = _measure_width(body, settings.name, channels, image_size)
    return Encoder(body, settings, channels, image_size, width)


def timm_arguments(name: str, channels: int, image_size: int) -> dict[str, Any]:
    """Keyword arguments of the ``timm.create_model(name, ...)`` call that builds this encoder.

    ``img_size`` is passed to the models that timm marks as having a fixed input size (ViTs and their
    like), as timm itself does.

    Raises:
        UsageError: timm has no model of this name.
    """
    timm = require("timm", "vision")
    if not timm.is_model(name):
        raise _unknown_timm(name, timm.list_models())
    arguments: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    pretrained = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if pretrained is not None and pretrained.fixed_input_size:
        arguments["img_size"] = image_size
    return arguments


def _unknown_timm(name: str, models: list[str]) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(name, models, n=3)
    hint = f", near names: {', '.join(TIMM_PREFIX + model for model in near)}" if near else ""
    return UsageError(
        f"encoder.name: timm has no model '{name}'{hint}; timm.list_models() lists all {len(models)}"
    )


def _timm_model(name: str, channels: int, image_size: int) -> nn.Module:
    arguments = timm_arguments(name, channels, image_size)
    timm = require("timm", "vision")
    try:
        model: nn.Module = timm.create_model(name, **arguments)
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise _does_not_fit(TIMM_PREFIX + name, channels, image_size, error) from error
    return model


def _resolve(stem: Stem, image_size: int) -> Stem:
    if stem != "auto":
        return stem
    return "cifar" if image_size <= CIFAR_STEM_UP_TO else "imagenet"


def _set_cifar_stem(resnet: nn.Module, channels: int) -> None:
    convolution = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    resnet.conv1 = convolution
    resnet.maxpool = nn.Identity()


def _convnet_s(channels: int, image_size: int) -> nn.Module:
    # Convolutions and the Linear have no bias: the batch norm behind each would subtract it again.
    layers: list[nn.Module] = []
    side = image_size
    for inputs, outputs in ((channels, 32), (32, 64), (64, 128)):
        layers += [
            nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
        side = (side + 1) // 2
    layers += [
        nn.Flatten(),
        nn.Linear(128 * side * side, 128, bias=False),
        nn.BatchNorm1d(128),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers)


def _measure_width(body: nn.Module, name: str, channels: int, image_size: int) -> int:
    # A trial run instead of timm's `num_features`, which several of its models do not return.
    body.eval()
    try:
        with torch.no_grad():
            features = body(torch.zeros(1, channels, image_size, image_size))
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        raise _does_not_fit(name, channels, image_size, error) from error
    finally:
        body.train()
    if features.ndim != 2:
        raise UsageError(
            f"encoder.name: {name} gives features of shape {tuple(features.shape)}, not one vector an image"
        )
    return int(features.shape[1])


def _does_not_fit(name: str, channels: int, image_size: int, error: Exception) -> UsageError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UsageError(
        f"encoder.name: {name} does not take {channels}x{image_size}x{image_size} images ({reason}); "
        "choose another encoder or image size"
    )
