"""Numbers, devices and threads: what "auto" means on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch

from stopgrad.errors import UsageError
from stopgrad.networks.encoders import CONVNET_S

Precision = Literal["fp32", "bf16", "fp16"]
FABRIC: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def resolve_device(name: str) -> str:
    """ "auto" is CUDA, else MPS, else the CPU.

    Raises:
        UsageError: when the device asked for is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise UsageError(f"device: no {name} device here; there is {', '.join(d for d in there if there[d])}")
    return name


def resolve_precision(name: str, device: str) -> Precision:
    """ "auto" is bfloat16 where the hardware multiplies matrices in it, else float32.

    Raises:
        UsageError: for fp16 anywhere but on CUDA, where alone its loss can be scaled.
    """
    if name == "auto":
        return "bf16" if _fast_bf16(device) else "fp32"
    if name == "fp16" and device != "cuda":
        raise UsageError(f"precision: fp16 needs CUDA, the device is {device}; use bf16 or fp32")
    return cast(Precision, name)


def resolve_threads(threads: int | Literal["auto"], device: str, encoder: str) -> int:
    """ "auto" is one thread for convnet-s on the CPU, else torch's own number."""
    if threads != "auto":
        return threads
    return 1 if (device, encoder) == ("cpu", CONVNET_S) else torch.get_num_threads()


@contextmanager
def threads_of_an_operation(count: int | Literal["auto"]) -> Iterator[None]:
    """While open, an operation on the CPU uses ``count`` threads, or "auto" as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count == "auto" else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fast_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
