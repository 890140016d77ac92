"""Modes over a whole grid of hyper-parameters and starts at once."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stopgrad.errors import UsageError, unknown
from stopgrad.files import whole_file
from stopgrad.theory.basins import collapses
from stopgrad.theory.domain import reals
from stopgrad.theory.modes import Modes

AXES = ("alpha_p", "beta", "eta", "sigma2", "p0", "s0", "tau0", "fixed_tau", "t_end")

DEFAULTS = {
    "alpha_p": 1.0, "beta": 0.4, "eta": 0.04, "sigma2": 0.5, "p0": 0.3, "s0": 0.1, "tau0": 0.0, "t_end": 50.0,
}  # fmt: skip
"""Values of what neither the axes nor the fixed values name."""


@dataclass(frozen=True)
class Sweep:
    """Results over a grid; every array but the axes has the grid's shape.

    Attributes:
        axes: name -> values, in the order of the arrays' dimensions.
        fixed: name -> value of everything that does not vary.
        p, s, tau: the state at ``t_end``; tau is nan where s is 0 and tau moves.
        min_k: the smallest k(t) over [0, t_end]; where it stays positive, eigenspaces align; -inf where tau
            went through infinity.
        collapsed: whether s and p end in the trivial point's basin. bool
    """

    axes: dict[str, np.ndarray]
    fixed: dict[str, float]
    p: np.ndarray
    s: np.ndarray
    tau: np.ndarray
    min_k: np.ndarray
    collapsed: np.ndarray

    RESULTS = ("p", "s", "tau", "min_k", "collapsed")

    def save(self, path: Path) -> None:
        """Write all arrays to an .npz file, whole or not at all: the results, and ``axis_NAME`` of each.

        Raises:
            UsageError: if the name does not end in .npz.
        """
        check_suffix(path)
        arrays = {name: getattr(self, name) for name in self.RESULTS}
        arrays |= {f"axis_{name}": values for name, values in self.axes.items()}
        arrays |= {f"fixed_{name}": np.float64(value) for name, value in self.fixed.items()}
        arrays["axes"] = np.array(list(self.axes))
        with whole_file(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)

    def to_dict(self) -> dict[str, Any]:
        """All of it as nested lists, for JSON."""
        results = {name: getattr(self, name).tolist() for name in self.RESULTS}
        axes = {name: values.tolist() for name, values in self.axes.items()}
        return {"axes": axes, "fixed": self.fixed, "shape": list(self.p.shape), **results}


def check_suffix(path: Path) -> None:
    """Say that the file to write must be an .npz before hours are spent on its content."""
    if path.suffix != ".npz":
        raise UsageError(f"out: {path.name} must end in .npz")


def axes(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Several axes, see :func:`axis`.

    Raises:
        UsageError: if a name comes twice.
    """
    found: dict[str, np.ndarray] = {}
    for text in texts:
        name, values = axis(text)
        if name in found:
            raise UsageError(f"grid: {name} is given twice")
        found[name] = values
    return found


def axis(text: str) -> tuple[str, np.ndarray]:
    """The axis that a text such as ``eta=0:0.3:200`` describes: from, to (included) and number of values.

    ``eta=0.001:1:50:log`` spaces them evenly in the logarithm, ``eta=0,0.01,0.1`` lists them.

    Raises:
        UsageError: for anything else, naming the part that is wrong.

    >>> axis("eta=0:0.5:3")[1].tolist()
    [0.0, 0.25, 0.5]
    """
    name, equals, values = text.partition("=")
    shape = f"grid: '{text}' is not NAME=FROM:TO:COUNT, NAME=FROM:TO:COUNT:log or NAME=A,B,..."
    name = name.strip().replace("-", "_")
    if not equals or not values:
        raise UsageError(shape)
    if name not in AXES:
        raise unknown("grid", name, list(AXES))
    parts = values.split(":")
    try:
        if len(parts) == 1:
            numbers = np.array([float(value) for value in values.split(",")])
        else:
            low, high, count = float(parts[0]), float(parts[1]), int(parts[2])
            if parts[3:] not in ([], ["log"]):
                raise UsageError(shape)
            numbers = _spaced(name, low, high, count, log=bool(parts[3:]))
    except (ValueError, IndexError) as error:
        raise error if isinstance(error, UsageError) else UsageError(shape) from error
    reals(name, numbers)
    return name, numbers


def _spaced(name: str, low: float, high: float, count: int, *, log: bool) -> np.ndarray:
    if count < 1:
        raise UsageError(f"grid: {name} has {count} values, give at least 1")
    for value in (low, high):
        if not math.isfinite(value):
            raise UsageError(f"grid: {name} = {value} is not finite")
    if log and min(low, high) <= 0:
        raise UsageError(f"grid: {name} must be above 0 to be spaced by its logarithm")
    return np.geomspace(low, high, count) if log else np.linspace(low, high, count)


def sweep(
    axes: Mapping[str, Any],
    fixed: Mapping[str, Any],
    *,
    rtol: float = 1e-8,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Sweep:
    """Solve a mode for every point of a grid.

    Args:
        axes: name -> values, each of shape (N_i,); the grid is their product, in this order.
        fixed: values of the names that do not vary; what is in neither has its value in ``DEFAULTS``.
            Names: alpha_p, beta, eta, sigma2, p0, s0, tau0, fixed_tau, t_end.
        rtol: relative error allowed in a step.
        device: where to solve; float64 is needed, which MPS does not have.
        progress: called with the number of points finished since its last call.

    Raises:
        UsageError: for an unknown name, one that is given twice, an empty grid or a value outside its domain.
    """
    for name in [*axes, *fixed]:
        if name not in AXES:
            raise unknown("grid", name, list(AXES))
    if twice := set(axes) & set(fixed):
        raise UsageError(f"grid: {min(twice)} is an axis and fixed too, give it once")
    if not axes:
        raise UsageError("grid: empty, give at least one axis")
    values = {name: reals(name, numbers).reshape(-1) for name, numbers in axes.items()}
    rest = {name: value for name, value in (DEFAULTS | dict(fixed)).items() if name not in values}
    mesh = torch.meshgrid(*values.values(), indexing="ij")
    settings = dict(zip(values, mesh, strict=True)) | {
        name: reals(name, value) for name, value in rest.items()
    }
    settings = {name: value.to(device) for name, value in settings.items()}
    t_end = settings.pop("t_end")
    modes = Modes(**settings).expand(mesh[0].shape)
    final = modes.final(t_end, rtol=rtol, lowest_k=True, progress=progress)
    collapsed = collapses(modes.at(final))
    results = (final.p, final.s, final.tau, final.lowest_k, collapsed)
    return Sweep(
        {name: numbers.numpy() for name, numbers in values.items()},
        {name: float(value) for name, value in rest.items()},
        *(value.cpu().numpy() for value in results if value is not None),
    )
