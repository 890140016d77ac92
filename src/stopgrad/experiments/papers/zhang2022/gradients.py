"""Centre and residual of the extra gradient, one at a time (Zhang et al. 2022, sections 3.1 to 3.3)."""

from stopgrad.experiments.papers.zhang2022.architectures import PROBE, RUN_GIB, SQRT_WIDTH, reported
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
from stopgrad.experiments.schema import DIGITS, MINUTES, SEEDS, Arm, Experiment

SHORT = 0.12
"""Minutes of one of the short trainings of `stopgrad.experiments.exact.zhang2022`."""
ROUNDING = 1e-6


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
        "all": reported(0.3621, False, std=0.020 * SQRT_WIDTH, m_o=0.026, m_r=0.99),
        "without r_e": reported(0.4741, False, std=0.02005 * SQRT_WIDTH, m_o=0.026, m_r=0.99),
        "without o_e": reported(0.01, True, std=0.0, m_o=1.0, m_r=0.0),
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
        "both": reported(0.6662, False),
        # the paper does not say what its predictor learns from
        **{
            name + end: reported(accuracy, collapsed)
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
