"""Linear counterparts of runs, and what theory predicts of them."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad import diagnostics
from stopgrad.catalog import CATALOG
from stopgrad.experiments.counterpart import prediction, settings_of, trials
from stopgrad.experiments.exact import counterpart as exact
from stopgrad.experiments.schema import DIGITS, Trial
from stopgrad.experiments.trials import run_trial
from stopgrad.method import Method
from stopgrad.parts.predictors import Identity, Linear, Mlp
from stopgrad.parts.target import Ema
from stopgrad.postmortem.counterpart import Counterpart, NoCounterpart, counterpart
from stopgrad.theory.predict import DataStatistics, predict
from stopgrad.training.settings import merge, resolve

from .examples import NONE, RAFT, experiment, run

PLAIN = {
    "distance": "euclidean",
    "optimizer": {"momentum": 0.0, "weight_decay": 0.0, "lr": 0.1},
    "schedule": {"name": "constant", "warmup_epochs": 0},
}
"""The theory's own distance and optimiser."""


def plain(method="byol-lp", **changes):
    return resolve(merge(merge(DIGITS, PLAIN), {"method": method, "seed": 1, **changes}))


# -- the mapping ------------------------------------------------------------------------------------------

BEYOND = {
    "distance": {
        "triplet", "infonce", "simple-contrastive", "decorrelation", "naive-l2-bn", "simclr", "barlow-twins",
        "vicreg", "wmse", "dino-centering",
    },
    "gradient": {
        "tan-byol-lp", "tan-byol-prime-lp", "tan-raft-lp", "simsiam-oe", "simsiam-re", "simsiam-no-extra",
        "triplet-oe", "triplet-re", "infonce-oe",
    },
    "pairing": {
        "byol-prime", "byol-prime-lp", "byol-prime-np", "raft", "raft-lp", "raft-np", "simsiam-mirror",
        "simsiam-symmetric-predictor", "simsiam-inverse-predictor", "simsiam-eoa",
    },
    "predictor": {
        "directpred-partitions", "optimal-predictor", "simsiam-bias", "simsiam-two-fc", "simsiam-tanh-fc",
    },
    "target": {"simsiam-moving-average"},
    "method": {"supervised"},
}  # fmt: skip
FAR = {"simsiam", "simsiam-nosg", "byol", "byol-nosg"}


@pytest.mark.parametrize("name", CATALOG)
def test_every_method_has_the_counterpart_or_the_reason_of_its_family(name):
    found = counterpart(run(name))
    reasons = [part for part, names in BEYOND.items() if name in names]
    if reasons:
        assert isinstance(found, NoCounterpart)
        assert found.reason.startswith(f"{reasons[0]}: ")
        return
    assert isinstance(found, Counterpart)
    assert found.grade == ("far" if name in FAR else "near")
    assert found.method.distance.kind == "euclidean"
    own = CATALOG[name].method
    assert isinstance(own, Method)
    assert found.method.gradient == own.gradient
    assert found.method.stops_gradient == own.stops_gradient
    assert found.method.predictor.kind == ("linear" if name in FAR else own.predictor.kind)


@pytest.mark.parametrize("name", ["byol-lp", "byol-np", "directpred-text", "isoloss-euclidean", "byol-slp"])
def test_the_counterpart_of_what_theory_reaches_is_itself(name):
    settings = plain(name)
    found = counterpart(settings)
    assert found == Counterpart(settings.sentence, (), "near")


def test_each_replacement_is_named():
    target = {"kind": "ema", "tau": 0.9, "schedule": "cosine"}
    found = counterpart(run("simsiam", target=target, predictor={"kind": "mlp", "symmetric": True}))
    assert isinstance(found, Counterpart)
    assert found.method == Method(
        target=Ema(tau=0.95), predictor=Linear(symmetric=True), distance="euclidean"
    )
    said = [what.partition(" ->")[0] for what in found.replaced]
    assert said == [
        "cosine distance", "MLP predictor", "EMA that slows down", "final batch normalisation",
        "momentum 0.9", "schedule of the rate",
    ]  # fmt: skip


def test_codes_eps_stays_with_the_euclidean_distance_alone():
    of_cosine, of_euclidean = (counterpart(make("directpred")) for make in (run, plain))
    assert of_cosine.method.predictor.eps_form == "text"
    assert of_euclidean.method.predictor.eps_form == "code"


@pytest.mark.parametrize(
    ("optimizer", "reached"),
    [
        ({"name": "adamw"}, False),
        ({"name": "lars"}, False),
        ({"clip": 1.0}, False),
        ({"predictor": {"weight_decay": 0.1}}, False),
        ({"predictor": {"weight_decay": 4e-4}}, True),
        ({"predictor": {"lr_scale": 5.0, "decay": "group"}}, False),
        ({"predictor": {"lr_scale": 5.0, "decay": "theory"}}, True),
        ({"weight_decay": 0.0, "predictor": {"lr_scale": 5.0, "decay": "group"}}, True),
    ],
)
def test_optimisers_that_theory_is_about(optimizer, reached):
    assert isinstance(counterpart(run(optimizer=optimizer)), Counterpart) == reached
    own = optimizer.get("predictor")
    if own is not None:  # nothing is learned there
        assert isinstance(counterpart(run("byol-np", optimizer=optimizer)), Counterpart)


def test_trials_beside_an_experiment_are_those_of_its_records():
    beside_it = trials(experiment(NONE, RAFT))
    assert set(beside_it) == {"byol-np"}
    assert set(beside_it["byol-np"]) == {1, 2}
    assert trials(replace(experiment(NONE), function="tian2021.integral")) == {}
    trained = experiment(NONE).trials()["byol-np"][2]
    assert prediction(settings_of(trained.spec)).identity == beside_it["byol-np"][2].identity
    assert beside_it["byol-np"][1].identity != beside_it["byol-np"][2].identity


# -- rates ------------------------------------------------------------------------------------------------


def test_rates_of_a_plain_run_are_its_own():
    rates = exact.rates_of(plain(epochs=3, batch_size=64), images=640)
    assert rates == exact.Rates(lr=0.1, steps=30, epoch=0.1 * 10, alpha_p=1.0, eta=0.0)


def test_momentum_and_schedule_make_the_time_that_their_steps_sum_to():
    settings = run(
        epochs=4, schedule={"warmup_epochs": 1}, optimizer={"momentum": 0.75, "weight_decay": 1e-3}
    )
    rates = exact.rates_of(settings, images=640)
    factors = [settings.schedule.factor(step, 40, 10) for step in range(40)]
    assert rates.lr * rates.steps == pytest.approx(4 * settings.optimizer.lr * sum(factors))
    assert rates.epoch * 4 == pytest.approx(rates.lr * rates.steps)
    constant = run(epochs=4, schedule={"warmup_epochs": 1}, optimizer={"predictor": {"constant_lr": True}})
    assert exact.rates_of(constant, 640).alpha_p == pytest.approx(40 / sum(factors))


def test_squared_l2_is_twice_the_cosine():
    once, twice = (exact.rates_of(run(distance=name), 640) for name in ("cosine", "squared-l2"))
    assert twice.lr == 2 * once.lr
    # the decay of a step is the same
    assert twice.lr * twice.eta == pytest.approx(once.lr * once.eta)


# -- predictions ------------------------------------------------------------------------------------------


@pytest.fixture
def of_data(monkeypatch):
    """Predictions for data and starts that are given, width 64, 640 images of 64 a batch."""

    def make(settings, l_d, l_s, s0=1 / 3, p0=0.5):
        data = DataStatistics(l_d, l_s)
        start = exact.Start(data, np.full(len(l_d), s0), np.full(len(l_d), p0), 0.0, 64)
        monkeypatch.setattr(exact, "_images", lambda *_: (SimpleNamespace(images=640), None))
        monkeypatch.setattr(exact, "start_of", lambda *_: start)
        return run_trial(prediction(settings))

    return make


def test_without_a_predictor_modes_die_at_the_rate_of_their_noise(of_data):
    l_d, l_s, eta = [0.5, 0.2], [0.8, 0.6], 0.01
    found = of_data(
        plain("simsiam-np", optimizer={"weight_decay": eta}, projector={"final_bn": "none"}), l_d, l_s
    )
    assert found.numbers["collapsed"] == 1
    assert found.numbers["surviving"] == found.numbers["rank"] == 0
    # lr 0.1, ten steps an epoch
    expected = [math.log(10) / (s - d + eta) for d, s in zip(l_d, l_s, strict=True)]
    assert found.series["epochs"] == pytest.approx(expected, rel=1e-3)
    # nine tenths of the variance need both
    assert found.numbers["epochs"] == pytest.approx(max(expected), rel=1e-3)


def test_a_learned_predictor_ends_at_the_far_root(of_data):
    l_d, l_s, eta = np.array([1.0, 0.8, 0.7, 0.6, 0.1]), np.array([1.5, 1.0, 1.0, 1.0, 1.0]), 0.02
    found = of_data(plain("byol-lp", optimizer={"weight_decay": eta}), l_d.tolist(), l_s.tolist())
    roots = (l_d[:4] + np.sqrt(l_d[:4] ** 2 - 4 * l_s[:4] * eta)) / (2 * l_s[:4])
    # eta is beyond l_d^2 / (4 l_s) of the last
    assert found.series["survives"] == [1, 1, 1, 1, 0]
    assert sorted(found.series["p"][:4]) == pytest.approx(sorted(roots), rel=1e-4)
    variance = torch.tensor(l_s[:4] * roots**2)
    # independent: the rank of vectors with these variances
    rows = torch.cat([torch.diag(variance.sqrt()), -torch.diag(variance.sqrt())])
    assert found.numbers["rank"] == pytest.approx(float(diagnostics.effective_rank(rows)), rel=1e-4)
    assert found.numbers["collapsed"] == 0


def test_few_survivors_are_a_dimensional_collapse(of_data):
    eta = 0.02
    settings = plain("byol-lp", optimizer={"weight_decay": eta})
    three = of_data(settings, [1.0] * 3 + [0.1] * 5, [1.2] * 8)
    four = of_data(settings, [1.0] * 4 + [0.1] * 4, [1.2] * 8)
    assert (three.numbers["surviving"], three.numbers["collapsed"]) == (3, 1)
    assert (four.numbers["surviving"], four.numbers["collapsed"]) == (4, 0)


def test_momentum_changes_the_steps_and_not_the_flow(of_data):
    """Momentum m at rate lr is rate lr / (1 - m) in every equation, the target's too."""
    l_d, l_s = [0.5, 0.3], [0.8, 0.7]
    slow = of_data(plain(optimizer={"lr": 0.05, "momentum": 0.5}), l_d, l_s)
    fast = of_data(plain(optimizer={"lr": 0.1}), l_d, l_s)
    for name in ("p", "s", "epochs"):
        assert slow.series[name] == pytest.approx(fast.series[name], rel=1e-3)
    method = Method(predictor=Linear(), target=Ema(tau=0.99), distance="euclidean")
    times = [m.time for m in predict(method, DataStatistics(l_d, l_s), lr=0.1, p0=0.5).modes]
    assert fast.series["epochs"] == pytest.approx(times, rel=1e-3)


def test_a_rate_beyond_the_flow_is_no_prediction(of_data):
    found = of_data(plain("byol-np"), [50.0], [60.0])
    assert found.numbers == {"reached": 0.0}
    assert found.series["reason"][0].startswith("lr: ")


def test_arrival_is_that_of_nine_tenths():
    times, weights = np.array([3.0, 1.0, 2.0]), np.array([0.05, 0.6, 0.35])
    assert exact.arrival(times, weights) == 2.0
    assert exact.arrival(times, np.array([0.11, 0.6, 0.29])) == 3.0
    assert exact.arrival(np.array([1.0, np.inf]), np.array([0.5, 0.5])) == np.inf


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0, 0.02))
def test_modes_and_directions_are_those_of_the_statistics(seed, off):
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.standard_normal((5, 5)))
    l_d, noise = np.array([1.0, 0.8, 0.5, 0.3, 0.1]), np.array([0.2, 0.5, 0.1, 0.7, 0.4])
    X, other = turn @ np.diag(l_d) @ turn.T, random.standard_normal((5, 5))
    X_prime = turn @ np.diag(noise) @ turn.T + off * other @ other.T
    data, basis = exact.decoupled(X, X_prime)
    there = DataStatistics.from_matrices(X, X_prime, 1.0)
    assert np.allclose(basis.T @ basis, np.eye(5))
    assert np.allclose(np.diagonal(basis.T @ X @ basis), data.l_d)
    assert np.allclose(np.diagonal(basis.T @ (X + X_prime) @ basis), data.l_s)
    order, same = (np.argsort(found.l_d) for found in (data, there))
    assert np.allclose(data.l_d[order], there.l_d[same])
    assert np.allclose(data.l_s[order], there.l_s[same])
    assert data.dropped == there.dropped
    if off == 0:
        assert np.allclose(np.abs((turn.T @ basis).max(axis=0)) + np.abs((turn.T @ basis).min(axis=0)), 1)


def start(settings):
    facts, images = exact._images(settings.data, settings.view_size)
    return exact.start_of(settings, counterpart(settings).method, facts, images)


def test_the_cosine_is_the_euclidean_distance_of_vectors_of_length_one():
    cosine, euclidean = (start(run("byol-lp", distance=name)) for name in ("cosine", "euclidean"))
    square = euclidean.data.l_s / cosine.data.l_s
    settings = run("byol-lp")
    facts, images = exact._images(settings.data, settings.view_size)
    learner = exact.build_learner(settings, facts)
    views = settings.make_views()(images.images, torch.arange(len(images)), seed=1, epoch=0)
    with torch.no_grad():
        z = torch.cat([learner.embed(view)[1] for view in views])
    assert square == pytest.approx(float(z.square().sum(dim=1).mean()), rel=1e-5)
    assert cosine.s0 == pytest.approx(euclidean.s0)
    # PyTorch draws W within 1 / sqrt(256): 64 rows of variance 1 / (3 256)
    assert cosine.s0.mean() == pytest.approx(1 / 12, rel=0.1)


def test_the_size_of_a_predictor_is_nothing_to_the_cosine(monkeypatch):
    settings = run("byol-lp")
    build = exact.build_learner
    once = start(settings)

    def larger(*arguments):
        learner = build(*arguments)
        learner.predictor.linear.weight.data *= 5
        return learner

    monkeypatch.setattr(exact, "build_learner", larger)
    five = start(settings)
    assert five.p0 == pytest.approx(once.p0, rel=1e-5)
    # PyTorch draws W_p within 1 / 8, so that p is sqrt(3) times shorter than z
    assert once.pace == pytest.approx(3, rel=0.15)
    assert five.pace == pytest.approx(once.pace / 25, rel=1e-5)
    assert start(run("byol-lp", distance="euclidean")).pace == 1


def test_final_batch_normalisation_divides_by_the_deviations(monkeypatch):
    euclidean = start(run("simsiam-np", distance="euclidean"))
    cosine = start(run("simsiam-np"))
    # z has deviation 1 in each of 64 components
    assert euclidean.data.l_s == pytest.approx(64 * cosine.data.l_s, rel=1e-3)
    assert (cosine.data.l_s * cosine.s0).sum() < 1
    build = exact.build_learner

    def uneven(*arguments):
        learner = build(*arguments)
        exact._last_linear(learner).weight.data[0] *= 5
        return learner

    monkeypatch.setattr(exact, "build_learner", uneven)
    other = start(run("simsiam-np"))
    assert other.data.l_s * other.s0 == pytest.approx(cosine.data.l_s * cosine.s0, rel=1e-3)


def test_directpreds_eigenvalues_start_where_those_of_the_run_would():
    settings = run("directpred")
    found = start(settings)
    facts, images = exact._images(settings.data, settings.view_size)
    learner = exact.build_learner(settings, facts)
    z = exact._nodes(learner, settings, facts, images)[2].flatten(0, 1)
    s = torch.linalg.eigvalsh(z.T @ z / len(z))
    centred = torch.linalg.eigvalsh(z.T.cov(correction=0))
    f = found.data.l_s * found.s0
    assert f.max() == pytest.approx(float(centred[-1] / s[-1]), rel=0.3)
    assert f.max() < 1


def test_slope_of_an_mlp_is_by_least_squares():
    torch.manual_seed(0)
    z = torch.randn(2, 500, 4, dtype=torch.float64) + 3
    v = np.eye(4)[:, :2]
    theory = Method(predictor=Linear(), distance="euclidean")
    learner = SimpleNamespace(predictor=Mlp().build(4))
    p = z * torch.tensor([2.0, -0.5, 1, 1]) + 7
    assert exact._slopes(learner, theory, v, z, p) == pytest.approx([2.0, -0.5])
    assert exact._slopes(learner, theory.but(predictor=Identity()), v, z, p).tolist() == [0, 0]


def test_the_same_prediction_twice():
    trial = prediction(run("byol-np"))
    first = run_trial(trial)
    torch.randn(7)
    run_trial(prediction(run("byol-np", seed=2)))
    assert run_trial(trial) == first
    assert first.numbers["reached"] == first.numbers["collapsed"] == 1
    assert 0 < first.numbers["dropped"] < exact.TOLERANCE


def test_a_trial_is_json_literals():
    trial = prediction(run("byol-lp"))
    assert isinstance(trial, Trial)
    assert trial.spec["arguments"]["method"]["predictor"]["kind"] == "linear"
    assert "seed" not in trial.spec["arguments"]["settings"]
