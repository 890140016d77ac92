"""Where images come from: one table row per data set, one shape for all of them."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from stopgrad.data.sources.cifar import load_cifar10, load_cifar100
from stopgrad.data.sources.decode import resize_square
from stopgrad.data.sources.digits import load_digits
from stopgrad.data.sources.folder import load_folder, load_folder_part
from stopgrad.data.sources.huggingface import load_huggingface
from stopgrad.data.sources.parts import ArrayPart, Dataset, FilePart, Loaded, Part, Skipped
from stopgrad.data.sources.settings import DataSettings
from stopgrad.data.sources.stl10 import load_stl10
from stopgrad.data.sources.tiny_imagenet import load_tiny_imagenet
from stopgrad.data.sources.webdataset import load_webdataset
from stopgrad.errors import UsageError, unknown

__all__ = [
    "DATASETS",
    "ArrayPart",
    "DataSettings",
    "Dataset",
    "FilePart",
    "Part",
    "Skipped",
    "is_data_set",
    "load_dataset",
    "load_folder_part",
]

#: name -> loader; a row adds a data set
DATASETS: dict[str, Callable[[DataSettings], Loaded]] = {
    "digits": load_digits,
    "folder": load_folder,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "stl10": load_stl10,
    "tiny-imagenet": load_tiny_imagenet,
    "hf": load_huggingface,
    "webdataset": load_webdataset,
}

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CHUNK = 4096


def is_data_set(name: str) -> bool:
    """Whether ``name`` is a row of ``DATASETS``, or one with its place, rather than a folder's path."""
    return name.partition(":")[0] in DATASETS


def load_dataset(settings: DataSettings) -> Dataset:
    """Load the data set that ``settings`` names: a row of ``DATASETS``, or the path of a folder of images.

    Raises:
        UsageError: if the name is unknown, or files are missing, damaged or too few.
    """
    kind, _, place = settings.name.partition(":")
    if place and kind in DATASETS:
        if settings.dir is not None:
            raise UsageError(f"data {settings.name}: names a place already: leave out --data-dir")
        settings = settings.model_copy(update={"name": kind, "dir": Path(place)})
    if settings.name not in DATASETS:
        if settings.dir is not None or not Path(settings.name).is_dir():
            raise unknown("data", settings.name, [*DATASETS, "or a folder's path"])
        settings = settings.model_copy(update={"name": "folder", "dir": Path(settings.name)})
    loaded = DATASETS[settings.name](settings)
    train = _fit(loaded.train, settings, settings.limit)
    mean, std = _statistics(train, loaded)
    return Dataset(
        name=settings.name,
        classes=loaded.classes,
        channels=train.channels,
        mean=mean,
        std=std,
        train=train,
        val=_fit(loaded.val, settings),
        test=_fit(loaded.test, settings),
        probe=train if loaded.probe is None else _fit(loaded.probe, settings),
        skipped=loaded.skipped,
    )


def _fit(part: Part, settings: DataSettings, limit: int | None = None) -> Part:
    """Bring images in memory to the channels, size and number asked for. Files are read that way."""
    if isinstance(part, FilePart):
        return part
    if limit is not None and limit < len(part):
        part = part.take(torch.arange(limit))
    images = part.images
    if settings.channels is not None and settings.channels != part.channels:
        images = images.expand(-1, 3, -1, -1).contiguous() if settings.channels == 3 else _luma(images)
    if settings.image_size is not None:
        size = settings.image_size
        images = torch.cat([resize_square(chunk, size) for chunk in images.split(_CHUNK)])
    return ArrayPart(images, part.labels, part.ids)


def _luma(images: Tensor) -> Tensor:
    """uint8 RGB (N,3,H,W) -> uint8 grey (N,1,H,W), ITU-R BT.601 in the fixed-point arithmetic of Pillow."""
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]
    grey = [
        ((chunk.int() * weights).sum(1, keepdim=True) + 0x8000 >> 16).to(torch.uint8)
        for chunk in images.split(_CHUNK)
    ]
    return torch.cat(grey)


def _statistics(train: Part, loaded: Loaded) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and std: the field's for a known set, ImageNet's for files, else computed."""
    if loaded.statistics is not None and len(loaded.statistics[0]) == train.channels:
        return loaded.statistics
    if isinstance(train, FilePart):
        if train.channels == 3:
            return IMAGENET_MEAN, IMAGENET_STD
        return (sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,)
    counts = torch.zeros(train.channels, 256, dtype=torch.float64)
    for chunk in train.images.split(_CHUNK):
        for channel in range(train.channels):
            counts[channel] += chunk[:, channel].flatten().bincount(minlength=256)
    share = counts / counts.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ levels
    variance = (share * (levels - mean[:, None]).square()).sum(1)
    # a set of one colour has no spread: 1 leaves it as it is
    std = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
    return tuple(mean.tolist()), tuple(std.tolist())
