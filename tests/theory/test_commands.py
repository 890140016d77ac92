"""`stopgrad theory ...`: flags, keys, exit status."""

import json
import sys
from typing import Any

import numpy as np
import pytest

from stopgrad import cli
from stopgrad.theory.modes import Modes


class Call:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["stopgrad", "theory", *map(str, arguments)])
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code, *self.capfd.readouterr()

    def json(self, *arguments: object) -> dict[str, Any]:
        status, out, err = self(*arguments, "--json")
        assert status == 0, err
        return json.loads(out)


@pytest.fixture
def call(monkeypatch, capfd) -> Call:
    return Call(monkeypatch, capfd)


def test_modes(call):
    result = call.json(
        "modes", "--alpha-p", 2, "--beta", 0.3, "--eta", 0.05, "--sigma2", 0.4, "--p0", 0.3, "--s0", 0.2,
        "--tau0", 0.5, "--t-end", 20, "--points", 41,
    )  # fmt: skip
    assert set(result) == {"t", "p", "s", "tau", "k", "collapsed", "invariant_drift"}
    mode = Modes(p0=0.3, s0=0.2, tau0=0.5, alpha_p=2, beta=0.3, eta=0.05, sigma2=0.4)
    course = mode.trajectory(np.linspace(0, 20, 41))
    for name in ("t", "p", "s", "tau", "k"):
        assert result[name] == pytest.approx(getattr(course, name).tolist(), rel=1e-14)
    assert result["collapsed"] is False
    assert result["invariant_drift"] < 1e-12


def test_modes_with_tau_held_and_a_start_that_collapses(call):
    result = call.json("modes", "--p0", -0.3, "--s0", 0.01, "--fixed-tau", 0.7, "--eta", 0.05, "--points", 5)
    assert result["tau"] == [0.7] * 5
    assert result["collapsed"] is True
    nothing = call.json("modes", "--p0", 0.3, "--s0", 0, "--points", 2)
    assert nothing["tau"] == [None, None]


def test_fixed_points(call):
    result = call.json("fixed-points", "--alpha-p", 2, "--eta", 0.1, "--sigma2", 0.25, "--tau", 0.9)
    assert [set(point) for point in result["points"]] == [{"p", "s", "stable", "eigenvalues"}] * 3
    root = (0.9**2 - 4 * 0.1 * 1.25) ** 0.5
    assert [point["p"] for point in result["points"]] == pytest.approx(
        [0, (0.9 - root) / 2.5, (0.9 + root) / 2.5]
    )
    assert result["points"][2]["s"] == pytest.approx(result["points"][2]["p"] ** 2 / 2)
    assert [point["stable"] for point in result["points"]] == [True, False, True]
    assert result["collapse_unavoidable"] is False
    assert call.json("fixed-points", "--eta", 0.5, "--tau", 1)["collapse_unavoidable"] is True


def test_basin(call):
    start = ("--alpha-p", 1, "--eta", 0.1, "--sigma2", 0, "--tau", 1)
    assert call.json("basin", *start, "--p0", 0.1, "--s0", 0.01) == {"collapses": True}
    assert call.json("basin", *start, "--p0", -0.1, "--s0", 0.5) == {"collapses": False}


def test_sweep(call, tmp_path):
    out = tmp_path / "sweep.npz"
    result = call.json("sweep", "--grid", "eta=0:0.3:4", "--grid", "beta=0.1:1:2", "--t-end", 5, "--out", out)
    with np.load(out) as file:
        for name in ("p", "s", "tau", "min_k", "collapsed"):
            assert file[name].shape == (4, 2)
            assert file[name].tolist() == result[name]
    status, text, _ = call("sweep", "--grid", "eta=0:0.3:4", "--t-end", 1)
    assert status == 0
    assert "collapsed" in text
    assert "modes" not in text  # the progress bar goes to stderr


def test_predict(call):
    data = ("--distance", "euclidean", "--l-d", "1,0.2", "--l-s", "1.5,1", "--lr", 0.01)
    result = call.json("predict", "--method", "byol-lp", *data, "--eta", 0.3)
    assert (result["closed_form"], result["collapses"], result["cause"]) == (True, True, "eta")
    assert result["remedy"]["eta"] < 0.3
    assert call.json("predict", "--method", "byol", *data)["closed_form"] is False
    status, out, err = call("predict", "--method", "byol-lp", "--l-d", "x", "--l-s", "1", "--lr", 0.1)
    assert (status, out) == (2, "")
    assert "--l-d" in err


def test_figure(call, tmp_path):
    names = {row["name"] for row in call.json("figure")["figures"]}
    assert {"tian2021-fig3", "halvagal2023-fig4", "basin-map", "phase-diagram"} <= names
    out = tmp_path / "f.html"
    assert call.json("figure", "tian2021-fig4", "--out", out, "--set", "sigma2=0.25")["out"] == str(out)
    assert "plotly" in out.read_text()


def test_flow(call, tmp_path):
    config = tmp_path / "flow.yaml"
    config.write_text(
        "X: [[1, 0], [0, 1]]\nX_prime: [[0.3, 0], [0, 0.3]]\nW: [[0.3, 0.1], [0, 0.4]]\n"
        "W_p: [[0.3, 0], [0, 0.2]]\neta: 0.02\nt_end: 5\npoints: 6\n"
    )
    result = call.json("flow", "--config", config)
    keys = {"norm_W", "norm_W_p", "norm_W_a", "theorem1_drift", "commutator_norm", "alignment"}
    assert keys | {"t", "eigenvalues_W_p", "eigenvalues_F"} <= set(result)
    assert len(result["t"]) == 6
    assert max(abs(x) for x in result["theorem1_drift"]) < 1e-9
    config.write_text(config.read_text().replace("[[1, 0], [0, 1]]", "[[1, 0.5], [0, 1]]"))
    status, out, err = call("flow", "--config", config)
    assert (status, out) == (2, "")
    assert "X: must be symmetric" in err


FLOW = "modes", "--p0", "0.3", "--s0", "0.1"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((*FLOW, "--sigma2", "-1"), "sigma2"), ((*FLOW, "--alpha-p", "0"), "alpha_p"),
        ((*FLOW, "--eta", "-0.1"), "eta"), ((*FLOW, "--t-end", "nan"), "t_end"),
        (("modes", "--p0", "0.3", "--s0", "-1"), "s0"), ((*FLOW, "--points", "1"), "points"),
        ((*FLOW, "--beta", "x"), "--beta"), ((*FLOW, "--fixed-tau", "nan"), "fixed_tau"),
        (("basin", "--p0", "0.3", "--s0", "-1", "--tau", "1"), "s0"),
        (("basin", "--p0", "0.3", "--s0", "1", "--tau", "nan"), "tau"),
        (("fixed-points", "--tau", "1", "--eta", "-1"), "eta"),
        (("sweep", "--grid", "eta=0:1:0"), "grid"),
        (("sweep", "--grid", "eta=0:1:2", "--eta", "0.1"), "eta"),
        (("sweep", "--grid", "eta=0:1:2", "--out", "x.csv"), "x.csv"),
        (("sweep", "--grid", "eta=0:1:2", "--sigma2", "-1"), "sigma2"),
        (("figure", "tian2021-fig33"), "tian2021-fig3"),
        (("figure", "basin-map", "--out", "x.pdf"), "x.pdf"),
        (("figure", "basin-map", "--set", "eta"), "--set"),
        (("figure", "basin-map", "--set", "eta=-1"), "eta"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_names_the_argument(call, arguments, name):
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("stopgrad: ")
    assert err.count("\n") == 1
    assert name in err
