"""What prevents a collapse: the nearest values of numbers, and other parts, each tried out alone."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from stopgrad.method import Method
from stopgrad.parts.predictors import Linear
from stopgrad.parts.target import Ema, Same
from stopgrad.theory.predict.answers import Beyond, Prediction
from stopgrad.theory.predict.case import Case, Setting, tau_of
from stopgrad.theory.predict.fates import case_of, of_modes
from stopgrad.theory.predict.learned import Learned
from stopgrad.theory.predict.reach import reached

# Settings compared at once in a search, and how often the interval is narrowed that much
GRID, ROUNDS = 17, 3


def with_remedies(found: Prediction, setting: Setting) -> Prediction:
    """The prediction of a collapse with cause and remedies, see `Prediction`."""
    case = case_of(setting)
    values = dict(case.parts)
    for name in case.numbers:
        with contextlib.suppress(Beyond):
            value = _nearest_value(case, name)
            values |= {} if value is None else {name: value}
    remedy = {name: value for name, value in values.items() if _prevents(setting, name, value)}
    return replace(found, cause=next(iter(remedy), found.cause), remedy=remedy)


def _prevents(setting: Setting, name: str, value: Any) -> bool:
    """Whether some mode survives with one other value, or one other part."""
    try:
        return not of_modes(_changed(setting, name, value)).collapses
    except Beyond:
        return False


def _changed(setting: Setting, name: str, value: Any) -> Setting:
    """The setting with one other value, or one other part.

    Raises:
        Beyond: if theory does not reach that part.
    """
    if name in ("eta", "alpha_p"):
        return replace(setting, **{name: value})
    if name == "s0":
        return replace(setting, s0=value * np.ones(len(setting.l_d)))
    method = reached(_with_part(setting.method, name, value), None)
    return replace(setting, method=method, ema=tau_of(method))


def _with_part(method: Method, name: str, value: Any) -> Method:
    """The method with what a remedy's name stands for set to its value."""
    if name == "ema":
        return method.but(target=Ema(tau=value))
    if name == "stop_gradient":
        return method.but(target=Same(stop_gradient=value))
    if name == "predictor":
        return method.but(predictor=Linear())
    return method.but(predictor=method.predictor.but(eps_form=value))


def _nearest_value(case: Case, name: str) -> Any:
    """The nearest value of a number with which some mode survives, or None."""
    x = case.x

    def safe(values: np.ndarray) -> np.ndarray:
        column = values[:, None]
        changed: dict[str, Any] = {name: x.s0 * column if name == "s0" else column}
        alive: np.ndarray = type(case)(replace(x, **changed)).survivors()
        return np.asarray(alive.any(axis=-1))

    if name == "eta":
        path = np.append(x.eta * np.geomspace(1, 1e-4, GRID), 0.0)
        if isinstance(case, Learned) and case.edge < x.eta:
            path = np.sort(np.append(path, case.edge))[::-1]
        return _nearest(path, safe) if x.eta > 0 else None
    if name == "alpha_p":
        return _nearest(x.alpha_p * np.geomspace(1, 1e6, GRID), safe)
    if name == "s0":
        factor = _nearest(np.geomspace(1, 1e6, GRID), safe)
        return None if factor is None else _plain(x.s0 * factor)
    slower = _nearest(1 - (1 - x.ema) * np.geomspace(1, 1e-4, GRID), safe)
    faster = _nearest(1 - np.geomspace(1 - x.ema, 1, GRID), safe)
    both = [value for value in (slower, faster) if value is not None]
    return min(both, key=lambda value: abs(np.log((1 - value) / (1 - x.ema))), default=None)


def _nearest(path: np.ndarray, safe: Callable[[np.ndarray], np.ndarray]) -> float | None:
    """The first value along a path that is safe, where its beginning is not.

    Found between the path's points to 1/4000 of their distance, on the safe side.
    """
    for _ in range(1 + ROUNDS):
        right = safe(path)
        if not right.any():
            return None
        first = max(int(np.argmax(right)), 1)
        path = np.linspace(path[first - 1], path[first], GRID)
    return float(path[-1])


def _plain(values: np.ndarray) -> float | list[float]:
    return float(values[0]) if np.ptp(values) == 0 else [float(value) for value in values]
