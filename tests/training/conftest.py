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
    """Whether two checkpoints hold the same training state, bit for bit."""

    def compare(first: Path, second: Path) -> None:
        left, right = (torch.load(p, weights_only=True) for p in (first, second))
        assert_same(left, right, "")

    return compare


def assert_same(left, right, path):
    assert type(left) is type(right), path
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_same(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{path}.{i}")
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype, path
        assert torch.equal(left, right), path
    else:
        assert left == right, path
