"""The command line in this process: what it prints, where, and with which exit status."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml

from stopgrad import cli, jobs
from stopgrad.data.sources import DataSettings, load_dataset
from stopgrad.data.views import evaluation_view
from stopgrad.evaluation.vectors import load_vectors
from stopgrad.training.build import load_run

TINY = [
    *("--recipe", "digits-smoke", "--epochs", "2", "--quiet"),
    *("--set", "data.limit=256", "--set", "evaluation.images=64", "--set", "evaluation.control=false"),
]
SUMMARY = {
    *("method", "data", "seed", "epochs", "images_per_second", "loss", "std", "effective_rank"),
    *("alignment", "uniformity", "knn", "linear_probe", "linear_probe_20", "verdict", "run"),
}


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one document on stdout; anything else there fails."""
        return json.loads(self.out)


Stopgrad = Callable[..., Result]


@pytest.fixture
def stopgrad(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Stopgrad:
    """Run a command; stdout and stderr are those of the process, so nothing slips by."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["stopgrad", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, *capfd.readouterr())

    return call


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out report.html, which takes longer than such a run."""
    monkeypatch.setattr("stopgrad.jobs._write_report", lambda folder: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small run of SimSiam that these tests share and none of them changes."""
    out = tmp_path_factory.mktemp("cli") / "run"
    jobs.pretrain(
        {"name": "digits", "limit": 256}, "simsiam", out, recipe="digits-smoke", epochs=2, seed=3,
        predictor={"hidden": 32}, evaluation={"images": 64, "control": False}, show_progress=False,
    )  # fmt: skip
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_run(folder, "cpu").learner.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- bad input

RUN, HERE = "RUN", "HERE"  # the shared run; a scratch folder

BAD = {
    "command": (["pretrian"], ["pretrian"]),
    "flag": (["pretrain", "--epoch", "3"], ["--epoch", "--epochs"]),
    "flag without value": (["pretrain", "--epochs"], ["--epochs"]),
    "ill-typed flag": (["pretrain", "--epochs", "ten"], ["--epochs", "integer"]),
    "ill-typed setting": (["pretrain", "--set", "epochs=ten"], ["epochs", "'ten'", "integer"]),
    "part without value": (["pretrain", "--set", "target=null"], ["target", "directpred", "null"]),
    "explicit views": (
        ["pretrain", "--set", "views={first: [], second: [], size: x}"],
        ["views.size", "'x'", "integer"],
    ),
    "value out of range": (["pretrain", "--lr", "-1"], ["optimizer.lr", "greater than 0"]),
    "unknown setting": (["pretrain", "--set", "predictr.eps=1"], ["predictr", "did you mean 'predictor'"]),
    "unknown nested setting": (
        ["pretrain", "--set", "optimizer.predictor.lr_scal=1"],
        ["optimizer.predictor.lr_scal", "'lr_scale'"],
    ),
    "--set of what is no setting": (["pretrain", "--set", "out=x"], ["out", "unknown setting"]),
    "--set without value": (["pretrain", "--set", "epochs"], ["--set epochs", "path=value"]),
    "method": (["pretrain", "--method", "directpre"], ["did you mean 'directpred'"]),
    "model": (["pretrain", "--model", "convnet-m"], ["encoder.name", "did you mean 'convnet-s'"]),
    "device": (["pretrain", "--device", "gpu"], ["device", "'cuda'"]),
    "precision": (["pretrain", "--precision", "fp64"], ["precision", "'fp32'"]),
    "recipe": (["pretrain", "--recipe", "digit"], ["recipe", "did you mean 'digits'"]),
    "data": (["pretrain", "--data", "digitz"], ["digitz", "did you mean 'digits'"]),
    "folder without images": (["pretrain", "--data", HERE], ["no readable image"]),
    "no such config": (["pretrain", "--config", f"{HERE}/no.yaml"], ["no.yaml", "No such file"]),
    "config is no YAML": (["pretrain", "--config", f"{HERE}/torn.yaml"], ["torn.yaml", "not YAML in line"]),
    "config of another shape": (["pretrain", "--config", f"{HERE}/list.yaml"], ["list.yaml", "mapping"]),
    "config with an unknown setting": (
        ["pretrain", "--config", f"{HERE}/odd.yaml"],
        ["optimizer.momentun", "'momentum'"],
    ),
    "out is a run": (["pretrain", "--out", RUN], ["add --resume"]),
    "out is a file": (["pretrain", "--out", f"{HERE}/list.yaml"], ["list.yaml", "exists"]),
    "resume with another rate": (
        ["pretrain", "--out", RUN, "--resume", "--lr", "0.1"],
        ["optimizer.lr", "0.3 then, 0.1 now"],
    ),
    "resume with another method": (
        ["pretrain", "--out", RUN, "--resume", "--method", "byol"],
        ["method", "'simsiam' then, 'byol' now"],
    ),
    "resume without a run": (["pretrain", "--resume"], ["--resume", "--out"]),
    "init from nothing": (["pretrain", "--init-from", f"{HERE}/no"], ["no such checkpoint"]),
    "probe without run": (["probe", f"{HERE}/no"], ["not a run folder"]),
    "probe without argument": (["probe"], ["RUN"]),
    "probe on unknown data": (["probe", RUN, "--data", "digitz"], ["did you mean 'digits'"]),
    "probe on an unknown device": (["probe", RUN, "--device", "gpu"], ["--device", "cuda"]),
    "embed without out": (["embed", RUN], ["--out"]),
    "embed without run": (["embed", f"{HERE}/no", "--out", f"{HERE}/a.npz"], ["not a run folder"]),
    "suffix": (["embed", RUN, "--out", f"{HERE}/a.csv"], ["a.csv", ".npz or .parquet"]),
    "embed no folder": (["embed", RUN, "--data", f"{HERE}/no", "--out", f"{HERE}/a.npz"], ["no such folder"]),
    "part": (["embed", RUN, "--out", f"{HERE}/a.npz", "--part", "vall"], ["--part", "'val'"]),
    "layer": (["embed", RUN, "--out", f"{HERE}/a.npz", "--layer", "y"], ["--layer", "h, z"]),
    "embed on an unknown device": (
        ["embed", RUN, "--out", f"{HERE}/a.npz", "--device", "tpu"],
        ["--device", "cpu"],
    ),
    "embed into a folder": (["embed", RUN, "--out", f"{HERE}/a_folder.npz"], ["a_folder.npz", "directory"]),
    "format": (["export", RUN, "--format", "onx"], ["--format", "did you mean 'onnx'"]),
    "format that cannot hold it": (
        ["export", RUN, "--format", "timm", "--out", f"{HERE}/timm"],
        ["timm", "safetensors, torch, onnx"],
    ),
    "cite": (["cite", "byool"], ["did you mean 'byol'"]),
    "methods": (["methods", "byool"], ["did you mean 'byol'"]),
}


def files(*roots: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for root in roots for path in root.rglob("*")}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, stopgrad, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.yaml").write_text("epochs: 3\nseed: [1,\n")
    (tmp_path / "list.yaml").write_text("- epochs\n")
    (tmp_path / "odd.yaml").write_text("optimizer: {momentun: 0.5}\n")
    (tmp_path / "a_folder.npz").mkdir()
    before = files(tmp_path, run)
    arguments, words = BAD[case]
    places = {RUN: str(run), HERE: str(tmp_path)}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    result = stopgrad(*arguments)
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("stopgrad: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err
    assert files(tmp_path, run) == before


def test_a_faulty_program_is_not_called_bad_input(stopgrad, monkeypatch):
    """A bug must show its traceback: only what the caller can mend is one line."""

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("stopgrad.jobs.probe", broken)
    monkeypatch.setattr(sys, "argv", ["stopgrad", "probe", "x"])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


# ---- what each verb prints


def test_without_a_command_it_helps(stopgrad):
    result = stopgrad()
    assert result.status == 0
    for verb in ("pretrain", "probe", "embed", "export", "methods", "cite"):
        assert verb in result.out
        assert stopgrad(verb, "--help").status == 0


def test_methods_and_cite(stopgrad):
    listed = stopgrad("methods", "--json")
    assert listed.status == 0
    for row in listed.json["methods"]:
        assert {"name", "title", "paper", "cite", "parts", "equation", "notes"} <= row.keys()
    assert [row["name"] for row in stopgrad("methods", "byol", "--json").json["methods"]] == ["byol"]
    table = stopgrad("methods").out
    assert all(row["name"] in table for row in listed.json["methods"])
    explained = stopgrad("methods", "directpred").out
    assert "L = 0.5 d(p1, t2)" in explained
    assert "Algorithm 1" in explained
    cited = stopgrad("cite", "directpred", "--json")
    assert cited.json.keys() == {"name", "bibtex"}
    assert cited.json["bibtex"].startswith("@inproceedings{tian2021directpred")
    assert stopgrad("cite", "directpred").out.strip() == cited.json["bibtex"]
    assert stopgrad("cite").out.startswith("@software{stopgrad")


def test_pretrain_prints_the_summary(stopgrad, tmp_path, unreported):
    out = tmp_path / "run"
    result = stopgrad("pretrain", "--method", "directpred", *TINY, "--seed", 5, "--out", out, "--json")
    assert result.status == 0
    summary = result.json
    assert summary.keys() >= SUMMARY
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["method"], summary["data"], summary["seed"], summary["epochs"], summary["run"]) == (
        "directpred", "digits", 5, 2, str(out),
    )  # fmt: skip
    assert all(0 <= summary[name] <= 1 for name in ("knn", "linear_probe", "linear_probe_20"))
    assert summary["verdict"] in ("healthy", "complete-collapse", "dimensional-collapse", "diverged")


def test_progress_goes_to_stderr(stopgrad, tmp_path, unreported):
    quick = [argument for argument in TINY if argument != "--quiet"]
    result = stopgrad("pretrain", *quick, "--out", tmp_path / "run", "--json")
    assert result.json["epochs"] == 2
    assert "epoch 2" in result.err


@pytest.mark.parametrize(("verdict", "status"), [("healthy", 0), ("complete-collapse", 1), ("diverged", 1)])
def test_fail_on_collapse_by_the_verdict(verdict, status, stopgrad, run, monkeypatch):
    summary = json.loads((run / "summary.json").read_text()) | {"verdict": verdict}
    monkeypatch.setattr("stopgrad.jobs.pretrain", lambda **_: summary)
    assert stopgrad("pretrain", "--fail-on-collapse").status == status
    # not asked for: bad news is no failure, but a run that broke down is
    assert stopgrad("pretrain").status == (1 if verdict == "diverged" else 0)


def test_fail_on_collapse_in_earnest(stopgrad, tmp_path, unreported):
    """Without stop-gradient z collapses within seconds; with it it does not."""
    options = [*TINY, "--epochs", 6, "--set", "data.limit=512", "--lr", 0.5, "--fail-on-collapse", "--json"]
    collapsed = stopgrad("pretrain", *options, "--method", "byol-nosg", "--out", tmp_path / "a")
    assert collapsed.status == 1
    assert "collapse" in collapsed.json["verdict"]
    healthy = stopgrad("pretrain", *options, "--method", "simsiam", "--out", tmp_path / "b")
    assert healthy.json["verdict"] == "healthy"
    assert healthy.status == 0


def test_a_run_is_reported_in_words(stopgrad, tmp_path, unreported):
    text = stopgrad("pretrain", *TINY, "--out", tmp_path / "run").out
    for word in ("verdict", "linear_probe", "effective_rank", "none, see train.log"):
        assert word in text


def test_probe(stopgrad, run):
    result = stopgrad("probe", run, "--json")
    summary = json.loads((run / "summary.json").read_text())
    assert result.json.keys() >= {"run", "data", "step", "knn", "linear_probe", "linear_probe_20"}
    for name in ("knn", "linear_probe", "linear_probe_raw", "linear_probe_20"):
        assert result.json[name] == summary[name]
    assert f"{100 * summary['knn']:.1f} %" in stopgrad("probe", run).out


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_embed(suffix, stopgrad, run, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    for layer, part in (("h", "test"), ("z", "val")):
        by_command, by_function = tmp_path / f"a.{suffix}", tmp_path / "b.npz"
        result = stopgrad("embed", run, "--out", by_command, "--layer", layer, "--part", part, "--json").json
        answer = jobs.embed(run, by_function, layer=layer, part=part)
        assert result == answer | {"out": str(by_command)}
        written, expected = load_vectors(by_command), load_vectors(by_function)
        assert torch.equal(written.vectors, expected.vectors)
        assert written.vectors.shape == (result["images"], result["width"])
        assert written.ids == expected.ids
        assert torch.equal(written.labels, expected.labels)
        assert written.classes == expected.classes
        # and all of it is what the encoder makes of the data, in its order
        loaded, images = load_run(run, "cpu"), getattr(load_dataset(DataSettings()), part)
        with torch.no_grad():
            shown = loaded.embedder.normalise(evaluation_view(images.images[:32], 16))
            vectors = loaded.learner.embed(shown)[0 if layer == "h" else 1]
        torch.testing.assert_close(written.vectors[:32], vectors, rtol=1e-4, atol=1e-5)
        assert torch.equal(written.labels, images.labels)
        assert list(written.ids) == list(images.ids)


def test_embed_a_folder_of_classes(stopgrad, run, tmp_path):
    image = pytest.importorskip("PIL.Image")
    for i, name in enumerate(("b/1.png", "a/2.png", "a/1.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((20, 30), 80 * i, np.uint8)).save(path)
    result = stopgrad("embed", run, "--data", tmp_path / "images", "--out", tmp_path / "a.npz", "--json")
    assert (result.json["images"], result.json["skipped"]) == (3, [])
    written = load_vectors(tmp_path / "a.npz")
    assert written.ids == ("a/1.png", "a/2.png", "b/1.png")
    assert written.labels.tolist() == [0, 0, 1]
    assert written.classes == ("a", "b")


def test_export_safetensors(stopgrad, run, tmp_path):
    result = stopgrad("export", run, "--out", tmp_path, "--json").json
    assert result.keys() == {"run", "format", "model", "description", "max_difference"}
    assert result["format"] == "safetensors"
    assert Path(result["model"]).read_bytes() == (run / "exported" / "encoder.safetensors").read_bytes()
    assert json.loads(Path(result["description"]).read_text())["method"] == "simsiam"


def test_export_torch_is_the_encoder(stopgrad, run, tmp_path):
    """The command reads it back in a process without stopgrad (tests/test_exports.py); here, its outputs."""
    result = stopgrad("export", run, "--format", "torch", "--out", tmp_path, "--json").json
    assert result["max_difference"] <= 1e-5
    images = torch.randn(5, 1, 16, 16)
    with torch.no_grad():
        expected = load_run(run, "cpu").learner.encoder(images)
        found = torch.export.load(result["model"]).module()(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# ---- settings


def test_the_config_of_a_run_runs_it_again(stopgrad, run, tmp_path, unreported):
    out = tmp_path / "again"
    assert stopgrad("pretrain", "--config", run / "config.yaml", "--out", out, "--quiet").status == 0
    assert (out / "config.yaml").read_text() == (run / "config.yaml").read_text()
    assert same(weights(out), weights(run))


@pytest.fixture
def settled(stopgrad, monkeypatch, run) -> Callable[..., dict[str, Any]]:
    """The complete settings that a command would train with."""
    seen: list[dict[str, Any]] = []
    summary = json.loads((run / "summary.json").read_text())

    def note(settings, *_, **__):
        seen.append(yaml.safe_load(settings.to_yaml()))
        return summary

    monkeypatch.setattr("stopgrad.training.pretrain.run", note)
    monkeypatch.setattr("stopgrad.jobs._write_report", lambda folder: None)

    def call(*arguments: object) -> dict[str, Any]:
        result = stopgrad("pretrain", *arguments)
        assert result.status == 0, result.err
        return seen.pop()

    return call


def test_flags_go_over_the_file(settled, run):
    plain = settled("--config", run / "config.yaml")
    assert plain == yaml.safe_load((run / "config.yaml").read_text())
    changed = settled(
        "--config", run / "config.yaml", "--epochs", 4, "--lr", 0.125, "--seed", 9, "--batch-size", 32,
        "--device", "cpu", "--precision", "bf16", "--set", "predictor.hidden=48", "--set", "data.limit=null",
        "--set", "optimizer.clip=1e-1",
    )  # fmt: skip
    del plain["data"]["limit"]
    plain |= {"epochs": 4, "seed": 9, "batch_size": 32, "device": "cpu", "precision": "bf16"}
    plain["predictor"]["hidden"] = 48
    plain["optimizer"] |= {"lr": 0.125, "clip": 0.1}
    assert changed == plain


def test_every_flag_reaches_its_setting(settled):
    found = settled(
        "--data", "cifar10", "--data-dir", "/somewhere", "--download", "--model", "resnet50",
        "--method", "byol-lp",
    )  # fmt: skip
    assert found["data"] == {**found["data"], "name": "cifar10", "dir": "/somewhere", "download": True}
    assert found["encoder"]["name"] == "resnet50"
    assert found["method"] == "byol-lp"
    assert found["predictor"]["kind"] == "linear"
    assert found["views"] == "simclr-32"  # of the data set's recipe


def test_another_method_brings_its_own_parts(settled, run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["target"]["kind"] == "same"
    assert config["projector"]["final_bn"] == "plain"
    other = settled("--config", run / "config.yaml", "--method", "directpred")
    assert (other["target"]["kind"], other["predictor"]["kind"]) == ("ema", "spectral")
    assert other["projector"]["final_bn"] == "none"
    kept = ("data", "optimizer", "schedule", "epochs", "seed", "encoder", "evaluation")
    assert {name: other[name] for name in kept} == {name: config[name] for name in kept}
    again = settled("--config", run / "config.yaml", "--method", "simsiam")
    assert again == config
    reference = settled("--config", run / "config.yaml", "--method", "supervised")
    assert "predictor" not in reference


def test_a_new_folder_for_every_run(stopgrad, tmp_path, monkeypatch, unreported):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        stopgrad("pretrain", *TINY, "--epochs", 1)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "digits-directpred-0", "digits-directpred-0-2",
    }  # fmt: skip
