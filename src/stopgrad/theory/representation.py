"""How representations move in the eigenbasis of a closed-form predictor (halvagal2023, section 3, B and C).

Two views x1, x2 of an image, Gaussian with noise of variances sigma2_query and sigma2_key about it, give
z = phi(W x), phi the identity or a ReLU. The predictor is set in closed form, W_p = U diag(lam) U^T where
W W^T = U diag(s) U^T and lam = f(s); gradients do not see that it depends on W. With zhat = U^T z and
D = diag(lam) the loss of a pair is, as in `stopgrad.parts.distance`,

    euclidean    1/2 ||D zhat1 - sg(zhat2)||^2
    cosine       - <D zhat1, sg(zhat2)> / (||D zhat1|| ||zhat2||)

(the published Euclidean loss has no 1/2, the published code of the cosine loss is twice its text). Variants:
``plain``; ``no-stop-gradient``, without sg; ``no-predictor``, D = I; ``isoloss``, straight-through: the plain
loss of z + sg(W_p z - z), so that lam_m times its gradient by zhat1_m is that of the plain loss.

For a linear network the expected flow keeps the singular vectors of W, so that W = U diag(sqrt(s)) V^T and
only s moves, with s_m' = 2 E[zhat_m times its rate]:

- Euclidean: in closed form, see :func:`euclidean_rates`.
- Cosine: with Phi(lam, mu) = E[cos(diag(lam) zhat1, diag(mu) zhat2)], s_m' is 2 lam_m dPhi/dlam_m (plain, and
  lam = 1 without predictor), that plus 2 dPhi/dmu_m at mu = 1 (no stop-gradient), or 2 dPhi/dlam_m (IsoLoss).
  Phi is a double integral, :func:`expected_cosine`.

A cosine does not change when an argument is scaled, so the flow conserves tr(W W^T) with and without
stop-gradient and predictor, also with ReLU, and eigenvalues that become equal end at their initial mean.
IsoLoss does not conserve it: for a linear network and lam = s^a it conserves sum_m s_m^{1+a}, so that equal
eigenvalues end at (mean s^{1+a})^{1/(1+a)}.

Where the paper errs. That all modes diverge without stop-gradient (appendix C.2) is impossible: their sum is
conserved, and some of them die; the published code divides a term by ||p||^3 ||z2|| where ||p|| ||z2||^3
belongs. That nothing is learned without a predictor (appendix C.3) needs a clean query; with a noisy one z
decays at the rate sigma2_query. The ReLU network of Figure 5 behaves like the linear one with a predictor set
from W W^T, as in the published code; set from the correlation of its own representation, it does not.

Shapes: N pairs of views, n inputs, M outputs, T times; W (M, n), zhat (N, M), lam and s (M,). Time is that of
the gradient flow: steps times learning rate.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.integrate import solve_ivp

from stopgrad.errors import UsageError, unknown
from stopgrad.theory.domain import NONNEGATIVE, POSITIVE, REAL, matrix, reals

Loss = Literal["euclidean", "cosine"]
Variant = Literal["plain", "no-stop-gradient", "no-predictor", "isoloss"]
Activation = Literal["linear", "relu"]
Correlation = Literal["weights", "representation"]
Spectrum = Callable[[np.ndarray], np.ndarray]
"""Eigenvalues s of the correlation -> eigenvalues lam of the predictor."""

# The cosine's integral: the trapezoidal rule in asinh of either variable. The integrands are analytic in a
# strip of half width pi / 2, so that its error falls as exp(-pi^2 / step); with M equal modes they narrow as
# 1 / sqrt(M), and the step with them. Up to END the error is below 1e-13 while at least three modes are
# alive, 1e-10 for one.
STEP, END = 0.25, 24.0


def power(exponent: float = 1.0, eps: float = 0.0) -> Spectrum:
    """lam = s^exponent + eps; 1/2 is DirectPred's exponent (tian2021, Eq. 18), 1 the published figures'.

    Raises:
        UsageError: unless exponent > 0 and eps >= 0.
    """
    exponent, eps = reals("exponent", exponent, POSITIVE).item(), reals("eps", eps, NONNEGATIVE).item()
    return lambda s: np.asarray(s) ** exponent + eps


def rates(
    z1: Any, z2: Any, lam: Any, loss: Loss = "euclidean", variant: Variant = "plain"
) -> tuple[np.ndarray, np.ndarray]:
    """Minus the gradients of the loss of each pair by zhat1 and by zhat2 (halvagal2023, Eqs. 8, 10 and C).

    They are the velocities of zhat where pairs do not interact (orthogonal inputs of length 1).

    Args:
        z1, z2: the two views' representations in the predictor's eigenbasis. (N, M)
        lam: the predictor's eigenvalues; not read without a predictor. (M,)
        loss, variant: see the module.

    Returns:
        Rates of zhat1 and of zhat2, the latter 0 with stop-gradient. (N, M) each; under the cosine loss a
        pair with a vector of length 0 has no gradient and gets 0.

    Raises:
        UsageError: for an unknown loss or variant, or shapes that do not go together.
    """
    _known("loss", loss, Loss)
    _known("variant", variant, Variant)
    z1, z2 = matrix("z1", z1), matrix("z2", z2)
    lam = reals("lam", lam, REAL).numpy()
    if z1.shape != z2.shape or lam.shape != z1.shape[1:]:
        raise UsageError(f"z1, z2, lam: the shapes {z1.shape}, {z2.shape}, {lam.shape} do not go together")
    return _rates(z1, z2, lam, loss, variant)


def _rates(
    z1: np.ndarray, z2: np.ndarray, lam: np.ndarray, loss: Loss, variant: Variant
) -> tuple[np.ndarray, np.ndarray]:
    if variant == "no-predictor":
        lam = np.ones_like(lam)
    p = lam * z1
    if loss == "euclidean":
        by_p = z2 - p
        by_z2 = -by_p
    else:
        unit_p, per_p = _unit(p)
        unit_z, per_z = _unit(z2)
        cosine = (unit_p * unit_z).sum(axis=1, keepdims=True)
        by_p = (unit_z - cosine * unit_p) * per_p
        by_z2 = (unit_p - cosine * unit_z) * per_z
    by_z1 = by_p if variant == "isoloss" else lam * by_p
    return by_z1, by_z2 if variant == "no-stop-gradient" else np.zeros_like(by_z2)


def _unit(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1, and 1 / their length; both 0 for rows of length 0."""
    length = np.linalg.norm(v, axis=1, keepdims=True)
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return v * inverse, inverse


def euclidean_rates(
    z: Any, lam: Any, variant: Variant = "plain", *, sigma2_query: float = 0.0, sigma2_key: float = 0.0
) -> np.ndarray:
    """Expected rate of zhat of a linear network under the Euclidean loss, in closed form.

    With q = sigma2_query and k = sigma2_key: lam (1 - (1 + q) lam) zhat; (1 - (1 + q) lam) zhat with IsoLoss;
    -q zhat without a predictor; -((1 - lam)^2 + q lam^2 + k) zhat without stop-gradient. For q = k = 0 these
    are Eq. 9 and appendix C of halvagal2023.

    Args:
        z: representation in the predictor's eigenbasis, in any shape that goes with lam.
        lam: the predictor's eigenvalues. (M,)
        variant: see the module.
        sigma2_query, sigma2_key: variance of the noise of the view with and the view without the predictor,
            >= 0.

    Raises:
        UsageError: for an unknown variant, or an argument outside its domain.
    """
    _known("variant", variant, Variant)
    z, lam = reals("z", z, REAL).numpy(), reals("lam", lam, REAL).numpy()
    q = reals("sigma2_query", sigma2_query, NONNEGATIVE).item()
    k = reals("sigma2_key", sigma2_key, NONNEGATIVE).item()
    return z * _euclidean(lam, variant, q, k)


def _euclidean(lam: np.ndarray, variant: Variant, q: float, k: float) -> np.ndarray:
    if variant == "no-predictor":
        return np.full_like(lam, -q)
    if variant == "no-stop-gradient":
        return -((1 - lam) ** 2 + q * lam**2 + k)
    pull = 1 - (1 + q) * lam
    return pull if variant == "isoloss" else lam * pull


class ExpectedCosine(NamedTuple):
    """Phi and its derivatives, see :func:`expected_cosine`; the derivatives are of shape (M,)."""

    value: float
    by_lam: np.ndarray
    by_mu: np.ndarray


def expected_cosine(
    s: Any, lam: Any, *, sigma2_query: float = 0.0, sigma2_key: float = 0.0
) -> ExpectedCosine:
    """Phi(lam, mu) = E[cos(diag(lam) zhat1, diag(mu) zhat2)] at mu = 1, with its derivatives by lam and mu.

    zhat1_m and zhat2_m are Gaussian with variances s_m (1 + sigma2) and covariance s_m; modes are
    independent. With 1/||v|| = 2 / sqrt(pi) int_0^inf exp(-x^2 ||v||^2) dx for either length, Phi is an
    integral over two variables of elementary functions, here to an error of 1e-10 or better.

    Args:
        s: eigenvalues of W W^T, >= 0, not all 0. (M,)
        lam: the predictor's eigenvalues, >= 0, positive for some s > 0. (M,)
        sigma2_query, sigma2_key: variance of the noise of either view, >= 0.

    Raises:
        UsageError: if an argument is outside its domain.
    """
    s, lam = reals("s", s, NONNEGATIVE).numpy(), reals("lam", lam, NONNEGATIVE).numpy()
    q = reals("sigma2_query", sigma2_query, NONNEGATIVE).item()
    k = reals("sigma2_key", sigma2_key, NONNEGATIVE).item()
    if s.ndim != 1 or lam.shape != s.shape:
        raise UsageError(f"s, lam: must be vectors of one length, the shapes are {s.shape} and {lam.shape}")
    if not (s * lam).any():
        raise UsageError("s, lam: the prediction is 0 almost surely, its cosine does not exist")
    return _expected_cosine(s, lam, q, k)


def _expected_cosine(s: np.ndarray, lam: np.ndarray, q: float, k: float) -> ExpectedCosine:
    # In units of the largest standard deviations, so that the nodes fit any scale
    scale_p, scale_z = np.sqrt((lam**2 * s).max() * (1 + q)), np.sqrt(s.max() * (1 + k))
    step = STEP / max(1.0, np.sqrt(len(s) / 4))
    nodes = step * np.arange(int(END / step) + 1)
    weights = step * np.cosh(nodes)
    weights[0] /= 2
    square = np.sinh(nodes) ** 2
    p = np.multiply.outer(lam**2 * s * (1 + q) / scale_p**2, square)[:, :, None]
    z = np.multiply.outer(s * (1 + k) / scale_z**2, square)[:, None, :]
    free = 1 - 1 / ((1 + q) * (1 + k))
    # det(I + Sigma Q) of each mode's pair (zhat1_m, zhat2_m) under the exponential
    det = 1 + p + z + free * p * z
    decay = np.exp(-np.log(det).sum(axis=0) / 2)
    measure = 2 / (np.pi * scale_p * scale_z) * np.multiply.outer(weights, weights) * decay
    inner = s[:, None, None] / det
    total = np.tensordot(lam, inner, 1)
    # the derivatives by lam and mu: through the determinants, and those of the factors lam_m mu_m themselves
    through = (lam[:, None, None] * inner + total / 2) * measure
    by_z = -(through * 2 * z * (1 + free * p) / det).sum(axis=(1, 2))
    per_lam = 2 * (lam * s * (1 + q) / scale_p**2)[:, None, None] * square[None, :, None]
    by_p = -(through * per_lam * (1 + free * z) / det).sum(axis=(1, 2))
    direct = (inner * measure).sum(axis=(1, 2))
    return ExpectedCosine(float((total * measure).sum()), direct + by_p, lam * direct + by_z)


class Course(NamedTuple):
    """How a network learns.

    Attributes:
        t: times. (T,)
        w: the weights. (T, M, n)
        s: eigenvalues of W W^T, ascending. (T, M)
    """

    t: np.ndarray
    w: np.ndarray
    s: np.ndarray


@dataclass(frozen=True)
class Siamese:
    """Views, closed-form predictor and loss of a one-layer network.

    Attributes:
        loss, variant: see the module.
        predictor: lam = f(s), elementwise or not, with lam >= 0.
        sigma2_query, sigma2_key: variance of the noise of the view with and the view without the predictor,
            >= 0. By default the published figures': a clean query and noise of 0.1 on the key.

    Raises:
        UsageError: naming the argument that is outside its domain.
    """

    loss: Loss = "euclidean"
    variant: Variant = "plain"
    predictor: Spectrum = field(default_factory=power)
    sigma2_query: float = 0.0
    sigma2_key: float = 0.01

    def __post_init__(self) -> None:
        _known("loss", self.loss, Loss)
        _known("variant", self.variant, Variant)
        for name in ("sigma2_query", "sigma2_key"):
            object.__setattr__(self, name, reals(name, getattr(self, name), NONNEGATIVE).item())

    def spectrum_rates(self, s: Any) -> np.ndarray:
        """s', the expected change of the eigenvalues of W W^T of a linear network. (M,)

        Raises:
            UsageError: unless s is a vector of numbers >= 0.
        """
        s = reals("s", s, NONNEGATIVE).numpy()
        if s.ndim != 1:
            raise UsageError(f"s: must be a vector, its shape is {s.shape}")
        return self._spectrum_rates(s)

    def _spectrum_rates(self, s: np.ndarray) -> np.ndarray:
        lam = np.ones_like(s) if self.variant == "no-predictor" else self.predictor(s)
        if self.loss == "euclidean":
            return 2 * s * _euclidean(lam, self.variant, self.sigma2_query, self.sigma2_key)
        if not (s * lam).any():
            return np.zeros_like(s)
        cosine = _expected_cosine(s, lam, self.sigma2_query, self.sigma2_key)
        change = cosine.by_lam if self.variant == "isoloss" else lam * cosine.by_lam
        return 2 * (change + cosine.by_mu if self.variant == "no-stop-gradient" else change)

    def flow(self, w0: Any, t: Any, *, rtol: float = 1e-10) -> Course:
        """The expected gradient flow of a linear network, by `scipy.integrate.solve_ivp` (DOP853).

        Args:
            w0: initial weights. (M, n)
            t: times, increasing from 0. (T,)
            rtol: relative error allowed in a step; the absolute one is 1e-3 of it times the largest s.

        Raises:
            UsageError: if an argument is outside its domain.
            ArithmeticError: if the solver fails.
        """
        w0, times = matrix("w0", w0), reals("t", t, NONNEGATIVE).reshape(-1).numpy()
        if times[0] != 0 or (np.diff(times) < 0).any():
            raise UsageError("t: must increase from 0")
        left, values, right = np.linalg.svd(w0)
        left, s0 = left[:, ::-1], np.zeros(len(w0))
        s0[: len(values)] = values**2
        s0 = s0[::-1]
        path = solve_ivp(
            lambda _, s: np.where(s > 0, self._spectrum_rates(np.maximum(s, 0.0)), 0.0),
            (0.0, times[-1]), s0, "DOP853", times, rtol=rtol, atol=1e-3 * rtol * (s0.max() or 1.0),
        )  # fmt: skip
        if not path.success:
            raise ArithmeticError(f"the solver failed near t = {path.t[-1]:g}: {path.message}")
        s = np.maximum(path.y.T, 0.0)
        rank = len(values)
        w = np.einsum("mk,tk,kn->tmn", left[:, -rank:], np.sqrt(s[:, -rank:]), right[rank - 1 :: -1])
        return Course(times, w, np.sort(s, axis=1))

    def descend(
        self,
        w0: Any,
        steps: int = 1500,
        learning_rate: float = 0.01,
        batch: int = 500,
        *,
        activation: Activation = "linear",
        correlation: Correlation = "weights",
        every: int = 10,
        seed: int = 0,
    ) -> Course:
        """Stochastic gradient descent on fresh Gaussian views, the way of the published figures.

        Args:
            w0: initial weights. (M, n)
            steps, learning_rate: number and size of the steps.
            batch: pairs of views drawn anew for every step.
            activation: phi.
            correlation: what the predictor is set from: ``weights``, W W^T, as in the published code, or
                ``representation``, the batch's mean of z1 z1^T. With ReLU they differ, and the published
                picture, in which eigenvalues draw together as in a linear network, needs the former.
            every: steps between two that are recorded.
            seed: of the views.

        Raises:
            UsageError: if an argument is outside its domain.
        """
        _known("activation", activation, Activation)
        _known("correlation", correlation, Correlation)
        w = matrix("w0", w0).copy()
        for name, number in (("steps", steps), ("batch", batch), ("every", every)):
            if number < 1:
                raise UsageError(f"{name}: {number} is outside its domain [1, inf)")
        size = reals("learning_rate", learning_rate, POSITIVE).item()
        rng = np.random.default_rng(seed)
        recorded = [w.copy()]
        for step in range(1, steps + 1):
            image = rng.standard_normal((batch, w.shape[1]))
            x1, x2 = (
                image + variance**0.5 * rng.standard_normal(image.shape)
                for variance in (self.sigma2_query, self.sigma2_key)
            )
            w += size * self.update(w, x1, x2, activation=activation, correlation=correlation)
            if step % every == 0:
                recorded.append(w.copy())
        weights = np.stack(recorded)
        s = np.linalg.eigvalsh(weights @ weights.transpose(0, 2, 1))
        return Course(size * every * np.arange(len(weights)), weights, s)

    def update(
        self,
        w: np.ndarray,
        x1: np.ndarray,
        x2: np.ndarray,
        *,
        activation: Activation = "linear",
        correlation: Correlation = "weights",
    ) -> np.ndarray:
        """Minus the gradient of the batch's mean loss by W, for views x1, x2 (N, n). (M, n)"""
        z1, z2 = x1 @ w.T, x2 @ w.T
        if activation == "relu":
            z1, z2 = np.maximum(z1, 0.0), np.maximum(z2, 0.0)
        values, basis = np.linalg.eigh(w @ w.T if correlation == "weights" else z1.T @ z1 / len(z1))
        change = _rates(
            z1 @ basis, z2 @ basis, self.predictor(np.maximum(values, 0.0)), self.loss, self.variant
        )
        by_z1, by_z2 = (rate @ basis.T for rate in change)
        if activation == "relu":
            by_z1, by_z2 = by_z1 * (z1 > 0), by_z2 * (z2 > 0)
        return (by_z1.T @ x1 + by_z2.T @ x2) / len(x1)


def halvagal2023_fig4(points: int = 151, seed: int = 2) -> dict[Loss, tuple[Course, Course, Course]]:
    """Figure 4 of halvagal2023: two neurons under either distance, from three starts.

    As in the published code: 6 inputs, lam = s, a clean query, noise of 0.1 on the key, times up to 15 (1500
    steps of 0.01), starts W/4, W/2 and another W/2 with W standard normal. The seed is ours, and the flow is
    the expected one. Both eigenvalues end at 1 (Euclidean) or at their initial mean (cosine).
    """
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, 2, 6))
    starts = (first / 4, first / 2, second / 2)
    t = np.linspace(0, 15, points)
    losses: tuple[Loss, ...] = get_args(Loss)
    return {loss: tuple(Siamese(loss).flow(w, t) for w in starts) for loss in losses}  # type: ignore[misc]


def halvagal2023_fig5(
    steps: int = 1500, batch: int = 500, seed: int = 2
) -> dict[tuple[Loss, Variant], Course]:
    """Figure 5 of halvagal2023: 10 ReLU neurons on 15 inputs, every distance and variant.

    Gradient descent with the settings of :func:`halvagal2023_fig4`, from weights of variance 1/15 (the start
    of the published picture is not known). As in a linear network, but more slowly, all but the smallest
    eigenvalues draw together (plain, IsoLoss) or die (no stop-gradient); under the cosine IsoLoss they grow.
    """
    w0 = np.random.default_rng(seed).standard_normal((10, 15)) / 15**0.5
    return {
        (loss, variant): Siamese(loss, variant).descend(w0, steps, batch=batch, activation="relu", seed=seed)
        for loss in get_args(Loss)
        for variant in get_args(Variant)
    }


def _known(name: str, value: str, literal: Any) -> None:
    if value not in get_args(literal):
        raise unknown(name, value, list(get_args(literal)))
