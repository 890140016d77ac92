"""The exact claims of Shi et al. 2020 (RAFT), and that each rule can come out both ways."""

import math
import random

import numpy as np
import pytest
import torch

from stopgrad.experiments.exact import raft2021 as exact
from stopgrad.experiments.papers.raft2021 import ADAM, EXPERIMENTS, METHODS, PREDICTORS, STILL, TABLE1
from stopgrad.experiments.rules import CONDITIONAL, FAILS, HOLDS, All, Greater, Indistinguishable, Under
from stopgrad.experiments.trials import run_trial
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.settings import resolve

BY_ID = {e.id.removeprefix("raft2021-"): e for e in EXPERIMENTS}
TRAINED = ("tbl1", "tan", "tbl3", "fig4", "fig5")
TRAINING_INSIDE = ("lpi", "fig3")
THEOREMS = {"thm4.1": HOLDS, "thm5.1": HOLDS, "appi": CONDITIONAL}


def test_all_ids_are_there():
    assert BY_ID.keys() == {*TRAINED, *TRAINING_INSIDE, *THEOREMS}


def parts(rule):
    """The comparisons that a claim rests on; of a condition, those under it."""
    if isinstance(rule, Under):
        return parts(rule.conditional)
    return [part for r in rule.rules for part in parts(r)] if isinstance(rule, All) else [rule]


def general(rule):
    return parts(rule.general if isinstance(rule, Under) else rule)


@pytest.mark.parametrize("name", THEOREMS)
def test_theorems(name):
    rule = BY_ID[name].rule
    numbers = {
        arm: {seed: run_trial(trial).numbers for seed, trial in trials.items()}
        for arm, trials in BY_ID[name].trials().items()
    }
    verdict = rule.judge(numbers)
    assert verdict.outcome == THEOREMS[name], verdict.why
    for part in parts(rule):
        wrong = part.high + 1 if part.high < math.inf else part.low - 1
        changed = {None: numbers[part.arm][None] | {part.measure: wrong}}
        assert rule.judge({**numbers, part.arm: changed}).outcome == FAILS, part.describe()


# Fig. 4 is a picture; the text says that this start ends as the usual one does
READ_OFF = {"BYOL, identity start": TABLE1["BYOL, linear"]}


def papers(experiment):
    """Five seeds about the paper's means; the same noise in every arm."""
    noise = random.Random(0)
    rows = {arm: {**READ_OFF, **experiment.paper_numbers}[arm] for arm in experiment.rule.arms()}
    shared = {seed: noise.gauss(0, 0.003) for seed in experiment.seeds}

    def drawn(measure, value, seed):
        # alignment has no negative values
        return value + (0 if measure == "p.alignment" else shared[seed] + noise.gauss(0, 0.001))

    return {
        arm: {seed: {m: drawn(m, v, seed) for m, v in row.items()} for seed in experiment.seeds}
        for arm, row in rows.items()
    }


def against(part, numbers):
    """The same numbers, but for what contradicts one part."""
    changed = {arm: {seed: dict(row) for seed, row in of_arm.items()} for arm, of_arm in numbers.items()}
    measure = part.measure
    for seed in next(iter(numbers.values())):
        if isinstance(part, Greater):
            a, b = (numbers[arm][seed][measure] for arm in (part.a, part.b))
            changed[part.a][seed][measure], changed[part.b][seed][measure] = b, a
        elif isinstance(part, Indistinguishable):
            changed[part.a][seed][measure] = numbers[part.b][seed][measure] + 1.5 * part.margin
        else:
            changed[part.arm][seed][measure] = part.high + 0.1 if part.high < math.inf else part.low - 0.1
    return changed


@pytest.mark.parametrize("name", TRAINED)
def test_the_papers_own_numbers_support_its_claim(name):
    verdict = BY_ID[name].rule.judge(papers(BY_ID[name]))
    assert verdict.outcome == HOLDS, verdict.why


@pytest.mark.parametrize("name", TRAINED)
def test_every_part_of_a_claim_counts(name):
    rule, numbers = BY_ID[name].rule, papers(BY_ID[name])
    for part in general(rule):
        assert rule.judge(against(part, numbers)).outcome != HOLDS, part.describe()
    for part in parts(rule):
        assert part.judge(against(part, numbers)).outcome == FAILS, part.describe()


@pytest.mark.parametrize("name", TRAINED)
def test_no_effect_at_all_does_not_support_a_claim(name):
    numbers = papers(BY_ID[name])
    flat = dict.fromkeys(numbers, next(iter(numbers.values())))
    assert BY_ID[name].rule.judge(flat).outcome == FAILS


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tbl1", Greater("untrained", "RAFT, none", "linear_probe")),
        ("tbl3", Greater("RAFT, MLP, beta 1", "RAFT, MLP, beta 10", "linear_probe")),
        ("fig4", Indistinguishable("BYOL, linear", "BYOL, identity start", "linear_probe", margin=0.05)),
        ("fig5", Greater("untrained", "RAFT, linear, beta 0.1", "z.uniformity")),
    ],
)
def test_without_a_part_the_claim_holds_under_the_named_condition(name, part):
    numbers = papers(BY_ID[name])
    if name == "tbl1":  # still worse than with a predictor, but no worse than untrained
        probes = {seed: row | {"linear_probe": 0.43} for seed, row in numbers["RAFT, none"].items()}
        numbers |= {"RAFT, none": probes}
    else:
        numbers = against(part, numbers)
    assert part in general(BY_ID[name].rule)
    assert BY_ID[name].rule.judge(numbers).outcome == CONDITIONAL


def same_for_all(experiment, **of_arm):
    return {
        arm: {seed: of_arm.get(arm.split()[-1], of_arm["rest"]) for seed in experiment.seeds}
        for arm in experiment.rule.arms()
    }


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ({"deterioration": 0.3, "recovery": 1.5, "gain": 1.2}, HOLDS),
        ({"deterioration": -0.1, "recovery": 1.5, "gain": 1.6}, CONDITIONAL),
        ({"deterioration": 0.3, "recovery": 0.1, "gain": -0.2}, FAILS),
    ],
)
def test_the_rule_of_the_identity_start(numbers, outcome):
    assert BY_ID["lpi"].rule.judge(same_for_all(BY_ID["lpi"], rest=numbers)).outcome == outcome


@pytest.mark.parametrize(
    ("crowded", "outcome"),
    [
        ({"entropy": 0.5, "entropy_origin": 0.2}, HOLDS),
        ({"entropy": 0.94, "entropy_origin": 0.2}, CONDITIONAL),
        ({"entropy": 0.95, "entropy_origin": 0.95}, FAILS),
    ],
)
def test_the_rule_of_the_circle(crowded, outcome):
    spread = {"entropy": 0.95, "entropy_origin": 0.95}
    numbers = same_for_all(BY_ID["fig3"], rest=spread, predictor=crowded)
    assert BY_ID["fig3"].rule.judge(numbers).outcome == outcome


@pytest.mark.parametrize("name", TRAINED)
def test_the_settings_of_every_arm_exist_and_no_two_are_the_same(name):
    trials = [of_seed[1] for of_seed in BY_ID[name].trials().values()]
    assert len({trial.identity for trial in trials}) == len(trials)


def test_the_predictor_of_the_paper_has_no_batch_normalisation():
    settings = BY_ID["tbl1"].trials()["RAFT, MLP"][1].spec["settings"]
    assert not settings["predictor"]["bn"]
    assert settings["optimizer"]["name"] == "adamw"


def test_tables_and_figures_share_their_runs():
    of = {name: BY_ID[name].trials() for name in TRAINED}
    for q in ("MLP", "linear", "none"):
        assert of["tbl3"][f"RAFT, {q}, beta 1"][1].identity == of["tbl1"][f"RAFT, {q}"][1].identity
    assert of["tbl3"]["BYOL', none, beta 1"][1].identity == of["tbl1"]["BYOL', none"][1].identity
    assert of["fig5"]["RAFT, none, beta 100"][1].identity == of["tbl3"]["RAFT, none, beta 100"][1].identity
    assert of["tan"]["BYOL, linear"][1].identity == of["fig4"]["BYOL, linear"][1].identity


@pytest.mark.parametrize("method", ["BYOL'", "RAFT"])
def test_beta_is_the_weight_of_the_cross_model_loss(method):
    arm = f"{method}, none, beta 10"
    pairs = BY_ID["tbl3"].trials()[arm][1].spec["settings"]["pairing"]
    sign = 1 if method == "BYOL'" else -1
    assert {(p["query"], p["key"], p["weight"]) for p in pairs} == {
        ("p1", "p2", 1.0), ("p1", "t1", 5.0 * sign), ("p2", "t2", 5.0 * sign),
    }  # fmt: skip


TINY = {**ADAM, "data": {"name": "digits", "limit": 128}, "schedule": {"warmup_epochs": 0}, "epochs": 1}


def test_untrained_weights_stay_where_they_start():
    settings = resolve(BY_ID["tbl1"].trials()["untrained"][1].arguments)
    learner = build_learner(settings, DataFacts(1, (0.5,), (0.2,), tuple("0123456789"), 8))
    before = [w.detach().clone() for w in learner.parameters()]
    optimizer = build_optimizer(settings.optimizer, learner)
    for _ in range(3):
        learner([torch.randn(8, 1, 16, 16) for _ in range(2)]).loss.backward()
        optimizer.step()
    gaps = [
        float((w.detach() - old).abs().max()) for w, old in zip(learner.parameters(), before, strict=True)
    ]
    assert max(gaps) < 1e-10


@pytest.mark.parametrize("name", TRAINING_INSIDE)
def test_the_settings_of_what_is_trained_inside_exist(name):
    found = set()
    for of_seed in BY_ID[name].trials().values():
        settings = resolve(of_seed[1].arguments["changes"])
        found.add(settings.model_dump_json())
        assert settings.optimizer.name == "adamw"
        assert settings.device == "cpu"
    assert len(found) == len(BY_ID[name].arms)


def test_the_trace_begins_at_the_untrained_weights(monkeypatch):
    ran = []

    def trained(trial):
        ran.append(trial.spec["settings"])
        # the row of epoch 0 comes before batch normalisation has seen anything
        trace = [-0.001, -0.5] if ran[-1]["epochs"] == 1 else [-0.001, -0.3, -0.2, -1.7]
        return exact.Result({"linear_probe": 0.5}, {"z.uniformity": trace, "loss": [None, *trace[1:]]})

    monkeypatch.setattr(exact, "run_trial", trained)
    changes = {**TINY, **METHODS["BYOL"], "epochs": 3, "predictor": PREDICTORS["identity start"]}
    result = exact.identity_start(changes, STILL, seed=3)
    assert result.series == {"z.uniformity": [-0.5, -0.3, -0.2, -1.7], "loss": [None, -0.3, -0.2, -1.7]}
    assert result.numbers == pytest.approx(
        {"deterioration": 0.3, "recovery": 1.5, "gain": 1.2, "worst_epoch": 2, "linear_probe": 0.5}
    )
    still, full = ran
    assert (still["optimizer"]["lr"], still["epochs"], full["epochs"]) == (1e-12, 1, 3)
    assert full["evaluation"]["every"] == 1
    assert still["seed"] == full["seed"] == 3
    assert still["predictor"]["init"] == full["predictor"]["init"] == "identity"


def test_a_diverged_run_has_no_trace(monkeypatch):
    result = exact.Result({"linear_probe": 0.5}, {"z.uniformity": [-0.001, -0.5, None], "loss": [None] * 3})
    monkeypatch.setattr(exact, "run_trial", lambda trial: result)
    with pytest.raises(ValueError, match="diverged"):
        exact.identity_start(TINY, STILL, seed=1)


def test_evenness_in_closed_form():
    even = np.linspace(-np.pi, np.pi, 360, endpoint=False) + 0.001
    assert exact._evenness(even, 36) == pytest.approx((1.0, 1 / 36))
    assert exact._evenness(np.full(50, 0.1), 36) == pytest.approx((0.0, 1.0))
    halves = np.repeat([0.1, 2.0], 50)
    assert exact._evenness(halves, 16) == pytest.approx((0.25, 0.5))


def test_directions_are_those_of_the_plane_that_holds_the_rows():
    angles = np.random.default_rng(0).uniform(-3, 3, 200)
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 2)))
    rows = np.stack([2 * np.cos(angles), np.sin(angles)], axis=1) @ turn.T
    found = exact._angles(rows)
    # 1e-3 of a third direction and any turn of the plane change no distance on the circle
    gaps = np.cos(found[:, None] - found)
    stretched = np.arctan2(np.sin(angles), 2 * np.cos(angles))
    assert np.abs(gaps - np.cos(stretched[:, None] - stretched)).max() < 1e-8


def test_a_tight_cone_is_crowded_from_the_origin_and_not_from_its_mean(monkeypatch):
    cone = np.array([1.0, 0, 0, 0]) + 0.01 * np.random.default_rng(0).standard_normal((500, 4))
    monkeypatch.setattr(exact, "_projections", lambda changes: cone)
    numbers = exact.circle({}, seed=0).numbers
    assert numbers["entropy"] > 0.95
    assert numbers["entropy_origin"] < 0.25


def test_the_circle_is_of_the_trained_networks_test_images():
    result = exact.circle({**TINY, **METHODS["RAFT"], "predictor": PREDICTORS["linear"]}, seed=1)
    assert len(result.series["angle"]) == 1024
    assert 1 / 36 <= result.numbers["fullest"] <= 1


def test_drawing_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    exact.correspondence({"kind": "linear"}, steps=1)
    assert torch.equal(torch.random.get_rng_state(), before)
