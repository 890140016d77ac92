import pickle

import pytest
import torch

from stopgrad.errors import UsageError
from stopgrad.files import whole_file
from stopgrad.training.checkpoint import load_checkpoint, save_checkpoint


class Hostile:
    ran = False

    def __reduce__(self):
        return (exec, ("import tests; tests.ran = True",))


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "last.ckpt"
    save_checkpoint(path, {"w": torch.arange(3), "n": [1, (2.5, "x")], "none": None})
    content = load_checkpoint(path)
    assert torch.equal(content["w"], torch.arange(3))
    assert content["n"] == [1, (2.5, "x")]


def test_hostile_checkpoint_runs_nothing(tmp_path):
    for path, write in (
        (tmp_path / "a.ckpt", lambda p: torch.save({"format": 1, "x": Hostile()}, p)),
        (tmp_path / "b.ckpt", lambda p: p.write_bytes(pickle.dumps(Hostile()))),
    ):
        write(path)
        with pytest.raises(UsageError, match="not a checkpoint"):
            load_checkpoint(path)


def test_damaged_missing_and_foreign_files(tmp_path):
    path = tmp_path / "x.ckpt"
    with pytest.raises(UsageError, match="no such checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, {"w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UsageError, match="not a checkpoint"):
        load_checkpoint(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(UsageError, match="format"):
        load_checkpoint(path)


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_text("old")

    def write():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
