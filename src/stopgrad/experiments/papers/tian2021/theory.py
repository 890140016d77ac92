"""Theorems and figures of Tian et al. 2021 that are decided exactly."""

from stopgrad.experiments.rules import All, Always, Greater, Under
from stopgrad.experiments.schema import Arm, Experiment

ROUNDING = 1e-8
"""What a solution to relative errors of 1e-12 a step may miss an identity by."""

LEMMA1 = Experiment(
    id="tian2021-lemma1",
    paper="tian2021",
    section="section 2, Lemma 1",
    title="Gradient flow as the limit of SGD",
    claim=(
        "Eqs. 2-4 are the descent of the loss of Eq. 1 with weight decay, and SGD on it converges to them at "
        "first order in the learning rate."
    ),
    function="tian2021.lemma1",
    rule=All(
        Always("all", "gradient_error", high=1e-8),
        Always("all", "order", low=0.9, high=1.1),
        Always("all", "twin_error", high=0.02),
    ),
)

THM1 = Experiment(
    id="tian2021-thm1",
    paper="tian2021",
    section="section 2, Theorem 1, Eq. 5",
    title="Balance of predictor and encoder, alpha_p x eta",
    claim=(
        "W W^T - W_p^T W_p / alpha_p decays as e^(-2 eta t) whatever the target does, for any alpha_p and "
        "eta."
    ),
    function="tian2021.theorem1",
    arms=(Arm("decay of the theory", {"decay": "theory"}), Arm("decay of a group", {"decay": "group"})),
    rule=Under(
        "the predictor's weight decay is not multiplied by alpha_p, as a parameter group of its own has it",
        All(
            Always("decay of the theory", "drift", high=ROUNDING),
            Always("decay of a group", "drift", high=ROUNDING),
        ),
        All(
            Always("decay of the theory", "drift", high=ROUNDING),
            Always("decay of a group", "smallest_drift", low=1e-3),
        ),
    ),
)

THM2 = Experiment(
    id="tian2021-thm2",
    paper="tian2021",
    section="section 2, Theorem 2, Eq. 6",
    title="Without stop-gradient the encoder vanishes",
    claim="With W_a = W and no stop-gradient, vec(W)' = -H vec(W), and W -> 0.",
    function="tian2021.theorem2",
    arms=(
        Arm("noise in all directions", {"noise": "full", "eta": 0.0}),
        Arm("a shared direction, decay", {"noise": "singular", "eta": 0.1}),
        Arm("a shared direction, no decay", {"noise": "singular", "eta": 0.0}),
    ),
    rule=Under(
        "lambda_min(X') + eta > 0",
        All(
            Always("noise in all directions", "left", high=1e-3),
            Always("a shared direction, decay", "left", high=1e-3),
            Always("a shared direction, no decay", "left", high=1e-3),
        ),
        All(
            Always("noise in all directions", "left", high=1e-3),
            Always("noise in all directions", "bound", high=1 + ROUNDING),
            Always("a shared direction, decay", "left", high=1e-3),
            Always("a shared direction, decay", "bound", high=1 + ROUNDING),
            Always("noise in all directions", "equation_error", high=1e-10),
            Always("a shared direction, decay", "equation_error", high=1e-10),
            Always("a shared direction, no decay", "equation_error", high=1e-10),
        ),
    ),
)

NOPRED = Experiment(
    id="tian2021-nopred",
    paper="tian2021",
    section="section 2, after Theorem 2; appendix A, Eq. 57",
    title="Without a predictor the encoder vanishes",
    claim=(
        "With W_p = I and W_a = W, W' = -W (m X' + eta I), m = 1 with and 2 without stop-gradient, so that W "
        "-> 0 when both views are noisy."
    ),
    function="tian2021.without_predictor",
    arms=(
        Arm("stop-gradient", {"stop_gradient": True, "eta": 0.0}),
        Arm("stop-gradient, decay", {"stop_gradient": True, "eta": 0.05}),
        Arm("no stop-gradient", {"stop_gradient": False, "eta": 0.0}),
        Arm("no stop-gradient, decay", {"stop_gradient": False, "eta": 0.05}),
    ),
    rule=All(
        Always("stop-gradient", "closed_form_error", high=ROUNDING),
        Always("stop-gradient", "left", high=1e-3),
        Always("stop-gradient, decay", "closed_form_error", high=ROUNDING),
        Always("stop-gradient, decay", "left", high=1e-3),
        Always("no stop-gradient", "closed_form_error", high=ROUNDING),
        Always("no stop-gradient", "left", high=1e-3),
        Always("no stop-gradient, decay", "closed_form_error", high=ROUNDING),
        Always("no stop-gradient, decay", "left", high=1e-3),
    ),
)

THM3 = Experiment(
    id="tian2021-thm3",
    paper="tian2021",
    section="section 3.1, Theorem 3, Eqs. 8-10; appendix B",
    title="Eigenspaces of predictor and data align",
    claim=(
        "The commutator L of F and W_p obeys L' = -L K - K L; its norm falls at least as e^(-2 l0 t), l0 > 0 "
        "the bound of lambda_min(K) over time: the infimum in the text, the maximum in the appendix."
    ),
    function="tian2021.theorem3",
    rule=Under(
        "the bound is the infimum of lambda_min(K), as in the text; the appendix's maximum is not one",
        All(
            Always("all", "bound", high=1 + 1e-6),
            Always("all", "maximum", low=0.1),
            Always("all", "growth", high=1.0),
        ),
        All(
            Always("all", "equation_error", high=1e-10),
            Always("all", "starts", low=10),
            Always("all", "bound", high=1 + 1e-6),
            Always("all", "left", high=0.1),
        ),
    ),
)

DECOUPLED = Experiment(
    id="tian2021-decoupled",
    paper="tian2021",
    section="section 3.1, Eqs. 11-13",
    title="Modes run on their own",
    claim=(
        "On isotropic data, from starts whose eigenspaces agree, the matrices' flow is that of independent "
        "modes (p, s, tau), with tau held as well as moving."
    ),
    function="tian2021.decoupled",
    arms=(Arm("tau held", {"target": "held"}), Arm("tau moving", {"target": "ema"})),
    rule=All(Always("tau held", "error", high=ROUNDING), Always("tau moving", "error", high=ROUNDING)),
)

INTEGRAL = Experiment(
    id="tian2021-integral",
    paper="tian2021",
    section="section 3.2, Eqs. 14 and 15",
    title="The integral of a mode, and tau in closed form",
    claim=(
        "s = p^2 / alpha_p + c e^(-2 eta t), c the negative of the text's constant; tau is a weighted mean "
        "of the weights so far (Eq. 15)."
    ),
    function="tian2021.integral",
    arms=(Arm("c = 0, tau(0) = 0", {"c": "zero"}), Arm("any c and tau(0)", {"c": "free"})),
    rule=Under(
        "c = s(0) - p(0)^2 / alpha_p; Eq. 15 as printed for c = 0 and tau(0) = 0 only",
        All(
            Always("any c and tau(0)", "drift_text", high=ROUNDING),
            Always("any c and tau(0)", "tau_error_text", high=1e-6),
        ),
        All(
            Always("c = 0, tau(0) = 0", "drift", high=ROUNDING),
            Always("any c and tau(0)", "drift", high=ROUNDING),
            Always("c = 0, tau(0) = 0", "tau_error_text", high=1e-6),
            Always("any c and tau(0)", "tau_error", high=1e-6),
        ),
    ),
)

FIG3 = Experiment(
    id="tian2021-fig3",
    paper="tian2021",
    section="section 3.2, Fig. 3",
    title="Where starts go: eta 0, 0.01 and 1",
    claim=(
        "Without decay starts end on two lines of fixed points and those with s > p^2 / alpha_p escape; weak "
        "decay draws all onto the parabola, to 0 or to p+; strong decay leaves 0 alone."
    ),
    function="tian2021.figure3",
    arms=(Arm("eta 0", {"eta": 0.0}), Arm("eta 0.01", {"eta": 0.01}), Arm("eta 1", {"eta": 1.0})),
    rule=All(
        Always("eta 0", "distance", high=1e-3),
        Always("eta 0", "above_collapsed", high=0.0),
        Always("eta 0", "collapsed", low=0.05, high=0.95),
        Always("eta 0", "agreement", low=0.995),
        Always("eta 0.01", "distance", high=1e-3),
        Always("eta 0.01", "off_parabola", high=1e-3),
        Always("eta 0.01", "collapsed", low=0.05, high=0.95),
        Always("eta 0.01", "agreement", low=0.995),
        Always("eta 1", "collapsed", low=1.0),
        Always("eta 1", "agreement", low=1.0),
    ),
)

FIG4 = Experiment(
    id="tian2021-fig4",
    paper="tian2021",
    section="section 3.2, Eq. 16, Fig. 4",
    title="Threshold of the weight decay",
    claim=(
        "On the parabola p has the fixed points 0, p- and p+ for eta < tau^2 / (4 (1 + sigma^2)) and 0 alone "
        "beyond; p- parts the basins of 0 and p+."
    ),
    function="tian2021.figure4",
    rule=All(
        Always("all", "points_below", low=3),
        Always("all", "points_above", high=1),
        Always("all", "residual", high=1e-12),
        Always("all", "basin_agreement", low=1.0),
    ),
)

FIG5 = Experiment(
    id="tian2021-fig5",
    paper="tian2021",
    section="section 3.2, Fig. 5",
    title="What weight decay and a slow target do to k",
    claim=(
        "More weight decay lifts k above 0 at the price of a smaller p, or of collapse; a slower target "
        "lifts it at the price of time."
    ),
    function="tian2021.figure5",
    arms=(
        *(Arm(f"eta {eta:g}, no EMA", {"eta": eta}) for eta in (0.04, 0.12, 0.24)),
        *(Arm(f"eta 0.04, beta {beta:g}", {"eta": 0.04, "beta": beta}) for beta in (0.4, 0.1)),
    ),
    rule=All(
        Always("eta 0.04, no EMA", "min_k", high=0.0),
        Always("eta 0.12, no EMA", "min_k", low=0.0),
        Always("eta 0.12, no EMA", "final_p", low=0.5),
        Greater("eta 0.04, no EMA", "eta 0.12, no EMA", "final_p"),
        Always("eta 0.24, no EMA", "min_k", low=0.0),
        Always("eta 0.24, no EMA", "final_p", high=1e-3),
        Always("eta 0.04, beta 0.4", "min_k", high=0.0),
        Greater("eta 0.04, beta 0.4", "eta 0.04, no EMA", "min_k"),
        Always("eta 0.04, beta 0.1", "min_k", low=0.0),
        Greater("eta 0.04, beta 0.1", "eta 0.04, beta 0.4", "time"),
    ),
)

SIGNS = tuple(f"obs{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9, 10))

OBS = Experiment(
    id="tian2021-obs",
    paper="tian2021",
    section="section 3.2, Observations 1-10, Eq. 17, Table 4",
    title="Signs of the effects of alpha_p, eta and beta",
    claim=(
        "Each hyper-parameter acts on collapse and alignment with the sign that the observations give it; "
        "Eq. 17 is k > 0."
    ),
    function="tian2021.observations",
    rule=Under(
        "Observation 6, a larger alpha_p helps alignment, holds off the parabola: on it alpha_p cancels",
        All(*(Always("all", sign, low=1e-6) for sign in (*SIGNS, "obs6_on", "obs6_off"))),
        All(
            *(Always("all", sign, low=1e-6) for sign in (*SIGNS, "obs6_off")),
            Always("all", "obs6_on", high=1e-12),
            Always("all", "eq17_error", high=1e-12),
            Always("all", "window_error", high=1e-6),
        ),
    ),
)
