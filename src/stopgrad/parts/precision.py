"""Where half precision is not enough."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def single(x: Tensor) -> Tensor:
    """``x`` in float32 at least."""
    return x.float() if x.dtype.itemsize < 4 else x


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32 inside.

    Rounded products would lose the small eigenvalues of a correlation, and a square root by products
    multiplies their errors a thousandfold.
    """
    # the stubs of torch lack the second
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
