"""That each rule can come out both ways, and that the short trainings measure what they say."""

import random

import pytest
import torch
from torch.nn.functional import normalize

from stopgrad.experiments.exact import zhang2022 as exact
from stopgrad.experiments.papers.zhang2022 import EXPERIMENTS
from stopgrad.experiments.papers.zhang2022.correlation import READINGS
from stopgrad.experiments.papers.zhang2022.predictors import BEFORE_THE_LOSS, ELSEWHERE
from stopgrad.experiments.rules import CONDITIONAL, FAILS, HOLDS
from stopgrad.training import pretrain
from stopgrad.training.checkpoint import load_checkpoint
from stopgrad.training.folder import RunFolder

BY_ID = {e.id.removeprefix("zhang2022-"): e for e in EXPERIMENTS}
PROBE = "linear_probe"
FINE, LOST = {"healthy": 1.0, "collapsed": 0.0}, {"healthy": 0.0, "collapsed": 1.0}
NO_BN = ", no final BN"


def vectors(flags, nodes=("z", "p")):
    return {f"{node}.{name}": value for node in nodes for name, value in flags.items()}


def of_the_paper(experiment):
    """Its tables; where it shows a picture, or an arm is ours, what it would have to be."""
    numbers = {}
    for arm in experiment.arms:
        row = dict(experiment.paper_numbers.get(arm.name) or PICTURES[experiment.id][arm.name])
        numbers[arm.name] = row | {name.replace("z.", "p."): value for name, value in row.items()}
    return numbers


def shares(change):
    return {"m_o_change": change}


NO_ERROR = {"crossing_error": 1e-9, "product_error": 1e-9}
PICTURES = {
    "zhang2022-tbl1": {
        f"moving average{NO_BN}": {PROBE: 0.46, **vectors(FINE)},
        f"mean of 10 views{NO_BN}": {PROBE: 0.01, **vectors(LOST)},
    },
    "zhang2022-fig3": {
        "SimSiam": {PROBE: 0.66, **vectors(FINE)},
        "inverse predictor": {PROBE: 0.62, **vectors(FINE)},
    },
    "zhang2022-fig4": {
        f"{component}{end}": shares(change)
        for component, change in (("o", 0.5), ("r", -0.5), ("random", 0.0))
        for end in ("", NO_BN)
    },
    "zhang2022-fig5a": {arm: {"eta_p": -0.5, "eta_z": 0.2} for arm in ("SimSiam", "no final BN")},
    "zhang2022-fig5b": {name: {"gain": 0.6} for name, _, _ in READINGS},
    "zhang2022-fig5c": {"all": {"lowest": 0.6, "peak": 0.1, "o_e": 0.0, "length": 0.05}},
    "zhang2022-fig6": {
        "SimSiam": {"covariance": 1.0, "fall": 0.5},
        "InfoNCE": {"covariance": 1.0, "fall": 0.5},
        "InfoNCE without r_e": {"covariance": 3.0, "fall": 0.0},
    },
    "zhang2022-fig8": {
        f"temperature {t:g}": {"covariance": 1 + t, PROBE: 0.7 - t / 20} for t in (0.1, 0.2, 0.5, 1, 5)
    },
    "zhang2022-tbl5": {
        "one FC, tanh(W)": {PROBE: 0.65, **vectors(FINE)},
        f"bias{NO_BN}": {PROBE: 0.5, **vectors(FINE)},
    },
    "zhang2022-tbl6": {
        f"bias{NO_BN}": {"cosine": 0.99, "strength_error": 0.01},
        f"MLP{NO_BN}": {"cosine": 0.89},
    },
    "zhang2022-bn": {
        **{name: {"z.std": 0.9, **vectors(FINE)} for name in (*BEFORE_THE_LOSS, "BN, l2, BN, MSE")},
        **{name: {"z.std": 0.0, **vectors(LOST)} for name in ELSEWHERE},
    },
    "zhang2022-infonce": {
        "InfoNCE": {PROBE: 0.7, "z.effective_rank": 50, "z.m_o": 0.1, **vectors(FINE)},
        "without r_e": {PROBE: 0.5, "z.effective_rank": 10, "z.m_o": 0.1, **vectors(FINE)},
    },
}


def seeded(rows, experiment):
    """Five seeds about the rows; the same noise in every arm. Flags are exact."""
    noise = random.Random(0)
    shared = {seed: noise.gauss(0, 0.003) for seed in experiment.seeds}

    def value(measure, mean, seed):
        exact_one = measure.endswith(("healthy", "collapsed", "error", "peak", "o_e"))
        return mean if exact_one else mean + shared[seed] + noise.gauss(0, 0.001)

    return {
        arm: {seed: {m: value(m, v, seed) for m, v in row.items()} for seed in experiment.seeds}
        for arm, row in rows.items()
    }


def judge(name, **changes):
    """The verdict on the paper's numbers with some rows changed; keys are arms, in a dictionary."""
    experiment = BY_ID[name]
    rows = of_the_paper(experiment)
    if name == "fig5a":
        rows = {arm: row | NO_ERROR for arm, row in rows.items()}
    if name == "tbl6":
        rows["bias"] |= {"strength_error": 0.01}
    for arm, row in changes.get("rows", {}).items():
        rows[arm] = rows[arm] | row
    return experiment.rule.judge(seeded(rows, experiment)).outcome


@pytest.mark.parametrize("name", BY_ID)
def test_the_papers_own_numbers_support_its_claim(name):
    assert judge(name) == HOLDS


def test_without_an_extra_gradient_it_is_the_prediction_that_collapses():
    of_z = vectors(FINE, nodes=("z",))
    assert judge("tbl4", rows={"none": of_z, "none, predictor's own loss": of_z}) == HOLDS


ALL_LOST, ALL_FINE = vectors(LOST), vectors(FINE)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("tbl1", {"mean of 10 views": ALL_FINE, f"mean of 10 views{NO_BN}": ALL_FINE}),
        ("tbl1", {"moving average": ALL_LOST, f"moving average{NO_BN}": ALL_LOST}),
        ("tbl2", {"SimSiam": ALL_LOST}),
        ("tbl2", {"mirror": ALL_FINE}),
        ("tbl2", {"naive": ALL_FINE}),
        ("tbl2", {"symmetric predictor": ALL_FINE}),
        ("fig3", {"inverse predictor": ALL_LOST}),
        ("fig3", {"inverse predictor": {PROBE: 0.3}}),
        ("fig4", {f"o{NO_BN}": shares(-0.5), f"r{NO_BN}": shares(0.5)}),
        ("fig4", {f"random{NO_BN}": shares(0.6)}),
        ("tbl3", {"without o_e": ALL_FINE}),
        ("tbl3", {"without r_e": ALL_LOST}),
        ("tbl4", {"r_e, predictor's own loss": ALL_LOST}),
        ("tbl4", {"o_e, predictor's own loss": ALL_LOST}),
        ("tbl4", {"none, predictor's own loss": ALL_FINE}),
        ("fig5a", {"SimSiam": {"eta_p": 0.5}}),
        ("fig5a", {"no final BN": {"product_error": 0.1}}),
        ("fig5b", {"batch-normalised": {"gain": -0.3}}),
        ("fig5c", {"all": {"lowest": 0.2}}),
        ("fig5c", {"all": {"o_e": 0.1}}),
        ("fig6", {"InfoNCE without r_e": {"covariance": 0.5}}),
        ("fig8", {"temperature 5": {"covariance": 1.0}}),
        ("tbl5", {"bias": ALL_LOST, f"bias{NO_BN}": ALL_LOST}),
        ("tbl5", {"two FC": ALL_LOST}),
        ("tbl6", {"bias": {"cosine": 0.5}, f"bias{NO_BN}": {"cosine": 0.5}}),
        ("tbl6", {"MLP": {"cosine": 0.1}, f"bias{NO_BN}": {"strength_error": 0.3}}),
        ("bn", {"BN, l2, MSE": ALL_FINE}),
        ("bn", {"l2, BN, MSE": {"z.std": 0.0, **ALL_LOST}}),
        ("infonce", {"without r_e": {"z.effective_rank": 60}}),
        ("infonce", {"without r_e": {"z.m_o": 0.9}}),
    ],
)
def test_numbers_against_the_claim_refute_it(name, rows):
    assert judge(name, rows=rows) == FAILS


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("tbl1", {"mean of 10 views": ALL_FINE}),
        ("tbl2", {"symmetric predictor": vectors(FINE, nodes=("z",))}),
        ("fig3", {"inverse predictor": {PROBE: 0.68}}),
        ("fig4", {"o": shares(0.0)}),
        ("tbl3", {"without r_e": {PROBE: 0.36}}),
        ("tbl4", {"r_e": ALL_LOST}),
        ("tbl4", {"o_e": {PROBE: 0.7}}),
        ("fig5a", {"SimSiam": {"eta_z": -0.2}}),
        ("fig5b", {"l2-normalised": {"gain": 0.0}}),
        ("fig5c", {"all": {"peak": 1.0}}),
        ("fig6", {"SimSiam": {"fall": 0.0}}),
        ("fig8", {"temperature 5": {PROBE: 0.8}}),
        ("tbl5", {"bias": ALL_LOST}),
        ("tbl5", {"one FC, tanh": {PROBE: 0.4}}),
        ("tbl6", {"MLP": {"cosine": 0.1}}),
        ("bn", {"l2, BN, MSE": ALL_LOST}),
        ("infonce", {"without r_e": {PROBE: 0.75}}),
    ],
)
def test_part_of_the_claim_holds_under_the_named_condition(name, rows):
    assert judge(name, rows=rows) == CONDITIONAL


@pytest.mark.parametrize("name", BY_ID)
def test_the_settings_of_every_arm_exist_and_no_two_are_the_same(name):
    experiment = BY_ID[name]
    trials = [of_seed[1] for of_seed in experiment.trials().values()]
    assert len({trial.identity for trial in trials}) == len(trials)
    if experiment.function:
        method, rest = experiment.function.split(".")[1], experiment.base
        known = set(getattr(exact, method).__annotations__)
        assert all({*rest, *arm.changes, "seed"} <= known for arm in experiment.arms)


def test_arms_that_papers_share_are_one_trial():
    both = [BY_ID[name].trials()[arm][1] for name, arm in (("tbl2", "SimSiam"), ("tbl4", "both"))]
    assert both[0].identity == both[1].identity == BY_ID["tbl5"].trials()["MLP"][1].identity


@pytest.fixture(scope="module")
def trained():
    """SimSiam after two epochs, one by one, and the losses of the second."""
    training = exact.Training.of("simsiam", "plain", 3, exact._lasting(2))
    list(training.train(1))
    return training, [float(nodes.loss) for nodes in training.train(1)]


def test_a_short_training_is_the_main_jobs(trained, tmp_path, monkeypatch):
    training, losses = trained
    monkeypatch.setattr(pretrain, "evaluate_run", lambda *args, **ended: ended)
    ended = pretrain.run(training.session.settings, tmp_path / "run", show_progress=False)
    assert sum(losses) / len(losses) == pytest.approx(ended["loss"], rel=1e-5)
    weights = load_checkpoint(RunFolder(tmp_path / "run").checkpoint)["learner"]
    for name, weight in training.session.learner.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=1e-5)


def test_vectors_are_read_in_training_mode_and_leave_no_trace(trained):
    learner = trained[0].session.learner
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    v = trained[0].vectors()
    # batches of 256 that batch normalisation has centred
    torch.testing.assert_close(v.z1[:256].mean(dim=0), torch.zeros(v.z1.shape[1]), atol=1e-5, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_components_of_figure_4():
    noise = torch.Generator().manual_seed(0)
    Z = normalize(torch.randn(400, 5, dtype=torch.float64) + 1)
    o, r, drawn = (exact._component(name, Z, noise) for name in ("o", "r", "random"))
    torch.testing.assert_close(o + r, Z)
    torch.testing.assert_close(o, Z.mean(dim=0).expand_as(Z))
    assert float(drawn.norm()) == pytest.approx(float(r.norm()), rel=0.1)
    assert not torch.equal(drawn, exact._component("random", Z, noise))


def test_figure_4_follows_every_step_and_the_same_seed_gives_the_same_numbers():
    first, again = (exact.figure4("random", "none", seed=1, epochs=1) for _ in range(2))
    assert first == again
    m_o, m_r = (torch.tensor(first.series[name]) for name in ("m_o", "m_r"))
    assert len(m_o) == 32
    # means over the views: 1 up to how far the views differ
    torch.testing.assert_close(m_o**2 + m_r**2, torch.ones_like(m_o), atol=5e-3, rtol=0)
    numbers = first.numbers
    assert numbers["m_o"] == pytest.approx(float(m_o[16:].mean()))
    assert numbers["m_o_change"] == pytest.approx(numbers["m_o"] - float(m_o[0]))


def test_figure_5a_keeps_its_identities():
    numbers = exact.figure5a("plain", seed=2, epochs=1).numbers
    assert numbers["crossing_error"] < 1e-9
    assert numbers["product_error"] < 1e-12


def test_cosines_of_figure_5c_against_autograd():
    torch.manual_seed(0)
    z_a, z_b = torch.randn(2, 12, 5, dtype=torch.float64)
    Z = normalize(z_a).requires_grad_()
    covariance = torch.cov(Z.T)
    pull = -torch.autograd.grad((covariance - covariance.diag().diag()).square().sum() / 5, Z)[0]
    A = normalize(z_a).requires_grad_()
    logits = A @ normalize(z_b).T / 0.3
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(12), reduction="sum")
    extra = -0.3 * torch.autograd.grad(loss, A)[0] - normalize(z_b)
    o_e, r_e = extra.mean(dim=0), extra - extra.mean(dim=0)
    cosine = torch.cosine_similarity
    expected = [
        float(cosine(r_e.flatten(), pull.flatten(), dim=0)),
        0.0,
        float(cosine(o_e, normalize(z_a).mean(dim=0), dim=0)),
        float(r_e.norm()),
    ]
    assert exact._alike(z_a, z_b, 0.3) == pytest.approx(expected, abs=1e-12)


def test_covariance_is_that_of_standardised_columns_and_starts_before_training():
    result = exact.correlation("infonce", seed=2, temperature=0.5, epochs=1)
    v = exact.Training.of("infonce", "plain", 2, exact._lasting(1)).vectors()
    slow = 0.0
    for z in (v.z1, v.z2):
        correlation = torch.corrcoef(z.T)
        slow += float(correlation.square().sum() - correlation.diag().square().sum()) / z.shape[1] / 2
    assert result.series["covariance"][0] == pytest.approx(slow, rel=5e-3)
    assert result.numbers["covariance"] == result.series["covariance"][1]
    assert "linear_probe" not in result.numbers


def test_the_last_bias_is_the_one_that_is_added(trained):
    predictor = trained[0].session.learner.predictor
    assert torch.equal(exact._last_bias(predictor), predictor.layers[-1].bias)


def test_the_bias_of_its_run_is_compared_with_the_closed_form():
    numbers = exact.bias_to_center("simsiam-bias", "none", seed=2, epochs=1).numbers
    assert numbers["strength"] == pytest.approx(numbers["c"] / (1 + numbers["c"]))
    assert numbers["strength_error"] == pytest.approx(abs(numbers["strength"] - numbers["strength_closed"]))
    assert -1 <= numbers["cosine"] <= 1


def test_phases_of_figure_5b(monkeypatch):
    read = []
    monkeypatch.setattr(
        exact, "Decorrelation", lambda **how: read.append(how) or (lambda q, k: -(q * k).mean())
    )
    result = exact.figure5b("l2", "plain", seed=1, learn=0, collapse=1, recover=1)
    assert read == [{"normalise": "l2"}]
    assert len(result.series["m_r"]) == 64
    numbers = result.numbers
    assert numbers["gain"] == numbers["m_r_recovered"] - numbers["m_r_collapsed"]
    assert numbers["m_r_learnt"] != numbers["m_r_collapsed"]
