import json

import pytest
from starlette.testclient import TestClient

from stopgrad.explorer.app import create_app

HOME = "http://127.0.0.1:8474"


def write_run(folder, epochs=3):
    """A run folder as one that is being trained has it."""
    folder.mkdir(parents=True)
    node = {"std": 0.9, "effective_rank": 20.0, "alignment": 0.3, "uniformity": -2.0, "m_o": 0.1, "m_r": 0.9}
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(epochs):
            for step in range(4):
                row = {"kind": "step", "step": 4 * epoch + step + 1, "epoch": epoch, "loss": -0.5, "lr": 0.1}
                file.write(json.dumps(row) + "\n")
            end = {"kind": "epoch", "step": 4 * epoch + 4, "epoch": epoch + 1, "loss": -0.5 - 0.1 * epoch}
            file.write(json.dumps({**end, "knn": 0.5, "z": {**node, "spectrum": [0.6, 0.4]}}) + "\n")
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="session")
def client(run, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return TestClient(create_app([run], store), base_url=HOME)
