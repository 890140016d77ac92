"""Two processes do what one does on the joint batch; signals and kills leave a run that can go on."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from stopgrad import jobs
from stopgrad.errors import PeerLost, UsageError
from stopgrad.training.distributed import cluster, launch, peers, restartable
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
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TWO = [
    *TORCHRUN,
    "-m",
    "stopgrad",
    "pretrain",
    "--quiet",
    *SMALL,
]


def start(command, *more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*map(str, command), *map(str, more)], env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def learner(path):
    return torch.load(RunFolder(path).checkpoint, weights_only=True)["learner"]


# EMA, the closed-form predictor and its reduced correlation; MLP
@pytest.mark.parametrize("method", ["directpred", pytest.param("byol", marks=pytest.mark.slow)])
def test_two_processes_equal_one_on_the_joint_batch(method, tmp_path, quick):
    few = ["--method", method, "--set", "data.limit=128", "--lr", "0.05"]  # rounding grows with the steps
    status, out, err = finish(start(TWO, *few, "--out", tmp_path / "2", "--json"))
    assert status == 0, err
    assert err == ""  # nothing of the libraries between
    summary = json.loads(out)  # one document, from the first process alone
    alone = jobs.pretrain(out=tmp_path / "1", config=RunFolder(tmp_path / "2").config, show_progress=False)
    assert summary["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    modes = [list(RunFolder(tmp_path / name).rows())[-1].get("modes") for name in "12"]
    assert (modes[0] is None) == (method == "byol")  # an MLP has none
    if modes[0] is not None:
        for name, value in modes[0].items():
            assert modes[1][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    first, second = learner(tmp_path / "1"), learner(tmp_path / "2")
    assert first.keys() == second.keys()
    for name, w in first.items():
        torch.testing.assert_close(second[name], w, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_two_compiled_processes_equal_eager_ones(tmp_path):
    few = ["--method", "byol", "--set", "data.limit=128", "--lr", "0.05", "--json"]
    summaries = []
    for mode in ("none", "default"):
        status, out, err = finish(start(TWO, *few, "--compile", mode, "--out", tmp_path / mode))
        assert status == 0, err
        summaries.append(json.loads(out))
    eager, compiled = summaries
    assert (eager["compiled"], compiled["compiled"]) == (None, "default")
    assert compiled["loss"] == pytest.approx(eager["loss"], abs=1e-5)
    first, second = (learner(tmp_path / mode) for mode in ("none", "default"))
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


@pytest.mark.slow
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


def ranks():
    path = Path(__file__).parents[1] / "ranks.py"
    spec = importlib.util.spec_from_file_location("ranks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


IN_PAIRS = ["stopgrad", "pretrain", "--quiet", *SMALL, *LONGER]


def test_a_killed_process_ends_the_others_with_a_message_and_a_checkpoint(tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = ranks().start("torchrun", 2, *IN_PAIRS, "--out", folder.path)
    _, second = map(int, process.stdout.readline().split())
    wait_for_steps(folder, steps=1)
    os.kill(second, signal.SIGKILL)
    status, _, err = finish(process)
    assert status == 1
    assert "process 0 of 2 lost another one" in err
    assert "--resume" in err
    assert "Traceback" not in err
    assert not folder.summary.exists()
    assert torch.load(folder.checkpoint, weights_only=True)["step"] >= 20


@pytest.mark.slow
def test_torchrun_restarts_a_killed_job_and_it_ends_with_the_same_bits(tmp_path, same_state):
    whole, cut = tmp_path / "whole", RunFolder(tmp_path / "cut")
    ranks().run("torchrun", 2, *IN_PAIRS, "--out", whole)
    process = start([*TORCHRUN, "--max-restarts", "1", "-m", *IN_PAIRS], "--out", cut.path)
    wait_for_steps(cut, steps=1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    time.sleep(random.Random().uniform(0, 0.3))
    os.kill(int(children[-1]), signal.SIGKILL)
    status, _, err = finish(process)
    assert status == 0, err
    steps = [int(line.split("from step ")[1].split(":")[0]) for line in started(cut)]
    assert steps[0] == 0
    assert steps[1] >= 20
    same_state(RunFolder(whole).checkpoint, cut.checkpoint)


def started(folder):
    """The lines of the log that say from which step a run went on."""
    return [line for line in folder.log.read_text().splitlines() if "from step" in line]


NAMES = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_MAX_RESTARTS")


@pytest.fixture
def variables(monkeypatch):
    """Set the environment to what a launcher sets, and nothing of another."""
    for name in [*NAMES, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.delenv(name, raising=False)

    def put(changes):
        for name, value in changes.items():
            monkeypatch.setenv(name, str(value))

    return put


SRUN = {"SLURM_NTASKS": 8, "SLURM_NTASKS_PER_NODE": 4, "SLURM_NNODES": 2, "SLURM_PROCID": 5,
        "SLURM_LOCALID": 1, "SLURM_NODEID": 1, "SLURM_STEP_ID": 0, "SLURM_JOB_ID": 77}  # fmt: skip


def test_sruns_variables_name_the_process(variables):
    variables(SRUN)
    found = cluster()
    assert isinstance(found, SLURMEnvironment)
    assert (found.world_size(), found.global_rank(), found.local_rank(), found.node_rank()) == (8, 5, 1, 1)


@pytest.mark.parametrize("change", ["SLURM_STEP_ID", "SLURM_NTASKS"])
def test_what_srun_did_not_start_trains_alone(change, variables):
    """A batch script has its job's variables, but is no step of it."""
    variables({name: value for name, value in SRUN.items() if name != change})
    assert isinstance(cluster(), LightningEnvironment)


def test_a_shell_of_srun_trains_alone(variables):
    variables({**SRUN, "SLURM_JOB_NAME": "bash"})
    assert isinstance(cluster(), LightningEnvironment)


def test_torchrun_inside_srun_counts(variables):
    variables({**SRUN, "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": 16, "RANK": 3})
    found = cluster()
    assert isinstance(found, TorchElasticEnvironment)
    assert (found.world_size(), found.global_rank()) == (16, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"SLURM_NTASKS_PER_NODE": None}, "--ntasks-per-node"), ({"SLURM_NTASKS_PER_NODE": 3}, "every node")],
)
def test_tasks_that_are_not_so_many_a_node_are_refused(changes, says, variables, tiny):
    variables({name: value for name, value in {**SRUN, **changes}.items() if value is not None})
    with pytest.raises(UsageError, match=says):
        launch(tiny(device="cpu"))


@pytest.mark.parametrize(
    ("changes", "resumes"),
    [
        ({}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_MAX_RESTARTS": 0}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_MAX_RESTARTS": 2}, True),
        ({"SLURM_RESTART_COUNT": 1}, True),
    ],
)
def test_a_job_that_may_be_restarted_resumes(changes, resumes, variables, tmp_path, monkeypatch):
    variables(changes)
    assert restartable() == resumes
    asked = []
    monkeypatch.setattr("stopgrad.training.pretrain.run", lambda *a, resume, **k: asked.append(resume))
    jobs.pretrain(out=tmp_path)
    assert asked == [resumes]
    if resumes:
        with pytest.raises(UsageError, match="may be restarted: needs --out"):
            jobs.pretrain()


class Pair:
    world_size, global_rank = 2, 0


@pytest.mark.parametrize(
    "message",
    [
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1",
        "[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation",
        "NCCL communicator was aborted on rank 1.",
        "[../gloo/transport/tcp/pair.cc:1] Read error [127.0.0.1]:5: Connection reset by peer. This is so",
    ],
)
def test_a_failed_message_is_told_from_other_errors(message):
    with pytest.raises(PeerLost, match="process 0 of 2") as lost, peers(Pair()):
        raise RuntimeError(message)
    assert "\n" not in str(lost.value)
    assert "[/" not in str(lost.value)
    assert "This is" not in str(lost.value)
    with pytest.raises(RuntimeError, match="shapes") as other, peers(Pair()):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not isinstance(other.value, PeerLost)
