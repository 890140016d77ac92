"""stopgrad: pretraining without negative pairs, its collapse, and its theory.

``import stopgrad as sg`` is light; a name below is imported with what it needs when it is first used.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stopgrad.diagnostics.monitor import Monitor
    from stopgrad.diagnostics.preflight import preflight
    from stopgrad.jobs import embed, export, pretrain, probe
    from stopgrad.losses import byol_loss, byol_prime_loss, isoloss, raft_loss
    from stopgrad.method import Method
    from stopgrad.parts.distances import cosine, euclidean, squared_l2
    from stopgrad.parts.predictors import DirectPred
    from stopgrad.parts.target import EmaTarget

__all__ = [
    "DirectPred",
    "EmaTarget",
    "Method",
    "Monitor",
    "byol_loss",
    "byol_prime_loss",
    "cosine",
    "embed",
    "euclidean",
    "export",
    "isoloss",
    "preflight",
    "pretrain",
    "probe",
    "raft_loss",
    "squared_l2",
]

_HOME = {
    "pretrain": "stopgrad.jobs",
    "probe": "stopgrad.jobs",
    "embed": "stopgrad.jobs",
    "export": "stopgrad.jobs",
    "Method": "stopgrad.method",
    "Monitor": "stopgrad.diagnostics.monitor",
    "preflight": "stopgrad.diagnostics.preflight",
    "DirectPred": "stopgrad.parts.predictors",
    "EmaTarget": "stopgrad.parts.target",
    "byol_loss": "stopgrad.losses",
    "byol_prime_loss": "stopgrad.losses",
    "isoloss": "stopgrad.losses",
    "raft_loss": "stopgrad.losses",
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
