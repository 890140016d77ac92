"""Phase diagrams: training beside the boundary that the theory of Tian et al. 2021 predicts; not the paper's.

One arm is one row of a panel, 20 points; the 20 arms of an experiment fill it.
"""

from functools import partial
from typing import Any

from stopgrad.experiments.rules import Pooled
from stopgrad.experiments.schema import Arm, Experiment

POINTS = 20
"""Of an axis."""


def _axis(low: float, high: float) -> tuple[float, ...]:
    """`POINTS` values, evenly spread over the logarithm, ends included, of 4 digits."""
    return tuple(float(f"{low * (high / low) ** (i / (POINTS - 1)):.4g}") for i in range(POINTS))


NETWORKS = {"linear": "linear network", "encoder": "small encoder"}
"""What is trained: part of the id -> its name in the title."""
VARIED = {"alpha_p": ("alpha", "alpha_p"), "beta": ("beta", "the target's rate")}
"""What the rows of a panel vary -> the end of its id, and its name in the title."""


def _panel(
    network: str, varied: str, values: tuple[float, ...], base: dict[str, Any], *, low: float, **fields: Any
) -> Experiment:
    """A panel whose rows vary ``varied``; the prediction is to be right at ``low`` of its points or more."""
    end, said = VARIED[varied]
    arms = tuple(Arm(f"{varied} {value:g}", {varied: value}) for value in values)
    return Experiment(
        id=f"tian2021-phase-{network}-{end}",
        paper="tian2021",
        section="section 3, Eqs. 11-17",
        title=f"Collapse of a {NETWORKS[network]} over weight decay and {said}",
        base=base,
        arms=arms,
        rule=Pooled(tuple(arm.name for arm in arms), "right", low=low),
        **fields,
    )


COLLAPSES_LINEAR = (
    "A linear network trained by SGD on noisy views collapses where the modes of its data say so: beyond "
    "eta = l_d^2 / (4 l_s), and before it where {} puts the start into the basin of 0."
)
ETAS_LINEAR = _axis(0.01, 0.4)
_linear = partial(_panel, "linear", low=0.95, function="phase.linear_row", cost_minutes=0.5)

LINEAR_ALPHA = _linear(
    "alpha_p",
    _axis(0.02, 20),
    {"beta": 0.5, "etas": ETAS_LINEAR, "seed": 1},
    claim=COLLAPSES_LINEAR.format("a slow predictor"),
)
LINEAR_BETA = _linear(
    "beta",
    _axis(0.01, 3),
    {"alpha_p": 0.1, "etas": ETAS_LINEAR, "seed": 1},
    claim=COLLAPSES_LINEAR.format("a slow target"),
)

COLLAPSES_ENCODER = (
    "A small encoder with a linear predictor collapses where the modes of its hidden features, measured "
    "before training, say so for its last layer and predictor, over weight decay and {}."
)
ETAS_ENCODER = _axis(0.005, 1.0)
_encoder = partial(
    _panel,
    "encoder",
    low=0.8,
    function="phase.encoder_row",
    seeds=(1,),
    quick={"etas": (0.005, 1.0), "steps": 32},
    cost_minutes=15.0,
    memory_gib=1.0,
)

ENCODER_ALPHA = _encoder(
    "alpha_p",
    _axis(1, 20),
    {"beta": 0.5, "etas": ETAS_ENCODER},
    claim=COLLAPSES_ENCODER.format("alpha_p"),
)
ENCODER_BETA = _encoder(
    "beta",
    _axis(0.02, 4),
    {"alpha_p": 5.0, "etas": ETAS_ENCODER},
    claim=COLLAPSES_ENCODER.format("the target's rate"),
)

PANELS = (LINEAR_ALPHA, LINEAR_BETA, ENCODER_ALPHA, ENCODER_BETA)
