"""What can be moved: the pictures of the theory that the explorer shows, and the controls of each.

A view is one or more pictures of `stopgrad.theory.figures`, all of the same arguments. Its controls are the
domain of the request too: what lies outside is refused before anything is computed, so that the cost of a
request is bounded by this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

OFF = "off"
"""Stands for None in a request."""


@dataclass(frozen=True)
class Slider:
    """A number between two ends.

    Attributes:
        name: of the picture's argument.
        label: of the control.
        low, high: ends.
        default: its value at first; None: switched off, which ``off`` puts in words.
        scale: "linear"; "log"; "log0": 0, and above it the logarithm from ``least`` on.
        least: the smallest value above 0 of "log0".
        off: the words for None, if that is allowed.
        whole: whether only whole numbers are allowed.
    """

    name: str
    label: str
    low: float
    high: float
    default: float | None
    scale: Literal["linear", "log", "log0"] = "linear"
    least: float = 1e-4
    off: str | None = None
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """One of several words.

    Attributes:
        name: of the picture's argument.
        label: of the control.
        options: value -> words.
        default: its value at first.
    """

    name: str
    label: str
    options: Mapping[str, str]
    default: str


@dataclass(frozen=True)
class View:
    """A page of the theory.

    Attributes:
        name: in its address.
        tab: its title in a word or two.
        title: in one line.
        about: what it shows, in a sentence or two.
        figures: pictures of `stopgrad.theory.figures`, each with the arguments of the controls that it has.
        controls: in the order on the page.
        click: the controls that a click into the first panel of the first picture sets, x and y.
        slow: an argument of the first picture that adds what takes longer, asked for once controls rest.
        slow_without: the control that is off where ``slow`` adds anything.
        says: whether the first picture's reading names the regime, and is said as it changes.
        apart: two choices that must differ.
        trained: axes that these two choose -> the ledger's claims of networks trained over them.
    """

    name: str
    tab: str
    title: str
    about: str
    figures: tuple[str, ...]
    controls: tuple[Slider | Choice, ...]
    click: tuple[str, str] | None = None
    slow: str | None = None
    slow_without: str | None = None
    says: bool = False
    apart: tuple[str, str] | None = None
    trained: Mapping[frozenset[str], tuple[str, ...]] = field(default_factory=dict)

    def claims(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The claims whose networks were trained over the axes that these values choose."""
        axes = frozenset(str(values[name]).partition("=")[0] for name in self.apart or ())
        return self.trained.get(axes, ())

    @property
    def query(self) -> type[BaseModel]:
        """The model of a request: every control within its ends, and nothing else."""
        fields: dict[str, Any] = {control.name: _field(control) for control in self.controls}
        if self.slow is not None:
            fields[self.slow] = (bool, Field(True, description="With what takes longer."))
        return create_model(f"{self.name}_query", __config__=ConfigDict(extra="forbid"), **fields)


def _field(control: Slider | Choice) -> tuple[Any, Any]:
    if isinstance(control, Choice):
        return Literal[tuple(control.options)], Field(control.default, description=control.label)
    kind: Any = Annotated[
        int if control.whole else float, Field(ge=control.low, le=control.high, allow_inf_nan=False)
    ]
    if control.off is not None:
        kind = kind | Literal[OFF]
    default = OFF if control.default is None else control.default
    return kind, Field(default, description=control.label)


ALPHA_P = Slider("alpha_p", "α_p, predictor's learning rate over the encoder's", 0.01, 100, 1.0, "log")
ETA = Slider("eta", "η, weight decay", 0, 2, 0.04, "log0", 1e-4)
SIGMA2 = Slider("sigma2", "σ², variance of the views", 0, 10, 0.5, "log0", 1e-4)
BETA = Slider("beta", "β, rate at which the target follows", 0, 10, 0.4, "log0", 1e-3)
TAU = Slider("fixed_tau", "τ, the target's share, held", -1, 1.5, 1.0, off="it follows the network")
TAU0 = Slider("tau0", "τ(0), the target's share at the start", 0, 1, 0.0)
P0 = Slider("p0", "p(0), predictor's eigenvalue at the start", -1, 1.5, 0.3)
S0 = Slider("s0", "s(0), data's eigenvalue at the start", 0, 1.5, 0.2)
T_END = Slider("t_end", "t, end of the time axis", 1, 1000, 80, "log")

AXES = {
    "eta=0:0.4:41": "η, weight decay",
    "beta=0.01:3:41:log": "β, rate of the target",
    "alpha_p=0.01:30:41:log": "α_p, predictor's learning rate",
    "sigma2=0:2:41": "σ², variance of the views",
    "p0=-1:1.5:41": "p(0), predictor's eigenvalue at the start",
    "s0=0:1.5:41": "s(0), data's eigenvalue at the start",
    "tau0=0:1:41": "τ(0), the target's share at the start",
}
"""Axes of the phase diagram, as :func:`stopgrad.theory.sweep.axis` reads them."""

TRAINED = {
    frozenset({"eta", "alpha_p"}): ("tian2021-phase-linear-alpha", "tian2021-phase-encoder-alpha"),
    frozenset({"eta", "beta"}): ("tian2021-phase-linear-beta", "tian2021-phase-encoder-beta"),
}
"""Axes of the phase diagram -> the ledger's phase diagrams of trained networks."""

VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View(
            "mode", "One mode", "One mode: predictor p and data s",
            "Each direction of the data has a predictor eigenvalue p and a correlation eigenvalue s (Tian et "
            "al. 2021, section 3). Click into the plane to start a solution there.",
            ("mode-plane", "mode-course"),
            (ETA, ALPHA_P, SIGMA2, TAU, BETA, TAU0, P0, S0, T_END),
            click=("p0", "s0"), slow="basin", slow_without="fixed_tau", says=True,
        ),
        View(
            "triplet", "Three weights", "Three weights: w, w_p and w_a",
            "Data whose views agree to a share only, one weight each of network, predictor and target "
            "(Tian et al. 2021, appendix D, Fig. 10).",
            ("tian2021-fig10",),
            (
                Slider("l_d", "λ_d, what two views share", 0, 1, 0.5),
                Slider("l_s", "λ_s, one view's variance", 1, 4, 1.0),
                ALPHA_P, Slider("beta", BETA.label, 0.01, 10, 1.0, "log"),
            ),
        ),
        View(
            "eigenvalues", "Two eigenvalues", "Two eigenvalues of the representation",
            "What a predictor in closed form does to two neurons, under the Euclidean and the cosine loss "
            "and IsoLoss (Halvagal et al. 2023). Click into the plane to start there.",
            ("two-eigenvalues",),
            (
                Choice("loss", "loss", {"euclidean": "Euclidean", "cosine": "cosine"}, "euclidean"),
                Choice(
                    "variant", "variant",
                    {
                        "plain": "plain", "isoloss": "IsoLoss", "no-stop-gradient": "no stop-gradient",
                        "no-predictor": "no predictor",
                    },
                    "plain",
                ),
                Slider("first", "λ₁ at the start", 0, 1.5, 0.1),
                Slider("second", "λ₂ at the start", 0, 1.5, 0.6),
                Slider("exponent", "exponent of the predictor's spectrum", 0.25, 2, 1.0),
                Slider("eps", "ε, added to it", 0, 0.5, 0.0),
                Slider("t_end", T_END.label, 1, 1000, 20, "log"),
            ),
            click=("first", "second"),
        ),
        View(
            "matrices", "Matrices", "Predictor and correlation as matrices",
            "Before modes part, predictor and correlation are matrices whose eigenvectors have to agree "
            "(Tian et al. 2021, Theorem 3).",
            ("matrix-flow",),
            (
                ETA, ALPHA_P, SIGMA2, Slider("tau", TAU.label, 0, 1.5, 1.0),
                Slider("n", "n, inputs and outputs", 2, 16, 6, whole=True),
                Slider("angle", "angle between their eigenvectors at the start", 0.01, 2, 0.2, "log"),
                Slider("seed", "seed of the start", 0, 99, 0, whole=True),
                Slider("t_end", T_END.label, 1, 1000, 200, "log"),
            ),
        ),
        View(
            "phase", "Phase diagram", "Phase diagram over any two parameters",
            "Every point is a mode, solved to the end of the time axis. Over weight decay and the rate of "
            "predictor or target networks were trained as well: they stand below, under the boundary "
            "predicted for their own data.",
            ("phase-diagram",),
            (
                Choice("x", "horizontal axis", AXES, "eta=0:0.4:41"),
                Choice("y", "vertical axis", AXES, "beta=0.01:3:41:log"),
                Choice(
                    "colour", "colour",
                    {"s": "s at the end", "min_k": "smallest k on the way", "collapsed": "collapsed or not"},
                    "s",
                ),
                ETA, ALPHA_P, SIGMA2, replace(TAU, default=None), BETA, TAU0, P0, S0,
                replace(T_END, default=200),
            ),
            apart=("x", "y"), trained=TRAINED,
        ),
    )
}  # fmt: skip
