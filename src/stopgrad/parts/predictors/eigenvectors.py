"""Linear algebra on small matrices in the midst of a training step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def eigenvectors(f: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., D) and eigenvectors (..., D, D) of symmetric matrices (..., D, D).

    Where a matrix is not finite the eigenvalues are NaN: ``torch.linalg.eigh`` would raise, and it is for the
    trainer to say that a run diverged.
    """
    values, vectors = torch.linalg.eigh(f.nan_to_num(0.0, 0.0, 0.0))
    return values.where(f.isfinite().all(), torch.nan), vectors


@contextmanager
def one_thread(f: Tensor) -> Iterator[None]:
    """One thread of the CPU inside, for matrices of widths up to 1024.

    The threads of a decomposition wait for each other after every one of thousands of short pieces. On two
    processors one thread is quicker even when they are idle; when they are busy, a hundred times quicker.
    """
    threads = torch.get_num_threads()
    if f.device.type != "cpu" or f.shape[-1] > 1024 or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
