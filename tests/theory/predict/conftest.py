"""A prediction that must be one, and the matrix equations of a method to hold it against."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from stopgrad.parts.gradient import StraightThrough
from stopgrad.parts.predictors import Identity, Spectral
from stopgrad.parts.target import Same
from stopgrad.theory.predict import DataStatistics, Prediction, predict

LR = 1e-3
DATA = DataStatistics([1.0, 0.5, 0.2], [1.5, 0.8, 1.0])


@pytest.fixture(scope="session")
def found():
    """The prediction of a method at the rate LR, on DATA by default."""

    def of(method, data=DATA, **numbers) -> Prediction:
        prediction = predict(method, data, **{"lr": LR, **numbers})
        assert isinstance(prediction, Prediction), prediction
        return prediction

    return of


def _rotation(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


@pytest.fixture(scope="session")
def rotation():
    """A random orthogonal matrix."""
    return _rotation


class Matrices:
    """The matrix equations of a method, on data in a random basis, from a start in another."""

    def __init__(self, method, data, *, alpha_p=1.0, eta=0.0, p0=0.0, s0=1 / 3):
        n = len(data.l_d)
        self.method, self.alpha_p, self.eta, self.n = method, alpha_p, eta, n
        self.V, self.U = _rotation(n, 1), _rotation(n, 2)
        self.X = self.V @ np.diag(data.l_d) @ self.V.T
        self.sigma_s = self.V @ np.diag(data.l_s) @ self.V.T
        W_p, W = (self.U @ np.diag(v * np.ones(n)) for v in (p0, np.sqrt(s0)))
        self.start = [W @ self.V.T, W_p @ self.U.T, W @ self.V.T]

    def rates(self, _, y):
        W, W_p, W_a = y.reshape(3, self.n, self.n)
        predictor, same = self.method.predictor, isinstance(self.method.target, Same)
        W_a = W if same else W_a
        if isinstance(predictor, Identity):
            W_p = np.eye(self.n)
        if isinstance(predictor, Spectral):
            W_p = predictor.weight(torch.from_numpy(W @ self.sigma_s @ W.T)).numpy()
        gap = W_a @ self.X - W_p @ W @ self.sigma_s
        back = np.eye(self.n) if isinstance(self.method.gradient, StraightThrough) else W_p.T
        dW = back @ gap - self.eta * W
        if same and not self.method.target.stop_gradient:
            dW += W_p @ W @ self.X - W @ self.sigma_s
        dW_p = self.alpha_p * gap @ W.T - self.eta * W_p
        beta = 0.0 if same else (1 - self.method.target.tau) / LR
        return np.concatenate([dW.ravel(), dW_p.ravel(), beta * (W - W_a).ravel()])

    def at(self, t):
        """Singular values along the data's eigenvectors: p (n,) and w (n,), w_a (n,), at a time."""
        y = solve_ivp(self.rates, (0, t), np.concatenate([m.ravel() for m in self.start]), "DOP853",
                      rtol=1e-9, atol=1e-13).y[:, -1]  # fmt: skip
        W, W_p, W_a = y.reshape(3, self.n, self.n)
        turned = (self.U.T @ W @ self.V, self.U.T @ W_p @ self.U, self.U.T @ W_a @ self.V)
        for matrix in turned:  # modes stay apart
            assert np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-6
        w, p, w_a = (np.diag(matrix) for matrix in turned)
        return p, w, w if isinstance(self.method.target, Same) else w_a


@pytest.fixture(scope="session")
def matrices_of():
    """The matrix equations of a method; by default on DATA."""

    def of(method, data=DATA, **numbers):
        return Matrices(method, data, **numbers)

    return of
