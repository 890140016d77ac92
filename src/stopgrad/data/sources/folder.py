"""Any folder of images: nested or flat, labelled by its subfolders or not labelled.

Parts: where all images lie in ``train/``, ``val/`` (or ``valid/``, ``validation/``) and ``test/``, these are
the parts. A part that is missing is held out of the training images by a fixed permutation: a tenth of them,
at least 8, or a quarter where that is fewer.

Labels: where every image lies in one of at least two subfolders, these are the classes.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from stopgrad.data.sources.index import Found, index_folder
from stopgrad.data.sources.parts import (
    ArrayPart,
    FilePart,
    Loaded,
    Part,
    Skipped,
    fixed_permutation,
    held_out_count,
)
from stopgrad.data.sources.settings import DataSettings
from stopgrad.data.sources.threads import in_threads
from stopgrad.errors import UsageError

log = logging.getLogger(__name__)

PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
FEWEST = 8
#: images of one size up to this many bytes (uint8, all parts) are kept in memory
MEMORY = 2**30

Classes = tuple[str, ...] | None


@dataclass(frozen=True)
class _Image:
    found: Found
    group: str | None  # the subfolder it lies in, below the folder of its part


def load_folder(settings: DataSettings) -> Loaded:
    """The images below ``settings.dir`` in three parts, the train part in a fixed random order.

    Raises:
        UsageError: if the folder is missing or has fewer than 8 readable training images.
    """
    if settings.dir is None:
        raise UsageError("data folder: needs the folder of images, --data-dir PATH")
    found, skipped = index_folder(settings.dir, settings.workers)
    parts = _given_parts(found)
    _require(settings.dir, len(parts["train"]), FEWEST, skipped)
    classes = _classes(parts["train"])
    for name in ("val", "test"):
        groups = {image.group for image in parts[name]}
        if classes and not groups <= set(classes):
            log.warning(
                "%s: %s is not labelled as train is: it is not used, images of train are held out for it",
                settings.dir,
                name,
            )
            parts[name] = []
    parts = _hold_out(parts)
    parts["train"] = parts["train"][: settings.limit]
    built = _build(settings.dir, parts, classes, settings)
    return Loaded(built["train"], built["val"], built["test"], classes, tuple(skipped))


def load_folder_part(
    path: Path | str, channels: int | None = None, image_size: int | None = None, workers: int | None = None
) -> tuple[Part, Classes, tuple[Skipped, ...]]:
    """All images below ``path`` as one part, in the order of their paths, with classes and skipped files.

    Raises:
        UsageError: if there is no such folder, or no readable image below it.
    """
    root = Path(path)
    found, skipped = index_folder(root, workers)
    _require(root, len(found), 1, skipped)
    images = [_Image(image, _first_folder(image.path)) for image in found]
    classes = _classes(images)
    settings = DataSettings(name="folder", dir=root, image_size=image_size, workers=workers)
    settings = settings.model_copy(update={"channels": channels})
    return _build(root, {"all": images}, classes, settings)["all"], classes, tuple(skipped)


def _require(root: Path, count: int, fewest: int, skipped: list[Skipped]) -> None:
    if count >= fewest:
        return
    what = f"{count} readable images to train on" if count else "no readable image below it"
    damaged = f"; {len(skipped)} unreadable: {skipped[0].path} ({skipped[0].reason}) ..." if skipped else ""
    raise UsageError(f"{root}: {what}{damaged}; at least {fewest} needed")


def _first_folder(path: str) -> str | None:
    return path.split("/", 1)[0] if "/" in path else None


def _given_parts(found: list[Found]) -> dict[str, list[_Image]]:
    """Images by part; all are train where the folder does not name its parts."""
    parts: dict[str, list[_Image]] = {"train": [], "val": [], "test": []}
    top = {(_first_folder(image.path) or "").lower() for image in found}
    named = "train" in top and top <= set(PART_NAMES)
    for image in found:
        if named:
            folder, inner = image.path.split("/", 1)
            parts[PART_NAMES[folder.lower()]].append(_Image(image, _first_folder(inner)))
        else:
            parts["train"].append(_Image(image, _first_folder(image.path)))
    return parts


def _classes(images: list[_Image]) -> Classes:
    groups = {image.group for image in images}
    names = tuple(sorted(group for group in groups if group is not None))
    return names if None not in groups and len(names) >= 2 else None


def _hold_out(parts: dict[str, list[_Image]]) -> dict[str, list[_Image]]:
    train = parts["train"]
    order = fixed_permutation(len(train)).tolist()
    count, start = held_out_count(len(train)), 0
    filled = dict(parts)
    for name in ("val", "test"):
        if not parts[name]:
            filled[name] = [train[i] for i in sorted(order[start : start + count])]
            start += count
    # in random order, since `limit` takes the first ones and paths come sorted by class
    filled["train"] = [train[i] for i in order[start:]]
    return filled


def _build(
    root: Path, parts: dict[str, list[_Image]], classes: Classes, settings: DataSettings
) -> dict[str, Part]:
    channels, size = settings.channels or 3, settings.image_size
    number = {name: i for i, name in enumerate(classes or ())}
    files: dict[str, FilePart] = {}
    for name, images in parts.items():
        labels = torch.tensor([number[str(i.group)] for i in images], dtype=torch.int64) if classes else None
        files[name] = FilePart(root, [image.found.path for image in images], labels, channels, size)
    everything = [image.found for images in parts.values() for image in images]
    sizes = {(size, size)} if size else {(image.height, image.width) for image in everything}
    height, width = next(iter(sizes))
    if len(sizes) > 1 or len(everything) * channels * height * width > MEMORY:
        return {**files}
    return {name: _in_memory(part, height, width, settings.workers) for name, part in files.items()}


def _in_memory(part: FilePart, height: int, width: int, workers: int | None) -> ArrayPart:
    images = torch.empty((len(part), part.channels, height, width), dtype=torch.uint8)
    in_threads(
        part.__getitem__, range(len(part)), lambda i, image: images[i].copy_(image), "Loading images", workers
    )
    return ArrayPart(images, part.labels, part.ids)
