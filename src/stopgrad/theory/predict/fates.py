"""The prediction for data that commute: which kind of method it is, and how its modes go and end."""

import numpy as np

from stopgrad.errors import UsageError
from stopgrad.parts.predictors import Identity, Spectral
from stopgrad.theory.domain import ROUNDING
from stopgrad.theory.predict.answers import ASSUMPTIONS, Course, ModePrediction, Prediction
from stopgrad.theory.predict.arrivals import arrivals
from stopgrad.theory.predict.case import Case, Setting
from stopgrad.theory.predict.directpred import DirectPred
from stopgrad.theory.predict.learned import Learned
from stopgrad.theory.predict.no_predictor import NoPredictor
from stopgrad.theory.predict.reach import check_steps
from stopgrad.theory.predict.unstopped import Unstopped


def case_of(setting: Setting) -> Case:
    """The equations of a setting.

    Raises:
        UsageError: for a start that they have no use for.
    """
    predictor = setting.method.predictor
    if isinstance(predictor, Spectral):
        if not setting.s0.all():
            raise UsageError("s0: 0 leaves a mode at rest for ever; DirectPred needs starts above 0")
        return DirectPred(setting)
    if isinstance(predictor, Identity):
        return NoPredictor(setting)
    return Learned(setting) if setting.stops else Unstopped(setting)


def of_modes(setting: Setting, steps: int | None = None) -> Prediction:
    """The prediction for a setting, without remedies; the cause of a collapse is what theory names.

    Raises:
        Beyond: where theory does not reach.
        UsageError: as :func:`case_of`.
    """
    case = case_of(setting)
    check_steps(setting.lr, case.speed(case.start, setting.s0).max())
    alive = case.survivors()
    p, s = case.ends(alive)
    check_steps(setting.lr, case.speed(p, s).max())
    times = arrivals(case, alive, p, s)
    columns = (setting.l_d, setting.l_s, alive, p, s, times, times / setting.lr)
    modes = tuple(ModePrediction(*row) for row in zip(*(c.tolist() for c in columns), strict=True))
    dead = not alive.any()
    notes = [ASSUMPTIONS, case.note]
    if setting.data.dropped > ROUNDING:
        notes.append(f"Data: {setting.data.dropped:.2g} of them is off the modes and was left out.")
    return Prediction(
        collapses=dead,
        modes=modes,
        dimension=int(alive.sum()),
        cause=case.fallback if dead else None,
        remedy={},
        rate=case.rate if case.rate else None,
        finished=None if steps is None else bool((times <= setting.lr * steps).all()),
        notes=tuple(notes),
    )


def followed(setting: Setting, times: np.ndarray) -> Course:
    """The course of a setting's modes at times that increase from 0. (N,)

    Raises:
        Beyond: where theory does not reach.
        UsageError: as :func:`case_of`.
    """
    case = case_of(setting)
    check_steps(setting.lr, case.speed(case.start, setting.s0).max())
    path = case.follow(times[1:])
    check_steps(setting.lr, case.speed(path.p, path.w**2).max())
    p, s = np.vstack([case.start, path.p]), np.vstack([setting.s0, path.w**2])
    return Course(times, p, s)
