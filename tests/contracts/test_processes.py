"""Every method of the catalogue: several processes under DDP do what one does on the joint batch."""

import importlib.util
from pathlib import Path

import pytest
import torch

from stopgrad.catalog import CATALOG
from stopgrad.evaluation.shares import ALONE
from stopgrad.training.distributed import launch

SCRIPT = Path(__file__).with_name("processes.py")
STEP, RUN = 1e-9, 1e-6
"""How near step 1 and the whole run must be."""
FAMILIES = list({entry.cite: name for name, entry in reversed(CATALOG.items())}.values())
"""The first entry of each paper."""


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


script = module(SCRIPT)
ranks = module(SCRIPT.parents[1] / "ranks.py")


def results(launcher, world, names, folder):
    """What each process saved: one launch for all names."""
    ranks.run(launcher, world, SCRIPT, folder, *names)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return results("torchrun", 2, CATALOG, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return results("srun", 4, FAMILIES, tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def four_of_all(tmp_path_factory):
    return results("srun", 4, CATALOG, tmp_path_factory.mktemp("all"))


def assert_near(found, expected, near, where):
    torch.testing.assert_close(found, expected, rtol=near, atol=near, msg=lambda m: f"{where}: {m}")


def assert_as_one(name, found):
    entries = [rank["entries"][name] for rank in found]
    for entry in entries:
        assert not isinstance(entry, str), entry
    alone = script.train(name, launch(script.settings(name)))
    losses = torch.stack([entry["losses"] for entry in entries]).mean(0)
    assert_near(losses[0], alone["losses"][0], STEP, "loss of step 1")
    assert_near(losses, alone["losses"], RUN, "losses")
    assert alone["gradients"]
    for part, near in (("gradients", STEP), ("state", RUN)):
        for entry in entries:
            assert entry[part].keys() == alone[part].keys()
        for key, expected in alone[part].items():
            for entry in entries[1:]:
                assert torch.equal(entries[0][part][key], entry[part][key]), f"{part} {key}: ranks differ"
            assert_near(entries[0][part][key], expected, near, f"{part} {key}")


@pytest.mark.parametrize("name", CATALOG)
def test_two_processes_do_what_one_does_on_the_joint_batch(name, two):
    assert_as_one(name, two)


@pytest.mark.parametrize("name", FAMILIES)
def test_four_processes_of_slurm_do_what_one_does_on_the_joint_batch(name, four):
    assert_as_one(name, four)


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOG)
def test_four_processes_do_what_one_does_on_the_joint_batch(name, four_of_all):
    assert_as_one(name, four_of_all)


@pytest.mark.parametrize("world", [2, 4])
def test_evaluation_in_shares_gives_every_process_the_numbers_of_one(world, request):
    found = request.getfixturevalue({2: "two", 4: "four"}[world])
    alone = script.evaluate(ALONE)
    for rank in found:
        for name in ("h", "few"):
            assert torch.equal(rank["evaluation"][name], alone[name]), name
        assert rank["evaluation"]["nodes"] == alone["nodes"]
        assert rank["evaluation"]["modes"] == alone["modes"]
        assert rank["evaluation"]["knn"] == alone["knn"]
    assert alone["nodes"]["z"] != alone["nodes"]["z_train"]
    assert len(alone["modes"]["p"]) > 1


def test_the_first_step_of_a_resumed_run_adds_as_later_steps_do(four):
    for rank in four:
        first, second = rank["gradients"]
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
