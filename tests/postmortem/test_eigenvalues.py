"""Measured and predicted courses: a linear run of the trainer's own parts against theory, and the reasons."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stopgrad.evaluation.modes import measure_modes
from stopgrad.postmortem.eigenvalues import ALIGNED, eigenvalues
from stopgrad.report.run_files import RunFiles
from stopgrad.theory.flow import Flow
from stopgrad.theory.modes import Modes
from stopgrad.theory.sgd import learner_of, optimizer_of
from stopgrad.training.settings import merge, resolve

L_D, NOISE = np.array([1.0, 0.6, 0.3]), np.array([0.5, 0.3, 0.4])
W, W_P, ETA, BETA = np.array([0.6, 0.5, 0.4]), np.array([0.3, 0.25, 0.1]), 0.02, 0.5
EPOCHS = 12

PLAIN = {
    "method": "byol-lp",
    "distance": "euclidean",
    "epochs": EPOCHS,
    "optimizer": {"momentum": 0.0, "weight_decay": ETA},
    "schedule": {"name": "constant", "warmup_epochs": 0},
}


def run_of(rows, tmp_path, settings=PLAIN, steps=()):
    config = resolve(settings).to_yaml()
    return RunFiles(Path(tmp_path), config, {}, tuple(steps), tuple(rows), 0, None)


def row(epoch, an_epoch=10, **modes):
    base = {
        "p": [0.9, 0.5], "s": [2.0, 0.5], "shared": [0.8, 0.6], "pace": [1.2, 0.9], "alignment": 0.95,
        "z_square": 3.0, "p_square": 2.5,
    }  # fmt: skip
    return {"kind": "epoch", "epoch": float(epoch), "step": an_epoch * epoch, "modes": {**base, **modes}}


def views(count=60):
    """Pairs whose X and X' are diagonal to rounding."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.linalg.qr(torch.randn(count, 6, generator=generator, dtype=torch.float64))[0] * count**0.5
    u, v = (
        part * torch.from_numpy(np.sqrt(half))
        for part, half in zip(joint.split(3, dim=1), (L_D + NOISE / 2, NOISE / 2), strict=True)
    )
    return u + v, u - v


def trained(lr, an_epoch):
    """Epoch rows of a linear network that is trained by SGD on the whole sample with our parts."""
    x1, x2 = views()
    flow = Flow(np.diag(L_D), np.diag(NOISE), W=np.diag(W), W_p=np.diag(W_P), eta=ETA, beta=BETA)
    learner = learner_of(flow, lr)
    optimizer = optimizer_of(flow, learner, lr)
    rows = []
    for step in range(an_epoch * EPOCHS + 1):
        if step % an_epoch == 0:
            seen = [learner.embed(x)[1:] for x in (x1, x2)]
            z, p = ([row[i].detach() for row in seen] for i in (0, 1))
            modes = measure_modes(learner, tuple(z), tuple(p), (x1, x2))
            epoch = step // an_epoch
            rows.append({"kind": "epoch", "epoch": float(epoch), "step": step, "modes": modes})
        nodes = learner((x1, x2))
        optimizer.zero_grad()
        nodes.loss.backward()
        optimizer.step()
        learner.after_step(nodes, 0.0)
    return rows


def linear_run(tmp_path, lr, an_epoch):
    settings = merge(PLAIN, {"optimizer": {"lr": lr}, "target": {"tau": 1 - lr * BETA}})
    return eigenvalues(run_of(trained(lr, an_epoch), tmp_path, settings))


def gap(found):
    """Largest distance of the predicted from the measured, at the measured epochs."""
    apart = []
    for side in ("p", "s"):
        at = [
            np.interp(found.measured.epochs, found.predicted.epochs, column)
            for column in getattr(found.predicted, side).T
        ]
        apart.append(np.abs(np.array(at).T - getattr(found.measured, side)).max())
    return max(apart)


def test_of_a_linear_run_the_prediction_is_the_theorys_and_the_run_goes_there_with_small_steps(tmp_path):
    coarse, fine = linear_run(tmp_path, 0.1, 20), linear_run(tmp_path, 0.05, 40)
    modes = Modes(
        p0=W_P, s0=W**2, tau0=1.0, beta=BETA / L_D, eta=ETA / L_D, sigma2=NOISE / L_D
    )  # in the time l_d t
    end = modes.final(torch.from_numpy(L_D * 0.1 * 20 * EPOCHS))
    assert fine.predicted.epochs[-1] == EPOCHS
    np.testing.assert_allclose(fine.predicted.p[-1], end.p, rtol=1e-5)
    np.testing.assert_allclose(fine.predicted.s[-1], (L_D + NOISE) * end.s.numpy(), rtol=1e-5)
    assert np.ptp(fine.measured.p[:, 0]) > 0.2  # something happened
    # SGD is the flow with an error of order lr, which half the rate halves
    assert gap(coarse) < 0.1 * 0.2
    assert gap(fine) < 0.6 * gap(coarse)


def test_a_prediction_starts_as_what_was_measured_whatever_the_distance(tmp_path):
    for distance in ("euclidean", "cosine", "squared-l2"):
        rows = [row(0), row(1, p=[0.8, 0.6])]
        settings = merge(PLAIN, {"distance": distance})
        found = eigenvalues(run_of(rows, tmp_path, settings))
        assert found.relative == (distance != "euclidean")
        np.testing.assert_allclose(found.predicted.p[0], found.measured.p[0], rtol=1e-9)
        np.testing.assert_allclose(found.predicted.s[0], found.measured.s[0], rtol=1e-9)
        assert found.predicted.epochs[0] == 0


def test_what_a_distance_does_not_see_changes_nothing(tmp_path):
    settings = merge(PLAIN, {"distance": "cosine", "optimizer": {"weight_decay": 0.0}})
    once = eigenvalues(run_of([row(0), row(1)], tmp_path, settings))
    # z three times as long, by a layer in front that is; and p too
    longer = {
        "s": [18.0, 4.5], "pace": [9 * 1.2, 9 * 0.9], "z_square": 27.0, "p_square": 22.5,
    }  # fmt: skip
    again = eigenvalues(run_of([row(0, **longer), row(1, **longer)], tmp_path, settings))
    for path in ("measured", "predicted"):
        for side in ("p", "s"):
            np.testing.assert_allclose(
                getattr(getattr(again, path), side), getattr(getattr(once, path), side), rtol=1e-6
            )


def test_a_distance_that_normalises_sees_unit_vectors_and_a_slower_predictor_where_p_is_long(tmp_path):
    lr = 0.05
    settings = merge(PLAIN, {"distance": "cosine", "optimizer": {"lr": lr}, "target": {"tau": 0.99}})
    found = eigenvalues(run_of([row(0, p_square=12.0), row(1)], tmp_path, settings))
    r_square, z_square = 12.0 / 3.0, 3.0
    p, s, shared, pace = (np.array(row(0)["modes"][name]) for name in ("p", "s", "shared", "pace"))
    l_d = shared * pace / z_square
    modes = Modes(
        p0=p / r_square**0.5, s0=s / pace, tau0=1.0, alpha_p=1 / r_square, beta=0.01 / lr / l_d,
        eta=ETA / l_d, sigma2=1 / shared - 1,
    )  # fmt: skip
    end = modes.final(torch.from_numpy(l_d * lr * 10 * EPOCHS))
    # the row's lengths hold what its pairs do not tell of
    f, p = pace / z_square * end.s.numpy(), r_square**0.5 * end.p.numpy()
    start = np.array(row(0)["modes"]["p"])
    rest = 1 - s.sum() / z_square, r_square - (start**2 * s).sum() / z_square
    length = f.sum() + rest[0]
    np.testing.assert_allclose(found.predicted.s[-1], f / length, rtol=1e-5)
    stretch = (((p**2 * f).sum() + rest[1]) / length) ** 0.5
    np.testing.assert_allclose(found.predicted.p[-1], p / stretch, rtol=1e-5)


def test_directpreds_eigenvalues_are_the_rules_of_the_predicted_correlation(tmp_path):
    settings = {"method": "directpred", "epochs": 6}
    found = eigenvalues(run_of([row(1), row(2)], tmp_path, settings))
    p, s = found.predicted.p, found.predicted.s
    rule = resolve(settings).predictor
    of_s = rule.eigenvalues(torch.from_numpy(s)).numpy()
    np.testing.assert_allclose(p / p[:, :1], of_s / of_s[:, :1], rtol=1e-9)
    assert found.predicted.epochs[[0, -1]].tolist() == [1, 6]  # to the end, which has not come


def test_it_starts_where_the_modes_exist(tmp_path):
    rows = [row(0, alignment=0.4), row(1, alignment=ALIGNED), row(2)]
    found = eigenvalues(run_of(rows, tmp_path))
    assert found.predicted.epochs[0] == 1
    assert found.alignment == (0.4, 0.95)
    assert "from epoch 1 on" in found.says


REASONS = {
    "turned away": ({}, [row(0, alignment=0.4), row(1, alignment=0.5)], "at most 50% of F"),
    "adam": ({"optimizer": {"name": "adamw"}}, [row(0), row(1)], "modes are of SGD"),
    "too fast": ({"optimizer": {"lr": 50.0}}, [row(0), row(1)], "lr: 50"),
    "at the end": ({}, [row(0, alignment=0.1), row(EPOCHS)], "end of the run"),
    "first row": ({}, [row(0)], "first epoch has not ended"),
    "nothing seen": ({}, [row(0, s=[0.0, 0.0], shared=[None, None], pace=[None, None]), row(1)], "F is 0"),
    "unknown mean": (
        {"method": "directpred", "predictor": {"rho": "mean"}, "distance": "euclidean"},
        [row(1), row(2)], "lags further",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_where_nothing_is_predicted_the_reason_is_told_and_the_measured_shown(name, tmp_path):
    changes, rows, words = REASONS[name]
    found = eigenvalues(run_of(rows, tmp_path, merge(PLAIN, changes)))
    assert found.predicted is None
    assert words in found.says
    assert len(found.measured.epochs) == len(rows)


def test_files_that_are_damaged_or_of_a_rescued_run_cost_the_prediction_alone(tmp_path):
    run = run_of([row(0), row(1)], tmp_path)
    for config in ("", "{", "- 1", "method: no-such", "method: byol-lp"):
        found = eigenvalues(RunFiles(run.path, config, {}, (), run.epochs, 0, None))
        assert found.predicted is None
        assert "config.yaml" in found.says
    assert eigenvalues(run).predicted is not None
    (tmp_path / "rescues.json").write_text("[]")
    assert "rescued" in eigenvalues(run).says


@pytest.mark.parametrize(
    "modes",
    [None, 3, {}, {"p": 1}, {"p": [1.0], "s": ["1"]}, {**row(0)["modes"], "s": [1.0]},
     {**row(0)["modes"], "p": [None, 1.0]}, {**row(0)["modes"], "p": [True, 1.0]},
     {**row(0)["modes"], "p": [], "s": [], "shared": [], "pace": []}, {**row(0)["modes"], "z_square": 0}],
)  # fmt: skip
def test_rows_that_are_not_whole_are_passed_over(modes, tmp_path):
    damaged = {**row(0), "modes": modes}
    assert eigenvalues(run_of([damaged, {"epoch": 1.0, "step": 10}], tmp_path)) is None
    found = eigenvalues(run_of([damaged, row(1), row(2)], tmp_path))
    assert found.measured.epochs.tolist() == [1, 2]
