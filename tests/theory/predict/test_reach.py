"""Where theory does not reach, it says which part, and why."""

import pytest
from torch import nn

from stopgrad.catalog import lookup
from stopgrad.method import Method
from stopgrad.parts.pairing import Pair
from stopgrad.parts.predictors import Linear, Mlp, Spectral
from stopgrad.parts.target import Ema, Expectation, Memory, Same
from stopgrad.theory.predict import DataStatistics, NoClosedForm, Prediction, predict

LR = 1e-3
SIMSIAM = Method(predictor=Linear(), distance="euclidean")
UNSTOPPED = SIMSIAM.but(target=Same(stop_gradient=False))
DATA = DataStatistics([1.0, 0.2], [1.5, 1.0])


@pytest.mark.parametrize(
    ("method", "part"),
    [
        (SIMSIAM.but(predictor=Mlp()), "predictor"),
        (SIMSIAM.but(predictor=Linear(bias=True)), "predictor"),
        (SIMSIAM.but(predictor=Spectral(rho="mean")), "predictor"),
        (SIMSIAM.but(predictor=Spectral(noise=1.0)), "predictor"),
        (SIMSIAM.but(predictor=Spectral(eps=0.0, offset=0.9)), "predictor"),
        (SIMSIAM.but(distance="cosine"), "distance"),
        (SIMSIAM.but(distance="squared-l2"), "distance"),
        (SIMSIAM.but(pairing=(Pair(query="p1", key="t1"), Pair(query="p2", key="t2"))), "pairing"),
        (SIMSIAM.but(pairing=(Pair(query="p1", key="t2"),)), "pairing"),
        (SIMSIAM.but(target=Ema(tau=0.99, schedule="cosine")), "target"),
        (SIMSIAM.but(target=Ema(tau=1.0)), "target"),
        (SIMSIAM.but(target=Ema(init="zero")), "target"),
        (SIMSIAM.but(target=Ema(init="independent")), "target"),
        (SIMSIAM.but(target=Ema(centring=0.9)), "target"),
        (SIMSIAM.but(target=Memory()), "target"),
        (SIMSIAM.but(target=Expectation()), "target"),
        (SIMSIAM.but(gradient="straight-through"), "gradient"),
        (UNSTOPPED.but(gradient="straight-through", predictor=Spectral(eps_form="text")), "gradient"),
        (lookup("supervised").method, "method"),
        (lookup("byol").method, "predictor"),
        (lookup("directpred").method, "distance"),
    ],
)
def test_where_theory_does_not_reach_it_says_so(method, part):
    answer = predict(method, DATA, lr=LR)
    assert isinstance(answer, NoClosedForm)
    assert answer.reason.startswith(f"{part}: ")
    assert "\n" not in answer.reason
    assert answer.to_dict() == {"closed_form": False, "reason": answer.reason}


@pytest.mark.parametrize(
    ("network", "reaches"),
    [
        (nn.Sequential(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))), True),
        (nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)), False),
        (nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)), False),
        (nn.Linear(3, 3), False),
        (nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU()), False),
    ],
)
def test_the_network_must_be_the_theorys(network, reaches):
    answer = predict(SIMSIAM, DATA, lr=LR, network=network)
    assert isinstance(answer, Prediction) == reaches
    if isinstance(answer, NoClosedForm):
        assert answer.reason.startswith("network: ")


def test_steps_that_overshoot_are_not_described():
    answer = predict(SIMSIAM, DataStatistics([100.0], [150.0]), lr=0.05)
    assert isinstance(answer, NoClosedForm)
    assert answer.reason.startswith("lr: ")
    assert isinstance(predict(SIMSIAM, DataStatistics([100.0], [150.0]), lr=1e-3), Prediction)
