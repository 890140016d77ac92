"""Runs in the explorer: what is listed, compared and shown, and what is said when a file changes."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
from urllib.request import urlopen

import numpy as np
import pytest
from starlette.testclient import TestClient

from stopgrad.errors import UsageError
from stopgrad.explorer.app import create_app
from stopgrad.explorer.runs import Run, named
from stopgrad.report.figures import COMPARED, comparison
from stopgrad.report.html import render
from stopgrad.report.run_files import read_run
from stopgrad.training.settings import resolve

from .conftest import HOME, write_run


def append(folder, epoch, **more):
    row = {"kind": "epoch", "step": 4 * epoch, "epoch": epoch, "loss": -0.9, "knn": 0.7, **more}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "one")


def test_a_run_is_listed_by_what_it_has(client):
    content = client.get("/api/runs").json()
    (listed,) = content["runs"]
    assert (listed["name"], listed["epoch"], listed["ended"]) == ("one", 3, False)
    assert content["measures"] == COMPARED


def test_folders_of_one_name_are_told_apart(tmp_path):
    folders = [write_run(tmp_path / parent / "run") for parent in "abc"]
    runs = named(folders)
    assert list(runs) == ["run", "run-2", "run-3"]
    assert [run.path for run in runs.values()] == folders


def test_a_report_is_that_of_the_page(client, run):
    page = render(read_run(run))
    report = client.get("/api/runs/one").json()
    assert report["header"] in page
    for section in report["sections"]:
        assert section in page


def test_an_outline_is_the_report_but_for_what_is_being_computed(folder, tmp_path):
    client = TestClient(create_app([folder], tmp_path), base_url=HOME)
    first = client.get("/api/runs/one/outline").json()
    report = client.get("/api/runs/one").json()
    assert (first["whole"], report["whole"]) == (False, True)
    changed = [
        section[: section.index(">")]
        for section, last in zip(first["sections"], report["sections"], strict=True)
        if section != last
    ]
    assert changed == [f'<section id="{name}"' for name in ("evidence", "charts", "neighbours", "map")]
    coming = '<p class="note">Being computed …</p>'
    assert [section.count(coming) for section in first["sections"]] == [0, 1, 1, 1, 1, 0]
    for figure in first["sections"][2].split("<figure>")[1:]:
        assert coming in figure or figure in report["sections"][2]
    assert client.get("/api/runs/one/outline").json() == report  # it has been made
    append(folder, 4)
    assert not client.get("/api/runs/one/outline").json()["whole"]


def test_the_map_of_an_evaluated_run_comes_apart_and_is_that_of_the_page(folder, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"h": rng.normal(size=(20, 6)).astype(np.float32), "labels": np.arange(20) % 2}
    thumbnails, ids = np.zeros((20, 1, 4, 4), np.uint8), [f"image {i}" for i in range(20)]
    np.savez(folder / "evaluation.npz", **arrays, thumbnails=thumbnails, ids=ids)
    client = TestClient(create_app([folder], tmp_path), base_url=HOME)
    report = client.get("/api/runs/one").json()
    (place,) = (section for section in report["sections"] if section.startswith('<section id="map">'))
    assert report["evaluated"]
    assert "plot" not in place
    drawn = client.get("/api/runs/one/map").json()
    assert "image 7" in drawn
    assert drawn in render(read_run(folder))


def test_a_live_run_has_its_predictors_eigenvalues_with_theory_ahead_of_them(folder, tmp_path):
    settings = resolve({"method": "byol-lp", "epochs": 20})
    (folder / "config.yaml").write_text(settings.to_yaml())
    pairs = {
        "p": [0.9, 0.5], "s": [2.0, 0.5], "shared": [0.8, 0.6], "pace": [1.2, 0.9], "alignment": 0.95,
        "z_square": 3.0, "p_square": 2.5,
    }  # fmt: skip
    client = TestClient(create_app([folder], tmp_path), base_url=HOME)
    assert "None were measured" in "".join(client.get("/api/runs/one").json()["sections"])
    for epoch in (4, 5):
        append(folder, epoch, modes=pairs)
    charts = "".join(client.get("/api/runs/one").json()["sections"])
    data = [json.loads(text.split("</script>")[0])["data"] for text in charts.split('application/json">')[1:]]
    (drawn,) = (traces for traces in data if any(trace.get("name") == "2 predicted" for trace in traces)
                if traces[0]["hovertemplate"].count("p<sub>1"))  # fmt: skip
    of = {trace["name"]: read(trace["x"]) for trace in drawn}
    assert of["1"] == [4, 5]
    assert (of["1 predicted"][0], of["1 predicted"][-1]) == (4, 20)


def read(values):
    """Numbers as plotly writes arrays."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
    return values


def test_rows_that_come_later_are_read(folder):
    run = Run("one", folder)
    assert len(run.files().epochs) == 3
    assert run.files() is run.files()
    append(folder, 4)
    assert [row["epoch"] for row in run.files().epochs] == [1, 2, 3, 4]
    (folder / "summary.json").write_text(json.dumps({"verdict": "healthy"}))
    assert run.describe()["ended"]


def test_an_event_comes_first_and_whenever_a_file_changes(folder):
    async def listen():
        events = Run("one", folder).events(ending=lambda: False)
        first = await anext(events)
        later = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.8)
        assert not later.done()
        append(folder, 4)
        return first, await asyncio.wait_for(later, 5)

    first, second = (json.loads(event.removeprefix("data: "))["bytes"] for event in asyncio.run(listen()))
    assert first < second == (folder / "metrics.jsonl").stat().st_size


def test_events_end_with_a_file_that_leads_out(folder, tmp_path):
    async def listen():
        events = Run("one", folder).events(ending=lambda: False)
        await anext(events)
        (folder / "config.yaml").symlink_to("/etc/hostname")
        return [event async for event in events]

    assert asyncio.run(asyncio.wait_for(listen(), 5)) == []


def test_ctrl_c_does_not_wait_for_a_page_that_follows_a_run(folder):
    command = [sys.executable, "-m", "stopgrad", "explore", str(folder), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        address = server.stdout.readline().split()[2]
        with urlopen(f"{address}/api/runs/one/events", timeout=30) as events:
            assert events.readline().startswith(b"data:")
            server.send_signal(signal.SIGINT)
            said = server.communicate(timeout=10)[1]
    assert "Traceback" not in said


@pytest.mark.parametrize("damage", ["{", "[1]"])
def test_a_damaged_run_is_named_and_the_others_are_shown(damage, folder, tmp_path):
    other = write_run(tmp_path / "two")
    (folder / "summary.json").write_text(damage)
    client = TestClient(create_app([folder, other], tmp_path), base_url=HOME)
    first, second = client.get("/api/runs").json()["runs"]
    assert "summary.json" in first["problem"]
    assert second["epoch"] == 3
    assert client.get("/api/runs/one").status_code == 422
    assert client.get("/api/runs/two").status_code == 200


@pytest.mark.parametrize("name", COMPARED)
def test_a_comparison_has_a_line_for_each_run(name):
    rows = [
        {"epoch": float(i), "knn": 0.1 * i, "loss": -i, "z": dict.fromkeys(COMPARED, 0.2 * i)}
        for i in range(4)
    ]
    figure = comparison({"<b>a</b>": rows, "b": rows[:2], "none": []}, name)
    assert [trace.name for trace in figure.data] == ["&lt;b&gt;a&lt;/b&gt;", "b"]
    expected = {"knn": 10.0, "loss": -1.0}.get(name, 0.2) * np.arange(4)
    np.testing.assert_allclose(figure.data[0].y, expected, rtol=1e-6)
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == 2


def test_what_cannot_be_compared_is_refused(client):
    assert client.get("/api/compare?run=one&measure=colour").status_code == 422
    assert client.get("/api/compare?measure=std").status_code == 422
    assert client.get("/api/compare?run=two&measure=std").status_code == 404
    assert client.get("/api/compare?measure=std" + "&run=one" * 21).status_code == 422
    with pytest.raises(UsageError, match="'effective_rank'"):
        comparison({}, "effective-rank")
