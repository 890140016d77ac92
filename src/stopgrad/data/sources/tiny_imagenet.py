"""Tiny-ImageNet-200 (Stanford CS231n): 100,000 training and 10,000 validation images of 64x64, 200 classes.

The labels of its test images were never published, so the official validation part is the test part, as is
usual, and a tenth of the training images, by a fixed permutation, is the validation part.
"""

import io
from collections.abc import Callable

import torch

from stopgrad.data.sources.archives import Official, damage_is_usage, locate, open_files
from stopgrad.data.sources.decode import Pixels, UnreadableImage, read_image
from stopgrad.data.sources.parts import ArrayPart, Loaded, Skipped, fixed_permutation, held_out_count
from stopgrad.data.sources.settings import DataSettings
from stopgrad.data.sources.threads import in_threads
from stopgrad.errors import UsageError

TINY_IMAGENET = Official(
    name="tiny-imagenet",
    folder="tiny-imagenet-200",
    archive="tiny-imagenet-200.zip",
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    sign="wnids.txt",
)
Named = list[tuple[str, int]]  # file name, label


def load_tiny_imagenet(settings: DataSettings) -> Loaded:
    """Tiny-ImageNet from ``settings.dir``, archive or folder. Training images come in a fixed random order.

    Raises:
        UsageError: if it is missing or damaged.
    """
    path = locate(TINY_IMAGENET, settings)
    with damage_is_usage(TINY_IMAGENET, path), open_files(TINY_IMAGENET, path) as (names, read):
        wnids = _lines(read, "wnids.txt", names)
        train = _training_images(names, wnids)
        test = _annotated_images(read, names, wnids)
        order, count = fixed_permutation(len(train)).tolist(), held_out_count(len(train))
        chosen = {
            "train": [train[i] for i in order[count:]][: settings.limit],
            "val": [train[i] for i in sorted(order[:count])],
            "test": test,
        }
        skipped: list[Skipped] = []
        parts = {name: _decode(read, files, settings, skipped) for name, files in chosen.items()}
        classes = _class_names(read, names, wnids)
    return Loaded(parts["train"], parts["val"], parts["test"], classes, tuple(skipped))


def _lines(read: Callable[[str], bytes], name: str, names: list[str]) -> list[str]:
    if name not in names:
        raise UsageError(f"lacks {name}")
    return [line for line in read(name).decode("utf-8").splitlines() if line.strip()]


def _class_names(read: Callable[[str], bytes], names: list[str], wnids: list[str]) -> tuple[str, ...]:
    """The first word of each class's WordNet entry, or its number where a word would name two classes."""
    lines = _lines(read, "words.txt", names) if "words.txt" in names else []
    words = {wnid: text.split(",")[0] for wnid, _, text in (line.partition("\t") for line in lines)}
    chosen = [words.get(wnid, wnid) for wnid in wnids]
    return tuple(word if chosen.count(word) == 1 else wnid for word, wnid in zip(chosen, wnids, strict=True))


def _training_images(names: list[str], wnids: list[str]) -> Named:
    number = {wnid: i for i, wnid in enumerate(wnids)}
    split = [(name, name.split("/")) for name in names if name.startswith("train/") and _is_jpeg(name)]
    named = [(name, number[parts[1]]) for name, parts in split if parts[1] in number]
    if not named:
        raise UsageError("has no training images (train/n01443537/images/n01443537_0.JPEG ...)")
    return named


def _annotated_images(read: Callable[[str], bytes], names: list[str], wnids: list[str]) -> Named:
    number = {wnid: i for i, wnid in enumerate(wnids)}
    rows = [line.split("\t") for line in _lines(read, "val/val_annotations.txt", names)]
    present = set(names)
    named = [(f"val/images/{row[0]}", number[row[1]]) for row in rows if f"val/images/{row[0]}" in present]
    if not named:
        raise UsageError("has no validation images (val/images/val_0.JPEG ...)")
    return named


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith((".jpeg", ".jpg"))


def _decode(
    read: Callable[[str], bytes], files: Named, settings: DataSettings, skipped: list[Skipped]
) -> ArrayPart:
    """Decode into memory; a damaged file, or one of another size than the first, is left out."""

    def pixels(file: tuple[str, int]) -> Pixels | str:
        try:
            return read_image(io.BytesIO(read(file[0])), settings.channels or 3, name=file[0])
        except UnreadableImage as error:
            return str(error)

    rows: list[int] = []
    images: list[torch.Tensor] = []

    def keep(i: int, result: Pixels | str) -> None:
        if isinstance(result, str):
            skipped.append(Skipped(files[i][0], result))
            return
        image = torch.from_numpy(result)
        if not images:
            images.append(torch.empty((len(files), *image.shape), dtype=torch.uint8))
        if image.shape != images[0].shape[1:]:
            height, width = image.shape[1:]
            skipped.append(Skipped(files[i][0], f"{width}x{height} pixels, unlike the others"))
            return
        images[0][len(rows)] = image
        rows.append(i)

    in_threads(pixels, files, keep, "Loading images", settings.workers)
    if not rows:
        raise UsageError(f"none of its images decodes (first: {skipped[-1].path}: {skipped[-1].reason})")
    labels = torch.tensor([files[i][1] for i in rows])
    return ArrayPart(images[0][: len(rows)], labels, [files[i][0] for i in rows])
