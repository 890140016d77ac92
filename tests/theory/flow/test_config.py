"""A flow from a file, its matrices from lists, array files and draws."""

import json

import numpy as np
import pytest
import yaml

from stopgrad.errors import UsageError
from stopgrad.files import to_json
from stopgrad.theory.flow import Flow, from_config, run_config


def write(folder, **keys):
    path = folder / "flow.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


LISTS = {
    "X": [[1, 0], [0, 2]],
    "X_prime": [[0.5, 0], [0, 0.25]],
    "W": [[1, 2], [3, 4]],
    "W_p": [[1, 0], [0, 1]],
}


def test_a_file_of_lists_arrays_and_paths_is_one_flow(tmp_path):
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays/x.npy", np.diag([1.0, 2.0]))
    np.savez(tmp_path / "one.npz", only=np.diag([0.5, 0.25]))
    np.savez(tmp_path / "two.npz", w=[[1.0, 2], [3, 4]], other=np.zeros(3))
    path = write(
        tmp_path, X="arrays/x.npy", X_prime="one.npz", W="two.npz:w", W_p=LISTS["W_p"], alpha_p="1e-1",
        beta=0.2, eta=0, eta_p=0.3, predictor="symmetric", target="same", t_end=3, points=7,
    )  # fmt: skip
    flow, times = from_config(path)
    for name, value in LISTS.items():
        np.testing.assert_array_equal(getattr(flow, name), value)
    assert (flow.alpha_p, flow.beta, flow.eta, flow.eta_p) == (0.1, 0.2, 0, 0.3)
    assert (flow.predictor, flow.target, flow.stop_gradient) == ("symmetric", "same", True)
    np.testing.assert_array_equal(times, np.linspace(0, 3, 7))


def test_run_config_gives_the_diagnostics_as_json(tmp_path):
    found = run_config(write(tmp_path, **LISTS, t_end=2, points=5))
    path = Flow(**LISTS).trajectory(np.linspace(0, 2, 5))
    assert list(found) == [
        "t", "norm_W", "norm_W_p", "norm_W_a", "theorem1_drift", "eigenvalues_W_p", "eigenvalues_F",
        "commutator_norm", "alignment",
    ]  # fmt: skip
    assert json.loads(to_json(found)) == found
    for name, value in found.items():
        np.testing.assert_array_equal(value, getattr(path, name))
    assert np.shape(found["eigenvalues_F"]) == (5, 2)
    assert (
        json.loads(to_json(run_config({**LISTS, "predictor": "none", "t_end": 1})))["theorem1_drift"] is None
    )


def test_drawn_matrices_depend_on_seed_and_name_alone():
    def draw(**of_W):
        spec = {"random": {"shape": [2, 2], **of_W}}
        return from_config({**LISTS, "t_end": 1, "W": spec, "W_p": {"random": {"shape": [2, 2]}}})[0]

    first = draw()
    assert (first.W == draw(seed=0).W).all()
    assert (first.W != draw(seed=1).W).all()
    assert (first.W_p != first.W).all()
    np.testing.assert_allclose(draw(scale="1e-3").W, first.W / 100)
    wide = from_config(
        {**LISTS, "W_p": np.eye(200), "t_end": 1, "W": {"random": {"shape": [200, 2], "scale": 2}}}
    )
    assert wide[0].W.std() == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alphap": 1}, "^config: unknown key 'alphap', did you mean 'alpha_p'"),
        ({"X": None}, "^X: missing"),
        ({"t_end": None}, "^t_end: missing"),
        ({"t_end": 0}, "^t_end: 0 is outside"),
        ({"t_end": "soon"}, "^t_end: 'soon' is not a number"),
        ({"points": 1}, "^points: 1 "),
        ({"points": 2.5}, "^points: 2.5 "),
        ({"points": True}, "^points: True "),
        ({"X": "gone.npy"}, "^X: .*gone.npy: No such file"),
        ({"X": "x.txt"}, "^X: 'x.txt' is neither"),
        ({"X": "two.npz"}, "^X: .*two.npz: holds 2 arrays, name one as two.npz:NAME. Known: a, b"),
        ({"X": "two.npz:c"}, "^X: .*two.npz: holds no array 'c'. Known: a, b"),
        ({"X": "two.npz:a"}, "^X: a matrix is needed, this has shape \\(3,\\)"),
        ({"X": "damaged.npy"}, "^X: .*damaged.npy: is no array file"),
        ({"X": "damaged.npz"}, "^X: .*damaged.npz: is no array file"),
        ({"X": "pickled.npy"}, "^X: .*pickled.npy: is no array file, or one that needs pickle"),
        ({"X": {"random": {"shape": [2, 2]}}}, "^X: a nested list or the path"),
        ({"W": {"rand": 1}}, "^W: a mapping must have the form"),
        ({"W": {"random": {"shape": [2]}}}, "^W.random.shape: \\[2\\]"),
        ({"W": {"random": {"shape": [2, 0]}}}, "^W.random.shape: "),
        ({"W": {"random": {"size": [2, 2]}}}, "^W.random: unknown key 'size'"),
        ({"W": {"random": {"shape": [2, 2], "scale": -1}}}, "^W.random.scale: -1"),
        ({"W": {"random": {"shape": [2, 2], "seed": -1}}}, "^W.random.seed: -1"),
        ({"eta": "high"}, "^eta: 'high' is not a number"),
        ({"predictor": None}, "^predictor: unknown 'None'"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_key(tmp_path, changes, message):
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.eye(2))
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY and no more")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:90])
    with pytest.raises(UsageError, match=message) as error:
        run_config(write(tmp_path, **{**LISTS, "t_end": 1, **changes}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [("[1, 2]", "holds no mapping"), ("a: [1", "not YAML"), (None, "No such file")]
)
def test_a_file_that_is_no_mapping_is_named(tmp_path, text, message):
    path = tmp_path / "flow.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=rf"^--config .*flow.yaml: {message}"):
        run_config(path)
