from pathlib import Path

import pytest
import torch

from stopgrad.training.settings import merge, resolve

# two epochs of eight steps on the bundled digits, nothing measured that a test does not ask for
TINY = {
    "recipe": "digits-smoke",
    "data": {"limit": 512},
    "epochs": 2,
    "evaluation": {"images": 64, "control": False},
}


@pytest.fixture
def tiny():
    """Settings of a run of two epochs, with changes."""
    return lambda **changes: resolve(merge(TINY, changes))


@pytest.fixture
def quick(monkeypatch):
    """Leave out the evaluation at the end."""
    monkeypatch.setattr("stopgrad.training.pretrain.evaluate_run", lambda *a, **k: dict(k))


@pytest.fixture
def same_state():
    """Whether two checkpoints hold the same training state, bit for bit; all that differs is named."""

    def compare(first: Path, second: Path) -> None:
        left, right = (torch.load(p, weights_only=True) for p in (first, second))
        assert not list(differences(left, right, ""))

    return compare


def differences(left, right, path):
    """A line for each place where two nested states differ."""
    if type(left) is not type(right):
        yield f"{path}: {type(left)} and {type(right)}"
    elif isinstance(left, dict):
        if left.keys() != right.keys():
            yield f"{path}: keys {sorted(map(str, left.keys() ^ right.keys()))} in one alone"
        for key in left.keys() & right.keys():
            yield from differences(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        if len(left) != len(right):
            yield f"{path}: {len(left)} and {len(right)} items"
        for i, (a, b) in enumerate(zip(left, right, strict=False)):
            yield from differences(a, b, f"{path}.{i}")
    elif isinstance(left, torch.Tensor):
        if left.dtype != right.dtype or left.shape != right.shape:
            yield f"{path}: {left.dtype} {tuple(left.shape)} and {right.dtype} {tuple(right.shape)}"
        elif not torch.equal(left, right):
            yield f"{path}: by at most {(left.double() - right.double()).abs().max():.3g}"
    elif left != right:
        yield f"{path}: {left} and {right}"
