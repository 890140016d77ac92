"""STL-10 (Coates, Ng, Lee, 2011): 96x96, 100,000 unlabelled, 5,000 labelled training and 8,000 test images.

A tenth of the labelled training images, by a fixed permutation, is the validation part. The others are the
``probe`` part; pretraining (``train``) sees the unlabelled images and then these, all without labels.
"""

from typing import IO

import numpy as np
import torch
from torch import Tensor

from stopgrad.data.sources.archives import Official, damage_is_usage, locate, read_members
from stopgrad.data.sources.parts import ArrayPart, Loaded, fixed_permutation, held_out_count
from stopgrad.data.sources.settings import DataSettings
from stopgrad.errors import UsageError

STL10 = Official(
    name="stl10",
    folder="stl10_binary",
    archive="stl10_binary.tar.gz",
    url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    md5="91f7769df0f17e558f3565bffb0c7dfb",
    sign="train_X.bin",
)
SHAPE = (3, 96, 96)
_BYTES = 3 * 96 * 96
_CHUNK = 1000


def load_stl10(settings: DataSettings) -> Loaded:
    """STL-10 from ``settings.dir``: the archive, or the folder in it. 2.9 GB of memory, less under ``limit``.

    Raises:
        UsageError: if it is missing or damaged.
    """
    path = locate(STL10, settings)
    images: dict[str, Tensor] = {}
    labels: dict[str, Tensor] = {}
    with damage_is_usage(STL10, path):

        def read_labelled(name: str, stream: IO[bytes], size: int) -> None:
            part, kind = name.removesuffix(".bin").split("_")
            if kind == "y":
                labels[part] = torch.from_numpy(np.frombuffer(stream.read(), np.uint8).astype(np.int64) - 1)
            else:
                images[part] = torch.empty((_count(name, size), *SHAPE), dtype=torch.uint8)
                _read_images(stream, images[part])

        read_members(STL10, path, {f"{p}_{k}.bin" for p in ("train", "test") for k in "Xy"}, read_labelled)
        parts = {name: _labelled(name, images.pop(name), labels[name]) for name in ("train", "test")}
        order, count = fixed_permutation(len(parts["train"])), held_out_count(len(parts["train"]))
        probe = parts["train"].take(order[count:].sort().values)
        val = parts["train"].take(order[:count].sort().values)

        classes: list[str] = []
        pretraining: list[ArrayPart] = []

        def read_rest(name: str, stream: IO[bytes], size: int) -> None:
            if name == "class_names.txt":
                classes.extend(stream.read().decode("utf-8").split())
            else:
                pretraining.append(_pretraining(stream, _count(name, size), probe, settings.limit))

        # in a second pass, so that what goes behind the unlabelled images is known when they are placed
        read_members(STL10, path, {"unlabeled_X.bin", "class_names.txt"}, read_rest)
        _check_labels(parts, len(classes))
    return Loaded(pretraining[0], val, parts["test"], tuple(classes), probe=probe)


def _count(name: str, size: int) -> int:
    count, rest = divmod(size, _BYTES)
    if rest or not count:
        raise UsageError(f"{name} has {size} bytes, no multiple of {_BYTES}")
    return count


def _read_images(stream: IO[bytes], into: Tensor) -> None:
    """Fill uint8 (N,3,96,96); in the file each channel lies column by column."""
    for chunk in into.split(_CHUNK):
        data = stream.read(len(chunk) * _BYTES)
        chunk.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, *SHAPE).transpose(2, 3))


def _labelled(part: str, images: Tensor, labels: Tensor) -> ArrayPart:
    if len(images) != len(labels):
        raise UsageError(f"{part} has {len(images)} images for {len(labels)} labels")
    return ArrayPart(images, labels, [f"{part}/{i}" for i in range(len(images))])


def _check_labels(parts: dict[str, ArrayPart], classes: int) -> None:
    for name, part in parts.items():
        if part.labels is None or part.labels.min() < 0 or part.labels.max() >= classes:
            raise UsageError(f"{name} has labels outside 1..{classes}")


def _pretraining(stream: IO[bytes], unlabelled: int, probe: ArrayPart, limit: int | None) -> ArrayPart:
    total = unlabelled + len(probe)
    total = total if limit is None else min(total, limit)
    unlabelled = min(unlabelled, total)
    images = torch.empty((total, *SHAPE), dtype=torch.uint8)
    _read_images(stream, images[:unlabelled])
    images[unlabelled:] = probe.images[: total - unlabelled]
    ids = [f"unlabeled/{i}" for i in range(unlabelled)] + list(probe.ids[: total - unlabelled])
    return ArrayPart(images, None, ids)
