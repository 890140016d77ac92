"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 60,000 images of 32x32, from their "python version" archives.

They have no validation part: a tenth of the training images, by a fixed permutation, is it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stopgrad.data.sources.archives import Official, damage_is_usage, locate, read_members
from stopgrad.data.sources.parts import ArrayPart, Loaded, fixed_permutation, held_out_count
from stopgrad.data.sources.safe_pickle import load_pickle
from stopgrad.data.sources.settings import DataSettings
from stopgrad.errors import UsageError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class _Cifar:
    official: Official
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str
    statistics: Statistics


CIFAR10 = _Cifar(
    Official(
        name="cifar10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        sign="data_batch_1",
    ),
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    names="label_names",
    statistics=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
)
CIFAR100 = _Cifar(
    Official(
        name="cifar100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        sign="train",
    ),
    train=("train",),
    test="test",
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
    statistics=((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
)


def load_cifar10(settings: DataSettings) -> Loaded:
    """CIFAR-10 from ``settings.dir``: the archive, or the folder in it.

    Raises:
        UsageError: if it is missing, damaged, or its pickles hold anything but data.
    """
    return _load(CIFAR10, settings)


def load_cifar100(settings: DataSettings) -> Loaded:
    """CIFAR-100, with its 100 fine labels, from ``settings.dir``: the archive, or the folder in it.

    Raises:
        UsageError: if it is missing, damaged, or its pickles hold anything but data.
    """
    return _load(CIFAR100, settings)


def _load(cifar: _Cifar, settings: DataSettings) -> Loaded:
    path: Path = locate(cifar.official, settings)
    pickles: dict[str, dict[str, Any]] = {}
    with damage_is_usage(cifar.official, path):
        read_members(
            cifar.official,
            path,
            {*cifar.train, cifar.test, cifar.meta},
            lambda name, stream, _: pickles.update({name: load_pickle(stream)}),
        )
        classes = tuple(_text(name) for name in pickles[cifar.meta][cifar.names])
        train = _part("train", [pickles[name] for name in cifar.train], cifar.labels, len(classes))
        test = _part("test", [pickles[cifar.test]], cifar.labels, len(classes))
    order = fixed_permutation(len(train))
    count = held_out_count(len(train))
    return Loaded(
        train=train.take(order[count:].sort().values),
        val=train.take(order[:count].sort().values),
        test=test,
        classes=classes,
        statistics=cifar.statistics,
    )


def _text(name: bytes | str) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


def _part(part: str, pickles: list[dict[str, Any]], key: str, classes: int) -> ArrayPart:
    images = np.concatenate([np.asarray(batch["data"]) for batch in pickles])
    labels = np.concatenate([np.asarray(batch[key], dtype=np.int64) for batch in pickles])
    if images.dtype != np.uint8 or images.shape != (len(labels), 3072) or len(labels) == 0:
        raise UsageError(f"{part} has images {images.dtype} {images.shape} for {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= classes:
        raise UsageError(f"{part} has labels outside 0..{classes - 1}")
    return ArrayPart(
        torch.from_numpy(images.reshape(-1, 3, 32, 32)),
        torch.from_numpy(labels),
        [f"{part}/{i}" for i in range(len(labels))],
    )
