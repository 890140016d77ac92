"""The base install trains, and what needs more says in one line which extra brings it."""

import os
import subprocess
import sys

import pytest

EXTRAS = (
    "torchvision",
    "timm",
    "PIL",
    "plotly",
    "tensorboard",
    "pyarrow",
    "onnx",
    "onnxscript",
    "onnxruntime",
)
WITHOUT_EXTRAS = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(cls, name, path=None, target=None):
    return None if name.split(".")[0] in {EXTRAS!r} else find(name, path, target)
PathFinder.find_spec = classmethod(find_spec)
from stopgrad.cli import main
main()
"""


def stopgrad(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
        check=False, env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cwd)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run made without any extra."""
    folder = tmp_path_factory.mktemp("base")
    done = stopgrad(
        "pretrain", "--recipe", "digits-smoke", "--epochs", 1, "--out", "run", "--quiet",
        "--set", "data.limit=128", "--set", "evaluation.control=false", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_the_base_install_trains_probes_and_exports(run):
    assert (run / "summary.json").is_file()
    assert (run / "exported" / "encoder.safetensors").is_file()
    assert not (run / "report.html").exists()
    assert "stopgrad[report]" in (run / "train.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["pretrain", "--model", "resnet18"], "vision"),
        (["pretrain", "--data", "images"], "vision"),
        (["embed", "run", "--out", "v.parquet"], "data"),
        (["export", "run", "--format", "onnx"], "onnx"),
    ],
)
def test_a_missing_extra_is_one_line(arguments, extra, run):
    (run.parent / "images").mkdir(exist_ok=True)
    for i in range(16):
        (run.parent / "images" / f"{i}.png").touch()
    done = stopgrad(*arguments, cwd=run.parent)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("stopgrad: ")
    assert done.stderr.count("\n") == 1
    assert f"pip install 'stopgrad[{extra}]'" in done.stderr
