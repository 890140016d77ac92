"""Phase diagrams: training beside the boundary that the theory of Tian et al. 2021 predicts; not the paper's.

One arm is one row of a panel, 20 points; the 20 arms of an experiment fill it.
"""

from typing import Any

from stopgrad.experiments.rules import Pooled
from stopgrad.experiments.schema import Arm, Experiment

POINTS = 20
"""Of an axis."""


def _axis(low: float, high: float) -> tuple[float, ...]:
    """`POINTS` values, evenly spread over the logarithm, ends included, of 4 digits."""
    return tuple(float(f"{low * (high / low) ** (i / (POINTS - 1)):.4g}") for i in range(POINTS))


def _panel(name: str, varied: str, values: tuple[float, ...], low: float, **fields: Any) -> Experiment:
    """A panel whose rows vary ``varied``; the prediction is to be right at ``low`` of its points or more."""
    arms = tuple(Arm(f"{varied} {value:g}", {varied: value}) for value in values)
    return Experiment(
        id=f"tian2021-phase-{name}",
        paper="tian2021",
        section="section 3, Eqs. 11-17",
        arms=arms,
        rule=Pooled(tuple(arm.name for arm in arms), "right", low=low),
        **fields,
    )


LINEAR: dict[str, Any] = {
    "function": "phase.linear_row",
    "claim": (
        "A linear network trained by SGD on noisy views collapses where the modes of its data say so: beyond "
        "eta = l_d^2 / (4 l_s), and before it where {} puts the start into the basin of 0."
    ),
    "cost_minutes": 0.5,
}
ETAS_LINEAR = _axis(0.01, 0.4)

LINEAR_ALPHA = _panel(
    "linear-alpha",
    "alpha_p",
    _axis(0.02, 20),
    0.95,
    **{
        **LINEAR,
        "title": "Collapse of a linear network over weight decay and alpha_p",
        "claim": LINEAR["claim"].format("a slow predictor"),
        "base": {"beta": 0.5, "etas": ETAS_LINEAR, "seed": 1},
    },
)

LINEAR_BETA = _panel(
    "linear-beta",
    "beta",
    _axis(0.01, 3),
    0.95,
    **{
        **LINEAR,
        "title": "Collapse of a linear network over weight decay and the target's rate",
        "claim": LINEAR["claim"].format("a slow target"),
        "base": {"alpha_p": 0.1, "etas": ETAS_LINEAR, "seed": 1},
    },
)

ENCODER: dict[str, Any] = {
    "function": "phase.encoder_row",
    "claim": (
        "A small encoder with a linear predictor collapses where the modes of its hidden features, measured "
        "before training, say so for its last layer and predictor, over weight decay and {}."
    ),
    "seeds": (1,),
    "quick": {"etas": (0.005, 1.0), "steps": 32},
    "cost_minutes": 15.0,
    "memory_gib": 1.0,
}
ETAS_ENCODER = _axis(0.005, 1.0)

ENCODER_ALPHA = _panel(
    "encoder-alpha",
    "alpha_p",
    _axis(1, 20),
    0.8,
    **{
        **ENCODER,
        "title": "Collapse of a small encoder over weight decay and alpha_p",
        "claim": ENCODER["claim"].format("alpha_p"),
        "base": {"beta": 0.5, "etas": ETAS_ENCODER},
    },
)

ENCODER_BETA = _panel(
    "encoder-beta",
    "beta",
    _axis(0.02, 4),
    0.8,
    **{
        **ENCODER,
        "title": "Collapse of a small encoder over weight decay and the target's rate",
        "claim": ENCODER["claim"].format("the target's rate"),
        "base": {"alpha_p": 5.0, "etas": ETAS_ENCODER},
    },
)

PANELS = (LINEAR_ALPHA, LINEAR_BETA, ENCODER_ALPHA, ENCODER_BETA)
