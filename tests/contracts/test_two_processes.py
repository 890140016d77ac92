"""Every method of the catalogue: two processes under DDP do what one does on the joint batch."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stopgrad.catalog import CATALOG
from stopgrad.training.distributed import launch

SCRIPT = Path(__file__).with_name("two_processes.py")
STEP, RUN = 1e-9, 1e-6
"""How near step 1 and the whole run must be."""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes saved, by the method's name: one launch for all of them."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, SCRIPT, folder], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_near(found, expected, near, where):
    torch.testing.assert_close(found, expected, rtol=near, atol=near, msg=lambda m: f"{where}: {m}")


@pytest.mark.parametrize("name", CATALOG)
def test_two_processes_do_what_one_does_on_the_joint_batch(name, ranks, script):
    first, second = (rank[name] for rank in ranks)
    assert not isinstance(first, str), first
    assert not isinstance(second, str), second
    alone = script.train(name, launch(script.settings(name)))
    losses = (first["losses"] + second["losses"]) / 2
    assert_near(losses[0], alone["losses"][0], STEP, "loss of step 1")
    assert_near(losses, alone["losses"], RUN, "losses")
    assert alone["gradients"]
    for part, near in (("gradients", STEP), ("state", RUN)):
        assert first[part].keys() == second[part].keys() == alone[part].keys()
        for key, expected in alone[part].items():
            assert torch.equal(first[part][key], second[part][key]), f"{part} {key}: differs between ranks"
            assert_near(first[part][key], expected, near, f"{part} {key}")
