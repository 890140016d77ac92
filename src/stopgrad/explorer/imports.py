"""What the explorer imports late, since it takes longer than all else, and in which order."""

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

DRAWING = ("pandas", "plotly.graph_objects")
RUNS = (*DRAWING, "stopgrad.report.html")
ALL = ("stopgrad.explorer.pictures", *RUNS, "stopgrad.postmortem.diagnose", "stopgrad.postmortem.eigenvalues")
"""What pages need, in the order in which they do; on that of a run, torch would delay its first charts."""


def import_all(modules: Sequence[str]) -> None:
    """Import these, but for what is not installed; waits where another thread is about it."""
    for name in modules:
        with suppress(ModuleNotFoundError):
            import_module(name)


def before_drawing() -> None:
    """To be called before plotly's figures are made.

    Plotly takes pandas as it stands in `sys.modules`, and cannot draw while another thread imports it, as
    scikit-learn does.
    """
    import_all(DRAWING)
