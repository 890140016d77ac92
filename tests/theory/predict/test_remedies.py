"""Causes of a collapse, and the nearest values that prevent it."""

import pytest

from stopgrad.method import Method
from stopgrad.parts.predictors import Identity, Linear, Spectral
from stopgrad.parts.target import Ema, Same
from stopgrad.theory.predict import DataStatistics

LR = 1e-3
SIMSIAM = Method(predictor=Linear(), distance="euclidean")
BYOL = SIMSIAM.but(target=Ema(tau=1 - 0.4 * LR))  # beta = 0.4
UNSTOPPED = SIMSIAM.but(target=Same(stop_gradient=False))
TEXT, CODE = Spectral(eps_form="text"), Spectral(eps_form="code")


def test_the_remedy_of_the_online_target_is_the_threshold_itself(found):
    assert found(SIMSIAM, eta=0.5).remedy == {"eta": 1.0 / (4 * 1.5)}


CAUSES = {
    "eta": (SIMSIAM, {"eta": 0.3}),
    "alpha_p": (SIMSIAM, {"eta": 0.01, "p0": -1.0}),
    "slow target": (BYOL, {"eta": 0.02, "p0": -1.0}),
    "no decay": (SIMSIAM, {"p0": 1.5, "alpha_p": 0.5}),
    "text": (SIMSIAM.but(predictor=TEXT), {"eta": 0.1, "s0": 2e-4}),
}
BEYOND = {"eta": 1.005, "alpha_p": 0.995, "s0": 0.995}


@pytest.mark.parametrize("case", CAUSES)
def test_remedies_prevent_the_collapse_and_are_the_nearest(found, case):
    method, numbers = CAUSES[case]
    data = DataStatistics([1.0, 0.5], [1.5, 0.8])
    prediction = found(method, data, **numbers)
    assert prediction.collapses
    assert prediction.remedy
    assert prediction.cause == next(iter(prediction.remedy))
    for name, value in prediction.remedy.items():
        nearer = {**numbers, name: value * BEYOND[name]}
        assert not found(method, data, **{**numbers, name: value}, search=False).collapses
        assert found(method, data, **nearer, search=False).collapses


def test_a_slower_target_can_be_a_remedy(found):
    method, numbers = SIMSIAM.but(target=Ema(tau=1 - LR)), {"eta": 0.15, "p0": 0.1, "s0": 0.05}
    data = DataStatistics([1.0], [1.2])
    tau = found(method, data, **numbers).remedy["ema"]
    assert tau > 1 - LR
    for slower, collapses_ in ((1.0, False), (0.995, True)):
        changed = method.but(target=Ema(tau=1 - LR + slower * (tau - 1 + LR)))
        assert found(changed, data, **numbers, search=False).collapses == collapses_


def test_without_predictor_or_stop_gradient_the_part_is_the_cause(found):
    bare = found(SIMSIAM.but(predictor=Identity()), eta=0.05)
    assert (bare.collapses, bare.cause, bare.remedy) == (True, "predictor", {"predictor": "linear"})
    assert bare.rate == pytest.approx(0.3 + 0.05)
    unstopped = found(UNSTOPPED, eta=0.05)
    assert (unstopped.collapses, unstopped.cause) == (True, "stop_gradient")
    assert unstopped.remedy == {"stop_gradient": True}
    neither = found(UNSTOPPED.but(predictor=Identity()), eta=0.05)
    assert (neither.collapses, neither.cause, neither.remedy) == (True, "predictor", {})
    code = found(SIMSIAM.but(predictor=CODE), eta=0.05)
    assert (code.collapses, code.cause, code.remedy) == (True, "eps_form", {"eps_form": "text"})


def test_a_start_at_zero_is_a_cause_without_remedy(found):
    prediction = found(SIMSIAM, s0=0.0, p0=0.5)
    assert (prediction.collapses, prediction.cause, prediction.remedy) == (True, "s0", {})
    assert all(mode.time == 0 for mode in prediction.modes)
