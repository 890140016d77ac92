"""How a run's predictor and the correlation it sees moved, and how theory says they would have.

Measured are the pairs (p_j, s_j) of the run's epoch rows (`stopgrad.evaluation.modes`). Predicted are the
modes of the run's linear counterpart (:mod:`stopgrad.postmortem.counterpart`), followed by
`stopgrad.theory.predict.course` from the state of ONE row to the end of the run.

The row is the first in which the modes exist: they are what W_p and F share, so that at least `ALIGNED` of F
must lie in the predictor's eigenbasis. A learned W_p that starts at random has none before it has turned
towards F, about which the modes' equations say nothing. What theory takes from this row, and from the run's
settings, is all that it is told:

- the starts p_j and w_j^2 = s_j / l_s, and E|z|^2 and E|p|^2;
- the data of the last linear layer, l_s = `pace` and l_d = `shared` l_s, taken as constant from then on
  although the layers before it learn, which is the largest step from theory to practice here;
- rates, weight decay and schedule (`rates_since`); a target network starts beside the online one.

For a distance that normalises, z is divided by its root mean square length in that row, and p by its own
(why: :mod:`stopgrad.experiments.exact.counterpart`). Since such a distance does not see lengths, and training
moves them freely, both sides are then shown without them: p_j over the ratio of the lengths of p and z, and
s_j as a share of E|z|^2. What is not among the row's pairs counts as constant in the predicted lengths.

Measured pairs have no names: at every epoch they stand in the order of their p. A predicted one is followed
from its place in the row, and keeps it.

Shapes: K pairs of a row, n of them that theory can follow, M epochs.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from stopgrad.errors import UsageError
from stopgrad.parts.predictors import Linear, Spectral
from stopgrad.postmortem.counterpart import (
    Counterpart,
    NoCounterpart,
    counterpart,
    rates_since,
    without_momentum,
)
from stopgrad.report.figures.eigenvalues import Eigenvalues, Path
from stopgrad.report.run_files import RunFiles
from stopgrad.theory.predict import Course, DataStatistics, NoClosedForm, course
from stopgrad.training.folder import RunFolder
from stopgrad.training.settings import RunSettings, validate

ALIGNED = 0.8
"""Share of F in the predictor's eigenbasis from which on its modes are followed."""
POINTS = 240
"""Of a predicted line, at most."""
MOST_ROWS = 2000
"""Epochs of a measured line, at most about."""


class Pairs(NamedTuple):
    """What a row says of the modes; see `stopgrad.evaluation.modes.measure_modes`. Columns (K,) each."""

    step: int
    epoch: float
    p: tuple[float, ...]
    s: tuple[float, ...]
    shared: tuple[float, ...]
    pace: tuple[float, ...]
    alignment: float
    z_square: float
    p_square: float

    @property
    def stretch(self) -> float:
        """|p| / |z|, root mean squares."""
        return math.sqrt(self.p_square / self.z_square)


class Unpredicted(Exception):
    """Theory says nothing of the run; the message is the reason."""


def eigenvalues(run: RunFiles) -> Eigenvalues | None:
    """The measured and the predicted course of a run, which may still be training.

    Returns:
        None where no row has pairs: the predictor is no matrix, or nothing was measured yet. Files that are
        damaged or foreign cost the prediction alone.
    """
    rows = [pairs for row in run.epochs if (pairs := _pairs(row)) is not None]
    if not rows:
        return None
    try:
        settings = _settings(run)
    except Unpredicted as reason:
        return _drawn(rows, False, None, str(reason))
    relative = settings.distance is not None and settings.distance.normalises
    try:
        start = _start(rows)
        predicted, replaced = _followed(settings, start, _an_epoch(run))
    except Unpredicted as reason:
        return _drawn(rows, relative, None, str(reason))
    return _drawn(rows, relative, predicted, _assumptions(start, replaced))


def _drawn(rows: Sequence[Pairs], relative: bool, predicted: Path | None, says: str) -> Eigenvalues:
    most = max(len(row.p) for row in rows)
    kept = rows[:: -(-len(rows) // MOST_ROWS)]
    p, s = (np.full((len(kept), most), np.nan) for _ in range(2))
    for i, row in enumerate(kept):
        count = len(row.p)
        p[i, :count] = np.array(row.p) / (row.stretch if relative else 1.0)
        s[i, :count] = np.array(row.s) / (row.z_square if relative else 1.0)
    measured = Path(np.array([row.epoch for row in kept]), p, s)
    return Eigenvalues(measured, predicted, relative, (rows[0].alignment, rows[-1].alignment), says)


def _assumptions(start: Pairs, replaced: Sequence[str]) -> str:
    # time follows the schedule here, and moments are not centred
    words = [
        text.removesuffix(", of centred moments") for text in replaced if not text.startswith("schedule")
    ]
    swapped = f" Replaced: {'; '.join(words)}.".replace("->", "→") if words else ""
    return (
        f"Dashed: theory's modes from epoch {start.epoch:g} on, the first at which they exist "
        f"({start.alignment:.0%} of F lies in the predictor's eigenbasis), to the end of the run without "
        "another look at it, each from the pair that it starts as. Assumed: only the last linear layer of "
        f"the projector learns, its input keeps the variances it had then, and modes do not mix.{swapped}"
    )


# ---- what the files say


def _settings(run: RunFiles) -> RunSettings:
    if RunFolder(run.path).rescues.is_file():
        raise Unpredicted("No prediction: the run was rescued, its settings changed on the way.")
    try:
        content = yaml.safe_load(run.config)
        return validate(content if isinstance(content, dict) else {})
    except (UsageError, yaml.YAMLError):
        raise Unpredicted("No prediction: config.yaml holds no settings that this version knows.") from None


def _pairs(row: Mapping[str, Any]) -> Pairs | None:
    """The pairs of a row, None where it has none that are whole."""
    modes = row.get("modes")
    if not isinstance(modes, Mapping):
        return None
    try:
        p, s, shared, pace = (
            tuple(_real(value) for value in modes[name]) for name in ("p", "s", "shared", "pace")
        )
        alignment, z_square, p_square = (_real(modes[name]) for name in ("alignment", "z_square", "p_square"))
        found = Pairs(
            int(row["step"]), _real(row["epoch"]), p, s, shared, pace, alignment, z_square, p_square
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    finite = bool(np.isfinite([found.epoch, *p, *s, alignment, z_square, p_square]).all())
    whole = len(p) == len(s) == len(shared) == len(pace) > 0
    return found if finite and whole and min(z_square, p_square) > 0 and min(s) >= 0 else None


def _real(value: Any) -> float:
    """A number of JSON, where null is one that was not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError
    return math.nan if value is None else float(value)


def _an_epoch(run: RunFiles) -> int:
    """Steps of an epoch.

    Raises:
        Unpredicted: if no row has come from training yet.
    """
    for row in (*run.epochs, *run.steps):
        epoch = row["epoch"]
        if epoch > 0 and row["step"] > 0:
            return max(1, round(row["step"] / epoch))
    raise Unpredicted("No prediction yet: the first epoch has not ended.")


def _start(rows: Sequence[Pairs]) -> Pairs:
    """The row from which theory goes on.

    Raises:
        Unpredicted: if there is none.
    """
    for row in rows:
        if row.alignment >= ALIGNED:
            return row
    best = max(row.alignment for row in rows)
    raise Unpredicted(
        f"No prediction: W_p and F have no modes in common, at most {best:.0%} of F lay in the predictor's "
        f"eigenbasis; {ALIGNED:.0%} are needed."
    )


# ---- what theory says


@lru_cache(maxsize=8)
def _followed(settings: RunSettings, start: Pairs, an_epoch: int) -> tuple[Path, tuple[str, ...]]:
    """The predicted path, and what of the run was replaced.

    Raises:
        Unpredicted: where theory does not reach.
    """
    found = counterpart(settings)
    if isinstance(found, NoCounterpart):
        raise Unpredicted(f"No prediction: {found.reason}.")
    steps = an_epoch * settings.epochs
    if start.step >= steps:
        raise Unpredicted("No prediction: the modes first exist at the end of the run.")
    rates, times = rates_since(settings, start.step, an_epoch)
    looks = np.unique(np.linspace(0, steps - start.step, POINTS + 1).round().astype(int))
    epochs = (start.step + looks) / an_epoch
    modes = _Modes.of(settings, found, start)
    path = course(
        without_momentum(found.method, settings),
        modes.data,
        times[looks],
        lr=rates.lr,
        alpha_p=rates.alpha_p * modes.pace,
        eta=rates.eta,
        p0=modes.p0,
        s0=modes.s0,
    )
    if isinstance(path, NoClosedForm):
        raise Unpredicted(f"No prediction: {path.reason}.")
    return modes.shown(settings, epochs, path), found.replaced


class _Modes(NamedTuple):
    """The start of a row as theory takes it. (n,) each

    Attributes:
        data: of the modes that can be followed.
        p0, s0: see `stopgrad.theory.predict.course`.
        pace: what the rate of a learned predictor is multiplied by.
        start: the row.
        s: s_j of these modes. (n,)
        relative: whether lengths are divided out.
        size: of f = l_s s in units of s_j, a number.
    """

    data: DataStatistics
    p0: np.ndarray
    s0: np.ndarray
    pace: float
    start: Pairs
    s: np.ndarray
    relative: bool
    size: float

    @classmethod
    def of(cls, settings: RunSettings, found: Counterpart, start: Pairs) -> "_Modes":
        p, s, shared, pace = (np.array(column) for column in start[2:6])
        alive = (s > 0) & (pace > 0) & np.isfinite(pace) & np.isfinite(shared)
        if not alive.any():
            raise Unpredicted("No prediction: F is 0 in the predictor's eigenbasis.")
        p, s, shared, pace = (column[alive] for column in (p, s, shared, pace))
        relative = settings.distance is not None and settings.distance.normalises
        length = start.z_square if relative else 1.0
        learned = isinstance(found.method.predictor, Linear)
        stretch = start.stretch if relative and learned else 1.0
        # a predictor set by the text sees the size of z; it is the code's where the largest s is 1
        seen = 1.0 if isinstance(settings.predictor, Spectral) else length
        size = float(s.max()) if _by_the_text(settings, found) else seen
        l_s = pace / length
        return cls(
            DataStatistics(shared * l_s, l_s),
            p / stretch if learned else np.zeros(len(p)),
            s / size / l_s,
            1 / stretch**2,
            start,
            s,
            relative,
            size,
        )

    def shown(self, settings: RunSettings, epochs: np.ndarray, path: Course) -> Path:
        """The path as the run would measure it."""
        s = path.s * self.data.l_s * self.size
        rule, start = settings.predictor, self.start
        if isinstance(rule, Spectral):
            p = rule.eigenvalues(torch.from_numpy(s)).numpy()
        else:
            p = path.p * (start.stretch if self.relative else 1.0)
        if self.relative:
            rest = max(start.z_square - s[0].sum(), 0.0), max(start.p_square - (p[0] ** 2 * s[0]).sum(), 0.0)
            length = s.sum(axis=1) + rest[0]
            p = p / np.sqrt(((p**2 * s).sum(axis=1) + rest[1]) / length)[:, None]
            s = s / length[:, None]
        return Path(epochs, p, s)


def _by_the_text(settings: RunSettings, found: Counterpart) -> bool:
    """Whether the text's form of eps stands for the code's."""
    ours, theirs = settings.predictor, found.method.predictor
    return isinstance(ours, Spectral) and isinstance(theirs, Spectral) and ours.eps_form != theirs.eps_form
