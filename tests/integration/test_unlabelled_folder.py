"""The main job on pictures as they lie about: unlabelled, of many formats, some damaged; and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stopgrad import jobs
from stopgrad.data.sources import DataSettings, load_dataset

EPOCHS, STEPS = 12, 48  # of 4 batches: 157 of the 195 readable pictures are for training
SETTINGS = [
    *("--method", "simsiam", "--model", "convnet-s", "--epochs", str(EPOCHS), "--batch-size", "32"),
    *("--set", "view_size=32", "--set", "schedule.warmup_epochs=1", "--set", "checkpoint_minutes=1e-9"),
    *("--set", "evaluation.every=9", "--set", "projector.hidden=[64]", "--set", "projector.out=32"),
    *("--device", "cpu", "--precision", "fp32"),
]


def command(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stopgrad", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], status: int) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert "Traceback" not in err
    return out, err


def send_after_next_checkpoint(process: subprocess.Popen[str], run: Path, number: int) -> None:
    """A signal as soon as the process has written a checkpoint of its own."""
    checkpoint = run / "checkpoints" / "last.ckpt"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    deadline = time.monotonic() + 200
    while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.005)
    process.send_signal(number)


def step_of(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["step"]


@pytest.fixture
def one_thread():
    """What runs here rounds as what runs there."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_trains_is_stopped_is_killed_resumes_and_embeds(mixed_folder, tmp_path, one_thread, monkeypatch):
    images, damaged = mixed_folder
    readable = sorted({path.name for path in images.iterdir()} - set(damaged))
    assert (len(readable), len(damaged)) == (195, 5)
    run = tmp_path / "run"
    pretrain = ["pretrain", "--data", images, "--out", run, *SETTINGS]

    process = command(*pretrain, "--quiet")
    send_after_next_checkpoint(process, run, signal.SIGTERM)
    out, err = finish(process, 128 + signal.SIGTERM)
    assert out == ""
    assert "stopped by SIGTERM" in err
    assert "--resume" in err
    stopped_at = step_of(run)
    assert 0 < stopped_at < STEPS

    process = command("pretrain", "--out", run, "--resume")  # its settings are in the run
    send_after_next_checkpoint(process, run, signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    assert stopped_at < step_of(run) < STEPS
    assert not (run / "summary.json").exists()

    out, err = finish(command(*pretrain, "--resume", "--json"), 0)
    summary = json.loads(out)
    assert summary == json.loads((run / "summary.json").read_text())
    for name in ("knn", "linear_probe", "linear_probe_raw", "linear_probe_20", "linear_probe_20_raw"):
        assert summary[name] is None
    for name in ("loss", "std", "effective_rank", "alignment", "uniformity"):
        assert np.isfinite(summary[name])
    assert sorted(Path(skipped["path"]).name for skipped in summary["skipped"]) == sorted(damaged)
    assert all(skipped["reason"] for skipped in summary["skipped"])
    log = (run / "train.log").read_text()
    for name in damaged:
        assert log.count(f"{name}: ") == 3  # named each time that the run was begun or taken up
    assert not any(name in log for name in readable)
    assert (run / "report.html").stat().st_size > 10_000
    assert "labels" not in np.load(run / "evaluation.npz")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == list(range(EPOCHS + 1))
    assert not any("knn" in row or "online_probe" in row for row in epochs)

    # the same weights as without a stop, bit for bit
    monkeypatch.setattr("stopgrad.training.pretrain.evaluate_run", lambda *a, **k: {})
    jobs.pretrain(out=tmp_path / "whole", config=run / "config.yaml", show_progress=False)
    cut, whole = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
        for path in (run, tmp_path / "whole")
    )
    assert cut["step"] == whole["step"] == STEPS
    assert cut["learner"].keys() == whole["learner"].keys()
    for name, weight in whole["learner"].items():
        assert torch.equal(cut["learner"][name], weight), name

    out, _ = finish(command("embed", run, "--data", images, "--out", tmp_path / "all.npz", "--json"), 0)
    told = json.loads(out)
    assert (told["images"], told["width"]) == (195, 128)
    assert sorted(Path(skipped["path"]).name for skipped in told["skipped"]) == sorted(damaged)
    file = np.load(tmp_path / "all.npz")
    assert file["ids"].tolist() == readable
    assert file["vectors"].shape == (195, 128)
    assert np.isfinite(file["vectors"]).all()
    assert len(np.unique(file["vectors"], axis=0)) > 190  # of the picture, not of the network alone
    assert "labels" not in file
    assert "classes" not in file

    # each row is of the picture that it names: the run's own test part gives the same vectors by name
    jobs.embed(run, tmp_path / "test.npz", device="cpu")
    own = np.load(tmp_path / "test.npz")
    assert own["ids"].tolist() == list(load_dataset(DataSettings(name=str(images))).test.ids)
    place = {name: i for i, name in enumerate(readable)}
    rows_of_test = file["vectors"][[place[name] for name in own["ids"].tolist()]]
    np.testing.assert_allclose(rows_of_test, own["vectors"], rtol=1e-4, atol=1e-5)
