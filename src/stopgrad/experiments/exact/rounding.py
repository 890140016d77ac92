"""Series as the store keeps them: with as many digits as figures need."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from stopgrad.experiments.trials import SERIES_DIGITS


def rounded(values: np.ndarray | Tensor) -> Any:
    """A number or nested lists of numbers, with `SERIES_DIGITS` significant digits; None if not finite.

    Args:
        values: floating point, of any shape.
    """
    if values.ndim:
        return [rounded(value) for value in values]
    number = float(values)
    return float(f"{number:.{SERIES_DIGITS}g}") if math.isfinite(number) else None
