"""Two gloo processes with a loss of the joint batch against one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stopgrad.parts.ranks import joint, joint_means, world_size

SCRIPT = Path(__file__).with_name("joint_ranks.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    both = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), folder], env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in both:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    """What one process finds on the joint batch."""
    spec = importlib.util.spec_from_file_location("joint_ranks", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.outcome(slice(None))


def test_rows_are_below_each_other_in_the_order_of_the_ranks(ranks, alone):
    for rank in ranks:
        assert torch.equal(rank["rows"], torch.cat([other["z"] for other in ranks]))
        torch.testing.assert_close(rank["rows"], alone["rows"], rtol=0, atol=1e-14)
        assert torch.equal(rank["single"], torch.tensor([0.0, 0, 1, 1])[:, None].expand(4, 3))
    strided = torch.arange(12.0).view(3, 4).T[:, :2]
    assert torch.equal(ranks[0]["strided"], torch.cat([strided, strided + 100]))


def test_every_rank_has_the_loss_of_the_joint_batch(ranks, alone):
    assert torch.equal(ranks[0]["loss"], ranks[1]["loss"])
    torch.testing.assert_close(ranks[0]["loss"], alone["loss"], rtol=0, atol=1e-12)


def test_the_mean_gradient_over_ranks_is_that_of_the_joint_batch(ranks, alone):
    for first, second, expected in zip(
        ranks[0]["weights"], ranks[1]["weights"], alone["weights"], strict=True
    ):
        assert torch.equal(first, second)  # DDP took the mean
        torch.testing.assert_close(first, expected, rtol=1e-12, atol=1e-13)
        assert expected.abs().max() > 1e-3


def test_rows_get_the_sum_of_what_all_ranks_compute(ranks, alone):
    torch.testing.assert_close(torch.cat([rank["by_z"] for rank in ranks]), 2 * alone["by_z"])


def test_constants_stay_constants(ranks):
    assert not any(rank["graph"] for rank in ranks)


def test_one_process_has_the_joint_batch_already():
    x = torch.randn(3, 2)
    assert world_size() == 1
    assert joint(x) is x
    means = joint_means({"a": x.sum(0), "b": x.T @ x}, len(x))
    torch.testing.assert_close(means, {"a": x.mean(0), "b": x.T @ x / 3})
