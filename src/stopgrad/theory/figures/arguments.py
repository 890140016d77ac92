"""What a picture's parameters may be; see `stopgrad.theory.domain` for single quantities."""

from typing import Any

from stopgrad.errors import UsageError
from stopgrad.theory.domain import DOMAINS, REAL, reals


def number(name: str, value: Any, domain: tuple[float, bool] | None = None) -> float:
    """One number of a domain, by default the one that ``name`` has.

    Raises:
        UsageError: naming the parameter.
    """
    values = reals(name, value, domain)
    if values.ndim:
        raise UsageError(f"{name}: one number is needed, this has shape {tuple(values.shape)}")
    return values.item()


def several(name: str, value: Any, of: str, most: int) -> list[float]:
    """One to ``most`` values of the quantity ``of``.

    Raises:
        UsageError: naming the parameter.
    """
    values = reals(name, value, DOMAINS[of]).reshape(-1).tolist()
    if len(values) > most:
        raise UsageError(f"{name}: {len(values)} values, at most {most} fit into the picture")
    return values


def span(name: str, value: Any) -> tuple[float, float]:
    """From and to of an axis.

    Raises:
        UsageError: naming the parameter.
    """
    values = reals(name, value, REAL).reshape(-1).tolist()
    if len(values) != 2 or values[0] >= values[1]:
        raise UsageError(f"{name}: {values} must be two numbers, the lower one first")
    return values[0], values[1]


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least ``least``.

    Raises:
        UsageError: naming the parameter.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name}: {value!r} is no whole number >= {least}")
    return value
