"""De-correlation of dimensions, and what of it is in InfoNCE (Zhang et al. 2022, sections 3.4 and 3.5)."""

from stopgrad.experiments.papers.zhang2022.architectures import PROBE, RUN_GIB, SIMSIAM
from stopgrad.experiments.papers.zhang2022.gradients import ROUNDING, SHORT
from stopgrad.experiments.rules import All, Always, Greater, Survives, Under, Within
from stopgrad.experiments.schema import DIGITS, MINUTES, SEEDS, Arm, Experiment

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
