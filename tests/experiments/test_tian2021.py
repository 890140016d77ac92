"""The exact claims of Tian et al. 2021, and that each rule can come out both ways."""

import random

import pytest

from stopgrad.experiments.papers.tian2021 import EXPERIMENTS
from stopgrad.experiments.rules import CONDITIONAL, FAILS, HOLDS, All, Under
from stopgrad.experiments.trials import run_trial

EXACT = {e.id: e for e in EXPERIMENTS if e.kind == "exact"}
TRAINED = {e.id: e for e in EXPERIMENTS if e.kind == "training"}

OUTCOMES = {
    "tian2021-lemma1": HOLDS,
    "tian2021-thm1": CONDITIONAL,
    "tian2021-thm2": CONDITIONAL,
    "tian2021-nopred": HOLDS,
    "tian2021-thm3": CONDITIONAL,
    "tian2021-decoupled": HOLDS,
    "tian2021-integral": CONDITIONAL,
    "tian2021-fig3": HOLDS,
    "tian2021-fig4": HOLDS,
    "tian2021-obs": CONDITIONAL,
}


def parts(rule):
    """The bounds that the claim rests on: of a condition, those under it."""
    if isinstance(rule, Under):
        return parts(rule.conditional)
    return [part for r in rule.rules for part in parts(r)] if isinstance(rule, All) else [rule]


@pytest.mark.parametrize("name", OUTCOMES)
def test_exact_claims(name):
    experiment = EXACT[name]
    numbers = {
        arm: {seed: run_trial(trial).numbers for seed, trial in trials.items()}
        for arm, trials in experiment.trials().items()
    }
    verdict = experiment.rule.judge(numbers)
    assert verdict.outcome == OUTCOMES[name], verdict.why
    for part in parts(experiment.rule):
        wrong = part.high + 1 if part.high < float("inf") else part.low - 1
        of_arm = {None: numbers[part.arm][None] | {part.measure: wrong}}
        assert experiment.rule.judge({**numbers, part.arm: of_arm}).outcome != verdict.outcome, (
            part.describe()
        )


def test_every_exact_claim_has_its_expectation():
    assert OUTCOMES.keys() == EXACT.keys()


def papers(experiment, sign=1):
    """Five seeds about the paper's means, or about their mirror images; the same noise in every arm."""
    noise = random.Random(0)
    shared = {seed: noise.gauss(0, 0.003) for seed in experiment.seeds}
    return {
        arm: {
            seed: {
                m: 0.6 + sign * (v - 0.6) + shared[seed] + noise.gauss(0, 0.001) for m, v in measures.items()
            }
            for seed in experiment.seeds
        }
        for arm, measures in experiment.paper_numbers.items()
    }


@pytest.mark.parametrize("name", TRAINED)
def test_the_papers_own_numbers_support_its_claim_and_their_mirror_images_do_not(name):
    experiment = TRAINED[name]
    assert experiment.rule.judge(papers(experiment)).outcome == HOLDS
    assert experiment.rule.judge(papers(experiment, sign=-1)).outcome == FAILS
    assert experiment.rule.judge(papers(experiment, sign=0)).outcome == FAILS


def only(experiment, chosen):
    """The paper's numbers where ``chosen`` says so, no effect elsewhere."""
    flat, full = papers(experiment, sign=0), papers(experiment)
    return {arm: full[arm] if chosen(arm) else flat[arm] for arm in full}


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("tian2021-tbl1", lambda arm: "no EMA" not in arm),
        ("tian2021-tbl2", lambda arm: "no EMA" not in arm),
        ("tian2021-tbl7", lambda arm: "freq 1" in arm),
    ],
)
def test_half_the_effect_holds_under_the_named_condition(name, chosen):
    assert TRAINED[name].rule.judge(only(TRAINED[name], chosen)).outcome == CONDITIONAL


def test_directpred_without_an_order_of_eps_holds_under_the_named_condition():
    numbers = papers(TRAINED["tian2021-tbl6"])
    numbers |= {arm: numbers["eps 0.1, rho 0.3"] for arm in numbers if arm != "learned"}
    assert TRAINED["tian2021-tbl6"].rule.judge(numbers).outcome == CONDITIONAL


@pytest.mark.parametrize("name", TRAINED)
def test_the_settings_of_every_arm_exist_and_no_two_are_the_same(name):
    trials = [of_seed[1] for of_seed in TRAINED[name].trials().values()]
    assert len({trial.identity for trial in trials}) == len(trials)


def test_shared_arms_are_one_trial():
    first, second = TRAINED["tian2021-tbl1"].trials(), TRAINED["tian2021-tbl6"].trials()
    assert first["learned"][1].identity == second["learned"][1].identity
