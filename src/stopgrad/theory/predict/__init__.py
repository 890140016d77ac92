"""What the theory says of a method before it runs: does it collapse, what survives, how long, and why.

The method is a sentence of the project's parts on a linear network: one linear layer W without bias, the
Euclidean distance, small steps of plain SGD. On data whose Sigma_d = X and Sigma_s = X + X' commute, weights
that start along their eigenvectors stay there, and each pair of eigenvalues (l_d, l_s) is a mode with the
weights p of the predictor, w of the encoder and w_a of the target, s = w^2 (tian2021, section 3, appendix D):

    linear predictor     p' = alpha_p w A - eta p,  w' = p A - eta w,  A = w_a l_d - p w l_s
    target               w_a = w, or w_a' = beta (w - w_a) with beta = (1 - Ema.tau) / lr
    no predictor         p = 1
    no stop-gradient     w' has p w l_d - w l_s besides, and w_a = w
    DirectPred           p from the spectrum of E[z z^T] (below); if straight-through, w' = A - eta w

What decides (l' = l_s - l_d, the mode's noise):

- Linear predictor. In the time l_d t it is the isotropic mode of :mod:`stopgrad.theory.modes` with
  sigma2 = l'/l_d, eta/l_d and beta/l_d. p ends at the far root of l_s p^2 - l_d p + eta = 0 or at 0; beyond
  eta = l_d^2 / (4 l_s) there is no root and every start dies. Which it is has a closed form for eta = 0
  (:mod:`stopgrad.theory.basins`); otherwise the mode is followed until it is bound for one of them.
- No predictor: w decays at the rate l' + eta, without stop-gradient at 2 l' + eta.
- No stop-gradient: w decays at l_s - |l_d| + eta or faster (Theorem 2). Where that is 0 and l_d > 0,
  w^2 - (1 - p)^2 / alpha_p is conserved, and the mode ends at p = 1 exactly if it is positive.
- DirectPred. The eigenvalues of Fhat = E[z z^T] are f_j = l_s,j s_j. As the authors' code has it,
  p_j = sqrt(f_j / f_max) + eps is 1 + eps for the largest mode at any size, so that the Euclidean distance
  shrinks it for ever: with a target that is the online network max_j f_j falls at
  2 min_j ((1 + eps) ((1 + eps) l_s - l_d) + eta) or faster, and everything dies; a slower target does not
  save it, as max_j l_s max(w^2, w_a^2) never grows. (A distance that normalises lengths, as the authors'
  does, does not feel this.) As the text has it, p_j = sqrt(f_j) + eps f_max, fixed points are at
  l_s p^2 - l_d p + eta = 0 again; a small mode has p = eps f_max and grows where that lies between its two
  roots. Which fixed point is reached is found by integration, until every mode rests or has fallen for good.

Data that do not commute have no modes. What is then still exact is said (no predictor; no stop-gradient; a
weight decay above lambda_max(X Sigma_s^{-1} X) / 4, since <W_p W, W_a X> - <W_p W, W_p W Sigma_s> is at most
<W_a X, W_a X Sigma_s^{-1}> / 4), and nothing else: where theory does not reach the answer is `NoClosedForm`.

Where the paper errs: its Eq. 57, see :mod:`stopgrad.theory.flow`.

Shapes: n modes, n1 inputs, n2 outputs, N times, G settings compared; arrays (n,) or (G, n). All float64.
"""

from typing import Any

import numpy as np
from torch import nn

from stopgrad.catalog import lookup
from stopgrad.errors import UsageError, unknown
from stopgrad.method import Method, Supervised
from stopgrad.parts.distances import DISTANCES
from stopgrad.parts.predictors import Linear
from stopgrad.parts.target import Ema
from stopgrad.theory.domain import POSITIVE, increasing, reals
from stopgrad.theory.predict.answers import Beyond, Course, ModePrediction, NoClosedForm, Prediction
from stopgrad.theory.predict.case import Setting, tau_of
from stopgrad.theory.predict.data import DataStatistics, HasMoments, modes_or_matrices
from stopgrad.theory.predict.fates import followed, of_modes
from stopgrad.theory.predict.noncommuting import of_matrices
from stopgrad.theory.predict.reach import reached
from stopgrad.theory.predict.remedies import with_remedies

__all__ = [
    "Course", "DataStatistics", "ModePrediction", "NoClosedForm", "Prediction", "course", "predict", "run",
]  # fmt: skip

# E[W W^T] of a square linear layer as PyTorch draws it
S0 = 1 / 3


def predict(
    method: Method | Supervised,
    statistics: DataStatistics | HasMoments,
    *,
    lr: float,
    alpha_p: float = 1.0,
    eta: float = 0.0,
    p0: Any = None,
    s0: Any = S0,
    steps: int | None = None,
    network: nn.Module | None = None,
    search: bool = True,
) -> Prediction | NoClosedForm:
    """What becomes of a method on such data.

    Args:
        method: the parts; see the module's head for those that theory reaches.
        statistics: the data, as modes or as matrices ``X`` and ``X_prime``.
        lr: learning rate of the encoder, > 0; time is lr * steps.
        alpha_p: the predictor's learning rate over the encoder's, > 0; used by a learned predictor.
        eta: weight decay of encoder and predictor alike, >= 0: weights shrink by lr eta a step (PyTorch's
            ``weight_decay`` for the encoder, that over alpha_p for the predictor's own group).
        p0: start of a learned predictor's eigenvalues; a number or one for each mode. By default what its
            ``init`` draws on average: 1 for "identity", else 0.
        s0: start of w^2, >= 0; likewise. By default what PyTorch draws on average for n2 = n1, 1/3. The
            target starts as a copy of the online network.
        steps: of the run, >= 1.
        network: encoder and projector, to be judged whether the theory is about them; None: the theory's.
        search: whether to look for the remedies of a collapse, which takes up to some tens of seconds where
            p0 is far above l_d / l_s and eta small, else a few. Without, ``cause`` is what theory names.

    Returns:
        The prediction, or `NoClosedForm` with the reason.

    Raises:
        UsageError: naming the argument that is outside its domain.

    Examples:
        >>> method = Method(predictor=Linear(), distance="euclidean")
        >>> found = predict(method, DataStatistics([1.0, 0.2], [1.5, 1.0]), lr=0.01, eta=0.02)
        >>> [mode.survives for mode in found.modes], round(found.modes[0].p, 3)
        ([True, False], 0.646)
    """
    lr, alpha_p, eta = _rates(lr, alpha_p, eta)
    if steps is not None:
        reals("steps", steps, POSITIVE)
    try:
        kind = reached(method, network)
        data = modes_or_matrices(statistics)
        modes = len(data.l_d if isinstance(data, DataStatistics) else data[0])
        p0, s0 = _start(kind, p0, s0, modes)
        if not isinstance(data, DataStatistics):
            return of_matrices(kind, *data, lr, eta, float((p0**2).max() + alpha_p * s0.max()))
        setting = Setting(kind, data, lr, alpha_p, eta, p0, s0, tau_of(kind))
        found = of_modes(setting, steps)
        return with_remedies(found, setting) if search and found.collapses else found
    except Beyond as reason:
        return NoClosedForm(str(reason))


def course(
    method: Method | Supervised,
    data: DataStatistics,
    times: Any,
    *,
    lr: float,
    alpha_p: float = 1.0,
    eta: float = 0.0,
    p0: Any = None,
    s0: Any = S0,
) -> Course | NoClosedForm:
    """The way of the modes of a method, where :func:`predict` tells their ends.

    Args:
        method: see :func:`predict`.
        data: the modes.
        times: lr * steps, increasing from 0, two or more. (N,)
        lr, alpha_p, eta, p0, s0: see :func:`predict`.

    Returns:
        The course at these times, or `NoClosedForm` with the reason.

    Raises:
        UsageError: naming the argument that is outside its domain.

    Examples:
        >>> method = Method(predictor=Linear(), distance="euclidean")
        >>> path = course(method, DataStatistics([1.0], [1.5]), [0, 5, 500], lr=0.01, eta=0.02)
        >>> path.p[:, 0].round(3).tolist()
        [0.0, 0.643, 0.646]
    """
    lr, alpha_p, eta = _rates(lr, alpha_p, eta)
    t = increasing(times)
    if len(t) < 2 or not np.diff(t).all():
        raise UsageError("t: two different times or more are needed, each once")
    try:
        kind = reached(method, None)
        p0, s0 = _start(kind, p0, s0, len(data.l_d))
        return followed(Setting(kind, data, lr, alpha_p, eta, p0, s0, tau_of(kind)), t)
    except Beyond as reason:
        return NoClosedForm(str(reason))


def run(
    name: str,
    statistics: DataStatistics | HasMoments,
    *,
    lr: float,
    alpha_p: float = 1.0,
    eta: float = 0.0,
    ema: float | None = None,
    distance: str | None = None,
    p0: Any = None,
    s0: Any = S0,
    steps: int | None = None,
) -> dict[str, Any]:
    """:func:`predict` for a method of the catalogue, as ``stopgrad theory predict --json`` prints it.

    Args:
        name: of the method.
        statistics, lr, alpha_p, eta, p0, s0, steps: see :func:`predict`.
        ema: in place of the method's own `Ema.tau`, in [0, 1].
        distance: in place of the method's own.

    Raises:
        UsageError: for an unknown name, or an argument outside its domain.
    """
    method = lookup(name).method
    if isinstance(method, Method) and ema is not None:
        if not isinstance(method.target, Ema):
            raise UsageError(f"ema: the target of '{name}' is the online network, it takes none")
        if not 0 <= ema <= 1:
            raise UsageError(f"ema: {ema:g} is outside its domain [0, 1]")
        method = method.but(target=method.target.but(tau=ema))
    if isinstance(method, Method) and distance is not None:
        if distance not in DISTANCES:
            raise unknown("distance", distance, list(DISTANCES))
        method = method.but(distance=distance)
    found = predict(method, statistics, lr=lr, alpha_p=alpha_p, eta=eta, p0=p0, s0=s0, steps=steps)
    return found.to_dict()


def _rates(lr: float, alpha_p: float, eta: float) -> tuple[float, float, float]:
    """The rates, checked."""
    return reals("lr", lr, POSITIVE).item(), reals("alpha_p", alpha_p).item(), reals("eta", eta).item()


def _start(kind: Method, p0: Any, s0: Any, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """p0 and s0 of each mode. (n,) each"""
    if p0 is None:
        p0 = float(isinstance(kind.predictor, Linear) and kind.predictor.init == "identity")
    return _per_mode("p0", p0, modes), _per_mode("s0", s0, modes)


def _per_mode(name: str, value: Any, modes: int) -> np.ndarray:
    """One number for each mode. (n,)"""
    numbers = reals(name, value)
    if numbers.ndim > 1 or numbers.numel() not in (1, modes):
        raise UsageError(f"{name}: has shape {tuple(numbers.shape)}, the data have {modes} modes")
    return numbers.numpy() * np.ones(modes)
