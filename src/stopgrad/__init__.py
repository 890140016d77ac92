"""stopgrad: pretraining without negative pairs, its collapse, and its theory.

``import stopgrad as sg`` is light; a name below is imported with what it needs when it is first used.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stopgrad.jobs import embed, export, pretrain, probe
    from stopgrad.method import Method
    from stopgrad.parts.distances import cosine, euclidean, squared_l2
    from stopgrad.parts.predictors import DirectPred
    from stopgrad.parts.target import EmaTarget

__all__ = [
    "DirectPred",
    "EmaTarget",
    "Method",
    "cosine",
    "embed",
    "euclidean",
    "export",
    "pretrain",
    "probe",
    "squared_l2",
]

_HOME = {
    "pretrain": "stopgrad.jobs",
    "probe": "stopgrad.jobs",
    "embed": "stopgrad.jobs",
    "export": "stopgrad.jobs",
    "Method": "stopgrad.method",
    "DirectPred": "stopgrad.parts.predictors",
    "EmaTarget": "stopgrad.parts.target",
    "cosine": "stopgrad.parts.distances",
    "squared_l2": "stopgrad.parts.distances",
    "euclidean": "stopgrad.parts.distances",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("stopgrad")
    if name not in _HOME:
        raise AttributeError(f"module 'stopgrad' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
