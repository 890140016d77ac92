"""Systems of matrices that move together, solved to an error relative to each matrix."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.integrate import DOP853

from stopgrad.errors import UsageError
from stopgrad.theory.solver import go_on

MAX_STEPS = 1_000_000

Blocks = tuple[np.ndarray, ...]


def integrate(rates: Callable[[Blocks], Blocks], start: Blocks, t: np.ndarray, rtol: float) -> Blocks:
    """Solve an autonomous system of matrices by `scipy.integrate.DOP853`, with its dense output at ``t``.

    The error of a step is bounded relative to the largest entry of each matrix as it is then, so that a
    matrix that decays by many orders of magnitude, or an entry that passes through 0, is followed as well
    as any other.

    Args:
        rates: the matrices' derivatives from the matrices.
        start: the matrices at t = 0.
        t: times, increasing from 0. (N,)
        rtol: the bound.

    Returns:
        Each matrix at the times, with a first axis of N.

    Raises:
        UsageError: if the solution leaves the range of float64.
        ArithmeticError: if it takes more than ``MAX_STEPS`` steps.
        GivenUp: see :func:`stopgrad.theory.solver.given_up_once`.
    """
    sizes = [block.size for block in start]
    places = [slice(low, high) for low, high in pairwise([0, *np.cumsum(sizes).tolist()])]

    def split(y: np.ndarray) -> Blocks:
        # views of y, by hand: np.split takes as long as a small system's rates
        return tuple(y[place].reshape(block.shape) for place, block in zip(places, start, strict=True))

    def slopes(_: float, y: np.ndarray) -> np.ndarray:
        return np.concatenate([slope.reshape(-1) for slope in rates(split(y))])

    def bounds(y: np.ndarray) -> np.ndarray:
        largest = np.array([np.abs(y[place]).max() for place in places])
        # a matrix that is 0, such as a target's start, has no scale of its own yet
        largest[largest == 0] = 1e-8 * largest.max() + 1e-300
        return rtol * np.repeat(largest, sizes)

    y0 = np.concatenate([block.reshape(-1) for block in start])
    out = np.tile(y0, (len(t), 1))
    done, steps = int(np.searchsorted(t, 0.0, side="right")), 0
    with np.errstate(over="ignore", invalid="ignore"):
        solver = DOP853(slopes, 0.0, y0, t[-1], rtol=rtol, atol=bounds(y0))
        while done < len(t):
            go_on()
            solver.atol = bounds(solver.y)
            solver.step()
            steps += 1
            if solver.status == "failed" or not np.isfinite(solver.y).all():
                raise UsageError(
                    f"t: the flow leaves the range of float64 near t = {solver.t:g}; end before it"
                )
            if steps > MAX_STEPS:
                raise ArithmeticError(f"the solver is stuck after {steps} steps near t = {solver.t:g}")
            reached = int(np.searchsorted(t, solver.t, side="right"))
            if reached > done:
                out[done:reached] = solver.dense_output()(t[done:reached]).T
                done = reached
    return tuple(out[:, place].reshape(-1, *block.shape) for place, block in zip(places, start, strict=True))
