"""The data as modes, from matrices that commute and from samples that nearly do."""

from types import SimpleNamespace

import numpy as np
import pytest

from stopgrad.errors import UsageError
from stopgrad.method import Method
from stopgrad.parts.predictors import Identity, Linear
from stopgrad.theory.predict import DataStatistics, NoClosedForm, predict
from stopgrad.theory.predict.data import joint_modes
from stopgrad.theory.statistics import Moments, gaussian_views

SIMSIAM = Method(predictor=Linear(), distance="euclidean")


def test_statistics_from_matrices(found, rotation):
    V = rotation(3, 5)
    l_d, l_s = np.array([0.9, 0.9, 0.2]), np.array([1.0, 1.5, 0.5])
    X, X_prime = V @ np.diag(l_d) @ V.T, V @ np.diag(l_s - l_d) @ V.T
    data = DataStatistics.from_matrices(X, X_prime)
    assert data.l_d == pytest.approx(l_d)
    assert data.l_s == pytest.approx(l_s)
    assert data.dropped < 1e-12
    # an input that never varies is no mode, and no reason to collapse
    wide = [np.pad(m, (0, 1)) for m in (X, X_prime)]
    assert len(DataStatistics.from_matrices(*wide).l_d) == 3
    rate = found(SIMSIAM.but(predictor=Identity()), SimpleNamespace(X=wide[0], X_prime=wide[1])).rate
    assert rate == pytest.approx(0.1)


def test_sampled_statistics_need_a_tolerance(found):
    x1, x2 = gaussian_views(np.diag([1.0, 0.4]), np.diag([0.5, 0.1]), 4000, seed=0)
    moments = Moments.empty(2)
    moments.update(x1, x2)
    answer = predict(SIMSIAM, moments, lr=1e-3, eta=0.02)
    assert isinstance(answer, NoClosedForm)
    assert answer.reason.startswith("statistics: ")
    data = DataStatistics.from_matrices(moments.X, moments.X_prime, tolerance=0.05)
    assert 1e-4 < data.dropped < 0.05
    prediction = found(SIMSIAM, data, eta=0.02)
    assert prediction.dimension == 2
    assert "left out" in prediction.notes[-1]
    with pytest.raises(UsageError, match="does not commute"):
        DataStatistics.from_matrices(moments.X, moments.X_prime, tolerance=1e-6)


@pytest.mark.parametrize("off", [0.0, 0.02])
def test_directions_are_those_of_the_modes(rotation, off):
    """Two modes have the same l_d, and one input never varies."""
    V, other = rotation(4, 3), np.random.default_rng(0).normal(size=(4, 4))
    l_d, noise = np.array([0.8, 0.8, 0.5, 0.1]), np.array([0.2, 0.5, 0.1, 0.7])
    X, X_prime = V @ np.diag(l_d) @ V.T, V @ np.diag(noise) @ V.T + off * other @ other.T
    X, X_prime = (np.pad(m, (0, 1)) for m in (X, X_prime))
    data, directions = joint_modes(X, X_prime, 0.5)
    assert directions.shape == (5, 4)
    assert np.allclose(directions.T @ directions, np.eye(4))
    assert np.allclose(directions[-1], 0)
    for values, matrix in ((data.l_d, X), (data.l_s, X + X_prime)):
        turned = directions.T @ matrix @ directions
        assert np.allclose(np.diagonal(turned), values)
        assert np.abs(turned - np.diag(np.diagonal(turned))).max() <= 10 * off + 1e-12
    alone = DataStatistics.from_matrices(X, X_prime, 0.5)
    assert (data.l_d == alone.l_d).all()
    assert data.dropped == alone.dropped
