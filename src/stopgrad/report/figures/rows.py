"""Numbers out of rows, which are lines of JSON: anything may be missing or not finite."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def value_at(row: Any, keys: Sequence[str]) -> Any:
    """What stands under keys of keys, None where there is nothing."""
    for key in keys:
        row = row.get(key) if isinstance(row, Mapping) else None
    return row


def as_number(value: Any) -> float:
    """A value as a float, nan if it is no number."""
    return float(value) if isinstance(value, int | float) else float("nan")
