"""Collapses that are certain for data that do not commute, which have no modes."""

import numpy as np
import scipy.linalg

from stopgrad.method import Method
from stopgrad.parts.predictors import Identity, Linear
from stopgrad.parts.target import Ema
from stopgrad.theory.domain import ROUNDING
from stopgrad.theory.predict.answers import ASSUMPTIONS, Beyond, Prediction
from stopgrad.theory.predict.no_predictor import NoPredictor
from stopgrad.theory.predict.reach import check_steps
from stopgrad.theory.predict.unstopped import Unstopped


def of_matrices(
    method: Method, X: np.ndarray, X_prime: np.ndarray, lr: float, eta: float, start: float
) -> Prediction:
    """Collapses that are certain for data that do not commute; ``start`` is p0^2 + alpha_p s0.

    Raises:
        Beyond: where none is certain.
    """
    sigma_s = X + X_prime
    low, noise = (_lowest(m, sigma_s) for m in (X, X_prime))
    bare, stops = isinstance(method.predictor, Identity), method.stops_gradient
    ema = isinstance(method.target, Ema)
    certain, rate = False, None
    if bare:
        certain, cause, note = noise + eta > 0 and not (ema and low < 0), "predictor", NoPredictor.note
        rate = None if ema else (1 if stops else 2) * noise + eta
    elif isinstance(method.predictor, Linear) and not stops:
        # Theorem 2's; for X with a negative eigenvalue J is still a sum of squares, and eta is left
        rate = (noise if low >= 0 else 0.0) + eta
        cause, note = "stop_gradient", Unstopped.note
        certain = rate > 0
    elif isinstance(method.predictor, Linear):
        edge = float(scipy.linalg.eigvalsh(X @ np.linalg.solve(sigma_s, X))[-1]) / 4
        certain, cause, rate = eta > edge, "eta", None if ema else eta - edge
        note = f"eta is above lambda_max(X Sigma_s^-1 X) / 4 = {edge:.6g}: no pull can make up for it."
    if not certain:
        raise Beyond(
            "statistics: X and X' do not commute, so that there are no modes to follow; "
            "DataStatistics.from_matrices with a tolerance drops what does not commute"
        )
    largest = float(np.linalg.eigvalsh(sigma_s)[-1])
    check_steps(lr, largest * ((1.0 if bare else start) + (not stops)) + eta)
    return Prediction(True, (), 0, cause, {}, rate, None, (ASSUMPTIONS, note))


def _lowest(symmetric: np.ndarray, scale: np.ndarray) -> float:
    """The smallest eigenvalue, 0 if that is rounding."""
    value = float(np.linalg.eigvalsh(symmetric)[0])
    return value if abs(value) > ROUNDING * np.abs(scale).max() else 0.0
