"""Two processes do what one does on the joint batch; signals and kills leave a run that can go on."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from stopgrad.training.folder import RunFolder

SMALL = [
    "--data",
    "digits",
    "--recipe",
    "digits-smoke",
    "--epochs",
    "1",
    "--device",
    "cpu",
    "--set",
    "data.limit=256",
    "--set",
    "evaluation.control=false",
    "--set",
    "evaluation.images=64",
    "--set",
    "evaluation.every=9",
]
PRETRAIN = [sys.executable, "-m", "stopgrad", "pretrain", "--quiet"]
ALONE = [*PRETRAIN, *SMALL]
TWO = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "stopgrad",
    "pretrain",
    "--quiet",
    *SMALL,
]


def start(command, *more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *map(str, more)], env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def learner(path):
    return torch.load(RunFolder(path).checkpoint, weights_only=True)["learner"]


# batch normalisation, EMA and MLP; the closed-form predictor and its reduced correlation
@pytest.mark.parametrize("method", ["byol", "directpred"])
def test_two_processes_equal_one_on_the_joint_batch(method, tmp_path):
    few = ["--method", method, "--set", "data.limit=128", "--lr", "0.05"]  # rounding grows with the steps
    one = start(ALONE, *few, "--out", tmp_path / "1")
    assert finish(one)[0] == 0
    status, out, err = finish(start(TWO, *few, "--out", tmp_path / "2", "--json"))
    assert status == 0, err
    summary = json.loads(out)  # one document, from the first process alone
    alone = json.loads(RunFolder(tmp_path / "1").summary.read_text())
    assert summary["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    first, second = learner(tmp_path / "1"), learner(tmp_path / "2")
    assert first.keys() == second.keys()
    for name, w in first.items():
        torch.testing.assert_close(second[name], w, rtol=1e-4, atol=1e-5, msg=name)


def wait_for_steps(folder, steps):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if folder.checkpoint.exists() and sum(r["kind"] == "step" for r in folder.rows()) >= steps:
            return
        time.sleep(0.01)
    raise TimeoutError(folder.path)


LONGER = [
    "--set",
    "data.limit=2048",
    "--epochs",
    3,
    "--method",
    "directpred",
    "--set",
    "checkpoint_minutes=0.003",
]


def test_sigkill_at_a_random_moment_then_resume_gives_the_same_bits(tmp_path, same_state):
    whole = start(ALONE, *LONGER, "--out", tmp_path / "whole")
    assert finish(whole)[0] == 0
    folder = RunFolder(tmp_path / "cut")
    rng = random.Random()
    for kill in range(2):
        process = start(ALONE, *LONGER, "--out", folder.path, "--resume")
        wait_for_steps(folder, steps=1 + kill)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        finish(process)
    status, _, err = finish(start(PRETRAIN, "--out", folder.path, "--resume"))
    assert status == 0, err
    same_state(RunFolder(tmp_path / "whole").checkpoint, folder.checkpoint)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_stop(number, tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = start(ALONE, *LONGER, "--out", folder.path)
    wait_for_steps(folder, steps=1)
    process.send_signal(number)
    status, out, err = finish(process)
    assert status == 128 + number
    assert out == ""
    assert "saved" in err
    assert "--resume" in err
    assert "Traceback" not in err
    assert not folder.summary.exists()
    assert torch.load(folder.checkpoint, weights_only=True)["step"] >= 20
