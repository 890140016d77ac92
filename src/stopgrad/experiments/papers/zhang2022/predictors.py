"""Simpler predictors, and where batch normalisation does without one (Zhang et al. 2022, section 4)."""

from stopgrad.experiments.papers.zhang2022.architectures import NO_BN, PROBE, RUN_GIB, reported
from stopgrad.experiments.papers.zhang2022.gradients import SHORT
from stopgrad.experiments.rules import (
    All,
    Collapses,
    Greater,
    Indistinguishable,
    Rule,
    Survives,
    Under,
    Within,
)
from stopgrad.experiments.schema import DIGITS, MINUTES, SEEDS, Arm, Experiment

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
        "MLP": reported(0.669, False),
        "two FC": reported(0.667, False),
        "one FC, tanh": reported(0.6482, False),
        "bias": reported(0.4982, False),
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
