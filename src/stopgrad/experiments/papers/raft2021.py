"""Shi et al. 2020, "Run away from your teacher" (RAFT; raft2021 here): BYOL, its bound BYOL', and RAFT.

The paper's accuracies are linear probes on CIFAR-10 after 300 epochs, mean of 3 seeds; ours are linear probes
on `digits`. Its alignment is divided by the 128 dimensions, ours is a sum: theirs stands here times 128.
Claims are in their corrected form: RAFT from (theta, -W) is BYOL' from (theta, W), so that where there is a
predictor the two are one method.
"""

from typing import Any

from stopgrad.experiments.rules import All, Always, Greater, Indistinguishable, Rule, Under, Within
from stopgrad.experiments.schema import DIGITS, MINUTES, QUICK, SEEDS, Arm, Experiment

PROBE, ALIGNMENT, UNIFORMITY = "linear_probe", "p.alignment", "z.uniformity"
DIMENSIONS = 128

MARGIN = 0.03
"""Two probes within 3 points are one: the paper's BYOL' and RAFT with an MLP, one method, are 2.1 apart."""

ADAM: dict[str, Any] = {**DIGITS, "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 1e-5}}
"""The base of this paper's runs: Adam in place of SGD."""

# appendix C: the predictor is built as the projector, without its batch normalisation
PREDICTORS: dict[str, dict[str, Any]] = {
    "MLP": {"kind": "mlp", "bn": False},
    "linear": {"kind": "linear"},
    "identity start": {"kind": "linear", "init": "identity"},
    "none": {"kind": "identity"},
}
METHODS: dict[str, dict[str, Any]] = {
    # L_BYOL of Eq. 3 is the squared distance
    "BYOL": {"method": "byol", "distance": "squared-l2"},
    "BYOL'": {"method": "byol-prime"},
    "RAFT": {"method": "raft"},
}
TAUGHT = ("MLP", "linear")
"""The predictors of Table 1."""


def _changes(method: str, predictor: str, **more: Any) -> dict[str, Any]:
    return METHODS[method] | {"predictor": PREDICTORS[predictor]} | more


def _weighted(method: str, predictor: str, beta: float) -> Arm:
    """L_align and ``beta`` times L_cross, which RAFT subtracts."""
    weight = beta / 2 if method == "BYOL'" else -beta / 2
    pairing = [
        {"query": "p1", "key": "p2", "weight": 1.0},
        {"query": "p1", "key": "t1", "weight": weight},
        {"query": "p2", "key": "t2", "weight": weight},
    ]
    return Arm(f"{method}, {predictor}, beta {beta:g}", _changes(method, predictor, pairing=pairing))


STILL: dict[str, Any] = {"optimizer": {"lr": 1e-12}, "schedule": {"warmup_epochs": 0}, "epochs": 1}
"""Changes that leave all weights where they start and give batch normalisation its statistics."""

UNTRAINED = Arm("untrained", _changes("BYOL", "linear", **STILL))


def _paper(alignment: float, uniformity: float, probe: float) -> dict[str, float]:
    """A row of the paper's tables: alignment per dimension, uniformity, accuracy in percent."""
    return {
        ALIGNMENT: round(alignment * DIMENSIONS, 12),
        UNIFORMITY: uniformity,
        PROBE: round(probe / 100, 4),
    }


RANDOM = _paper(78.09e-4, -0.51, 42.74)

TABLE1 = {
    "untrained": RANDOM,
    "BYOL, MLP": _paper(25.03e-4, -2.22, 64.32),
    "BYOL', MLP": _paper(22.09e-4, -2.07, 69.21),
    "RAFT, MLP": _paper(18.90e-4, -2.04, 71.31),
    "BYOL, linear": _paper(7.71e-4, -2.16, 67.64),
    "BYOL', linear": _paper(7.32e-4, -2.19, 68.61),
    "RAFT, linear": _paper(7.42e-4, -2.23, 67.55),
    "BYOL, none": _paper(1.94e-10, -0.14, 20.92),
    "BYOL', none": _paper(1.35e-10, -0.10, 16.92),
    "RAFT, none": _paper(16.07e-4, -0.006, 11.72),
}

# with a predictor and without; at one with its twin, and where it has none
SPREAD: tuple[Rule, ...] = (
    *(Greater(f"{method}, {predictor}", "untrained", PROBE) for method in METHODS for predictor in TAUGHT),
    *(
        Greater(f"{method}, none", f"{method}, {predictor}", UNIFORMITY)
        for method in METHODS
        for predictor in TAUGHT
    ),
    *(Indistinguishable(f"BYOL', {q}", f"RAFT, {q}", PROBE, margin=MARGIN) for q in TAUGHT),
    Greater("RAFT, none", "BYOL', none", ALIGNMENT),
)

TBL1 = Experiment(
    id="raft2021-tbl1",
    paper="raft2021",
    section="sections 3 and 4, Table 1",
    title="BYOL, BYOL' and RAFT x MLP, linear and no predictor",
    claim="With an MLP or a linear predictor all three learn and keep z spread, without one none does; BYOL' "
    "and RAFT, one method where there is a predictor, do equally well with one and differ without, where "
    "RAFT alone keeps the views apart.",
    base=ADAM,
    arms=(
        UNTRAINED,
        *(Arm(f"{method}, {q}", _changes(method, q)) for q in (*TAUGHT, "none") for method in METHODS),
    ),
    seeds=SEEDS,
    paper_numbers=TABLE1,
    rule=Under(
        "runs without a predictor are compared with those that have one, not with untrained weights",
        All(*SPREAD, *(Greater("untrained", f"{method}, none", PROBE) for method in METHODS)),
        All(
            *SPREAD,
            *(Greater(f"{method}, {q}", f"{method}, none", PROBE) for method in METHODS for q in TAUGHT),
        ),
    ),
    cost_minutes=50 * MINUTES,
    memory_gib=1.0,
)

TAN = Experiment(
    id="raft2021-tan",
    paper="raft2021",
    section="section 5, remark on Theorem 5.1, Table 1",
    title="The tangential part of the gradient alone",
    claim="Leaving out of the gradient what is normal to the sphere changes none of the three methods: l2 "
    "normalisation by autograd has no such part (the gradients themselves are compared for Theorem 5.1).",
    base=ADAM,
    arms=(
        UNTRAINED,
        *(Arm(f"{method}, linear", _changes(method, "linear")) for method in METHODS),
        *(
            Arm(f"{method}, linear, tangential", _changes(method, "linear", gradient="tangential"))
            for method in METHODS
        ),
    ),
    seeds=SEEDS,
    paper_numbers={
        **{arm: TABLE1[arm] for arm in ("untrained", "BYOL, linear", "BYOL', linear", "RAFT, linear")},
        "BYOL, linear, tangential": _paper(7.83e-4, -1.92, 67.63),
        "BYOL', linear, tangential": _paper(7.52e-4, -2.19, 67.66),
        "RAFT, linear, tangential": _paper(7.61e-4, -2.13, 69.31),
    },
    rule=All(
        *(
            Indistinguishable(f"{method}, linear, tangential", f"{method}, linear", PROBE, margin=MARGIN)
            for method in METHODS
        ),
        *(Greater(f"{method}, linear, tangential", "untrained", PROBE) for method in METHODS),
        *(Greater("untrained", f"{method}, linear, tangential", UNIFORMITY) for method in METHODS),
    ),
    cost_minutes=35 * MINUTES,
    memory_gib=1.0,
)

WEAK_TO_STRONG = (0.1, 1.0, 10.0)
WITHOUT = (1.0, 10.0, 100.0)
WEIGHTED = (
    *(_weighted("RAFT", predictor, beta) for predictor in TAUGHT for beta in WEAK_TO_STRONG),
    *(_weighted(method, "none", beta) for method in ("RAFT", "BYOL'") for beta in WITHOUT),
)
TABLE3 = {
    "RAFT, MLP, beta 0.1": _paper(8.37e-5, -2.00, 65.53),
    "RAFT, MLP, beta 1": _paper(1.89e-3, -2.04, 71.31),
    "RAFT, MLP, beta 10": _paper(1.00e-2, -0.29, 25.88),
    "RAFT, linear, beta 0.1": _paper(8.22e-6, -1.61, 52.57),
    "RAFT, linear, beta 1": _paper(7.42e-4, -2.25, 67.55),
    "RAFT, linear, beta 10": _paper(3.70e-4, -2.15, 66.10),
    "RAFT, none, beta 1": _paper(1.61e-3, -0.01, 11.72),
    "RAFT, none, beta 10": _paper(1.54e-2, -0.99, 32.13),
    "RAFT, none, beta 100": _paper(1.56e-2, -1.29, 29.36),
    "BYOL', none, beta 1": _paper(1.35e-10, -0.12, 16.92),
    "BYOL', none, beta 10": _paper(2.38e-10, -0.88, 24.42),
    "BYOL', none, beta 100": _paper(4.55e-8, -1.14, 37.48),
}
RESTRAINED = tuple(Greater(f"RAFT, none, beta {b:g}", f"BYOL', none, beta {b:g}", ALIGNMENT) for b in WITHOUT)

TBL3 = Experiment(
    id="raft2021-tbl3",
    paper="raft2021",
    section="section 4.2, appendix D, Table 3",
    title="The weight beta of the cross-model loss",
    claim="With a predictor RAFT needs both terms: a small beta lets the views agree too well and costs "
    "accuracy, as does a large one with an MLP. Without a predictor RAFT keeps the views further apart than "
    "BYOL' at any beta.",
    base=ADAM,
    arms=WEIGHTED,
    seeds=SEEDS,
    paper_numbers=TABLE3,
    rule=Under(
        "of the runs without a predictor alone",
        All(
            *RESTRAINED,
            Greater("RAFT, MLP, beta 1", "RAFT, MLP, beta 0.1", PROBE),
            Greater("RAFT, MLP, beta 1", "RAFT, MLP, beta 10", PROBE),
            Greater("RAFT, linear, beta 1", "RAFT, linear, beta 0.1", PROBE),
            Greater("RAFT, MLP, beta 1", "RAFT, MLP, beta 0.1", ALIGNMENT),
            Greater("RAFT, MLP, beta 10", "RAFT, MLP, beta 1", ALIGNMENT),
            Greater("RAFT, linear, beta 1", "RAFT, linear, beta 0.1", ALIGNMENT),
        ),
        All(*RESTRAINED),
    ),
    cost_minutes=60 * MINUTES,
    memory_gib=1.0,
)

THM41 = Experiment(
    id="raft2021-thm4.1",
    paper="raft2021",
    section="section 4.1, Theorem 4.1, Eq. 7; appendix G",
    title="BYOL' bounds BYOL from above",
    claim="L_BYOL <= (1/a + 1/b) L_BYOL' for all a, b > 0, and no smaller constant will do; a + b, as a scan "
    "of Eq. 7 reads, is none.",
    function="raft2021.bound",
    rule=All(
        Always("all", "largest", high=1 + 1e-9),
        Always("all", "sharpness", low=0.999, high=1 + 1e-9),
        Always("all", "sum_largest", low=1.01),
    ),
)

TWINS = {"linear": PREDICTORS["linear"], "MLP": {**PREDICTORS["MLP"], "hidden": 32}}

THM51 = Experiment(
    id="raft2021-thm5.1",
    paper="raft2021",
    section="section 5, Theorem 5.1; appendix H",
    title="RAFT is BYOL' with the predictor's sign changed",
    claim="From (theta, -W) RAFT takes every step that BYOL' takes from (theta, W), for any predictor that "
    "ends in a linear layer and with plain gradients, whose tangential part is all of them: L_RAFT = L_BYOL' "
    "- 4 b. Without a predictor there is no such twin.",
    function="raft2021.correspondence",
    arms=(
        Arm("linear", {"predictor": TWINS["linear"]}),
        Arm("MLP, beta 10", {"predictor": TWINS["MLP"], "b": 10.0}),
        Arm("none", {"predictor": PREDICTORS["none"]}),
    ),
    rule=All(
        *(
            Always(arm, measure, high=1e-8)
            for arm in ("linear", "MLP, beta 10")
            for measure in ("loss_error", "encoder_distance", "predictor_error", "tangential_error")
        ),
        *(Always(arm, "moved", low=0.05) for arm in ("linear", "MLP, beta 10")),
        Always("none", "encoder_distance", low=0.05),
    ),
)

LPI = Experiment(
    id="raft2021-lpi",
    paper="raft2021",
    section="section 3, Fig. 4, BYOL-LPI",
    title="A linear predictor that starts at the identity",
    claim="From W = I, where no predictor is as good as one, z first crowds together and then, within the "
    "training, spreads further than it did at the start.",
    function="raft2021.identity_start",
    quick={"changes": QUICK},
    base={"changes": {**ADAM, **_changes("BYOL", "identity start")}, "untrained": STILL},
    seeds=SEEDS,
    rule=Under(
        "of the recovery, wherever it sets out from",
        All(
            Within("all", "deterioration", low=0.05),
            Within("all", "recovery", low=0.5),
            Within("all", "gain", low=0.0),
        ),
        All(Within("all", "recovery", low=0.5), Within("all", "gain", low=0.0)),
    ),
    cost_minutes=5 * MINUTES,
    memory_gib=1.0,
)

SHORT = {"epochs": 12}
"""Of a full run's 24: these trainings are no part of any other experiment."""

FIG3 = Experiment(
    id="raft2021-fig3",
    paper="raft2021",
    section="appendix F.1, Fig. 3",
    title="Projections on the circle of their first two components",
    claim="BYOL, BYOL' and RAFT with a predictor spread the images over the circle, BYOL without one crowds "
    "them.",
    function="raft2021.circle",
    quick={"changes": {**QUICK, "epochs": 2}},
    arms=(
        Arm("supervised", {"changes": {**ADAM, **SHORT, "method": "supervised"}}),
        *(Arm(method, {"changes": {**ADAM, **_changes(method, "MLP", **SHORT)}}) for method in METHODS),
        Arm("BYOL without predictor", {"changes": {**ADAM, **_changes("BYOL", "none", **SHORT)}}),
    ),
    seeds=SEEDS,
    rule=Under(
        "directions are from the origin: taken from the mean, as principal components are, they show a "
        "collapsed cloud as if it were large",
        All(*(Greater(method, "BYOL without predictor", "entropy", by=0.05) for method in METHODS)),
        All(*(Greater(method, "BYOL without predictor", "entropy_origin", by=0.05) for method in METHODS)),
    ),
    cost_minutes=12.5 * MINUTES,
    memory_gib=1.0,
)

LEARNED = ("MLP", "linear", "identity start")
APART: tuple[Rule, ...] = (
    *(Greater("BYOL, none", f"BYOL, {predictor}", UNIFORMITY) for predictor in LEARNED),
    *(Greater("untrained", f"BYOL, {predictor}", UNIFORMITY) for predictor in LEARNED),
    *(Greater(f"BYOL, {predictor}", "BYOL, none", ALIGNMENT) for predictor in LEARNED),
)

FIG4 = Experiment(
    id="raft2021-fig4",
    paper="raft2021",
    section="section 3, appendix F.2, Fig. 4",
    title="BYOL with four predictors, epoch by epoch",
    claim="Whatever the learned predictor, an MLP, linear, or linear from the identity, z becomes more "
    "uniform than at the start and the probes are close; without one z collapses onto views that agree.",
    base=ADAM,
    arms=(
        UNTRAINED,
        *(Arm(f"BYOL, {predictor}", _changes("BYOL", predictor)) for predictor in PREDICTORS),
    ),
    seeds=SEEDS,
    paper_numbers={arm: TABLE1[arm] for arm in ("untrained", "BYOL, MLP", "BYOL, linear", "BYOL, none")},
    rule=Under(
        "of uniformity and alignment, not of the probes",
        All(
            *APART,
            Indistinguishable("BYOL, MLP", "BYOL, linear", PROBE, margin=0.05),
            Indistinguishable("BYOL, linear", "BYOL, identity start", PROBE, margin=0.05),
        ),
        All(*APART),
    ),
    cost_minutes=25 * MINUTES,
    memory_gib=1.0,
)

# at most 4; untrained weights have about 1 in the paper
AGREE = 0.02


def _traces(betas: tuple[float, ...], of_linear: tuple[float, ...]) -> tuple[Rule, ...]:
    """What Fig. 5's panels show for some weights."""
    return (
        *(Within(f"BYOL', none, beta {beta:g}", ALIGNMENT, high=AGREE) for beta in betas),
        *(Greater(f"RAFT, none, beta {beta:g}", f"BYOL', none, beta {beta:g}", ALIGNMENT) for beta in betas),
        *(Greater("untrained", f"RAFT, linear, beta {beta:g}", UNIFORMITY) for beta in of_linear),
    )


FIG5 = Experiment(
    id="raft2021-fig5",
    paper="raft2021",
    section="section 4.2, appendix F.2, Fig. 5",
    title="Alignment and uniformity over training, by beta",
    claim="Without a predictor BYOL' lets the views agree whatever beta, while RAFT keeps them apart, the "
    "more the larger beta; with a linear predictor RAFT makes z more uniform.",
    base=ADAM,
    arms=(UNTRAINED, *(arm for arm in WEIGHTED if "MLP" not in arm.name)),
    seeds=SEEDS,
    paper_numbers={
        "untrained": RANDOM,
        **{arm: row for arm, row in TABLE3.items() if "MLP" not in arm},
    },
    rule=Under(
        "beta = 1, as in Table 1",
        All(
            *_traces(WITHOUT, WEAK_TO_STRONG),
            Greater("RAFT, none, beta 10", "RAFT, none, beta 1", ALIGNMENT),
        ),
        All(*_traces((1.0,), (1.0,))),
    ),
    cost_minutes=50 * MINUTES,
    memory_gib=1.0,
)

APPI = Experiment(
    id="raft2021-appi",
    paper="raft2021",
    section="appendix I",
    title="Encoders that a linear predictor holds still",
    claim="W theta = theta B A^-1 has a theta beside 0 exactly if W and B A^-1 share an eigenvalue, and this "
    "is what prevents collapse.",
    function="raft2021.fixed_encoders",
    rule=Under(
        "existence alone: theta = 0 is a fixed point as well, and starts with a negative predictor fall into "
        "it",
        All(
            Always("all", "miscounted", high=0.0),
            Always("all", "residual", high=1e-8),
            Always("all", "left", low=0.1),
        ),
        All(
            Always("all", "miscounted", high=0.0),
            Always("all", "residual", high=1e-8),
            Always("all", "left_positive", low=0.1),
        ),
    ),
)

EXPERIMENTS = (TBL1, TAN, TBL3, THM41, THM51, LPI, FIG3, FIG4, FIG5, APPI)
