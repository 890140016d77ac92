"""Halvagal et al. 2023, "Implicit variance regularization in non-contrastive SSL" (IsoLoss).

The theorems, figures and derivations are those of the paper's appendix. Its accuracies are in the main text,
which is not what we worked from: the trained claim stands without them. Claims are in their corrected form;
where a derivation and the exact gradient differ, the gradient is meant.
"""

from stopgrad.experiments.rules import All, Always, Greater, Rule, Survives, Under
from stopgrad.experiments.schema import DIGITS, MINUTES, SEEDS, Arm, Experiment

ROUNDING = 1e-8
"""What an identity between sums of some hundred terms, or solutions to 1e-10 a step, may be missed by."""

PROBE = "linear_probe"


def _exact_rates(arm: str) -> tuple[Rule, ...]:
    """What Theorem 1 and C.4.1 say beside Eq. 9."""
    return (
        Always(arm, "pair_error", high=ROUNDING),
        Always(arm, "coupling", high=ROUNDING),
        Always(arm, "isoloss_error", high=ROUNDING),
        # the modes' eigenvalues span a factor of 100
        Always(arm, "ratio", low=50),
        Always(arm, "isoloss_ratio", high=1.25),
    )


THM1 = Experiment(
    id="halvagal2023-thm1",
    paper="halvagal2023",
    section="appendix B, Theorem 1, Eqs. 8 and 9; appendix C.4.1",
    title="Modes under the Euclidean loss, plain and IsoLoss",
    claim="In a linear network on Gaussian inputs mode m moves by lam_m (1 - lam_m) z_m in expectation, "
    "whatever the others do; the IsoLoss takes the factor lam_m away, so that small modes grow at equal "
    "rates.",
    function="halvagal2023.theorem1",
    arms=(Arm("clean query", {"q": 0.0, "k": 0.2}), Arm("both views noisy", {"q": 0.2, "k": 0.2})),
    rule=Under(
        "the view with the predictor is clean; noise of variance q on it makes the rate lam (1 - (1 + q) "
        "lam) z",
        All(
            *(Always(arm, "equation_error", high=ROUNDING) for arm in ("clean query", "both views noisy")),
            *_exact_rates("clean query"),
            *_exact_rates("both views noisy"),
        ),
        All(
            Always("clean query", "equation_error", high=ROUNDING),
            Always("both views noisy", "corrected_error", high=ROUNDING),
            *_exact_rates("clean query"),
            *_exact_rates("both views noisy"),
        ),
    ),
)


def _coupled_rates(modes: int) -> tuple[Rule, ...]:
    """What Theorem 2, its asymptotic analysis and C.4.2 say, but for the size of Eq. 11."""
    arm = f"{modes} modes"
    return (
        Always(arm, "pair_error", high=ROUNDING),
        Always(arm, "isoloss_error", high=ROUNDING),
        Always(arm, "eq11_error", high=0.1),
        Always(arm, "order", low=0.9, high=1.1),
        Always(arm, "toward_mean", low=1),
        Always(arm, "dominant", high=-1e-3),
        Always(arm, "slowest_other", low=1e-3),
        # the modes' eigenvalues span a factor of 100; inputs on which the dominant mode is weak drive the
        # others by what they are to each other, so that their mean rates are equal only roughly
        Always(arm, "ratio", low=10),
        Always(arm, "isoloss_ratio", high=5),
    )


THM2 = Experiment(
    id="halvagal2023-thm2",
    paper="halvagal2023",
    section="appendix B, Theorem 2, Eqs. 10 and 11; appendix C.4.2",
    title="Modes under the cosine loss, plain and IsoLoss",
    claim="The gradient of a pair couples the modes as in Eq. 10, and Eq. 11 is its mean for close "
    "eigenvalues: modes draw together, and a dominant one falls while all others rise. The IsoLoss takes "
    "the factor lam_m away.",
    function="halvagal2023.theorem2",
    arms=(Arm("4 modes", {"modes": 4}), Arm("8 modes", {"modes": 8})),
    rule=Under(
        "Eq. 11 is meant up to a factor M / (M + 2), the fourth moments of a Gaussian direction, 1 for many "
        "modes",
        All(
            *(Always(f"{modes} modes", "share", low=0.9, high=1.1) for modes in (4, 8)),
            *_coupled_rates(4),
            *_coupled_rates(8),
        ),
        All(
            Always("4 modes", "share", low=0.98 * 4 / 6, high=1.02 * 4 / 6),
            Always("8 modes", "share", low=0.98 * 8 / 10, high=1.02 * 8 / 10),
            *_coupled_rates(4),
            *_coupled_rates(8),
        ),
    ),
)

FIG4 = Experiment(
    id="halvagal2023-fig4",
    paper="halvagal2023",
    section="appendix A, Fig. 4",
    title="Two neurons from three starts",
    claim="Under the Euclidean loss both eigenvalues end at 1 from every start; under the cosine loss they "
    "become equal, at a value that the start decides: their mean there.",
    function="halvagal2023.figure4",
    arms=(Arm("Euclidean", {"loss": "euclidean"}), Arm("cosine", {"loss": "cosine"})),
    rule=All(
        Always("Euclidean", "from_one", high=1e-3),
        Always("Euclidean", "descent_error", high=0.1),
        Always("cosine", "apart", high=1e-3),
        Always("cosine", "from_mean", high=1e-6),
        Always("cosine", "ends", low=1.5),
        Always("cosine", "descent_error", high=0.1),
    ),
)

PANELS = {
    f"{loss}, {name}": {"loss": loss.lower(), "variant": variant}
    for loss in ("Euclidean", "cosine")
    for name, variant in (
        ("plain", "plain"),
        ("no stop-gradient", "no-stop-gradient"),
        ("no predictor", "no-predictor"),
        ("IsoLoss", "isoloss"),
    )
}
OWN = tuple(f"{loss}, plain, W_p from the representation" for loss in ("Euclidean", "cosine"))
STILL = tuple(name for name in PANELS if "no predictor" in name)
MOVING = tuple(name for name in PANELS if name not in STILL)


def _as_linear(*arms: str) -> tuple[Rule, ...]:
    """ReLU neurons change their eigenvalues in the direction of linear ones, not much more slowly."""
    alike = (Always(arm, "alike", low=0.8) for arm in arms)
    return (*alike, *(Always(arm, "pace", low=0.25, high=4) for arm in arms))


FIG5 = Experiment(
    id="halvagal2023-fig5",
    paper="halvagal2023",
    section="appendix A, Fig. 5",
    title="Ten neurons with ReLU",
    claim="With ReLU on the representation eigenvalues learn as in the linear network, under both losses, "
    "without stop-gradient or predictor, and with IsoLoss.",
    function="halvagal2023.figure5",
    arms=(
        *(Arm(name, changes) for name, changes in PANELS.items()),
        Arm(OWN[0], {"loss": "euclidean", "correlation": "representation"}),
        Arm(OWN[1], {"loss": "cosine", "correlation": "representation"}),
    ),
    rule=Under(
        "the predictor is set from W W^T, as in the published code, and the loss is not the cosine IsoLoss, "
        "under which ReLU neurons' eigenvalues grow",
        All(*_as_linear(*MOVING, *OWN), *(Always(arm, "moved", high=0.05) for arm in STILL)),
        All(
            *_as_linear(*(arm for arm in MOVING if arm != "cosine, IsoLoss")),
            *(Always(arm, "moved", high=0.05) for arm in STILL),
        ),
    ),
    cost_minutes=0.2,
)

NOSG = Experiment(
    id="halvagal2023-nosg",
    paper="halvagal2023",
    section="appendix C.1 and C.2",
    title="Without stop-gradient: collapse, and run-away",
    claim="Without stop-gradient the Euclidean loss collapses (C.1), and under the cosine loss all modes "
    "grow without bound (C.2).",
    function="halvagal2023.without_stop_gradient",
    arms=(
        Arm("Euclidean", {"loss": "euclidean"}),
        Arm("Euclidean, clean views", {"loss": "euclidean", "k": 0.0}),
        Arm("cosine", {"loss": "cosine", "t_end": 60.0}),
    ),
    rule=Under(
        "the loss is Euclidean, with noise on a view or eigenvalues below 1; under the cosine loss their "
        "sum is conserved and modes die, and what runs away is the gradient as the published code divides it",
        All(
            Always("Euclidean", "left", high=1e-3),
            Always("Euclidean, clean views", "left", high=1e-3),
            Always("cosine", "smallest_growth", low=1),
            Always("cosine", "left", low=1.5),
        ),
        All(
            Always("Euclidean", "rate_error", high=ROUNDING),
            Always("Euclidean", "left", high=1e-3),
            Always("Euclidean, clean views", "rate_error", high=ROUNDING),
            Always("Euclidean, clean views", "dead", low=2, high=2),
            Always("cosine", "radial", high=ROUNDING),
            Always("cosine", "left", low=1 - ROUNDING, high=1 + ROUNDING),
            Always("cosine", "dead", low=1),
            Always("cosine", "published_left", low=1.5),
        ),
    ),
)

NOPRED = Experiment(
    id="halvagal2023-nopred",
    paper="halvagal2023",
    section="appendix C.3",
    title="Without a predictor under the Euclidean loss",
    claim="With W_p = I a linear network does not learn: its weights stand still in expectation.",
    function="halvagal2023.without_predictor",
    arms=(Arm("clean query", {"q": 0.0, "k": 0.2}), Arm("both views noisy", {"q": 0.2, "k": 0.2})),
    rule=Under(
        "the view that the gradient passes through is clean; noise of variance q on it makes W decay at the "
        "rate q",
        All(
            Always("clean query", "moved", high=ROUNDING),
            Always("both views noisy", "moved", high=ROUNDING),
        ),
        All(
            Always("clean query", "moved", high=ROUNDING),
            Always("both views noisy", "closed_form_error", high=ROUNDING),
            Always("both views noisy", "left", high=0.05),
        ),
    ),
)

SAME = {"target": {"kind": "same"}}
"""No EMA: the target is the online network, stop-gradient stays."""
NO_LOSS = 0.03
"""Accuracy that IsoLoss may be lower by without EMA and still be said to do without it."""

ISOLOSS = Experiment(
    id="halvagal2023-isoloss",
    paper="halvagal2023",
    section="section 4, Eq. 17; abstract",
    title="IsoLoss beside DirectPred, with and without EMA",
    claim="IsoLoss is better than DirectPred and does without an EMA target. (That it equalises the rates "
    "of modes is part of halvagal2023-thm1 and -thm2.)",
    base=DIGITS,
    arms=(
        Arm("DirectPred", {"method": "directpred"}),
        Arm("IsoLoss", {"method": "isoloss"}),
        Arm("DirectPred, no EMA", {"method": "directpred", **SAME}),
        Arm("IsoLoss, no EMA", {"method": "isoloss", **SAME}),
    ),
    seeds=SEEDS,
    rule=Under(
        "with an EMA target",
        All(
            Greater("IsoLoss", "DirectPred", PROBE),
            Greater("IsoLoss, no EMA", "DirectPred, no EMA", PROBE),
            Greater("IsoLoss, no EMA", "IsoLoss", PROBE, by=-NO_LOSS),
            Survives("IsoLoss, no EMA"),
        ),
        All(Greater("IsoLoss", "DirectPred", PROBE), Survives("IsoLoss")),
    ),
    cost_minutes=20 * MINUTES,
    memory_gib=1.0,
)

EXPERIMENTS = (THM1, THM2, FIG4, FIG5, NOSG, NOPRED, ISOLOSS)
