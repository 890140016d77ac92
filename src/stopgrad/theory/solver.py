"""Many initial-value problems at once: an embedded Runge-Kutta method with a step size for every problem.

The method is Dormand and Prince's of order 8 (Hairer, Norsett and Wanner, Solving Ordinary Differential
Equations I, section II.10), with the coefficients, the error estimate and the step control of
`scipy.integrate.DOP853`. A problem that reaches its end, or that ``stop`` calls finished, leaves the batch.
Who has asked may lose interest while a batch is solved, see :func:`given_up_once`.

Shapes: B problems; a state is a tuple of tensors of shape (B,), one for each unknown.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import DOP853, solve_ivp
from torch import Tensor

State = tuple[Tensor, ...]
Rates = Callable[..., State]
"""(t, y, parameters) -> dy/dt; elementwise over the batch. :func:`course` passes numbers instead of tensors,
and `Numbers` as a fourth argument, of which exp, sqrt and where are to be taken."""
Stop = Callable[[Tensor, State, State, State], Tensor]
"""(t, y, dy/dt, parameters) -> bool mask of the problems that are finished."""
Watch = Callable[[Tensor, State, State], tuple[Tensor, Tensor]]
"""(t, y, parameters) -> a quantity and its derivative along the solution."""

Row = tuple[tuple[int, float], ...]


def _row(coefficients: object) -> Row:
    return tuple((j, float(a)) for j, a in enumerate(coefficients) if a != 0)  # type: ignore[arg-type, var-annotated]


STAGES: tuple[tuple[float, Row], ...] = tuple(
    (float(c), _row(a)) for c, a in zip(DOP853.C[1:], DOP853.A[1:], strict=True)
)
WEIGHTS = _row(DOP853.B)
ERROR_5, ERROR_3 = _row(DOP853.E5), _row(DOP853.E3)
ORDER = 8
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0

# Steps between two looks at which problems are finished
STRIDE = 4
# Below this many problems, compiling takes longer than it saves
WORTH_COMPILING = 500_000
# Halvings of a step in search of a minimum: near it the quantity is flat, so its error is about 4 ** -14
BISECTIONS = 14
# Problems solved together: large enough to hide the cost of a call, small enough to stay in the cache
CHUNK_CPU, CHUNK_CUDA = 1 << 16, 1 << 20


_UNWANTED: ContextVar[Callable[[], bool]] = ContextVar("unwanted", default=lambda: False)


class GivenUp(Exception):
    """Nobody wants the solution any more."""


@contextmanager
def given_up_once(unwanted: Callable[[], bool]) -> Iterator[None]:
    """Give up what is solved inside, in this thread, once ``unwanted()``: it is asked every few steps.

    Raises:
        GivenUp: from what solves, once it is.
    """
    before = _UNWANTED.set(unwanted)
    try:
        yield
    finally:
        _UNWANTED.reset(before)


def go_on() -> None:
    """What solves calls this every few steps.

    Raises:
        GivenUp: see :func:`given_up_once`.
    """
    if _UNWANTED.get()():
        raise GivenUp


@dataclass(frozen=True)
class Solution:
    """End of every problem.

    Attributes:
        t: where each problem ended: ``t_end``, or earlier if ``stop`` called it finished. (B,)
        y: the state there.
        steps: accepted steps. (B,) int64
        lowest: the smallest value of the watched quantity over [0, t]. (B,), or None if none was watched
    """

    t: Tensor
    y: State
    steps: Tensor
    lowest: Tensor | None


def solve(
    rates: Rates,
    y0: State,
    parameters: State,
    t_end: Tensor,
    *,
    rtol: float = 1e-8,
    atol: float = 1e-100,
    stop: Stop | None = None,
    watch: Watch | None = None,
    compiled: bool | None = None,
    max_steps: int = 1_000_000,
    progress: Callable[[int], None] | None = None,
) -> Solution:
    """Solve dy/dt = rates(t, y, parameters) from t = 0 for a batch of problems.

    Args:
        rates: right-hand side, elementwise over the batch.
        y0: initial state, float64 tensors of shape (B,).
        parameters: tensors of shape (B,), handed to ``rates``, ``stop`` and ``watch``.
        t_end: end of each problem, shape (B,), >= 0.
        rtol: bound on the error of a step relative to the larger of the state's two ends.
        atol: bound on the error where the state is about 0.
        stop: which problems may leave the batch before ``t_end``.
        watch: a quantity whose minimum along the way is wanted. A minimum inside a step is found by going
            back and taking a shorter step, so it is as exact as the state.
        compiled: compile the step with torch.compile (needs a C++ compiler on a CPU); by default for
            large batches.
        max_steps: bound on the steps of a problem.
        progress: called with the number of problems finished since its last call.

    Raises:
        ArithmeticError: if a problem takes more than ``max_steps`` steps, or its step size underflows.
        GivenUp: see :func:`given_up_once`.
    """
    batch = t_end.numel()
    if compiled is None:
        compiled = batch >= WORTH_COMPILING
    advance = _compiled_advance(rates, stop) if compiled else functools.partial(_advance, rates, stop)
    chunk = CHUNK_CUDA if t_end.is_cuda else CHUNK_CPU
    parts = []
    for begin in range(0, batch, chunk):
        rows = slice(begin, begin + chunk)
        part = _solve_chunk(
            advance, rates, tuple(y[rows] for y in y0), tuple(p[rows] for p in parameters), t_end[rows],
            rtol, atol, watch, max_steps, progress,
        )  # fmt: skip
        parts.append(part)
    return Solution(
        t=torch.cat([part.t for part in parts]),
        y=tuple(torch.cat(rows) for rows in zip(*(part.y for part in parts), strict=True)),
        steps=torch.cat([part.steps for part in parts]),
        lowest=None
        if watch is None
        else torch.cat([part.lowest for part in parts if part.lowest is not None]),
    )


class Numbers:
    """What torch has, for single numbers: an operation on a tensor of one takes ten times as long."""

    exp, sqrt = staticmethod(math.exp), staticmethod(math.sqrt)

    @staticmethod
    def where(condition: float, yes: float, no: float) -> float:
        """One of two numbers."""
        return yes if condition else no


def course(
    rates: Rates, y0: State, parameters: State, times: Tensor, *, rtol: float, atol: float = 1e-100
) -> State:
    """The course of ONE problem, by `scipy.integrate.solve_ivp` (DOP853).

    Args:
        rates, y0, parameters: as for :func:`solve`, each tensor of shape (1,).
        times: increasing; the first is where y0 is. (N,)
        rtol, atol: see :func:`solve`.

    Returns:
        The unknowns at these times, (N,) each.

    Raises:
        GivenUp: see :func:`given_up_once`.
    """
    given = [value.item() for value in parameters]

    def slopes(t: float, y: np.ndarray) -> State:
        go_on()
        return rates(t, y.tolist(), given, Numbers)

    at = times.tolist()
    start = [value.item() for value in y0]
    found = solve_ivp(slopes, (at[0], at[-1]), start, "DOP853", at, rtol=rtol, atol=atol)
    return tuple(torch.from_numpy(found.y))


Front = tuple[Tensor, Tensor, State, State, Tensor]
"""Where the problems of a batch stand: t, next step size h (0 if finished), y, dy/dt, accepted steps."""
Advance = Callable[[Front, State, Tensor, float, float], Front]


def _solve_chunk(
    advance: Advance,
    rates: Rates,
    y0: State,
    parameters: State,
    t_end: Tensor,
    rtol: float,
    atol: float,
    watch: Watch | None,
    max_steps: int,
    progress: Callable[[int], None] | None,
) -> Solution:
    t = torch.zeros_like(t_end)
    f0 = rates(t, y0, parameters)
    h = torch.minimum(_first_step(rates, t, y0, f0, parameters, rtol, atol), t_end)
    front: Front = (t, h, y0, f0, torch.zeros_like(t, dtype=torch.int64))
    watched = None if watch is None else watch(t, y0, parameters)
    lowest = None if watched is None else watched[0]
    end = Solution(t.clone(), tuple(y.clone() for y in y0), front[4].clone(), _clone(lowest))
    index = torch.arange(t_end.numel(), device=t_end.device)
    taken = 0
    while index.numel():
        go_on()
        for _ in range(STRIDE):
            before, front = front, advance(front, parameters, t_end, rtol, atol)
            if watch is not None and watched is not None and lowest is not None:
                slope, watched = watched[1], watch(front[0], front[2], parameters)
                lowest = torch.minimum(lowest, watched[0])
                turned = ((slope < 0) & (watched[1] > 0)).nonzero()[:, 0]
                lowest[turned] = torch.minimum(
                    lowest[turned], _minimum(rates, watch, before, front, parameters, turned)
                )
        taken += STRIDE
        alive = front[1] > 0
        if taken > max_steps or bool(((front[0] + front[1] == front[0]) & alive).any()):
            raise ArithmeticError(
                f"the solver is stuck after {taken} steps near t = {float(front[0].max()):g}"
            )
        left = int(alive.sum())
        if left > 0.75 * index.numel():
            continue
        gone = index[~alive]
        for whole, part in zip((end.t, *end.y, end.steps), (front[0], *front[2], front[4]), strict=True):
            whole[gone] = part[~alive]
        if end.lowest is not None and lowest is not None:
            end.lowest[gone] = lowest[~alive]
            lowest = lowest[alive]
            watched = None if watched is None else (watched[0][alive], watched[1][alive])
        if progress is not None:
            progress(index.numel() - left)
        index, t_end = index[alive], t_end[alive]
        parameters = tuple(p[alive] for p in parameters)
        t, h, y, f, steps = front
        front = (t[alive], h[alive], tuple(a[alive] for a in y), tuple(a[alive] for a in f), steps[alive])
    return end


def _clone(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.clone()


def _sum(row: Row, slopes: list[State], i: int) -> Tensor:
    """Weighted sum of the stages' slopes of unknown i."""
    (first, weight), *rest = row
    total = slopes[first][i] * weight
    for j, a in rest:
        total = torch.add(total, slopes[j][i], alpha=a)
    return total


def _step(
    rates: Rates, t: Tensor, h: Tensor, y: State, f: State, parameters: State
) -> tuple[State, list[State]]:
    """One step of size h: the new state, and the slopes of all stages, the new state's last."""
    slopes = [f]
    for c, row in STAGES:
        stage = tuple(torch.addcmul(y[i], h, _sum(row, slopes, i)) for i in range(len(y)))
        slopes.append(rates(torch.add(t, h, alpha=c), stage, parameters))
    new = tuple(torch.addcmul(y[i], h, _sum(WEIGHTS, slopes, i)) for i in range(len(y)))
    slopes.append(rates(t + h, new, parameters))
    return new, slopes


def _advance(
    rates: Rates, stop: Stop | None, front: Front, parameters: State, t_end: Tensor, rtol: float, atol: float
) -> Front:
    """Try a step on every problem; where its error is within bounds, take it."""
    t, h, y, f, steps = front
    new, slopes = _step(rates, t, h, y, f, parameters)
    square_5 = square_3 = torch.zeros_like(t)
    for i in range(len(y)):
        scale = torch.maximum(y[i].abs(), new[i].abs()) * rtol + atol
        square_5 = square_5 + (_sum(ERROR_5, slopes, i) / scale).square()
        square_3 = square_3 + (_sum(ERROR_3, slopes, i) / scale).square()
    error = h * square_5 / ((square_5 + 0.01 * square_3) * len(y) + 1e-300).sqrt()
    factor = (SAFETY * error.clamp(min=1e-20).pow(-1 / ORDER)).clamp(SHRINK, GROW)
    taken = (error <= 1) & (h > 0)  # false for nan too
    t = torch.where(taken, t + h, t)
    y = tuple(torch.where(taken, after, start) for after, start in zip(new, y, strict=True))
    f = tuple(torch.where(taken, after, start) for after, start in zip(slopes[-1], f, strict=True))
    h = torch.minimum(h * torch.where(error.isfinite(), factor, SHRINK), t_end - t)
    if stop is not None:
        h = torch.where(stop(t, y, f, parameters), 0.0, h)
    return t, h, y, f, steps + taken


@functools.cache
def _compiled_advance(rates: Rates, stop: Stop | None) -> Advance:
    return torch.compile(functools.partial(_advance, rates, stop), dynamic=True, fullgraph=True)


def _first_step(
    rates: Rates, t: Tensor, y: State, f: State, parameters: State, rtol: float, atol: float
) -> Tensor:
    """First step size (Hairer, Norsett and Wanner, section II.4)."""

    def size(values: State) -> Tensor:
        parts = [(v / (atol + rtol * a.abs())).square() for v, a in zip(values, y, strict=True)]
        return (sum(parts[1:], parts[0]) / len(parts)).sqrt()

    d0, d1 = size(y), size(f)
    small = (d0 < 1e-5) | (d1 < 1e-5) | ~d1.isfinite()
    h0 = torch.where(small, 1e-6, 0.01 * d0 / d1)
    ahead = rates(t + h0, tuple(torch.addcmul(a, h0, b) for a, b in zip(y, f, strict=True)), parameters)
    d2 = size(tuple(b - a for a, b in zip(f, ahead, strict=True))) / h0
    steepest = torch.maximum(d1, d2)
    h1 = torch.where(
        steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest.clamp(max=1e200)).pow(1 / ORDER)
    )
    return torch.minimum(100 * h0, h1)


def _minimum(
    rates: Rates, watch: Watch, before: Front, after: Front, parameters: State, rows: Tensor
) -> Tensor:
    """Halve the part of the step in which the quantity's slope changes sign, each look a fresh step."""
    t, y, f = before[0][rows], tuple(a[rows] for a in before[2]), tuple(a[rows] for a in before[3])
    parameters = tuple(p[rows] for p in parameters)
    h = after[0][rows] - t
    low, high = torch.zeros_like(h), torch.ones_like(h)
    lowest = torch.full_like(h, torch.inf)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        there, _ = _step(rates, t, middle * h, y, f, parameters)
        value, slope = watch(t + middle * h, there, parameters)
        lowest = torch.minimum(lowest, value)
        low, high = torch.where(slope < 0, middle, low), torch.where(slope < 0, high, middle)
    return lowest
