"""SimSiam's architecture varied, and its target as an explicit expectation (Zhang et al. 2022, section 2)."""

from typing import Any

from stopgrad.experiments.rules import All, Collapses, Greater, Indistinguishable, Survives, Under
from stopgrad.experiments.schema import DIGITS, MINUTES, SEEDS, Arm, Experiment

PROBE = "linear_probe"
NO_BN: dict[str, Any] = {"projector": {"final_bn": "none"}}
RUN_GIB = 1.0
SQRT_WIDTH = 2048**0.5

SIMSIAM = Arm("SimSiam", {"method": "simsiam"})


def reported(accuracy: float, collapsed: bool, **measures: float) -> dict[str, float]:
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
        AVERAGE: reported(0.4657, False, std=0.0108 * SQRT_WIDTH),
        MEAN_10: reported(0.01, True, std=0.0),
        MEAN_25: reported(0.01, True, std=0.0),
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
        "SimSiam": reported(0.6662, False),
        "mirror": reported(0.01, True),
        "naive": reported(0.01, True),
        "symmetric predictor": reported(0.01, True),
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
