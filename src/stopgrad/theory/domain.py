"""The domains of the theory's arguments, and the one-line errors of values outside them."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.theory.linear_algebra import lowest_eigenvalue

# (lowest value, whether it is allowed itself)
POSITIVE = (0.0, False)
NONNEGATIVE = (0.0, True)
REAL = (-math.inf, False)

# Rounding allowed when a matrix is asked to have a property, as a share of its largest entry
ROUNDING = 1e-10

DOMAINS: dict[str, tuple[float, bool]] = {
    "alpha_p": POSITIVE,
    "beta": NONNEGATIVE,
    "eta": NONNEGATIVE,
    "eta_p": NONNEGATIVE,
    "sigma2": NONNEGATIVE,
    "s0": NONNEGATIVE,
    "t_end": NONNEGATIVE,
    "p0": REAL,
    "tau": REAL,
    "tau0": REAL,
    "fixed_tau": REAL,
}


def reals(name: str, value: Any, domain: tuple[float, bool] | None = None) -> Tensor:
    """Return a number or array of numbers as a float64 tensor, checked.

    Args:
        name: how the caller knows the argument; its domain is ``DOMAINS[name]`` unless given.
        value: a number, a (nested) sequence, an array or a tensor; its device is kept.
        domain: (lowest value, whether it is allowed itself); every value must be finite besides.

    Raises:
        UsageError: naming the argument, the first value outside the domain and its place.

    >>> reals("eta", [0.0, 0.1])
    tensor([0.0000, 0.1000], dtype=torch.float64)
    """
    low, closed = domain or DOMAINS[name]
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name}: {value!r} is not a number or an array of numbers") from error
    if numbers.numel() == 0:
        raise UsageError(f"{name}: empty; give at least one number")
    right = torch.isfinite(numbers) & ((numbers >= low) if closed else (numbers > low))
    if not bool(right.all()):
        first = int((~right).flatten().nonzero()[0])
        index = ", ".join(map(str, np.unravel_index(first, numbers.shape)))
        place = f" (at index {index})" if index else ""
        bracket = "[" if closed else "("
        raise UsageError(
            f"{name}: {numbers.flatten()[first].item():g}{place} is outside its domain {bracket}{low:g}, inf)"
        )
    return numbers


def number(name: str, value: Any, domain: tuple[float, bool] | None = None) -> float:
    """One number of a domain, by default the one that ``name`` has.

    Raises:
        UsageError: naming the argument.
    """
    values = reals(name, value, domain)
    if values.ndim:
        raise UsageError(f"{name}: one number is needed, this has shape {tuple(values.shape)}")
    return values.item()


def increasing(times: Any) -> np.ndarray:
    """Times that increase from 0. (N,)

    Raises:
        UsageError: if they do not.
    """
    t = reals("t", times, NONNEGATIVE).reshape(-1).numpy()
    if t[0] != 0 or (np.diff(t) < 0).any():
        raise UsageError("t: must increase from 0")
    return t


def together(**values: Tensor) -> dict[str, Tensor]:
    """Broadcast named tensors to one shape.

    Raises:
        UsageError: naming the shapes that do not go together.
    """
    try:
        return dict(zip(values, torch.broadcast_tensors(*values.values()), strict=True))
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in values.items() if value.ndim)
        raise UsageError(f"shapes do not broadcast together: {shapes}") from error


def matrix(name: str, value: Any, *, square: bool = False, symmetric: bool = False) -> np.ndarray:
    """Return a matrix of finite numbers as a float64 array, checked.

    Args:
        name: how the caller knows the argument.
        value: nested sequence or array of shape (rows, columns).
        square: whether rows must equal columns.
        symmetric: whether it must equal its transpose, to `ROUNDING`.

    Raises:
        UsageError: naming the argument and what is wrong with it.
    """
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: not a matrix of numbers with rows of equal length") from error
    if numbers.ndim != 2 or numbers.size == 0:
        raise UsageError(f"{name}: a matrix is needed, this has shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        raise UsageError(f"{name}: the entry at ({row}, {column}) is not finite")
    if (square or symmetric) and numbers.shape[0] != numbers.shape[1]:
        raise UsageError(f"{name}: must be square, this has shape {numbers.shape}")
    gap = np.abs(numbers - numbers.T).max() if symmetric else 0.0
    if gap > ROUNDING * np.abs(numbers).max():
        raise UsageError(f"{name}: must be symmetric, it differs from its transpose by up to {gap:g}")
    return numbers


def of_shape(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The matrix, if it has the shape that the others need.

    Raises:
        UsageError: naming the matrix.
    """
    if value.shape != shape:
        raise UsageError(f"{name}: has shape {value.shape}, the other matrices need {shape}")
    return value


def check_views(X: np.ndarray, X_prime: np.ndarray) -> None:
    """Whether two exchangeable views have these moments: X' and 2 X + X' are covariances, of x1 -+ x2.

    Raises:
        UsageError: naming the matrix that is the cause.
    """
    slack = ROUNDING * max(np.abs(X).max(), np.abs(X_prime).max())
    if (low := lowest_eigenvalue(X_prime)) < -slack:
        raise UsageError(f"X_prime: has the eigenvalue {low:g}; a covariance, it may have no negative one")
    if (low := lowest_eigenvalue(2 * X + X_prime)) < -slack:
        raise UsageError(
            f"X: no two views have it, 2 X + X_prime has the eigenvalue {low:g}, which must be >= 0"
        )
