"""The exact claims of Halvagal et al. 2023 (IsoLoss), on `stopgrad.theory.representation` and the parts.

Legend: B pairs of views, n inputs, M outputs and modes; W (M, n), s (M,) the eigenvalues of W W^T = U diag(s)
U^T, lam = s those of the predictor; zhat = U^T z; q and k the variances of the noise of the view with the
predictor and of the other; t times (T,). Time is steps times learning rate. All draws are from NumPy's
default generator by the ``seed`` of the function. Gradients are taken by automatic differentiation through
the parts that train networks; where they stand for expectations, the sample's moments are the population's.
"""

import numpy as np
import torch

from stopgrad.experiments.schema import Result
from stopgrad.parts.distances import Cosine, Distance, Euclidean
from stopgrad.parts.gradient import straight_through
from stopgrad.theory import representation
from stopgrad.theory.representation import Activation, Correlation, Loss, Siamese, Variant

M, N = 4, 8
DISTANCES: dict[Loss, Distance] = {"euclidean": Euclidean(), "cosine": Cosine()}
SMALL = (1e-3, 0.1)
"""Range of the eigenvalues of modes whose growth is compared."""
PLAIN_AND_ISO: tuple[Variant, Variant] = ("plain", "isoloss")


def theorem1(q: float = 0.0, k: float = 0.01, seed: int = 0) -> Result:
    """Theorem 1, Eqs. 8 and 9: under the Euclidean loss mode m moves by lam_m (1 - lam_m) zhat_m, on its own.

    And the Euclidean IsoLoss (C.4.1): the same without the factor lam_m.

    Numbers: ``pair_error``, what parts the gradient of a pair from Eq. 8; ``equation_error``, what parts the
    expected rates of a linear network from Eq. 9, ``corrected_error`` from lam (1 - (1 + q) lam) zhat, and
    ``isoloss_error``, of the IsoLoss, from the latter over lam, each relative to the largest rate;
    ``coupling``, how much another mode's weights change a mode's rate, relative to it; ``ratio`` and
    ``isoloss_ratio``, the fastest mode's relative rate over the slowest's while eigenvalues are small.
    """
    random = np.random.default_rng(seed)
    x1, x2 = _views(random, q, k)
    s = random.uniform(0.2, 1.8, M)
    zhat = np.sqrt(s)[:, None] * np.linalg.qr(random.standard_normal((N, M)))[0].T
    own, corrected = (s * (1 - factor * s) for factor in (1.0, 1 + q))
    found, iso = (_rates(zhat, s, x1, x2, "euclidean", variant) for variant in PLAIN_AND_ISO)
    z1, z2 = random.standard_normal((2, 6, M))
    other = zhat.copy()
    other[1:] *= 1.3
    numbers = {
        "pair_error": _apart(_pair_rates(z1, z2, s, "euclidean", "plain"), s * (z2 - s * z1)),
        "equation_error": _apart(found, own[:, None] * zhat),
        "corrected_error": _apart(found, corrected[:, None] * zhat),
        "isoloss_error": _apart(iso, (corrected / s)[:, None] * zhat),
        "coupling": _apart(_rates(other, s, x1, x2, "euclidean", "plain")[:1], found[:1]),
    }
    small = np.geomspace(*SMALL, M)
    start = np.sqrt(small)[:, None] * np.linalg.qr(random.standard_normal((N, M)))[0].T
    plain, isotropic = (
        (start * _rates(start, small, x1, x2, "euclidean", variant)).sum(axis=1) / small
        for variant in PLAIN_AND_ISO
    )
    numbers["ratio"] = float(plain.max() / plain.min())
    numbers["isoloss_ratio"] = float(isotropic.max() / isotropic.min())
    return Result(numbers, {"s": small.tolist(), "plain": plain.tolist(), "isoloss": isotropic.tolist()})


def theorem2(modes: int = 8, spread: float = 0.05, seed: int = 0) -> Result:
    """Theorem 2, Eqs. 10 and 11: the coupled rates under the cosine loss, and their form for close
    eigenvalues.

    And the cosine IsoLoss (C.4.2): the same without the factor lam_m. The query is clean, k = 0.01. At most 8
    modes: with more the integral of the expected rates is less exact.

    Numbers: ``pair_error``, what parts the gradient of a pair from Eq. 10; ``isoloss_error``, lam_m times
    that of the IsoLoss from it. With eigenvalues within ``spread`` of 1 and expected rates of a linear
    network: ``eq11_error``, what parts s' from the best multiple of Eq. 11, relative; ``share``, that
    multiple over the one of Eq. 11; ``order``, the exponent at which the error falls with the spread;
    ``toward_mean``, the share of modes that move towards the others. With one mode of eigenvalue 1 among
    small ones: ``dominant``, its relative rate, ``slowest_other`` of all others, and ``ratio`` and
    ``isoloss_ratio``, the fastest of these over the slowest.
    """
    random = np.random.default_rng(seed)
    z1, z2, lam = *random.standard_normal((2, 6, modes)), random.uniform(0.2, 2, modes)
    pair, iso = (_pair_rates(z1, z2, lam, "cosine", variant) for variant in PLAIN_AND_ISO)
    close, closer = (1 + width * np.linspace(-1, 1, modes) for width in (spread, spread / 2))
    (error, share), (smaller, _) = _near_uniform(close), _near_uniform(closer)
    moves = Siamese("cosine").spectrum_rates(close)
    single = np.append(np.geomspace(*SMALL, modes - 1), 1.0)
    plain, isotropic = (Siamese("cosine", v).spectrum_rates(single) / single for v in PLAIN_AND_ISO)
    numbers = {
        "pair_error": _apart(pair, _equation10(z1, z2, lam)),
        "isoloss_error": _apart(lam * iso, pair),
        "eq11_error": error,
        "share": share,
        "order": float(np.log2(error / smaller)),
        "toward_mean": float((np.sign(moves) == np.sign(close.mean() - close)).mean()),
        "dominant": float(plain[-1]),
        "slowest_other": float(plain[:-1].min()),
        "ratio": float(plain[:-1].max() / plain[:-1].min()),
        "isoloss_ratio": float(isotropic[:-1].max() / isotropic[:-1].min()),
    }
    series = {"s": single.tolist(), "plain": plain.tolist(), "isoloss": isotropic.tolist()}
    return Result(numbers, series)


def figure4(loss: Loss, t_end: float = 60.0) -> Result:
    """Fig. 4: the eigenvalues of two neurons from the three starts of the published figure.

    Numbers, the worst over the starts: ``from_one``, the largest |s - 1| at ``t_end``; ``apart``, the
    distance of the two over that at the start; ``from_mean``, the distance of their mean from the mean at the
    start, relative; ``descent_error``, that of gradient descent on noisy views from the flow at the figure's
    end, relative to the largest eigenvalue. ``ends``, the largest mean at ``t_end`` over the smallest.
    """
    courses = representation.halvagal2023_fig4()[loss]
    siamese = Siamese(loss)
    ends = [siamese.flow(c.w[-1], [0.0, t_end - c.t[-1]]).s[-1] for c in courses]
    pairs = list(zip(courses, ends, strict=True))
    steps = round(courses[0].t[-1] / 0.01)
    descents = [siamese.descend(c.w[0], steps, batch=100, every=steps).s[-1] for c in courses]
    means = [float(end.mean()) for end in ends]
    numbers = {
        "from_one": max(float(np.abs(end - 1).max()) for end in ends),
        "apart": max(float(np.ptp(end) / np.ptp(c.s[0])) for c, end in pairs),
        "from_mean": max(abs(float(end.mean() / c.s[0].mean()) - 1) for c, end in pairs),
        "ends": max(means) / min(means),
        "descent_error": max(_apart(s, c.s[-1]) for s, c in zip(descents, courses, strict=True)),
    }
    series = {f"start {i}": c.s.T.tolist() for i, c in enumerate(courses, start=1)}
    return Result(numbers, {"t": courses[0].t.tolist(), **series})


def figure5(
    loss: Loss,
    variant: Variant = "plain",
    correlation: Correlation = "weights",
    steps: int = 750,
    seed: int = 2,
) -> Result:
    """Fig. 5: ten ReLU neurons on 15 inputs beside ten linear ones, by gradient descent from one start.

    The start's variance is 1/15; the published one is not known. Time ends at 15, as in the figure.

    Numbers: ``alike``, the cosine of the angle between what ReLU and linear neurons change in their ordered
    eigenvalues; ``pace``, the length of the former over that of the latter; ``moved``, the largest change of
    an eigenvalue of the ReLU network over the largest eigenvalue at the start.
    """
    w0 = np.random.default_rng(seed).standard_normal((10, 15)) / 15**0.5
    siamese = Siamese(loss, variant)
    both: tuple[Activation, Activation] = ("relu", "linear")
    relu, linear = (
        siamese.descend(
            w0, steps, 15 / steps, 200, activation=name, correlation=correlation, every=10, seed=seed
        )
        for name in both
    )
    change, reference = relu.s[-1] - relu.s[0], linear.s[-1] - linear.s[0]
    lengths = np.linalg.norm(change), np.linalg.norm(reference)
    numbers = {
        "alike": float(change @ reference / (lengths[0] * lengths[1])),
        "pace": float(lengths[0] / lengths[1]),
        "moved": float(np.abs(change).max() / relu.s[0].max()),
    }
    return Result(numbers, {"t": relu.t.tolist(), "relu": relu.s.T.tolist(), "linear": linear.s.T.tolist()})


def without_stop_gradient(loss: Loss, k: float = 0.01, t_end: float = 600.0, seed: int = 0) -> Result:
    """Appendix C.1 and C.2: neither side of the loss is held, from eigenvalues below and above 1.

    Numbers: ``left``, the sum of the eigenvalues at ``t_end`` over that at the start; ``smallest_growth``,
    the least that a mode grew by, as a factor; ``dead``, how many modes fell below 1e-6. Of the Euclidean
    loss: ``rate_error``, what parts the rates from -((1 - lam)^2 + k) zhat. Of the cosine loss: ``radial``,
    the part of the rates along W, as a share, 0 for a conserved sum; ``published_left``, as ``left`` but at t
    = 15 with the gradient by the second view divided as in the published code.
    """
    random = np.random.default_rng(seed)
    s = np.array([0.2, 0.6, 1.2, 1.8])
    x1, x2 = _views(random, 0.0, k)
    zhat = np.sqrt(s)[:, None] * np.linalg.qr(random.standard_normal((N, M)))[0].T
    course = Siamese(loss, "no-stop-gradient", sigma2_key=k).flow(zhat, np.linspace(0, t_end, 121))
    found = _rates(zhat, s, x1, x2, loss, "no-stop-gradient")
    numbers = {
        "left": float(course.s[-1].sum() / course.s[0].sum()),
        "smallest_growth": float((course.s[-1] / course.s[0]).min()),
        "dead": float((course.s[-1] < 1e-6).sum()),
    }
    if loss == "euclidean":
        numbers["rate_error"] = _apart(found, -((1 - s[:, None]) ** 2 + k) * zhat)
    else:
        numbers["radial"] = abs(float((zhat * found).sum() / (np.linalg.norm(zhat) * np.linalg.norm(found))))
        numbers["published_left"] = _published(zhat, k, random)
    return Result(numbers, {"t": course.t.tolist(), "s": course.s.T.tolist()})


def without_predictor(q: float, k: float = 0.01, steps: int = 500, lr: float = 0.05, seed: int = 0) -> Result:
    """Appendix C.3: gradient descent of a linear network under the Euclidean loss with W_p = I.

    Numbers: ``left``, ||W|| at the end over ||W|| at the start; ``moved``, the largest relative change of an
    entry of W in units of its largest; ``closed_form_error``, what parts W from W(0) (1 - lr q)^steps.
    """
    random = np.random.default_rng(seed)
    x1, x2 = _views(random, q, k)
    start = random.standard_normal((M, N)) / N**0.5
    w, path = start.copy(), [1.0]
    for _ in range(steps):
        w += lr * _rates(w, np.ones(M), x1, x2, "euclidean", "no-predictor")
        path.append(float(np.linalg.norm(w) / np.linalg.norm(start)))
    numbers = {
        "left": path[-1],
        "moved": _apart(w, start),
        "closed_form_error": _apart(w, start * (1 - lr * q) ** steps),
    }
    return Result(numbers, {"t": (lr * np.arange(steps + 1)).tolist(), "norm_W": path})


def _views(
    random: np.random.Generator, q: float, k: float, pairs: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Two views whose first and second moments are those of the population: I (1 + q), I (1 + k), I."""
    drawn = random.standard_normal((pairs // 2, 3 * N))
    drawn = np.concatenate([drawn, -drawn])
    drawn = drawn @ np.linalg.inv(np.linalg.cholesky(drawn.T @ drawn / pairs)).T
    x, first, second = np.split(drawn, 3, axis=1)
    return x + q**0.5 * first, x + k**0.5 * second


def _loss(z1: torch.Tensor, z2: torch.Tensor, lam: np.ndarray, loss: Loss, variant: Variant) -> torch.Tensor:
    """The mean loss of pairs in the eigenbasis, from the parts that train networks."""
    p = z1 if variant == "no-predictor" else z1 * torch.from_numpy(lam)
    if variant == "isoloss":
        p = straight_through(z1, p)
    return DISTANCES[loss](p, z2 if variant == "no-stop-gradient" else z2.detach())


def _pair_rates(z1: np.ndarray, z2: np.ndarray, lam: np.ndarray, loss: Loss, variant: Variant) -> np.ndarray:
    """Minus the gradient of each pair's loss by zhat1. (B, M)"""
    first = torch.tensor(z1, requires_grad=True)
    _loss(first, torch.from_numpy(z2), lam, loss, variant).backward()
    return -len(z1) * np.asarray(first.grad)


def _rates(
    zhat: np.ndarray, lam: np.ndarray, x1: np.ndarray, x2: np.ndarray, loss: Loss, variant: Variant
) -> np.ndarray:
    """Minus the gradient of the mean loss by U^T W, ``zhat`` (M, n): how the modes move per unit of time."""
    weight = torch.tensor(zhat, requires_grad=True)
    z1, z2 = (torch.from_numpy(x) @ weight.T for x in (x1, x2))
    _loss(z1, z2, lam, loss, variant).backward()
    return -np.asarray(weight.grad)


def _equation10(z1: np.ndarray, z2: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """Eq. 10, mode by mode. (B, M)"""
    found = np.zeros_like(z1)
    for m in range(len(lam)):
        for k in range(len(lam)):
            if k != m:
                found[:, m] += lam[k] * (
                    lam[k] * z1[:, k] ** 2 * z2[:, m] - lam[m] * z1[:, m] * z1[:, k] * z2[:, k]
                )
    length = np.linalg.norm(lam * z1, axis=1) ** 3 * np.linalg.norm(z2, axis=1)
    return lam * found / length[:, None]


def _near_uniform(s: np.ndarray) -> tuple[float, float]:
    """How far s' is from the best multiple of Eq. 11, relative, and that multiple over Eq. 11's own.

    Eq. 11 with |z_m| = ||z|| / sqrt(M) and ||D z|| = mean(lam) ||z||, the values at equal eigenvalues: s_m' =
    2 s_m lam_m sum_k lam_k (lam_k - lam_m) / (M^2 mean(lam)^3 mean(s)).
    """
    exact = Siamese("cosine").spectrum_rates(s)
    equation = 2 * s * s * (s * (s - s[:, None])).sum(axis=1) / (len(s) ** 2 * s.mean() ** 4)
    share = float(exact @ equation / (equation @ equation))
    return float(np.linalg.norm(exact - share * equation) / np.linalg.norm(exact)), share


def _published(
    w: np.ndarray, k: float, random: np.random.Generator, steps: int = 750, batch: int = 200
) -> float:
    """Sum of squares of W after gradient descent to t = 15 over that before, by the published code's
    gradient.

    By the second view the cosine's gradient is p / (||p|| ||z||) - <p, z> z / (||p|| ||z||^3); the code
    divides the last term by ||p||^3 ||z||.
    """
    w, before = w.copy(), float((w**2).sum())
    for _ in range(steps):
        x1 = random.standard_normal((batch, N))
        x2 = x1 + k**0.5 * random.standard_normal(x1.shape)
        values, basis = np.linalg.eigh(w @ w.T)
        z1, z2 = x1 @ w.T @ basis, x2 @ w.T @ basis
        p = values * z1
        size_p, size_z = (np.linalg.norm(v, axis=1, keepdims=True) for v in (p, z2))
        inner = (p * z2).sum(axis=1, keepdims=True)
        by_z1 = values * (z2 / (size_p * size_z) - inner * p / (size_p**3 * size_z))
        by_z2 = p / (size_p * size_z) - inner * z2 / (size_p**3 * size_z)
        w += 15 / steps * basis @ (by_z1.T @ x1 + by_z2.T @ x2) / batch
    return float((w**2).sum()) / before


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest entry of the difference over the largest of what is expected."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
