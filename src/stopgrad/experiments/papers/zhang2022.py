"""Zhang et al. 2022, "How does SimSiam avoid collapse without negative samples?" (SimSiam analysis).

The paper's accuracies are online linear probes on CIFAR-100 after 1000 epochs, one run each; ours are linear
probes on `digits`. Its standard deviations are given times the square root of its width, 2048, as ours are.
What it calls collapse is 1 % accuracy, its column of ticks; ours is judged from the vectors.

All projectors end in batch normalisation without scale and shift, as the paper's do, unless an arm says "no
final BN".
"""

from typing import Any

from stopgrad.experiments.rules import (
    All,
    Always,
    Collapses,
    Greater,
    Indistinguishable,
    Rule,
    Survives,
    Under,
    Within,
)
from stopgrad.experiments.schema import DIGITS, SEEDS, Arm, Experiment

PROBE = "linear_probe"
NO_BN: dict[str, Any] = {"projector": {"final_bn": "none"}}
MINUTES = 0.7
"""Of one run of 24 epochs on one core, measured with both cores busy."""
SHORT = 0.12
"""Of one of the short trainings of `stopgrad.experiments.exact.zhang2022`."""
RUN_GIB = 1.0
SQRT_WIDTH = 2048**0.5
ROUNDING = 1e-6

SIMSIAM = Arm("SimSiam", {"method": "simsiam"})


def _reported(accuracy: float, collapsed: bool, **measures: float) -> dict[str, float]:
    """A row of the paper's tables: accuracy, its column "collapse", and what else it gives of z."""
    row = {PROBE: accuracy, "z.collapsed": float(collapsed), "z.healthy": float(not collapsed)}
    return row | {f"z.{name}": value for name, value in measures.items()}


AVERAGE, MEAN_10, MEAN_25 = "moving average", "mean of 10 views", "mean of 25 views"

TBL1 = Experiment(
    id="zhang2022-tbl1",
    paper="zhang2022",
    section="section 2.2, Table 1; A.3",
    title="The expectation over augmentations, taken explicitly",
    claim="Without a predictor a moving average of each image's projections as the target prevents collapse, "
    "the mean over 9 or 24 further views does not.",
    base=DIGITS,
    arms=(
        Arm(AVERAGE, {"method": "simsiam-moving-average"}),
        Arm(MEAN_10, {"method": "simsiam-eoa"}),
        Arm(MEAN_25, {"method": "simsiam-eoa", "target": {"views": 25}}),
        Arm(f"{AVERAGE}, no final BN", {"method": "simsiam-moving-average", **NO_BN}),
        Arm(f"{MEAN_10}, no final BN", {"method": "simsiam-eoa", **NO_BN}),
    ),
    seeds=SEEDS,
    paper_numbers={
        AVERAGE: _reported(0.4657, False, std=0.0108 * SQRT_WIDTH),
        MEAN_10: _reported(0.01, True, std=0.0),
        MEAN_25: _reported(0.01, True, std=0.0),
    },
    rule=Under(
        "without batch normalisation at the projector's end",
        All(Survives(AVERAGE), Collapses(MEAN_10), Collapses(MEAN_25)),
        All(Survives(f"{AVERAGE}, no final BN"), Collapses(f"{MEAN_10}, no final BN")),
    ),
    cost_minutes=5 * (2 + 2 * 1.6 + 3) * MINUTES,
    memory_gib=RUN_GIB,
)

ONE_SIDED = ("mirror", "naive")

TBL2 = Experiment(
    id="zhang2022-tbl2",
    paper="zhang2022",
    section="section 2.3, Table 2; A.4, Algorithms 1-3, Fig. 7",
    title="SimSiam against mirror, naive and symmetric architectures",
    claim="SimSiam does not collapse; it does with the gradient on the path without predictor (mirror), with "
    "no predictor and no stop-gradient (naive), and with the predictor on both paths.",
    base=DIGITS,
    arms=(
        SIMSIAM,
        Arm("mirror", {"method": "simsiam-mirror"}),
        Arm("naive", {"method": "simsiam-naive"}),
        Arm("symmetric predictor", {"method": "simsiam-symmetric-predictor"}),
    ),
    seeds=SEEDS,
    paper_numbers={
        "SimSiam": _reported(0.6662, False),
        "mirror": _reported(0.01, True),
        "naive": _reported(0.01, True),
        "symmetric predictor": _reported(0.01, True),
    },
    rule=Under(
        "with the predictor on both paths its output p collapses, which the loss compares, not z",
        All(Survives("SimSiam"), *map(Collapses, (*ONE_SIDED, "symmetric predictor"))),
        All(
            Survives("SimSiam"),
            *map(Collapses, ONE_SIDED),
            Collapses("symmetric predictor", node="p"),
        ),
    ),
    cost_minutes=20 * MINUTES,
    memory_gib=RUN_GIB,
)

FIG3 = Experiment(
    id="zhang2022-fig3",
    paper="zhang2022",
    section="section 2.3, Fig. 3; A.5, Algorithm 4",
    title="A trainable inverse predictor on the target's path",
    claim="With a learned inverse of the predictor applied to p as the target, SimSiam still trains, and is "
    "slightly worse than with z itself.",
    base=DIGITS,
    arms=(SIMSIAM, Arm("inverse predictor", {"method": "simsiam-inverse-predictor"})),
    seeds=SEEDS,
    rule=Under(
        "of its being trainable and at most slightly worse, not of its being worse",
        All(
            Survives("inverse predictor"),
            Greater("SimSiam", "inverse predictor", PROBE),
            Indistinguishable("SimSiam", "inverse predictor", PROBE, margin=0.1),
        ),
        All(
            Survives("inverse predictor"),
            Indistinguishable("SimSiam", "inverse predictor", PROBE, margin=0.1),
        ),
    ),
    cost_minutes=10 * MINUTES,
    memory_gib=RUN_GIB,
)


def _pushed(end: str) -> Rule:
    """Conjecture 1 for one kind of projector."""
    return All(
        Within(f"o{end}", "m_o_change", low=1e-3),
        Within(f"r{end}", "m_o_change", high=-1e-3),
        Greater(f"o{end}", f"random{end}", "m_o_change"),
        Greater(f"random{end}", f"r{end}", "m_o_change"),
    )


FIG4 = Experiment(
    id="zhang2022-fig4",
    paper="zhang2022",
    section="section 3.1, Conjecture 1, Fig. 4",
    title="Pushing the centre, pushing the residual",
    claim="A gradient along the centre o of Z raises m_o and so lowers m_r, one along the residual r does "
    "the opposite, and a random one less than either.",
    function="zhang2022.figure4",
    quick={"epochs": 2},
    arms=tuple(
        Arm(component + end, {"component": component, "final_bn": final_bn})
        for end, final_bn in (("", "plain"), (", no final BN", "none"))
        for component in ("o", "r", "random")
    ),
    seeds=SEEDS,
    rule=Under(
        "without batch normalisation at the projector's end, which keeps the mean of z at 0",
        All(_pushed(""), _pushed(", no final BN")),
        _pushed(", no final BN"),
    ),
    cost_minutes=30 * SHORT,
    memory_gib=RUN_GIB,
)

TBL3 = Experiment(
    id="zhang2022-tbl3",
    paper="zhang2022",
    section="section 3.2, Table 3",
    title="Triplet loss without o_e, without r_e",
    claim="Of the extra gradient of one random negative, the centre o_e alone prevents collapse; the "
    "residual r_e is noise, and leaving it out is better.",
    base=DIGITS,
    arms=(
        Arm("all", {"method": "triplet"}),
        Arm("without r_e", {"method": "triplet-oe"}),
        Arm("without o_e", {"method": "triplet-re"}),
    ),
    seeds=SEEDS,
    paper_numbers={
        "all": _reported(0.3621, False, std=0.020 * SQRT_WIDTH, m_o=0.026, m_r=0.99),
        "without r_e": _reported(0.4741, False, std=0.02005 * SQRT_WIDTH, m_o=0.026, m_r=0.99),
        "without o_e": _reported(0.01, True, std=0.0, m_o=1.0, m_r=0.0),
    },
    rule=Under(
        "of collapse alone, not of the accuracy",
        All(
            Survives("all"),
            Survives("without r_e"),
            Collapses("without o_e"),
            Greater("without r_e", "all", PROBE),
        ),
        All(Survives("all"), Survives("without r_e"), Collapses("without o_e")),
    ),
    cost_minutes=15 * MINUTES,
    memory_gib=RUN_GIB,
)

KEPT = {"o_e": "simsiam-oe", "r_e": "simsiam-re", "none": "simsiam-no-extra"}
OWN_LOSS = ", predictor's own loss"


def _kept(end: str) -> Rule:
    """Whether each component alone prevents collapse, and no component does not."""
    return All(Survives(f"o_e{end}"), Survives(f"r_e{end}"), Collapses(f"none{end}", node="p"))


TBL4 = Experiment(
    id="zhang2022-tbl4",
    paper="zhang2022",
    section="section 3.3, Eq. 4, Table 4",
    title="SimSiam with o_e, r_e, both and none of its extra gradient",
    claim="SimSiam's extra gradient prevents collapse by its centre alone as well as by its residual alone; "
    "with neither the prediction collapses; o_e alone is worse than both, r_e alone is not much.",
    base=DIGITS,
    arms=(
        Arm("both", {"method": "simsiam"}),
        *(Arm(name, {"method": method}) for name, method in KEPT.items()),
        *(
            Arm(name + OWN_LOSS, {"method": method, "gradient": {"predictor_loss": "separate"}})
            for name, method in KEPT.items()
        ),
    ),
    seeds=SEEDS,
    paper_numbers={
        "both": _reported(0.6662, False),
        # the paper does not say what its predictor learns from
        **{
            name + end: _reported(accuracy, collapsed)
            for end in ("", OWN_LOSS)
            for name, accuracy, collapsed in (
                ("o_e", 0.4808, False),
                ("r_e", 0.6615, False),
                ("none", 0.01, True),
            )
        },
    },
    rule=Under(
        "of collapse, not of the accuracy, and with a predictor that learns from SimSiam's own loss, so that "
        "only the encoder loses a component",
        All(
            Survives("both"),
            *(_kept(end) for end in ("", OWN_LOSS)),
            *(Greater("both", f"o_e{end}", PROBE) for end in ("", OWN_LOSS)),
            *(Indistinguishable("both", f"r_e{end}", PROBE, margin=0.03) for end in ("", OWN_LOSS)),
        ),
        All(Survives("both"), _kept(OWN_LOSS)),
    ),
    cost_minutes=35 * MINUTES,
    memory_gib=RUN_GIB,
)

IDENTITIES = tuple(
    Always(arm, error, high=ROUNDING)
    for arm in ("SimSiam", "no final BN")
    for error in ("crossing_error", "product_error")
)

FIG5A = Experiment(
    id="zhang2022-fig5a",
    paper="zhang2022",
    section="section 3.3, Fig. 5a",
    title="How much of the centre is in o_e",
    claim="SimSiam's o_e = o_z - o_p takes o_p away (eta_p < 0), that of its mirror image adds o_z "
    "(eta_z > 0). Both shares have closed forms with (1 + eta_p)(1 + eta_z) = cos^2(o_z, o_p).",
    function="zhang2022.figure5a",
    quick={"epochs": 3},
    arms=(Arm("SimSiam", {"final_bn": "plain"}), Arm("no final BN", {"final_bn": "none"})),
    seeds=SEEDS,
    paper_numbers={"SimSiam": {"eta_p": -0.5, "eta_z": 0.2}},
    rule=Under(
        "of SimSiam's share alone, for the two are no independent evidence: of shares with one positive the "
        "other is negative, but both can be negative",
        All(Within("SimSiam", "eta_p", high=0.0), Within("SimSiam", "eta_z", low=0.0), *IDENTITIES),
        All(Within("SimSiam", "eta_p", high=0.0), *IDENTITIES),
    ),
    cost_minutes=10 * SHORT,
    memory_gib=RUN_GIB,
)

READINGS = tuple(
    (f"{of}-normalised{end}", normalise, final_bn)
    for of, normalise in (("batch", "batch"), ("l2", "l2"))
    for end, final_bn in (("", "plain"), (", no final BN", "none"))
)

FIG5B = Experiment(
    id="zhang2022-fig5b",
    paper="zhang2022",
    section="section 3.4, Conjecture 2, Fig. 5b; A.6, Algorithm 5",
    title="De-correlation after a collapse",
    claim="Once a collapsing loss has lowered m_r, a loss of the dimensions' covariance alone raises it.",
    function="zhang2022.figure5b",
    quick={"learn": 2, "collapse": 3, "recover": 3},
    arms=tuple(
        Arm(name, {"normalise": normalise, "final_bn": final_bn}) for name, normalise, final_bn in READINGS
    ),
    seeds=SEEDS,
    rule=Under(
        "the covariance is that of z normalised over the batch; that of l2-normalised vectors is 0 in full "
        "collapse as well",
        All(*(Within(name, "gain", low=0.1) for name, _, _ in READINGS)),
        All(*(Within(name, "gain", low=0.1) for name, of, _ in READINGS if of == "batch")),
    ),
    cost_minutes=20 * 1.5 * SHORT,
    memory_gib=RUN_GIB,
)

FIG5C = Experiment(
    id="zhang2022-fig5c",
    paper="zhang2022",
    section="section 3.5, Fig. 5c",
    title="InfoNCE's residual gradient and de-correlation, over the temperature",
    claim="InfoNCE's r_e points where de-correlation does (cosine at least 0.5) for temperatures from 0.05 "
    "to 1, most of all near 0.1 or 0.2; o_e is orthogonal to it.",
    function="zhang2022.figure5c",
    quick={"epochs": 3},
    seeds=SEEDS,
    rule=Under(
        "of the range, not of the peak; a high temperature takes the length of r_e, not its direction",
        All(
            Within("all", "lowest", low=0.5),
            Within("all", "peak", low=0.1, high=0.2),
            Always("all", "o_e", high=ROUNDING),
        ),
        All(
            Within("all", "lowest", low=0.5),
            Within("all", "length", high=0.1),
            Always("all", "o_e", high=ROUNDING),
        ),
    ),
    cost_minutes=5 * SHORT,
    memory_gib=RUN_GIB,
)

HIGHER = Greater("InfoNCE without r_e", "InfoNCE", "covariance")

FIG6 = Experiment(
    id="zhang2022-fig6",
    paper="zhang2022",
    section="sections 3.4 and 3.5, Fig. 6",
    title="Covariance over training",
    claim="SimSiam and InfoNCE lower the covariance of z after the first epochs; InfoNCE without r_e keeps "
    "it high.",
    function="zhang2022.correlation",
    quick={"epochs": 3},
    arms=(
        SIMSIAM,
        Arm("InfoNCE", {"method": "infonce"}),
        Arm("InfoNCE without r_e", {"method": "infonce-oe"}),
    ),
    seeds=SEEDS,
    rule=Under(
        "of InfoNCE with and without r_e, not of the course over the epochs",
        All(Within("SimSiam", "fall", low=0.1), Within("InfoNCE", "fall", low=0.1), HIGHER),
        HIGHER,
    ),
    cost_minutes=15 * SHORT,
    memory_gib=RUN_GIB,
)

TEMPERATURES = (0.1, 0.2, 0.5, 1.0, 5.0)
MORE_CORRELATED = tuple(
    Greater(f"temperature {t:g}", "temperature 0.2", "covariance") for t in TEMPERATURES[3:]
)

FIG8 = Experiment(
    id="zhang2022-fig8",
    paper="zhang2022",
    section="A.7, Fig. 8",
    title="Temperature of InfoNCE: accuracy and covariance",
    claim="A high temperature, 1 or 5, leaves more covariance in z than 0.2 does, and is less accurate.",
    function="zhang2022.correlation",
    quick={"epochs": 3},
    base={"method": "infonce", "probe": True},
    arms=tuple(Arm(f"temperature {t:g}", {"temperature": t}) for t in TEMPERATURES),
    seeds=SEEDS,
    rule=Under(
        "of the covariance, not of the accuracy",
        All(
            *MORE_CORRELATED,
            *(Greater("temperature 0.2", f"temperature {t:g}", PROBE) for t in TEMPERATURES[3:]),
        ),
        All(*MORE_CORRELATED),
    ),
    cost_minutes=25 * 1.5 * SHORT,
    memory_gib=RUN_GIB,
)

SIMPLER = ("two FC", "one FC, tanh")

TBL5 = Experiment(
    id="zhang2022-tbl5",
    paper="zhang2022",
    section="section 4, Table 5",
    title="Simpler predictors: two FC layers, one within tanh, a bias",
    claim="Two linear layers, or one within tanh, do nearly as well as the MLP as the predictor of "
    "l2-normalised z; a single bias prevents collapse, and does worse.",
    base=DIGITS,
    arms=(
        Arm("MLP", {"method": "simsiam"}),
        Arm("two FC", {"method": "simsiam-two-fc"}),
        Arm("one FC, tanh", {"method": "simsiam-tanh-fc"}),
        Arm(
            "one FC, tanh(W)",
            {"method": "simsiam-tanh-fc", "predictor": {"kind": "tanh-fc", "reading": "reparameterised"}},
        ),
        Arm("bias", {"method": "simsiam-bias"}),
        Arm("bias, no final BN", {"method": "simsiam-bias", **NO_BN}),
    ),
    seeds=SEEDS,
    paper_numbers={
        "MLP": _reported(0.669, False),
        "two FC": _reported(0.667, False),
        "one FC, tanh": _reported(0.6482, False),
        "bias": _reported(0.4982, False),
    },
    rule=Under(
        "the linear predictors need not reach the MLP within 5 points, and z ends without batch "
        "normalisation where the predictor is a bias",
        All(
            *map(Survives, (*SIMPLER, "bias")),
            *(Indistinguishable("MLP", simpler, PROBE, margin=0.05) for simpler in SIMPLER),
            *(Greater(better, "bias", PROBE) for better in ("MLP", *SIMPLER)),
        ),
        All(*map(Survives, (*SIMPLER, "bias, no final BN"))),
    ),
    cost_minutes=30 * MINUTES,
    memory_gib=RUN_GIB,
)


def _at_rest(arm: str) -> tuple[Rule, ...]:
    """Direction and length of a bias-only predictor."""
    return Within(arm, "cosine", low=0.95), Within(arm, "strength_error", high=0.1)


TBL6 = Experiment(
    id="zhang2022-tbl6",
    paper="zhang2022",
    section="section 4, Table 6; A.8, Eqs. 9-14",
    title="The predictor's bias and the centre",
    claim="A bias alone as the predictor comes to rest along the centre o_z (cosine at least 0.95), by a "
    "factor in closed form; the last bias of an MLP is near it as well (at least 0.8).",
    function="zhang2022.bias_to_center",
    quick={"epochs": 3},
    arms=(
        Arm("bias", {"method": "simsiam-bias", "final_bn": "plain"}),
        Arm("MLP", {"method": "simsiam", "final_bn": "plain"}),
        Arm("bias, no final BN", {"method": "simsiam-bias", "final_bn": "none"}),
        Arm("MLP, no final BN", {"method": "simsiam", "final_bn": "none"}),
    ),
    seeds=SEEDS,
    paper_numbers={"bias": {"cosine": 0.99}, "MLP": {"cosine": 0.89}},
    rule=Under(
        "without batch normalisation at the projector's end, which leaves no centre to speak of, and of the "
        "bias alone",
        All(*_at_rest("bias"), Within("MLP", "cosine", low=0.8)),
        All(*_at_rest("bias, no final BN")),
    ),
    cost_minutes=20 * SHORT,
    memory_gib=RUN_GIB,
)

BEFORE_THE_LOSS = ("l2, BN, MSE", "BN, MSE")
ELSEWHERE = ("BN, l2, MSE", "l2, MSE")

BN = Experiment(
    id="zhang2022-bn",
    paper="zhang2022",
    section="section 4, two important details",
    title="Where batch normalisation prevents collapse",
    claim="Without predictor and stop-gradient, batch normalisation prevents collapse right before the mean "
    "squared error, and not before the l2 normalisation.",
    base=DIGITS,
    arms=(
        Arm("BN, l2, MSE", {"method": "simsiam-naive"}),
        Arm("l2, MSE", {"method": "simsiam-naive", **NO_BN}),
        Arm("l2, BN, MSE", {"method": "naive-l2-bn", **NO_BN}),
        Arm("BN, l2, BN, MSE", {"method": "naive-l2-bn"}),
        Arm("BN, MSE", {"method": "simsiam-naive", "distance": "euclidean"}),
    ),
    seeds=SEEDS,
    rule=Under(
        "of the spread of z: the dimensions can all be alike, for standardised columns need not differ",
        All(*map(Survives, BEFORE_THE_LOSS), *map(Collapses, ELSEWHERE)),
        All(
            *(Within(name, "z.std", low=0.05) for name in BEFORE_THE_LOSS),
            *map(Collapses, ELSEWHERE),
        ),
    ),
    cost_minutes=25 * MINUTES,
    memory_gib=RUN_GIB,
)

INFONCE = Experiment(
    id="zhang2022-infonce",
    paper="zhang2022",
    section="section 3.5; A.7, Eq. 6",
    title="InfoNCE without r_e",
    claim="InfoNCE's o_e alone keeps the centre from taking over; without r_e the dimensions stay correlated "
    "(lower effective rank), and the accuracy is lower.",
    base=DIGITS,
    arms=(Arm("InfoNCE", {"method": "infonce"}), Arm("without r_e", {"method": "infonce-oe"})),
    seeds=SEEDS,
    rule=Under(
        "of centre and rank, not of the accuracy",
        All(
            Survives("InfoNCE"),
            Within("without r_e", "z.m_o", high=0.5),
            Greater("InfoNCE", "without r_e", "z.effective_rank"),
            Greater("InfoNCE", "without r_e", PROBE),
        ),
        All(
            Survives("InfoNCE"),
            Within("without r_e", "z.m_o", high=0.5),
            Greater("InfoNCE", "without r_e", "z.effective_rank"),
        ),
    ),
    cost_minutes=10 * MINUTES,
    memory_gib=RUN_GIB,
)

EXPERIMENTS = (
    TBL1, TBL2, FIG3, FIG4, TBL3, TBL4, FIG5A, FIG5B, FIG5C, FIG6, FIG8, TBL5, TBL6, BN, INFONCE,
)  # fmt: skip
