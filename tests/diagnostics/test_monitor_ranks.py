"""The monitor on models that are spread over ranks."""

import json
import os
import subprocess
import sys

import monitor_ranks
import pytest
from monitor_ranks import JOINT, RANKS
from monitor_readings import numbers
from monitored_net import STEPS

from stopgrad.diagnostics.diagnosis import Reading


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two gloo processes read, by scenario, and the folder that they wrote to."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, monitor_ranks.__file__, folder, str(rank)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    return *(json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)), folder


@pytest.mark.parametrize("name", [*JOINT, *RANKS])
def test_both_ranks_read_the_same(name, two_ranks):
    first, second, _ = two_ranks
    assert first[name] == second[name]
    assert len(first[name]) >= 2


@pytest.mark.parametrize("name", JOINT)
def test_two_ranks_read_what_one_process_reads_of_the_joint_batch(name, two_ranks):
    alone = JOINT[name](None)
    assert len(alone) == STEPS
    for found, expected in zip(two_ranks[0][name], alone, strict=True):
        whole, joint = flattened(found), flattened(expected)
        # the mean of what each rank sees around its own centre
        assert whole.pop("sigma2", 0) == pytest.approx(joint.pop("sigma2", 0), rel=0.2)
        assert whole == pytest.approx(joint, rel=1e-4, abs=1e-6)
    assert all(reading[3]["batch"] == reading[1]["z"]["count"] for reading in two_ranks[0][name])
    assert all((reading[2] is None) == (name == "unequal") for reading in alone)


def flattened(reading):
    step, nodes, loss, scalars = reading
    return numbers(Reading(step, nodes, loss, scalars)) | {"step": step}


def test_a_leak_on_one_rank_is_seen_on_all(two_ranks):
    for results in two_ranks[:2]:
        assert all(reading[3]["target_gradient"] == 1 for reading in results["leak_on_one_rank"])
        assert all(reading[3]["target_gradient"] == 0 for reading in results["attached_first"])


def test_only_the_first_rank_writes(two_ranks):
    written = sorted(path.name for path in two_ranks[2].glob("*.jsonl"))
    assert written == ["attached_first-0.jsonl", "by_step-0.jsonl"]
    assert all(len((two_ranks[2] / name).read_text().splitlines()) == STEPS for name in written)
