"""Numbers and devices: what "auto" means on this machine."""

from typing import Any, Literal, cast

import torch

from stopgrad.errors import UsageError

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


def _fast_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
