"""Checkpoints: one file that continues a run exactly, loaded without running any code from it."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stopgrad.errors import UsageError
from stopgrad.files import whole_file

FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` (tensors, numbers, strings, lists, dictionaries) whole or not at all."""
    with whole_file(path) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU, admitting tensors and plain values only.

    Raises:
        UsageError: when there is no such file, when it is damaged or holds anything that would run code, or
            when it is of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path}: not a checkpoint that can be trusted ({reason[:160]})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path}: not a stopgrad checkpoint of format {FORMAT}")
    return content
