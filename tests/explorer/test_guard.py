"""Only this machine's own page is answered, reading only, and no file outside what was given."""

import json

import pytest
from starlette.testclient import TestClient

from stopgrad.explorer.app import create_app
from stopgrad.explorer.guard import HEADERS, LONGEST

from .conftest import HOME, write_run

PATHS = [
    "/",
    "/dynamics/mode",
    "/static/app.js",
    "/plotly-cartesian.min.js",
    "/page.css",
    "/api/views",
    "/api/runs",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "[", "10.0.0.1"]
)
def test_other_hosts_are_refused(path, host, client):
    assert client.get(path, headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8474", "localhost:8474", "LOCALHOST", "[::1]:8474"])
def test_names_of_this_machine_are_not(host, client):
    assert client.get("/api/views", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8474"]
)
def test_other_origins_are_refused(path, origin, client):
    assert client.get(path, headers={"origin": origin}).status_code == 403


def test_its_own_origin_is_not(client):
    assert client.get("/api/views", headers={"origin": HOME}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "MKCOL"])
@pytest.mark.parametrize("path", ["/", "/api/views", "/api/runs/one"])
def test_nothing_can_be_written(method, path, client):
    assert client.request(method, path).status_code == 405


def test_long_queries_are_refused(client):
    assert client.get("/api/views/mode?" + "a" * (LONGEST + 1)).status_code == 414


@pytest.mark.parametrize("path", [*PATHS, "/nowhere", "/api/views/mode?eta=9"])
def test_every_answer_is_marked(path, client):
    headers = client.get(path).headers
    for name in HEADERS.keys() - {"cache-control"}:
        assert headers[name] == HEADERS[name]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd",
        "/api/runs/..", "/api/runs/%2e%2e", "/api/runs/..%2fone", "/api/runs/%2fetc", "/api/runs/one%2f..",
        "/api/runs/one/../../etc/passwd", "/static/%00", "/api/runs/%00",
    ],
)  # fmt: skip
def test_no_path_leads_out(path, client):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "create_app" not in answer.text


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json", "config.yaml", "evaluation.npz"])
def test_a_link_out_of_the_run_is_not_followed(name, tmp_path):
    folder = write_run(tmp_path / "runs" / "one")
    client = TestClient(create_app([folder], tmp_path), base_url=HOME)
    assert client.get("/api/runs/one").status_code == 200
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"kind": "epoch", "step": 1, "epoch": 1, "method": "hidden"}) + "\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    for path in ("/api/runs/one", "/api/compare?run=one&measure=std"):
        answer = client.get(path)
        assert answer.status_code == 422
        assert "hidden" not in answer.text
    (listed,) = client.get("/api/runs").json()["runs"]
    assert listed == {"name": "one", "problem": f"{folder / name}: leads out of the run's folder"}
