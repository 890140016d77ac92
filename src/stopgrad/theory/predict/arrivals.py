"""When modes arrive at their ends."""

import numpy as np

from stopgrad.theory.predict.case import TINY, Case, State

# Share of its end within which a mode has arrived; a dying one arrives at this share of its start
NEAR = 0.1


def arrivals(case: Case, alive: np.ndarray, p: np.ndarray, s: np.ndarray) -> np.ndarray:
    """When each mode arrives, see `ModePrediction.time`. (n,)"""
    goal = np.where(p != 0, np.abs(p), np.abs(case.start))

    def away(now: State) -> np.ndarray:
        """Distances of two weights from their ends, each 1 on arrival. (2, ..., n)"""
        w, end = np.abs(now.w), np.sqrt(s)
        living = np.stack([_ratio(np.abs(now.p - p), goal), _ratio(np.abs(w - end), end)])
        dying = np.stack([_ratio(w, case.w0), _ratio(np.abs(now.w_a), case.w0)])
        return np.where(alive, living, dying) / NEAR

    t, path = case.course(lambda now: bool((away(now) < 0.99).all()))
    distances = away(path)
    there = np.all(distances <= 1, axis=0)
    later = np.argmax(there, axis=0).clip(min=1)
    mode = np.arange(len(p))
    before, after = (np.log(distances[:, i, mode].clip(min=1e-30)) for i in (later - 1, later))
    # each by itself, as the larger of both has a bend where they cross; the last to arrive decides
    share = np.divide(
        before, before - after, out=np.zeros_like(before), where=(before > 0) & (before != after)
    ).max(axis=0)
    times = t[later - 1] + share * (t[later] - t[later - 1])
    return np.where(there[0], 0.0, np.where(there.any(axis=0), times, np.inf))


def _ratio(value: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """value / unit; 0 where the unit is 0, as then nothing moves. (N, n)"""
    unit = np.broadcast_to(np.where(unit > TINY, unit, 0.0), value.shape)
    return np.divide(value, unit, out=np.zeros_like(value), where=unit > 0)
