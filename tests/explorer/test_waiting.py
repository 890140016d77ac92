"""A request whose client has gone, or that takes too long, is not computed to its end."""

import asyncio
import json
from urllib.parse import urlencode

import pytest

from stopgrad.explorer import waiting
from stopgrad.explorer.app import create_app
from stopgrad.theory import solver

BASIN = {"fixed_tau": "off", "eta": 0.05, "basin": True}


@pytest.fixture
def steps(monkeypatch):
    """A list that grows with the solver's steps."""
    taken, advance = [], solver._advance

    def counted(*arguments):
        taken.append(None)
        return advance(*arguments)

    monkeypatch.setattr(solver, "_advance", counted)
    return taken


def ask(folder, steps, leave_after):
    """The answer's status to a client that goes away once the solver has taken so many steps."""
    sent = []

    async def receive():
        while len(steps) < leave_after:
            await asyncio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": "/api/views/mode",
        "raw_path": b"/api/views/mode", "query_string": urlencode(BASIN).encode(), "root_path": "",
        "scheme": "http", "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    asyncio.run(create_app([], folder)(scope, receive, send))
    return sent


def test_a_basin_that_nobody_waits_for_is_given_up(steps, tmp_path):
    ask(tmp_path, steps, leave_after=10**9)
    whole = len(steps)
    steps.clear()
    sent = ask(tmp_path, steps, leave_after=1)
    assert len(steps) < whole / 2
    assert sent[1]["body"] == b"null"
    steps.clear()
    ask(tmp_path, steps, leave_after=0)
    assert len(steps) <= solver.STRIDE


def test_what_takes_too_long_is_refused_in_words(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "LONGEST", 0.0)
    started, body = ask(tmp_path, steps, leave_after=10**9)
    assert started["status"] == 422
    assert "given up after 0 s" in json.loads(body["body"])["detail"]
    assert len(steps) <= solver.STRIDE
