"""The ledger in the explorer is the ledger's page."""

import json
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from stopgrad.experiments.page import figures, html
from stopgrad.experiments.page.__main__ import read
from stopgrad.experiments.papers import EXPERIMENTS
from stopgrad.explorer.app import create_app
from stopgrad.explorer.views import VIEWS

from .conftest import HOME

STORE = Path(__file__).parents[2] / "results" / "ledger"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A client of a store of three theorems' trials, and of a phase diagram's."""
    store = tmp_path_factory.mktemp("store")
    wanted = [
        record.spec
        for row in read(STORE)
        if row.experiment.id
        in ("tian2021-fig3", "tian2021-decoupled", "raft2021-thm4.1", "tian2021-phase-linear-alpha")
        for of_seed in row.records.values()
        for record in of_seed.values()
    ]
    for path in STORE.glob("*.json"):
        if json.loads(path.read_text())["spec"] in wanted:
            shutil.copy(path, store)
    return TestClient(create_app([], store), base_url=HOME), store


def test_every_claim_is_listed(ledger):
    client, _ = ledger
    listed = client.get("/api/ledger").json()
    assert [claim["id"] for claim in listed] == list(EXPERIMENTS)
    verdicts = {claim["id"]: (claim["verdict"], claim["tone"]) for claim in listed}
    assert verdicts["tian2021-fig3"] == ("holds", "good")
    assert verdicts["tian2021-tbl1"] == ("not finished", "none")


def test_a_claim_is_that_of_the_page(ledger):
    client, store = ledger
    (row,) = (row for row in read(store) if row.experiment.id == "tian2021-fig3")
    assert client.get("/api/ledger/tian2021-fig3").json() == {
        "id": "tian2021-fig3",
        "html": html.experiment(row),
        "command": "stopgrad reproduce tian2021-fig3",
    }


def test_networks_trained_over_the_axes_of_a_phase_diagram(ledger, tmp_path):
    client, store = ledger
    (row,) = (row for row in read(store) if row.experiment.id == "tian2021-phase-linear-alpha")
    axes = {"x": "alpha_p=0.01:30:41:log", "y": "eta=0:0.4:41"}
    (picture,) = client.get("/api/views/phase/trained", params=axes).json()["pictures"]
    assert picture["name"] == row.experiment.id
    assert picture["data"] == json.loads(figures.draw(row).to_json(engine="json"))["data"]
    # of these axes nothing was run here, and over those nothing is anywhere
    assert client.get("/api/views/phase/trained").json() == {"pictures": []}
    elsewhere = {"x": "p0=-1:1.5:41", "y": "s0=0:1.5:41"}
    assert client.get("/api/views/phase/trained", params=elsewhere).json() == {"pictures": []}
    nowhere = TestClient(create_app([], tmp_path / "none"), base_url=HOME)
    assert nowhere.get("/api/views/phase/trained", params=axes).json() == {"pictures": []}


def test_the_claims_with_trained_networks_exist():
    named = {name for view in VIEWS.values() for names in view.trained.values() for name in names}
    assert named
    assert named <= set(EXPERIMENTS)


def test_an_unknown_claim_and_a_missing_store_are_said(ledger, tmp_path):
    client, _ = ledger
    assert client.get("/api/ledger/tian2021-fig99").status_code == 404
    nowhere = TestClient(create_app([], tmp_path / "none"), base_url=HOME)
    answer = nowhere.get("/api/ledger")
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith("no ledger here; `stopgrad reproduce all` makes one")
