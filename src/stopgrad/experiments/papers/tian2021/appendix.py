"""Appendices B and D of Tian et al. 2021, decided exactly."""

from stopgrad.experiments.papers.tian2021.theory import ROUNDING
from stopgrad.experiments.rules import All, Always, Greater, Under
from stopgrad.experiments.schema import Arm, Experiment

GAMMAS = (0.9, 0.99, 0.996)

FIG7 = Experiment(
    id="tian2021-fig7",
    paper="tian2021",
    section="appendix B, Assumption 1, Fig. 7",
    title="The target stays proportional to the network",
    claim=(
        "From W_a = 0 the cosine of W_a and W stays at 0.9 or above for gamma_a up to 0.996 and eta up to "
        "0.1."
    ),
    function="tian2021.figure7",
    arms=(
        *(Arm(f"gamma_a {gamma:g}", {"gamma": gamma}) for gamma in GAMMAS),
        Arm("gamma_a 0.996, larger start", {"gamma": 0.996, "scale": 1.0}),
    ),
    rule=All(
        *(Always(f"gamma_a {gamma:g}", "lowest_mean", low=0.9) for gamma in GAMMAS),
        Always("gamma_a 0.996, larger start", "lowest_mean", low=0.9),
    ),
)

DECAYS = (0.001, 0.01, 0.05)

FIG8 = Experiment(
    id="tian2021-fig8",
    paper="tian2021",
    section="appendix B, Eqs. 62 and 63, Fig. 8",
    title="The antisymmetric part of the predictor vanishes",
    claim=(
        "With decay the antisymmetric part of W_p vanishes for every eta and tau although its gradient is "
        "left as it is; the symmetric part goes with it only for much decay and a small tau."
    ),
    function="tian2021.figure8",
    arms=tuple(Arm(f"eta {eta:g}", {"eta": eta}) for eta in DECAYS),
    rule=All(
        *(Always(f"eta {eta:g}", "antisymmetric", high=1e-3) for eta in DECAYS),
        *(Always(f"eta {eta:g}", "symmetric_last", low=0.1) for eta in DECAYS),
        Always("eta 0.001", "symmetric_first", low=0.1),
        Always("eta 0.05", "symmetric_first", high=1e-3),
    ),
)

FIG9 = Experiment(
    id="tian2021-fig9",
    paper="tian2021",
    section="appendix B, Fig. 9",
    title="The commutator can shoot up",
    claim=(
        "With little decay and a large tau the commutator of F and W_p can grow many times over, even from "
        "eigenspaces that nearly agree; with more decay it does not."
    ),
    function="tian2021.figure9",
    arms=tuple(
        Arm(f"eta {eta:g}, tau {tau:g}", {"eta": eta, "tau": tau})
        for eta in (0.0, 0.01, 0.05)
        for tau in (0.2, 1.0)
    ),
    rule=All(
        Always("eta 0, tau 1", "growth", low=2.0),
        Always("eta 0.01, tau 1", "growth", low=2.0),
        Greater("eta 0, tau 1", "eta 0, tau 0.2", "growth"),
        Greater("eta 0, tau 1", "eta 0.01, tau 1", "growth"),
        # where K has no negative eigenvalue the norm can only fall
        Always("eta 0.01, tau 0.2", "lowest_K", low=0.0),
        Always("eta 0.01, tau 0.2", "growth", high=1 + ROUNDING),
        Always("eta 0.05, tau 0.2", "growth", high=1 + ROUNDING),
        Always("eta 0.05, tau 1", "growth", high=1 + ROUNDING),
    ),
)

FIG10 = Experiment(
    id="tian2021-fig10",
    paper="tian2021",
    section="appendix D.4, Eqs. 104-106, Fig. 10",
    title="One weight each: w, w_p and w_a",
    claim=(
        "With a predictor the origin repels, and the weights reach w_p w l_s = w_a l_d; without one and with "
        "l_d < l_s everything collapses."
    ),
    function="tian2021.figure10",
    arms=(
        Arm("target held", {"case": "held"}),
        Arm("tied weights", {"case": "tied"}),
        Arm("no predictor", {"case": "none"}),
    ),
    rule=Under(
        "w > 0: tied starts with w = w_p < 0 fall into the origin",
        All(
            Always("target held", "gap", high=1e-3),
            Always("target held", "escaped", low=1.0),
            Always("tied weights", "escaped", low=1.0),
            Always("no predictor", "escaped", high=0.0),
        ),
        All(
            Always("target held", "gap", high=1e-3),
            Always("target held", "escaped", low=1.0),
            Always("tied weights", "escaped_positive", low=1.0),
            Always("tied weights", "escaped_negative", high=0.0),
            Always("tied weights", "rest", high=1e-3),
            Always("no predictor", "escaped", high=0.0),
        ),
    ),
)

_MODES = (
    *(Always(arm, "rest", high=1e-10) for arm in ("additive", "multiplicative")),
    *(Always(arm, "top_growth", high=1e-9) for arm in ("additive", "multiplicative")),
    Always("additive", "other_growth", low=1e-3),
    Always("additive", "learned", low=1.0),
    Always("additive", "product_error", high=ROUNDING),
    Always("additive", "views_error", high=0.05),
)

APPD = Experiment(
    id="tian2021-appd",
    paper="tian2021",
    section="appendix D.1 and D.2, Eq. 103",
    title="What is learned of data that are not isotropic",
    claim=(
        "Rows of W end in the span of the left eigenvectors of Sigma_d Sigma_s^-1 with the largest "
        "eigenvalues: those of Sigma_x (Sigma_x + Sigma_n)^-1 under additive scrambling, of P_c under "
        "multiplicative."
    ),
    function="tian2021.appendix_d",
    arms=(
        Arm("additive", {"scrambling": "additive"}),
        Arm("multiplicative", {"scrambling": "multiplicative"}),
    ),
    rule=Under(
        "under multiplicative scrambling Sigma_s = P_c Sigma_x P_c + tr(U^T Sigma_x U) U U^T, not Sigma_x; a "
        "few starts may end in scrambled modes, which last as their eigenvalue is 0",
        All(
            *_MODES,
            Always("multiplicative", "learned", low=1.0),
            Always("multiplicative", "views_error_text", high=0.05),
        ),
        All(
            *_MODES,
            Always("multiplicative", "learned", low=0.75),
            Always("multiplicative", "views_error", high=0.05),
            Always("multiplicative", "product_error", high=ROUNDING),
        ),
    ),
)
