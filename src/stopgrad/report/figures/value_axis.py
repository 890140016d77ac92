"""The upright axis of a panel of evidence: linear, or logarithmic with a place for zeros."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

SPAN = 100  # values that span such a factor have a logarithmic axis


@dataclass(frozen=True)
class ValueAxis:
    """The range of a panel's values; on a logarithmic one, what is not positive lies at its foot."""

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, values: Iterable[float]) -> Self:
        """The axis that has room for the finite ones of values, of which there is one at least."""
        known = [value for value in values if math.isfinite(value)]
        low, high = min(known), max(known)
        least = min((value for value in known if value > 0), default=0.0)
        if low >= 0 and high >= SPAN * least > 0:
            bottom = math.log10(least) - (low == 0)
            room = 0.1 * (math.log10(high) - bottom)
            return cls(bottom - room, math.log10(high) + room, True)
        room = 0.12 * (high - low) or 0.12 * abs(high) or 1.0
        if low >= 0:
            return cls(0.0, 1.12 * high or 1.0, False)
        return cls(low - room, high + room, False)

    def drawn(self, value: float) -> float:
        """A value as plotly takes it for lines and shapes."""
        return 10.0 ** self.at(value) if self.log else value

    def at(self, value: float) -> float:
        """A value's place between `low` and `high`, as plotly takes it for ranges and annotations."""
        if not self.log:
            return value
        return self.low if value <= 0 else max(self.low, math.log10(value))

    def edge(self, below: bool) -> float:
        """The end of the axis on a side, as plotly takes it for shapes."""
        end = self.low if below else self.high
        return 10.0**end if self.log else end
