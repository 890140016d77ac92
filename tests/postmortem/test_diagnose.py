import json
import math
import re

import numpy as np
import pytest
import torch

from stopgrad import diagnostics, jobs
from stopgrad.errors import UsageError
from stopgrad.files import to_json
from stopgrad.postmortem.diagnose import diagnose
from stopgrad.training.settings import resolve

KEYS = {
    *("source", "verdict", "confidence", "first_bad_step", "cause", "measures", "evidence", "fixes"),
}


@pytest.fixture
def vectors(tmp_path, rng):
    def save(name, x):
        np.save(tmp_path / f"{name}.npy", x)
        return tmp_path / f"{name}.npy"

    return save


def isotropic(rng, rows=2000, dim=64):
    return rng.normal(size=(rows, dim)).astype(np.float32)


# ---- files


def test_measures_are_those_of_the_pure_functions(vectors, rng):
    x = isotropic(rng, 700) * np.geomspace(1, 30, 64) + 3
    measures = diagnose(vectors("x", x))["measures"]
    rows = torch.from_numpy(x)
    expected = {
        "std": diagnostics.embedding_std(rows), "m_o": diagnostics.center_norm(rows),
        "m_r": diagnostics.residual_norm(rows), "effective_rank": diagnostics.effective_rank(rows),
        "uniformity": diagnostics.uniformity(rows),
    }  # fmt: skip
    for name, value in expected.items():
        assert measures[name] == pytest.approx(float(value), rel=1e-6), name
    assert measures["spectrum"] == pytest.approx(diagnostics.spectrum(rows, 128).tolist(), abs=1e-9)


def known(rng):
    """name -> vectors and their verdict."""
    bad_row = isotropic(rng)
    bad_row[17, 3] = np.nan
    infinite = isotropic(rng)
    infinite[17, 3] = np.inf
    return {
        "constant": (np.ones((500, 64), np.float32), "complete-collapse"),
        "nearly constant": (1 + 1e-3 * isotropic(rng), "complete-collapse"),
        "rank 3 in 128": (isotropic(rng, dim=3) @ isotropic(rng, 3, 128), "dimensional-collapse"),
        "isotropic": (isotropic(rng), "healthy"),
        "isotropic, whole numbers": ((50 * isotropic(rng)).clip(-127, 127).astype(np.int8), "healthy"),
        "a row with NaN": (bad_row, "diverged"),
        "a row with infinity": (infinite, "diverged"),
        "nothing but NaN": (np.full((20, 8), np.nan, np.float32), "diverged"),
        "zeros": (np.zeros((50, 16), np.float32), "dead-projector"),
        "huge": (1e30 * isotropic(rng), "healthy"),
    }  # fmt: skip


def test_verdicts_of_known_vectors(vectors, rng):
    for name, (x, verdict) in known(rng).items():
        found = diagnose(vectors("x", x))
        assert found["verdict"] == verdict, name
        assert found.keys() == KEYS
        assert found["first_bad_step"] is None
        assert 0.5 <= found["confidence"] <= 1
        assert found["evidence"], name
        assert bool(found["fixes"]) == (verdict != "healthy"), name
        assert all(
            item["of"] == "x" and not re.search(r"\bz\b", item["says"]) for item in found["evidence"]
        ), name
        json.loads(to_json(found))


def test_what_was_read_is_said(tmp_path, rng):
    np.savez(tmp_path / "x.npz", h=isotropic(rng, 30), z=isotropic(rng, 30, 16))
    source = diagnose(tmp_path / "x.npz", key="z")["source"]
    assert source == {
        "kind": "vectors", "path": str(tmp_path / "x.npz"), "format": "npz", "key": "z", "rows": 30,
        "dims": 16, "dtype": "float32",
    }  # fmt: skip


# ---- runs


def node(std, rank=20.0):
    names = ("uniformity", "alignment", "m_o", "m_r")
    return {"std": std, "effective_rank": rank, **dict.fromkeys(names, 0.5), "spectrum": [0.5, 0.5]}


def reading(step, z, p=None, z_eval=None, loss=None):
    loss = -0.5 - step / 1000 if loss is None else loss
    nodes = {"z": z, "p": p or z, "z_eval": z_eval or z}
    return {"kind": "step", "step": step, "loss": loss, "reading": {"nodes": nodes, "scalars": {}}}


def epoch(step, z, p=None, loss=-0.5):
    p = p or z
    return {"kind": "epoch", "step": step, "loss": loss, "z": z, "p": p, "z_train": z, "p_train": p}


def run_folder(path, rows, summary=None, **settings):
    path.mkdir()
    chosen = {"method": "simsiam", "recipe": "digits-smoke", **settings}
    (path / "config.yaml").write_text(resolve(chosen).to_yaml())
    (path / "metrics.jsonl").write_text("".join(to_json(row) + "\n" for row in rows))
    if summary is not None:
        (path / "summary.json").write_text(to_json(summary))
    return path


def ended(row, diverged_at_step=None):
    return {**row, "diverged_at_step": diverged_at_step, "verdict": "?"}


def test_the_first_bad_step_is_where_collapse_set_in_for_good(tmp_path):
    fine, bad = node(0.8), node(0.01)
    rows = [reading(20, bad), reading(40, fine), reading(60, bad), epoch(60, bad), reading(80, bad)]
    found = diagnose(run_folder(tmp_path / "run", rows))
    assert (found["verdict"], found["first_bad_step"]) == ("complete-collapse", 60)
    assert found["source"]["readings"] == 4
    assert not found["source"]["ended"]


def test_measures_are_of_the_summary_or_else_of_the_last_epoch_or_reading(tmp_path):
    rows = [epoch(0, node(0.01)), reading(10, node(0.8))]
    assert diagnose(run_folder(tmp_path / "a", rows))["measures"]["std"] == 0.8
    rows.append(epoch(10, node(0.6), p=node(0.5)))
    assert diagnose(run_folder(tmp_path / "b", rows))["measures"]["std"] == 0.6
    found = diagnose(run_folder(tmp_path / "c", rows, ended(epoch(20, node(0.7), p=node(0.4)))))
    assert (found["verdict"], found["first_bad_step"]) == ("healthy", None)
    assert (found["measures"]["std"], found["measures"]["p"]["std"]) == (0.7, 0.4)
    assert found["source"]["ended"]


def test_a_run_whose_prediction_alone_collapses(tmp_path):
    rows = [reading(20 * i, node(0.8), p=node(0.8 if i < 3 else 0.01)) for i in range(1, 6)]
    found = diagnose(run_folder(tmp_path / "run", rows))
    assert (found["verdict"], found["first_bad_step"]) == ("predictor-collapse", 60)


def test_normalisation_that_carries_the_signal_is_seen_in_evaluation_mode(tmp_path):
    rows = [reading(100 * i, node(0.8), z_eval=node(0.15 if i > 2 else 0.8)) for i in range(6)]
    found = diagnose(run_folder(tmp_path / "run", rows))
    assert (found["verdict"], found["first_bad_step"]) == ("normalisation-leak", 300)


def test_a_diverged_run_names_the_step(tmp_path):
    last = ended(epoch(0, node(math.nan), loss=math.nan), diverged_at_step=17)
    found = diagnose(run_folder(tmp_path / "run", [reading(10, node(0.8))], last))
    assert (found["verdict"], found["first_bad_step"]) == ("diverged", 17)
    early = run_folder(tmp_path / "early", [epoch(0, node(0.8))], last)  # before anything was read
    assert (diagnose(early)["verdict"], diagnose(early)["first_bad_step"]) == ("diverged", 17)


def test_the_parts_of_the_method_name_the_cause(tmp_path):
    rows = [reading(10, node(0.001)), reading(20, node(0.001))]
    without = run_folder(tmp_path / "a", rows, target={"kind": "same", "stop_gradient": False})
    assert "no stop-gradient" in diagnose(without)["cause"]
    identity = run_folder(tmp_path / "b", rows, predictor={"kind": "identity"})
    assert "no predictor" in diagnose(identity)["cause"]
    contrastive = run_folder(tmp_path / "c", rows, method="simclr")
    assert diagnose(contrastive)["cause"] is None


def test_a_real_run_is_read_as_its_summary_has_it(tmp_path):
    out = tmp_path / "run"
    summary = jobs.training.run(
        resolve({
            "method": "simsiam", "recipe": "digits-smoke", "epochs": 1,
            "data": {"name": "digits", "limit": 128}, "evaluation": {"images": 64, "control": False},
        }),
        out, show_progress=False,
    )  # fmt: skip
    found = diagnose(out)
    assert found.keys() == KEYS
    assert found["source"] == {
        "kind": "run", "path": str(out), "method": "simsiam", "ended": True, "readings": 1,
        "last_step": 2, "dims": 64,
    }  # fmt: skip
    for name in ("std", "effective_rank", "m_o", "m_r", "uniformity"):
        assert found["measures"][name] == summary["z"][name]
        assert found["measures"]["z_train"][name] == summary["z_train"][name]


def test_a_run_without_measures_or_with_damaged_files_is_refused(tmp_path):
    fresh = run_folder(tmp_path / "fresh", [epoch(0, node(0.5))])
    with pytest.raises(UsageError, match="nothing was read in this run yet"):
        diagnose(fresh)
    (fresh / "summary.json").write_text("{")
    with pytest.raises(UsageError, match=r"summary\.json: not JSON"):
        diagnose(fresh)
    (fresh / "summary.json").write_text("{}")
    with pytest.raises(UsageError, match="not the summary of a run"):
        diagnose(fresh)
    with pytest.raises(UsageError, match=r"--key z: .* is a run"):
        diagnose(fresh, key="z")


# ---- folders and the command


def test_a_folder_is_one_document_with_a_list(tmp_path, rng, command):
    np.save(tmp_path / "a.npy", isotropic(rng))
    np.save(tmp_path / "b.npy", np.ones((40, 16), np.float32))
    np.save(tmp_path / "c.npy", np.ones((1, 16), np.float32))
    (tmp_path / "notes.txt").write_text("x")
    run_folder(tmp_path / "run", [reading(10, node(0.8))])
    result = command(tmp_path, "--json")
    found = result.json
    assert (result.status, result.err) == (0, "")
    assert [d["verdict"] for d in found["files"]] == ["healthy", "complete-collapse", "healthy"]
    assert [d["source"]["kind"] for d in found["files"]] == ["vectors", "vectors", "run"]
    assert found.keys() == {*KEYS, "files"}
    assert found["verdict"] == "complete-collapse"
    assert found["source"]["worst"] == str(tmp_path / "b.npy")
    assert [s["path"] for s in found["source"]["skipped"]] == [str(tmp_path / "c.npy")]
    page = command(tmp_path).out
    assert all(name in page for name in ("a.npy", "b.npy", "c.npy: 1 vector", "run", "stop the gradient"))


def test_the_page_says_what_the_document_says(vectors, rng, command):
    path = vectors("x", isotropic(rng, dim=3) @ isotropic(rng, 3, 128))
    page = command(path).out
    for text in ("dimensional-collapse", "x.npy", "2000 x 128 float32", "effective_rank", "uniformity",
                 "< 3.1", "fixes", "DirectPred"):  # fmt: skip
        assert text in page


def test_fail_on_collapse_decides_the_exit_status(vectors, rng, command):
    healthy, collapsed = vectors("a", isotropic(rng)), vectors("b", np.ones((40, 16), np.float32))
    assert [command(path, "--json").status for path in (healthy, collapsed)] == [0, 0]
    flags = ("--fail-on-collapse", "--json")
    assert [command(path, *flags).status for path in (healthy, collapsed)] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent"], "absent: no such file or folder"),
        (["one.npy"], "1 vector, at least 7"),
        (["x.npy", "--key", "z"], "--key z"),
        (["x.npy", "--data", "images"], "--data: goes with a checkpoint"),
        (["x.npy", "--image-size", "32"], "--image-size: goes with a checkpoint"),
        (["x.npy", "--model", "timm/resnet18"], "--model: needs --data"),
        (["empty"], "no run and no readable file of vectors"),
        (["x.npy", "--device", "gpu"], "--device: unknown 'gpu'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, rng, monkeypatch, command, arguments, says):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", isotropic(rng))
    np.save("one.npy", isotropic(rng, 1))
    (tmp_path / "empty").mkdir()
    result = command(*arguments)
    assert (result.status, result.out) == (2, "")
    assert says in result.err
    assert result.err.count("\n") == 1
