"""What a prediction says, and how it says that theory does not reach."""

from dataclasses import dataclass
from typing import Any

import numpy as np

ASSUMPTIONS = (
    "For one linear layer without bias, weights that start along the data's eigenvectors, and plain SGD with "
    "small steps; eta decays encoder and predictor alike."
)


@dataclass(frozen=True)
class ModePrediction:
    """How one mode ends.

    Attributes:
        l_d, l_s: the data's eigenvalues.
        survives: whether s stays away from 0.
        p, s: the ends of the predictor's eigenvalue (1 without a predictor) and of the weight's square w^2.
        time: when p and w both first come within a tenth of their ends, or, of a mode that dies, when the
            weights of online and target network first are both below a tenth of the start; good to about
            1e-4. inf: never, from a start on the very edge between two basins.
        steps: time / lr.
    """

    l_d: float
    l_s: float
    survives: bool
    p: float
    s: float
    time: float
    steps: float

    def to_dict(self) -> dict[str, Any]:
        """The fields; what is infinite is None."""
        return {name: None if value == np.inf else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Prediction:
    """What becomes of a method.

    Attributes:
        collapses: whether every mode dies.
        modes: how each ends; none where the data do not commute and collapse is certain all the same.
        dimension: how many survive.
        cause: of a collapse, the name of what brings it about: "stop_gradient", "predictor", "eps_form",
            "eta", "alpha_p", "ema" or "s0"; the first in this order whose change alone prevents it. Where no
            single change does, what theory names.
        remedy: for each of these names that prevents the collapse alone, the nearest value that does: "ema"
            is `Ema.tau`, "s0" the present one times a factor. An edge is met from the side that does not
            collapse, to 1e-3.
        rate: r with ||W(t)||_F <= e^{-r t} ||W(0)||_F for every start; None where theory has none.
        finished: whether every mode arrives within the steps of the run; None if these were not given, or
            there are no modes.
        notes: what the answer rests on, with sources.
    """

    collapses: bool
    modes: tuple[ModePrediction, ...]
    dimension: int
    cause: str | None
    remedy: dict[str, Any]
    rate: float | None
    finished: bool | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them, with ``closed_form``: true."""
        rest = {**vars(self), "modes": [mode.to_dict() for mode in self.modes], "notes": list(self.notes)}
        return {"closed_form": True, **rest}


@dataclass(frozen=True, eq=False)
class Course:
    """The way of the modes.

    Attributes:
        t: times, lr * steps. (N,)
        p: the predictor's eigenvalues, 1 without a predictor. (N, n)
        s: the weights' squares w^2. (N, n)
    """

    t: np.ndarray
    p: np.ndarray
    s: np.ndarray


@dataclass(frozen=True)
class NoClosedForm:
    """The answer where theory does not reach.

    Attributes:
        reason: the part or argument, and why.
    """

    reason: str

    def to_dict(self) -> dict[str, Any]:
        """``closed_form``: false, and the reason."""
        return {"closed_form": False, "reason": self.reason}


class Beyond(Exception):
    """Theory does not reach; the message is the reason."""
