"""Without predictor: times in closed form, and what noiseless modes keep."""

import numpy as np
import pytest
import scipy.linalg

from stopgrad.method import Method
from stopgrad.parts.predictors import Identity
from stopgrad.parts.target import Ema, Same
from stopgrad.theory.predict import DataStatistics

LR = 1e-3
BARE = Method(predictor=Identity(), distance="euclidean")
DATA = DataStatistics([1.0, 0.5, 0.2], [1.5, 0.8, 1.0])


def test_times_without_predictor_have_a_closed_form(found):
    noise = DATA.l_s - DATA.l_d
    for method, times in (
        (BARE, np.log(10) / (noise + 0.05)),
        (BARE.but(target=Same(stop_gradient=False)), np.log(10) / (2 * noise + 0.05)),
    ):
        prediction = found(method, eta=0.05)
        assert [mode.time for mode in prediction.modes] == pytest.approx(times, rel=1e-4)
        assert [mode.steps for mode in prediction.modes] == pytest.approx(times / LR, rel=1e-4)
    slow = found(BARE.but(target=Ema(tau=1 - 0.4 * LR)), eta=0.05)
    for mode in slow.modes:
        flow = np.array([[-mode.l_s - 0.05, mode.l_d], [0.4, -0.4]])
        assert max(scipy.linalg.expm(flow * mode.time) @ [1, 1]) == pytest.approx(0.1, rel=1e-3)


def test_noiseless_modes_keep_their_size_without_predictor(found):
    data = DataStatistics([1.0, 0.5], [1.0, 0.8])
    for target in (Same(), Same(stop_gradient=False), Ema(tau=0.99)):
        method = BARE.but(target=target)
        prediction = found(method, data)
        assert [(mode.survives, mode.s) for mode in prediction.modes] == [
            (True, pytest.approx(1 / 3)), (False, 0)
        ]  # fmt: skip
        decayed = found(method, data, eta=0.1)
        assert decayed.remedy["eta"] == 0.0
