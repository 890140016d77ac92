"""The exact claims of Halvagal et al. 2023, and that each rule can come out both ways."""

from functools import cache

import numpy as np
import pytest

from stopgrad.experiments.exact import halvagal2023 as exact
from stopgrad.experiments.papers.halvagal2023 import EXPERIMENTS, OWN
from stopgrad.experiments.papers.tian2021 import EXPERIMENTS as OF_TIAN
from stopgrad.experiments.rules import CONDITIONAL, FAILS, HOLDS, All, Under
from stopgrad.experiments.trials import run_trial
from stopgrad.theory.representation import rates

BY_ID = {e.id: e for e in EXPERIMENTS}
TRAINED = BY_ID["halvagal2023-isoloss"]

OUTCOMES = {
    "halvagal2023-thm1": CONDITIONAL,
    "halvagal2023-thm2": CONDITIONAL,
    "halvagal2023-fig4": HOLDS,
    "halvagal2023-fig5": CONDITIONAL,
    "halvagal2023-nosg": CONDITIONAL,
    "halvagal2023-nopred": CONDITIONAL,
}


@cache
def numbers_of(name):
    return {
        arm: {seed: run_trial(trial).numbers for seed, trial in trials.items()}
        for arm, trials in BY_ID[name].trials().items()
    }


def parts(rule):
    return [part for r in rule.rules for part in parts(r)] if isinstance(rule, All) else [rule]


@pytest.mark.parametrize("name", OUTCOMES)
def test_exact_claims(name):
    verdict = BY_ID[name].rule.judge(numbers_of(name))
    assert verdict.outcome == OUTCOMES[name], verdict.why


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_bound_of_an_exact_claim_can_be_missed(name):
    numbers, rule = numbers_of(name), BY_ID[name].rule
    for part in parts(rule.conditional if isinstance(rule, Under) else rule):
        for end, wrong in ((part.low, part.low - 1), (part.high, part.high + 1)):
            if np.isfinite(end):
                of_arm = {None: numbers[part.arm][None] | {part.measure: wrong}}
                verdict = rule.judge({**numbers, part.arm: of_arm})
                assert verdict.outcome == FAILS, (part.describe(), wrong)


@pytest.mark.parametrize("name", [name for name, outcome in OUTCOMES.items() if outcome == CONDITIONAL])
def test_numbers_as_the_paper_has_them_would_hold_without_a_condition(name):
    numbers, rule = numbers_of(name), BY_ID[name].rule
    for part in parts(rule.general):
        of_arm = numbers[part.arm][None]
        kept = min(max(of_arm[part.measure], part.low), part.high)
        numbers = {**numbers, part.arm: {None: of_arm | {part.measure: kept}}}
    assert rule.judge(numbers).outcome == HOLDS


def test_every_claim_has_its_expectation():
    assert [*OUTCOMES, TRAINED.id] == list(BY_ID)
    assert [e.kind for e in EXPERIMENTS].count("training") == 1


def test_relu_is_unlike_linear_where_the_condition_of_figure_5_says_so():
    alike = {arm: found[None]["alike"] for arm, found in numbers_of("halvagal2023-fig5").items()}
    unlike = {arm for arm, value in alike.items() if value < 0.6 and "no predictor" not in arm}
    assert unlike == {*OWN, "cosine, IsoLoss"}


@pytest.mark.parametrize("loss", ["euclidean", "cosine"])
@pytest.mark.parametrize("variant", ["plain", "isoloss", "no-predictor"])
def test_pair_rates_through_the_parts_are_those_of_the_theory(loss, variant):
    z1, z2, lam = *np.random.default_rng(0).normal(size=(2, 5, 3)), np.array([0.3, 0.9, 1.4])
    found = exact._pair_rates(z1, z2, lam, loss, variant)
    assert np.allclose(found, rates(z1, z2, lam, loss, variant)[0], atol=1e-14)


@pytest.mark.parametrize(("q", "k"), [(0.0, 0.0), (0.3, 0.1)])
def test_views_have_the_moments_of_the_population(q, k):
    x1, x2 = exact._views(np.random.default_rng(1), q, k)
    for a, b, variance in ((x1, x1, 1 + q), (x2, x2, 1 + k), (x1, x2, 1)):
        assert np.allclose(a.T @ b / len(a), variance * np.eye(exact.N), atol=1e-12)
    assert np.allclose([x1.mean(0), x2.mean(0)], 0, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_theorems_hold_for_other_draws(seed):
    first, second = exact.theorem1(q=0.3, seed=seed).numbers, exact.theorem2(4, seed=seed).numbers
    for error in (first["corrected_error"], first["isoloss_error"], first["coupling"], second["pair_error"]):
        assert error < 1e-12
    assert first["equation_error"] > 0.05


def test_equation_11_comes_closer_with_more_modes():
    shares = [exact.theorem2(modes).numbers["share"] for modes in (2, 4, 8)]
    assert shares == pytest.approx([2 / 4, 4 / 6, 8 / 10], rel=0.02)


def trained(**effects):
    """Five seeds of every arm: probes about a mean, healthy unless it is below 0.5."""
    means = {"DirectPred": 0.90, "IsoLoss": 0.92, "DirectPred, no EMA": 0.35, "IsoLoss, no EMA": 0.92}
    means |= {name.replace("_", ", no "): value for name, value in effects.items()}
    return {
        arm: {s: {"linear_probe": m + 0.001 * s, "z.healthy": float(m > 0.5)} for s in TRAINED.seeds}
        for arm, m in means.items()
    }


@pytest.mark.parametrize(
    ("effects", "outcome"),
    [
        ({}, HOLDS),
        ({"IsoLoss": 0.90, "IsoLoss_EMA": 0.90}, FAILS),
        ({"IsoLoss": 0.88}, FAILS),
        ({"IsoLoss_EMA": 0.35}, CONDITIONAL),
        ({"IsoLoss_EMA": 0.85}, CONDITIONAL),
        ({"DirectPred_EMA": 0.93}, CONDITIONAL),
        ({"IsoLoss": 0.45}, FAILS),
    ],
)
def test_the_trained_claim_can_come_out_each_way(effects, outcome):
    assert TRAINED.rule.judge(trained(**effects)).outcome == outcome


def test_a_collapse_of_isoloss_without_ema_is_no_success_whatever_the_probe():
    numbers = trained()
    numbers["IsoLoss, no EMA"][3]["z.healthy"] = 0.0
    assert TRAINED.rule.judge(numbers).outcome == CONDITIONAL


def test_the_settings_of_every_arm_exist_and_differ_by_gradient_and_target_alone():
    settings = {arm: of_seed[1].spec["settings"] for arm, of_seed in TRAINED.trials().items()}
    plain = settings["DirectPred"]
    for arm, found in settings.items():
        changed = {name for name in found if found[name] != plain[name]}
        expected = {"method", "gradient"} if "IsoLoss" in arm else set()
        assert changed == expected | ({"target"} if "no EMA" in arm else set())
    assert len({of_seed[1].identity for of_seed in TRAINED.trials().values()}) == 4


def test_directpred_is_the_trial_of_tian_et_al():
    table6 = next(e for e in OF_TIAN if e.id == "tian2021-tbl6")
    assert TRAINED.trials()["DirectPred"][1].identity == table6.trials()["eps 0.1, rho 0.3"][1].identity
