"""Phase diagrams: the stacked training is the package's own, and a point is judged as any vectors are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stopgrad import diagnostics
from stopgrad.experiments.exact import phase
from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page.figures.phase import FIGURES
from stopgrad.experiments.papers.tian2021.phase import LINEAR_ALPHA, PANELS
from stopgrad.experiments.rules import FAILS, HOLDS
from stopgrad.experiments.schema import Result
from stopgrad.experiments.store import Record
from stopgrad.experiments.trials import run_trial
from stopgrad.method import Method
from stopgrad.parts.distances import Euclidean
from stopgrad.parts.predictors import Linear
from stopgrad.parts.target import Ema
from stopgrad.theory import sgd
from stopgrad.theory.basins import collapses
from stopgrad.theory.flow import Flow
from stopgrad.theory.predict import DataStatistics, predict
from stopgrad.theory.statistics import Moments, gaussian_views

FAR = (0.02, 0.4)
"""Weight decays far below and far above every boundary of the linear network."""


@pytest.mark.parametrize(("alpha_p", "beta"), [(0.3, 0.5), (4.0, 2.0)])
def test_every_stacked_network_is_trained_as_theory_trains_one(alpha_p, beta):
    random = np.random.default_rng(0)
    W, W_p = (
        torch.from_numpy(random.standard_normal((2, 3))),
        torch.from_numpy(random.standard_normal((2, 2))),
    )
    x1, x2 = gaussian_views(np.diag([1.0, 0.6, 0.3]), 0.2 * np.eye(3), 50, 0)  # 50 pairs leave a rest of 2
    etas, time = (0.01, 0.3), {"t_end": 4.0, "lr": 0.05, "batch_size": 8}
    ends = phase.train_stacked(W, W_p, x1, x2, etas, alpha_p=alpha_p, beta=beta, **time)
    for eta, end_W, end_W_p in zip(etas, *ends, strict=True):
        flow = Flow(np.eye(3), np.eye(3), W, W_p, alpha_p=alpha_p, beta=beta, eta=eta)
        alone = sgd.train(flow, x1, x2, **time, points=2)
        np.testing.assert_allclose(end_W, alone.W[-1], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(end_W_p, alone.W_p[-1], rtol=1e-10, atol=1e-13)


@pytest.fixture(scope="module")
def linear():
    return phase.linear_row(1.0, 0.5, FAR, seed=3, t_end=100.0)


def test_far_from_the_boundary_training_and_prediction_agree_on_both_sides(linear):
    assert linear.series["predicted"] == linear.series["observed"] == [5, 0]
    assert linear.numbers["right"] == linear.numbers["modes_right"] == 1
    assert (linear.numbers["both_survive"], linear.numbers["both_collapse"]) == (1, 1)
    assert linear.series["largest"][0] > 0.5
    assert linear.series["largest"][1] < 1e-6


def test_the_same_trial_gives_the_same_numbers(linear):
    assert phase.linear_row(1.0, 0.5, FAR, seed=3, t_end=100.0) == linear
    assert phase.linear_row(1.0, 0.5, FAR, seed=4, t_end=10.0).series["l_d"] != linear.series["l_d"]


def test_the_modes_are_those_of_the_very_sample(linear):
    _, x1, x2 = phase.linear_start(3)
    X = (x1.T @ x2 + x2.T @ x1).numpy() / (2 * len(x1))
    np.testing.assert_allclose(linear.series["l_d"], np.linalg.eigvalsh(X)[::-1], rtol=1e-4)
    assert np.abs(np.array(linear.series["l_d"]) / phase.SHARED - 1).max() > 1e-3
    v = np.linalg.eigh(X)[1]
    sigma_s = (x1.T @ x1 + x2.T @ x2).numpy() / (2 * len(x1))
    np.testing.assert_allclose(linear.series["l_s"], np.diag(v.T @ sigma_s @ v)[::-1], rtol=1e-4)


def test_every_mode_of_the_linear_start_has_the_stated_size():
    W, x1, x2 = phase.linear_start(0)
    moments = Moments.empty(len(W))
    moments.update(x1, x2)
    p, s = phase.Measured.of(moments).sizes(W, phase.P0 * torch.eye(len(W)))
    np.testing.assert_allclose(p, phase.P0)
    np.testing.assert_allclose(s, phase.S0)


def measured(l_d, l_s, center=0):
    l_d, l_s = torch.tensor(l_d, dtype=torch.float64), torch.tensor(l_s, dtype=torch.float64)
    return phase.Measured(torch.eye(len(l_d), dtype=torch.float64), l_d, l_s, center, 0.0)


@pytest.mark.parametrize("alpha_p", [0.1, 2.0])
def test_the_modes_live_as_predict_has_it(alpha_p):
    l_d, l_s, etas, beta, lr = [1.0, 0.5], [1.2, 0.8], (0.05, 0.15, 0.25), 0.3, 1e-3
    start = torch.full((2,), 0.2), torch.full((2,), 0.05)
    lives = ~collapses(phase.modes_of(measured(l_d, l_s), *start, etas, alpha_p, beta))
    method = Method(target=Ema(tau=1 - lr * beta), predictor=Linear(), distance=Euclidean())
    for eta, of_point in zip(etas, lives, strict=True):
        found = predict(
            method, DataStatistics(l_d, l_s), lr=lr, alpha_p=alpha_p, eta=eta, p0=0.2, s0=0.05, search=False
        )
        assert [mode.survives for mode in found.modes] == of_point.tolist()
    assert 0 < lives.sum() < lives.numel()


def test_sizes_at_a_time_are_those_of_the_flow():
    l_d, l_s = [0.9, 0.5], [1.1, 0.8]
    found = phase.sizes_at(
        measured(l_d, l_s), torch.tensor([0.9, 0.4]), torch.tensor([0.2, 0.1]), (0.02, 0.3), 2.0, 0.4, 7.0
    )
    for eta, s in zip((0.02, 0.3), found, strict=True):
        flow = Flow(
            np.diag(l_d), np.diag(np.subtract(l_s, l_d)), np.diag(np.sqrt([0.2, 0.1])), np.diag([0.9, 0.4]),
            alpha_p=2.0, beta=0.4, eta=eta,
        )  # fmt: skip
        end = flow.trajectory([0, 7.0]).W[-1]
        np.testing.assert_allclose(s, np.diag(end) ** 2, rtol=1e-4)


def test_the_means_mode_alone_is_a_collapse_and_others_are_not():
    data = measured([40.0] + 7 * [1.0], [41.0] + 7 * [2.0])
    alone, three, all_ = torch.zeros(8), torch.zeros(8), torch.ones(8)
    alone[0], three[:4] = 1, 1
    assert phase.spread_of(data, alone) == (0, 0)
    assert phase.spread_of(data, all_)[0] == pytest.approx((7 / 47) ** 0.5)
    assert phase.spread_of(data, all_)[1] == pytest.approx(7)
    verdicts = [phase._collapsed(*phase.spread_of(data, s)) for s in (alone, three, all_)]
    assert verdicts == [True, True, False]


def test_agreement_counts_every_point_once():
    both, neither, predicted, observed = (True, True), (False, False), (True, False), (False, True)
    points = [both, *2 * [neither], *3 * [predicted], *4 * [observed], (True, None), (False, None)]
    assert phase.agreement(*zip(*points, strict=True)) == {
        "right": 0.25, "both_collapse": 1, "both_survive": 2, "only_predicted": 3, "only_observed": 4,
    }  # fmt: skip


ETAS = (0.01,)


@pytest.fixture(scope="module")
def encoder():
    return phase.encoder_row(10.0, 0.5, ETAS, seed=2, steps=16)


@pytest.fixture(scope="module")
def row():
    return phase.Row.of(10.0, 0.5, 2, 16)


def test_a_point_of_the_encoder_has_the_verdict_of_judge(encoder, row):
    for i, eta in enumerate(ETAS):
        learner, loss = row.train(eta)
        z = row.session.embedder.embed_evaluating(learner, row.images).z
        measures = {
            "std": float(diagnostics.embedding_std(z)),
            "effective_rank": float(diagnostics.effective_rank(z)),
            "dim": 64,
        }
        verdict, _ = diagnostics.judge({"z": measures}, loss)
        assert encoder.series["observed"][i] == ("collapse" in verdict)
        assert encoder.series["std"][i] == pytest.approx(measures["std"], rel=1e-4)
        assert encoder.series["rank"][i] == pytest.approx(measures["effective_rank"], rel=1e-4)


def test_a_point_with_one_direction_left_has_collapsed_and_one_without_a_loss_has_diverged(row, monkeypatch):
    learner, _ = row.learner(0.1)
    start = phase._weights(learner)
    W = learner.projector[-1].weight
    with torch.no_grad():
        signs = torch.arange(W.shape[1]) % 2 * 2.0 - 1  # z = +-u: spread, in one dimension
        W.copy_(torch.outer(torch.ones(64), signs))
    for loss, observed in ((0.1, 1.0), (float("nan"), None)):
        monkeypatch.setattr(phase.Row, "train", lambda self, eta, loss=loss: (learner, loss))
        point = row.point(0.1, start)
        assert point["observed"] == observed
        assert observed is None or point["std"] > 0.1


def test_the_encoders_moments_are_those_of_its_hidden_features(encoder, row):
    learner, _ = row.learner(0.1)
    learner.train()
    with torch.no_grad():
        h1, h2 = (torch.cat([phase.hidden(learner, v[i]) for v in row.views]).double() for i in range(2))
    X = (h1.T @ h2 + h2.T @ h1) / (2 * len(h1))
    np.testing.assert_allclose(
        encoder.series["start_l_d"], torch.linalg.eigvalsh(X).flip(0)[: phase.MODES_KEPT], rtol=1e-4
    )
    z = learner.projector(learner.encoder(row.views[0][0]))
    torch.testing.assert_close(
        z, phase.hidden(learner, row.views[0][0]) @ learner.projector[-1].weight.T, rtol=1e-4, atol=1e-5
    )


def test_weight_decay_acts_on_the_last_layer_and_the_predictor_alone(row):
    learner, optimizer = row.learner(0.7)
    decays = {id(w): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for w in g["params"]}
    W, W_p = learner.projector[-1].weight, learner.predictor.linear.weight
    assert decays[id(W)] == (phase.ENCODER_LR, 0.7)
    assert decays[id(W_p)] == pytest.approx((10 * phase.ENCODER_LR, 0.07))
    others = [w for w in learner.parameters() if w.requires_grad and w is not W and w is not W_p]
    assert {decays[id(w)] for w in others} == {(phase.ENCODER_LR, 4e-4)}
    torch.testing.assert_close(W_p.detach(), torch.eye(64))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.id)
def test_a_panel_has_400_points_and_a_rule_that_can_fail(panel):
    assert sum(len({**panel.base, **arm.changes}["etas"]) for arm in panel.arms) == 400
    seed = panel.seeds[0] if panel.seeds else None
    numbers = {arm.name: {seed: {"right": 1.0}} for arm in panel.arms}
    assert panel.rule.judge(numbers).outcome == HOLDS
    wrong = {arm: {seed: {"right": 0.5}} for arm in numbers}
    assert panel.rule.judge(wrong).outcome == FAILS
    assert len({trial.identity for of_seed in panel.trials().values() for trial in of_seed.values()}) == 20


def test_an_arm_is_the_functions_row():
    experiment = replace(LINEAR_ALPHA, base={**LINEAR_ALPHA.base, "etas": FAR, "t_end": 20.0})
    (trial,) = experiment.trials()["alpha_p 20"].values()
    expected = phase.linear_row(20.0, 0.5, FAR, seed=1, t_end=20.0)
    assert run_trial(trial).series == expected.series


def drawn(panel, results):
    records = {
        arm.name: {None: Record({}, "", {}, None, 1.0, "", result)}
        for arm, result in zip(panel.arms, results, strict=False)
    }
    return FIGURES[panel.id](Row(panel, None, frozenset(), records))


def rows_of(panel):
    """Three rows of points; one is not as predicted."""
    eta = list(panel.base["etas"])[:4]
    counts = "linear" in panel.id
    alive, dead = (3, 0) if counts else (0.0, 1.0)
    for observed in ([alive, alive, dead, dead], [alive, alive, alive, dead], [alive, dead, dead, dead]):
        predicted = [alive, dead, dead, dead] if observed[2] == dead and observed[1] == dead else observed
        predicted = [alive, alive, dead, dead] if observed[2] == alive else predicted
        yield Result(
            {}, {"eta": eta, "observed": observed, "predicted": predicted, "rank": [9.0, 8.0, 2.0, 1.0]}
        )


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.id)
def test_the_picture_shows_collapse_boundary_and_disagreement(panel):
    figure = drawn(panel, rows_of(panel))
    traces = {trace.name: trace for trace in figure.data}
    eta = panel.base["etas"]
    assert len(traces["training collapsed"].x) == 6
    np.testing.assert_allclose(traces["not as predicted"].x, [eta[2]], rtol=1e-3)
    edge = traces["predicted edge of collapse"]
    middle = [(eta[i] * eta[i + 1]) ** 0.5 for i in (0, 1)]
    np.testing.assert_allclose(sorted({x for x in edge.x if x is not None}), middle)
    upright = [x for x, after in zip(edge.x[::3], edge.x[1::3], strict=True) if x == after]
    np.testing.assert_allclose(sorted(upright), [middle[0], middle[1], middle[1]])
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.id)
def test_the_picture_does_without_what_is_missing(panel):
    assert drawn(panel, []).data == ()
    assert drawn(panel, [Result({"right": 1.0})]).data == ()
    nothing = Result({}, {"eta": [0.1, 0.2], "observed": [None, 1.0], "predicted": [0.0, 1.0]})
    assert drawn(panel, [nothing]).data
