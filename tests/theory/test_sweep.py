import numpy as np
import pytest

from stopgrad.errors import UsageError
from stopgrad.theory.basins import collapses
from stopgrad.theory.modes import Modes
from stopgrad.theory.sweep import axes, axis, sweep


def test_every_point_of_the_grid_is_its_own_mode():
    fixed = {"p0": 0.3, "s0": 0.2, "tau0": 0.5, "t_end": 20.0, "sigma2": 0.2}
    result = sweep({"eta": [0.0, 0.05, 0.3], "beta": [0.2, 0.9]}, fixed)
    assert result.p.shape == (3, 2)
    for i, eta in enumerate([0.0, 0.05, 0.3]):
        for j, beta in enumerate([0.2, 0.9]):
            mode = Modes(p0=0.3, s0=0.2, tau0=0.5, sigma2=0.2, eta=eta, beta=beta)
            course = mode.trajectory(np.linspace(0, 20, 40_001))
            found = [getattr(result, name)[i, j] for name in ("p", "s", "tau", "min_k")]
            expected = [v.item() for v in (course.p[-1], course.s[-1], course.tau[-1], course.k.min())]
            assert found == pytest.approx(expected, rel=1e-6)
            assert result.collapsed[i, j] == bool(collapses(mode))
    assert 0 < result.collapsed.sum() < 6


def test_a_held_target_can_be_swept_too():
    result = sweep({"fixed_tau": [0.2, 1.0]}, {"eta": 0.05, "p0": 0.5, "s0": 0.25})
    assert result.tau.tolist() == [0.2, 1.0]
    assert result.collapsed.tolist() == [True, False]


def test_the_file_holds_arrays_and_axes(tmp_path):
    result = sweep({"eta": [0.0, 0.1], "s0": [0.1, 0.2, 0.3]}, {"p0": 0.3})
    result.save(tmp_path / "sweep.npz")
    with np.load(tmp_path / "sweep.npz", allow_pickle=False) as file:
        assert file["axes"].tolist() == ["eta", "s0"]
        assert file["axis_s0"].tolist() == [0.1, 0.2, 0.3]
        assert file["fixed_p0"] == 0.3
        for name in ("p", "s", "tau", "min_k", "collapsed"):
            np.testing.assert_array_equal(file[name], getattr(result, name))
    with pytest.raises(UsageError, match=r"must end in \.npz"):
        result.save(tmp_path / "sweep.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.npz"]


def test_axes_from_text():
    assert axis("eta=0:0.3:3")[1].tolist() == pytest.approx([0, 0.15, 0.3])
    assert axis("alpha-p=0.01:1:3:log")[1].tolist() == pytest.approx([0.01, 0.1, 1])
    assert axis("p0=-0.3,0.3") == ("p0", pytest.approx([-0.3, 0.3]))
    assert list(axes(["eta=0:1:2", "beta=0.5:1:2"])) == ["eta", "beta"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eta", "not NAME=FROM:TO:COUNT"), ("eta=", "not NAME"), ("eta=0:1", "not NAME"),
        ("eta=0:1:x", "not NAME"), ("eta=0:1:3:lin", "not NAME"), ("etta=0:1:3", "did you mean 'eta'"),
        ("eta=0:1:0", "eta has 0 values"), ("eta=-1:1:3", "eta: -1"), ("eta=0:1:3:log", "above 0"),
        ("alpha_p=0:1:3", "alpha_p: 0"),        ("eta=0:inf:3", "not finite"), ("eta=0:nan:3", "not finite"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_explained(text, message):
    with pytest.raises(UsageError, match=message) as error:
        axis(text)
    assert "\n" not in str(error.value)


def test_a_wrong_grid_is_explained():
    for wrong, message in (
        (({}, {}), "empty"), (({"eta": []}, {}), "eta: empty"), (({"eta": [0.1]}, {"eta": 0.1}), "fixed too"),
        (({"gamma": [1]}, {}), "unknown 'gamma'"), (({"eta": [0.1]}, {"sigma2": -1}), "sigma2"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            sweep(*wrong)
    with pytest.raises(UsageError, match="given twice"):
        axes(["eta=0:1:2", "eta=0:1:3"])
