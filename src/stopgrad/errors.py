"""Errors that are the caller's to mend: one line that says what, where and how."""

import importlib
from difflib import get_close_matches
from types import ModuleType


class UsageError(ValueError):
    """Bad input. The command line prints the message as one line and exits with status 2."""


class PeerLost(RuntimeError):
    """Another process of a distributed run is gone. The command line prints one line and exits with 1."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say in one line which extra brings it.

    Raises:
        MissingExtra: if ``module`` cannot be found.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingExtra(
            f"{module.split('.')[0]} is not installed: pip install 'stopgrad[{extra}]'"
        ) from error


def nearest(name: str, known: list[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, and all of them.

    >>> nearest("byl", ["byol", "simsiam"])
    ", did you mean 'byol'? Known: byol, simsiam"
    """
    near = get_close_matches(name, known, n=1)
    hint = f", did you mean '{near[0]}'?" if near else "."
    return f"{hint} Known: {', '.join(known)}"


def unknown(what: str, name: str, known: list[str]) -> UsageError:
    """The error for a name that is not in a list.

    >>> str(unknown("method", "byl", ["byol", "simsiam"]))
    "method: unknown 'byl', did you mean 'byol'? Known: byol, simsiam"
    """
    return UsageError(f"{what}: unknown '{name}'{nearest(name, known)}")
