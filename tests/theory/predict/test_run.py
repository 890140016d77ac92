"""The arguments: their defaults, the catalogue's methods, and what is outside their domains."""

import json

import numpy as np
import pytest

from stopgrad.catalog import lookup
from stopgrad.errors import UsageError
from stopgrad.method import Method
from stopgrad.parts.predictors import Linear, Spectral
from stopgrad.parts.target import Ema
from stopgrad.theory.predict import DataStatistics, predict, run

LR = 1e-3
SIMSIAM = Method(predictor=Linear(), distance="euclidean")
DATA = DataStatistics([1.0, 0.5, 0.2], [1.5, 0.8, 1.0])


def test_a_predictor_at_the_identity_starts_at_one(found):
    method = SIMSIAM.but(predictor=Linear(init="identity"))
    assert found(method, eta=0.02) == found(SIMSIAM, eta=0.02, p0=1.0)
    assert found(SIMSIAM, eta=0.02) == found(SIMSIAM, eta=0.02, p0=0.0)


def test_run_changes_the_catalogues_parts(found):
    answer = run("byol-lp", DATA, lr=LR, eta=0.02, ema=0.99, distance="euclidean", steps=10**6)
    again = found(lookup("byol-lp").method.but(distance="euclidean", target=Ema(tau=0.99)), eta=0.02,
                  steps=10**6)  # fmt: skip
    assert answer == again.to_dict()
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert answer["closed_form"] is True
    assert run("byol-lp", DATA, lr=LR)["closed_form"] is False


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: predict(SIMSIAM, DATA, lr=0), "lr"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, eta=-1), "eta"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, alpha_p=0), "alpha_p"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, s0=-1), "s0"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, p0=[0.0, 1.0]), "p0"),
        (lambda: predict(SIMSIAM, DATA, lr=LR, steps=0), "steps"),
        (lambda: predict(SIMSIAM, np.eye(2), lr=LR), "statistics"),
        (lambda: predict(SIMSIAM.but(predictor=Spectral(eps_form="text")), DATA, lr=LR, s0=0.0), "s0"),
        (lambda: DataStatistics([2.0], [1.0]), "l_d"),
        (lambda: DataStatistics([0.5], [0.0]), "l_s"),
        (lambda: DataStatistics([0.5, 0.1], [1.0]), "l_d"),
        (lambda: DataStatistics([], []), "l_d"),
        (lambda: DataStatistics.from_matrices(np.eye(2), np.eye(3)), "X_prime"),
        (lambda: DataStatistics.from_matrices(np.eye(2), -np.eye(2)), "X_prime"),
        (lambda: DataStatistics.from_matrices(np.zeros((2, 2)), np.zeros((2, 2))), "X"),
        (lambda: run("byolp", DATA, lr=LR), "method"),
        (lambda: run("simsiam", DATA, lr=LR, ema=0.9), "ema"),
        (lambda: run("byol-lp", DATA, lr=LR, ema=2.0), "ema"),
        (lambda: run("byol-lp", DATA, lr=LR, distance="l2"), "distance"),
    ],
)
def test_bad_input_is_one_line_that_names_it(call, says):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(f"{says}:")
    assert "\n" not in str(error.value)
