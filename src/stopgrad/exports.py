"""Write a trained encoder for use elsewhere, and prove that what was written computes the same.

Every exported model takes normalised float32 images (B, C, S, S), ``(image in [0, 1] - mean) / std`` per
channel, and gives features (B, D). The JSON file beside it holds mean, std and how to load it.

Shapes: B batch, C channels, S image side, D features.
"""

import copy
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stopgrad.errors import UsageError, require, unknown
from stopgrad.networks.encoders import (
    CONVNET_S,
    TIMM_PREFIX,
    Encoder,
    EncoderSettings,
    build_encoder,
    timm_arguments,
)

Format = Literal["safetensors", "torch", "timm", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)

TOLERANCE = 1e-5
"""Largest difference of a round trip, relative to the largest feature where that is above 1."""

FILES: dict[Format, tuple[str, str]] = {
    "safetensors": ("encoder.safetensors", "encoder.json"),
    "torch": ("encoder.pt2", "encoder.pt2.json"),
    "timm": ("encoder.timm.safetensors", "encoder.timm.json"),
    "onnx": ("encoder.onnx", "encoder.onnx.json"),
}
"""The model and its description, by format; all formats fit in one folder."""

LOAD: dict[Format, str] = {
    "safetensors": "stopgrad.exports.load_exported('encoder.safetensors')",
    "torch": "torch.export.load('encoder.pt2').module()",
    "timm": "model = timm.create_model(name, **arguments); "
    "model.load_state_dict(safetensors.torch.load_file('encoder.timm.safetensors')); model.eval()",
    "onnx": "onnxruntime.InferenceSession('encoder.onnx').run(None, {'images': images})",
}

_READERS: dict[Format, str] = {
    "torch": """
import torch
module = torch.export.load(model).module()
def encode(images):
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()
""",
    "timm": """
import json, timm, torch
from safetensors.torch import load_file
with open(description, encoding="utf-8") as file:
    call = json.load(file)["create_model"]
module = timm.create_model(call["name"], **call["arguments"])
module.load_state_dict(load_file(model), strict=True)
module.eval()
def encode(images):
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
def encode(images):
    return session.run(None, {"images": images})[0]
""",
}

# Two batch sizes, neither the one that was traced: the batch must be dynamic.
_READER = """
import sys
import numpy
model, description, batch, answer = sys.argv[1:]
{reader}
images = numpy.load(batch)
features = numpy.concatenate([encode(images[:1]), encode(images[1:])])
assert "stopgrad" not in sys.modules
numpy.save(answer, features)
"""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        model: the file with the weights.
        description: the JSON file beside it.
        max_difference: largest absolute difference, over a random batch, between the features of the
            encoder and of the file read back.
    """

    model: Path
    description: Path
    max_difference: float


@torch.no_grad()
def export_encoder(encoder: Encoder, folder: Path, format: Format, info: Mapping[str, Any]) -> Exported:
    """Write ``encoder`` into ``folder``, in eval mode and float32, after reading it back.

    ``torch``, ``timm`` and ``onnx`` files are read back in a fresh process that does not import stopgrad.
    Nothing is written, and an older export stays, unless the features agree to :data:`TOLERANCE`.

    Args:
        encoder: left as it is: mode, device and random state too.
        folder: made if missing; the names of the files are :data:`FILES`.
        format: ``safetensors`` (for stopgrad), ``torch`` (a torch.export program), ``timm`` (weights for
            ``timm.create_model``) or ``onnx``.
        info: ``mean`` and ``std`` (C floats each) of the training images in [0, 1], and whatever else is
            to stand in the description.

    Raises:
        UsageError: unknown format; an architecture that the format cannot hold; features that are not finite.
        MissingExtra: the libraries of the format are not installed.
        RuntimeError: the round trip failed.
    """
    if format not in FORMATS:
        raise unknown("export format", format, list(FORMATS))
    description = _describe(encoder, format, info)
    encoder = copy.deepcopy(encoder).to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    images = torch.randn(
        5,
        encoder.channels,
        encoder.image_size,
        encoder.image_size,
        generator=torch.Generator().manual_seed(0),
    )
    expected = encoder(images)
    if not torch.isfinite(expected).all():
        raise UsageError("export: the encoder's features are NaN or infinite; export an earlier checkpoint")

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        model, text = (Path(scratch) / name for name in FILES[format])
        _WRITERS[format](encoder, model)
        text.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        if format == "safetensors":
            features = load_exported(model)[0].eval()(images)
        else:
            features = _read_elsewhere(format, model, text, images)
        difference = _difference(features, expected, format)
        for file in (model, text):
            _sync(file)
            os.replace(file, folder / file.name)
    return Exported(folder / model.name, folder / text.name, difference)


def load_exported(path: Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder, in eval mode on the CPU, and the description of a ``safetensors`` export.

    Args:
        path: ``encoder.safetensors``, or the folder that holds it. No code in the files is run.

    Raises:
        UsageError: a file is missing, damaged, or does not fit the other one.
    """
    names = FILES["safetensors"]
    folder = path if path.is_dir() else path.parent
    weights = folder / names[0] if path.is_dir() else path
    text = folder / names[1] if path.is_dir() else path.with_suffix(".json")
    for file in (weights, text):
        if not file.is_file():
            raise UsageError(f"{file}: no such file; an exported encoder is {names[0]} beside {names[1]}")
    try:
        info: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
        settings = EncoderSettings.model_validate(info["settings"])
        channels, image_size = int(info["channels"]), int(info["image_size"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise UsageError(f"{text}: not the description of an exported encoder ({_line(error)})") from error
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away
        encoder = build_encoder(settings, channels, image_size)
    try:
        encoder.body.load_state_dict(load_file(weights), strict=True)
    except (RuntimeError, SafetensorError, OSError) as error:
        raise UsageError(f"{weights}: not the weights of {settings.name} ({_line(error)})") from error
    return encoder.eval(), info


def _describe(encoder: Encoder, format: Format, info: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("mean", "std"):
        if len(info.get(key, ())) != encoder.channels:
            raise UsageError(
                f"export: info['{key}'] needs one number for each of {encoder.channels} channels"
            )
    description = {
        **info,
        "mean": [float(value) for value in info["mean"]],
        "std": [float(value) for value in info["std"]],
        "format": format,
        "architecture": encoder.settings.name,
        "stem": encoder.settings.stem,
        "channels": encoder.channels,
        "image_size": encoder.image_size,
        "width": encoder.width,
        "input": "float32 (B, channels, image_size, image_size), (image in [0, 1] - mean) / std",
        "output": "float32 (B, width)",
        "load": LOAD[format],
        "settings": encoder.settings.model_dump(),
        "stopgrad": version("stopgrad"),
    }
    if format == "timm":
        name = _timm_name(encoder.settings)
        arguments = timm_arguments(name, encoder.channels, encoder.image_size)
        description["create_model"] = {"name": name, "arguments": arguments}
    return description


def _timm_name(settings: EncoderSettings) -> str:
    if settings.name == CONVNET_S or settings.stem == "cifar":
        what = settings.name if settings.name == CONVNET_S else f"{settings.name} with a CIFAR stem"
        others = ", ".join(name for name in FORMATS if name != "timm")
        raise UsageError(f"export format 'timm': timm cannot build {what}; choose one of {others}")
    return settings.name.removeprefix(TIMM_PREFIX)


def _write_safetensors(encoder: Encoder, path: Path) -> None:
    # Cloned: the format refuses tensors that share memory, which models with tied weights have.
    state = encoder.body.state_dict()
    save_file(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}, path
    )


def _example(encoder: Encoder) -> tuple[Tensor]:
    return (torch.zeros(2, encoder.channels, encoder.image_size, encoder.image_size),)


def _dynamic_batch() -> dict[str, Any]:
    return {"images": {0: torch.export.Dim("batch", min=1)}}


def _write_torch(encoder: Encoder, path: Path) -> None:
    with _traced("torch", encoder):
        program = torch.export.export(encoder, _example(encoder), dynamic_shapes=_dynamic_batch())
        with warnings.catch_warnings():
            # Said of every batch norm's counter, whose value inference does not use.
            warnings.filterwarnings("ignore", message="No complete tensor found")
            torch.export.save(program, path)


def _write_onnx(encoder: Encoder, path: Path) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        require(library, "onnx")
    with _traced("onnx", encoder):
        torch.onnx.export(
            encoder,
            _example(encoder),
            path,
            dynamo=True,
            dynamic_shapes=_dynamic_batch(),
            input_names=["images"],
            output_names=["features"],
            external_data=False,
            verbose=False,
        )


@contextmanager
def _traced(format: Format, encoder: Encoder) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch's tracers raise errors of many kinds; none is the caller's bug
        others = ", ".join(name for name in FORMATS if name != format)
        raise UsageError(
            f"export format '{format}': torch cannot trace {encoder.settings.name} ({_line(error)}); "
            f"choose one of {others}"
        ) from error


_WRITERS = {
    "safetensors": _write_safetensors,
    "torch": _write_torch,
    "timm": _write_safetensors,
    "onnx": _write_onnx,
}


def _read_elsewhere(format: Format, model: Path, description: Path, images: Tensor) -> Tensor:
    scratch = model.parent.resolve()
    batch, answer = scratch / "images.npy", scratch / "features.npy"
    np.save(batch, images.numpy())
    script = _READER.format(reader=_READERS[format])
    files = [str(file.resolve()) for file in (model, description, batch, answer)]
    reader = subprocess.run(
        [sys.executable, "-c", script, *files], cwd=scratch, capture_output=True, text=True, check=False
    )
    if reader.returncode != 0:
        last = (reader.stderr.strip().splitlines() or [f"exit status {reader.returncode}"])[-1]
        raise RuntimeError(f"export format '{format}': a fresh process cannot use the file: {last}")
    return torch.from_numpy(np.load(answer))


def _difference(features: Tensor, expected: Tensor, format: Format) -> float:
    if features.shape != expected.shape:
        raise RuntimeError(
            f"export format '{format}': the file gives features {tuple(features.shape)}, "
            f"the encoder {tuple(expected.shape)}"
        )
    difference = float((features - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise RuntimeError(
            f"export format '{format}': features read back differ by up to {difference:.2g}; "
            "nothing was written"
        )
    return difference


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
