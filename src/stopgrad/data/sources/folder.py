"""Any folder of images: nested or flat, labelled by its subfolders or not labelled.

Parts: where all images lie in ``train/``, ``val/`` (or ``valid/``, ``validation/``) and ``test/``, these are
the parts.

Labels: where every image lies in one of at least two subfolders, these are the classes.
"""

from pathlib import Path

import numpy as np

from stopgrad.data.sources.assemble import PART_NAMES, Classes, Found, assemble, build_parts, grouped
from stopgrad.data.sources.checks import Ints
from stopgrad.data.sources.index import Index, index_folder
from stopgrad.data.sources.parts import Loaded, Part, Skipped
from stopgrad.data.sources.settings import DataSettings
from stopgrad.errors import UsageError


def load_folder(settings: DataSettings) -> Loaded:
    """The images below ``settings.dir`` in three parts, the train part in a fixed random order.

    Raises:
        UsageError: if the folder is missing or has fewer than 8 readable training images.
    """
    if settings.dir is None:
        raise UsageError("data folder: needs the folder of images, --data-dir PATH")
    return assemble(_found(index_folder(settings.dir, settings.workers), named=True), settings)


def load_folder_part(
    path: Path | str, channels: int | None = None, image_size: int | None = None, workers: int | None = None
) -> tuple[Part, Classes, tuple[Skipped, ...]]:
    """All images below ``path`` as one part, in the order of their paths, with classes and skipped files.

    Raises:
        UsageError: if there is no such folder, or no readable image below it.
    """
    root = Path(path)
    found = _found(index_folder(root, workers), named=False)
    found.require("train", 1)
    classes = found.classes("train")
    settings = DataSettings(name="folder", dir=root, image_size=image_size, workers=workers)
    settings = settings.model_copy(update={"channels": channels})
    part = build_parts(found, {"train": found.rows["train"]}, classes, settings)["train"]
    return part, classes, found.skipped


def _found(index: Index, named: bool) -> Found:
    """Images by part and by subfolder; all are train where the folder names no parts, or is not to."""
    rows = index.checks.readable
    first, firsts = _folders(index, rows, below=0)
    if named and "train" in {name.lower() for name in firsts} and _all_parts(first, firsts):
        part = np.array([PART_NAMES[name.lower()] for name in firsts])[first]
        group, names = _folders(index, rows, below=1)
    else:
        part, group, names = np.full(len(rows), "train"), first, firsts
    groups = np.full(len(index.store), -1)
    groups[rows] = group
    by_part = {name: rows[part == name] for name in ("train", "val", "test")}
    return Found(index.store, index.checks, by_part, groups, names, index.skipped)


def _all_parts(first: Ints, firsts: list[str]) -> bool:
    return bool((first >= 0).all()) and all(name.lower() in PART_NAMES for name in firsts)


def _folders(index: Index, rows: Ints, below: int) -> tuple[Ints, list[str]]:
    """The number of each image's folder, ``below`` levels down, -1 for none; and the folders' names."""
    folders = (index.store.paths[row].split("/")[below:-1] for row in rows.tolist())
    return grouped(inner[0] if inner else None for inner in folders)
