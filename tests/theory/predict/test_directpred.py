"""DirectPred as the code has it and as the text has it."""

import numpy as np
import pytest

from stopgrad.method import Method
from stopgrad.parts.predictors import Spectral
from stopgrad.theory.predict import DataStatistics


def test_codes_largest_mode_shrinks_at_the_rate_of_the_note(found):
    data = DataStatistics([1.0], [1.2])
    (mode,) = found(Method(predictor=Spectral(eps_form="code"), distance="euclidean"), data, eta=0.01).modes
    assert mode.time == pytest.approx(np.log(10) / (1.1 * (1.1 * 1.2 - 1.0) + 0.01), rel=1e-4)
    assert mode.p == pytest.approx(1.1)


def test_text_lifts_weak_modes_by_eps_and_kills_them_with_too_much(found):
    """With p = eps f_max a small mode grows where that lies between the roots of l_s p^2 - l_d p + eta."""
    data, eta = DataStatistics([1.0, 0.5], [1.5, 1.0]), 0.01
    alive = {}
    for eps in (0.0, 0.1, 1.0, 30.0):
        method = Method(predictor=Spectral(eps_form="text", eps=eps), distance="euclidean")
        prediction = found(method, data, eta=eta, s0=[0.3, 1e-8])
        alive[eps] = prediction.modes[1].survives
        top = prediction.modes[0]
        small = max(eps * 1.5 * top.s, 1e-4)
        assert alive[eps] == (small * (0.5 - small) > eta)
        for mode in prediction.modes:
            if mode.survives:
                p = np.sqrt(mode.l_s * mode.s) + eps * 1.5 * top.s
                assert p == pytest.approx(mode.p)
                assert mode.l_s * p**2 - mode.l_d * p + eta == pytest.approx(0, abs=1e-8)
    assert list(alive.values()) == [False, True, True, False]
