"""Batches of views, in an order that is a pure function of seed and epoch.

Legend: B images of this rank's share of a batch, V views, C channels, S view size.
"""

import itertools
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from stopgrad.data.sources import ArrayPart, FilePart, Part
from stopgrad.data.sources.threads import processors
from stopgrad.data.views import Views, evaluation_view
from stopgrad.errors import UsageError

#: images up to this many bytes (uint8) live on the training device
ON_DEVICE = 2 * 2**30
#: views of small images are made for several batches in one go, up to this many bytes
VIEWED_TOGETHER = 2 * 2**20
# The loaders below get a generator of their own, since they would otherwise draw from the global one: how
# often a run had been evaluated or resumed would change what it draws next.


@dataclass(frozen=True, eq=False)
class Batch:
    """``index`` int64 (B,) on the CPU; ``views`` each float32 (B,C,S,S) in [0, 1] on the device.

    ``labels``: int64 (B,) on the device, or None.
    """

    index: Tensor
    views: tuple[Tensor, ...]
    labels: Tensor | None


class Batches:
    """The batches of a training run as one rank sees them.

    Each epoch passes through a fresh permutation of the part, which depends on ``seed`` and the epoch only;
    where images have to be read nearly in their order (``Store.near``), of so many neighbours at a time. What
    does not fill a batch is left out of that epoch. Every rank takes its contiguous share of each batch,
    so that the shares of all ranks together are the batch of a run in one process.

    Args:
        part: training images, in memory or in files.
        views: how the views are made; files are cropped in the workers that decode them.
        batch_size: images a batch over all ranks.
        seed: of the order and of the views.
        rank: which share to take, of ``world``.
        world: number of ranks.
        device: where the views are made.
        workers: processes that decode files, 0 for none; None takes this rank's share of the processors.
        each: how to go through the views of images in memory, as the built-in ``map`` does or at once.
        count: V, views of each image; the first two are the same, bit by bit, however many there are.

    Raises:
        UsageError: if the part has fewer images than a batch, or ``world`` does not divide the batch.
    """

    def __init__(
        self,
        part: Part,
        views: Views,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        workers: int | None = None,
        each: Callable[..., Iterable[Tensor]] = map,
        count: int = 2,
    ) -> None:
        if batch_size < 1 or batch_size % world:
            raise UsageError(f"batch_size {batch_size}: must be a positive multiple of the {world} processes")
        if batch_size > len(part):
            raise UsageError(
                f"batch_size {batch_size}: larger than the train part, which has {len(part)} images"
            )
        self.part, self.views, self.batch_size, self.seed = part, views, batch_size, seed
        self.device, self._each, self._count = torch.device(device), each, count
        self._near = None if isinstance(part, ArrayPart) else part.store.near
        self._share = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        if isinstance(part, ArrayPart):
            self._resident = part.images.nbytes <= ON_DEVICE or self.device.type == "cpu"
            self._images = part.images.to(self.device) if self._resident else part.images
        else:
            self._plan = _Plan()
            self._workers = max(1, processors() // world) if workers is None else workers
            self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.part) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """Image indices of this rank in ``epoch``: int64 (batches, B)."""
        # NumPy keeps the streams of RandomState as they are for good
        random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([self.seed % 2**64, epoch])))
        order = torch.from_numpy(_shuffled(random, len(self.part), self._near))
        return order[: len(self) * self.batch_size].view(len(self), self.batch_size)[:, self._share]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``start`` on; those before it cost nothing."""
        if isinstance(self.part, ArrayPart):
            yield from self._from_memory(self.order(epoch), epoch, start)
            return
        for index, crops in self._crops(self.order(epoch)[start:], epoch):
            crops = crops.to(self.device, non_blocking=True)
            yield self._batch(index, self.views.finish(crops, index, seed=self.seed, epoch=epoch))

    def _from_memory(self, order: Tensor, epoch: int, start: int) -> Iterator[Batch]:
        """Views of several small batches are made in one go, which costs a quarter.

        Always of the same batches together, wherever the epoch is entered: rounding depends on what is
        computed together, and a resumed run has to end with the same bits.
        """
        size = order.shape[1]
        view_bytes = size * self._images.shape[1] * self.views.size**2 * torch.float32.itemsize
        together = max(1, VIEWED_TOGETHER // view_bytes)
        for first in range(start - start % together, len(order), together):
            rows = order[first : first + together]
            index = rows.flatten()
            view = partial(
                self.views.view, images=self._gather(index), index=index, seed=self.seed, epoch=epoch
            )
            split = [made.split(size) for made in self._each(view, range(self._count))]
            for number, own, *views in zip(itertools.count(first), rows, *split, strict=False):
                if number >= start:
                    yield self._batch(own, tuple(views))

    def close(self) -> None:
        """Stop the worker processes. The next epoch starts them again."""
        if not isinstance(self.part, ArrayPart):
            self._loader = None  # its workers end with it

    def _batch(self, index: Tensor, views: tuple[Tensor, ...]) -> Batch:
        labels = self.part.labels
        return Batch(index, views, None if labels is None else self._send(labels[index]))

    def _gather(self, index: Tensor) -> Tensor:
        return self._images[self._send(index)] if self._resident else self._send(self._images[index])

    def _send(self, values: Tensor) -> Tensor:
        # to the device, without waiting for it
        values = values.pin_memory() if self.device.type == "cuda" else values
        return values.to(self.device, non_blocking=True)

    def _crops(self, plan: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        self._plan.rows, self._plan.epoch = plan, epoch
        if self._loader is None:
            assert isinstance(self.part, FilePart)
            self._loader = DataLoader(
                _Crops(self.part, self.views, self.seed, self._count),
                batch_sampler=self._plan,
                generator=torch.Generator(),
                num_workers=self._workers,
                worker_init_fn=_calm_worker,
                persistent_workers=self._workers > 0,
                pin_memory=self.device.type == "cuda",
            )
        yield from _in_one_line(self._loader)


def _shuffled(random: np.random.RandomState, count: int, near: int | None) -> NDArray[np.int64]:
    """0..count-1 in random order: as a whole, or ``near`` neighbours at a time, from a random place on."""
    if near is None:
        return random.permutation(count).astype(np.int64)
    edges = [0, *range(1 + random.randint(near), count, near), count]
    pieces = [start + random.permutation(stop - start) for start, stop in itertools.pairwise(edges)]
    return np.concatenate(pieces).astype(np.int64)


class _Plan:
    """A batch sampler that is told what to yield, so that workers live on from epoch to epoch."""

    def __init__(self) -> None:
        self.rows = torch.empty(0, 0, dtype=torch.int64)
        self.epoch = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for row in self.rows:
            yield [(self.epoch, i) for i in row.tolist()]

    def __len__(self) -> int:
        return len(self.rows)


class _Crops(TorchDataset[tuple[int, Tensor]]):
    """(epoch, i) -> i and the crops of all views of image i, uint8 (V,C,S,S). Runs in workers."""

    def __init__(self, part: FilePart, views: Views, seed: int, count: int) -> None:
        self.part, self.views, self.seed, self.count = part, views, seed, count

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor]:
        epoch, i = key
        crops = self.views.crops(i, seed=self.seed, epoch=epoch, count=self.count)
        return i, crops.cut(self.part.read(i, crops.shrink))


def _calm_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole process group: the main process saves and ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _unless_the_trainer_is_gone


def _unless_the_trainer_is_gone(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """A run that stops leaves batches half handed over: to the worker that made them this is no error."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _in_one_line(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader; a worker's bad input comes without the worker's traceback."""
    try:
        yield from loader
    except UsageError as error:
        last = (str(error).strip().splitlines() or [""])[-1]
        raise UsageError(last.removeprefix("stopgrad.errors.UsageError: ")) from error


def evaluation_batches(
    part: Part,
    size: int,
    batch_size: int = 256,
    *,
    device: torch.device | str = "cpu",
    workers: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images of a part in order, as ``evaluation_view`` shows them.

    Yields:
        index int64 (B,) on the CPU, images float32 (B,C,size,size) in [0, 1] on the device.
    """
    if isinstance(part, ArrayPart):
        for index in torch.arange(len(part)).split(batch_size):
            images = part.images[index[0] : index[-1] + 1].to(device)
            yield index, evaluation_view(images, size)
        return
    loader = DataLoader(
        _Plain(part, size),
        batch_size=batch_size,
        generator=torch.Generator(),
        num_workers=min(processors() if workers is None else workers, -(-len(part) // batch_size)),
        worker_init_fn=_calm_worker,
        pin_memory=torch.device(device).type == "cuda",
    )
    for index, images in _in_one_line(loader):
        yield index, images.to(device, non_blocking=True)


class _Plain(TorchDataset[tuple[int, Tensor]]):
    """i -> i and the evaluation view of image i, float32 (C,size,size). Runs in workers."""

    def __init__(self, part: Part, size: int) -> None:
        self.part, self.size = part, size

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, i: int) -> tuple[int, Tensor]:
        return i, evaluation_view(self.part[i][None], self.size)[0]
