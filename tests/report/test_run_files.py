"""What a report reads of a log."""

import json

import pytest

from stopgrad.files import to_json
from stopgrad.report.run_files import read_run

NODES = {"z": {"std": 0.9, "spectrum": [0.6, 0.4]}, "p": {"std": None}}
READING = {"nodes": NODES, "scalars": {"gradient_norm": 0.5}}


def log(folder, rows):
    (folder / "metrics.jsonl").write_text("".join(to_json(row) + "\n" for row in rows))


def step(i, **more):
    return {"kind": "step", "step": i, "epoch": i / 4, "loss": -0.1 * i, "lr": 0.1, **more}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reading": READING},
        {"reading": {"nodes": {}, "scalars": {}}},
        {"note": 'says ", "reading": " in a text', "last": {"a": {"b": {}}}},
    ],
)
def test_rows_are_the_logs_without_what_the_monitor_read(tmp_path, more):
    rows = [step(1, **more), step(2), {"kind": "epoch", "step": 2, "epoch": 1, "loss": None, "z": NODES["z"]}]
    log(tmp_path, rows)
    run = read_run(tmp_path)
    assert [dict(row) for row in (*run.steps, *run.epochs)] == [
        {key: value for key, value in row.items() if key != "reading"} for row in rows
    ]
    assert run.unreadable_lines == 0


def test_what_comes_after_a_reading_is_kept(tmp_path):
    log(tmp_path, [step(1, reading=READING, lars={"trust": 0.5}), step(2, reading=READING, later=1.0)])
    first, second = read_run(tmp_path).steps
    assert (first["lars"], second["later"]) == ({"trust": 0.5}, 1.0)


def test_a_row_that_a_kill_has_torn_is_counted_wherever_it_is_torn(tmp_path):
    whole = json.dumps(step(2, reading=READING))
    for end in range(1, len(whole)):
        (tmp_path / "metrics.jsonl").write_text(f"{to_json(step(1))}\n{whole[:end]}")
        run = read_run(tmp_path)
        assert (len(run.steps), run.unreadable_lines) == (1, 1), whole[:end]
