"""Data that are not isotropic (Tian et al. 2021, appendix D, Fig. 10), on `stopgrad.theory`.

Legend: n1 inputs, n2 outputs, W (n2, n1), W_p (n2, n2), Sigma_d and Sigma_s (n1, n1), rho the eigenvalues of
Sigma_d Sigma_s^{-1} in descending order. A triplet has the weights w_p, w, w_a and l_d, l_s of its mode.
"""

from itertools import combinations

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import subspace_angles

from stopgrad.experiments.schema import Result
from stopgrad.theory.flow import Flow
from stopgrad.theory.nonisotropic import (
    additive_scrambling,
    fixed_point,
    growth_rates,
    learnable_modes,
    multiplicative_scrambling,
)
from stopgrad.theory.triplet import slopes

N1, N2, SCRAMBLED = 5, 2, 2
L_D, L_S = 0.5, 1.0
"""As in Fig. 10, with alpha_p = beta = 1."""


def figure10(case: str, points: int = 10, t_end: float = 1000.0) -> Result:
    """Fig. 10: where the scalar network goes from starts in all quadrants, none of them 0.

    ``case`` is a panel: "held", w_a = 1 for good, starts in w and w_p; "tied", w_p = w, starts in w and w_a;
    "none", no predictor, w_p = 1, starts in w and w_a. Numbers: ``gap``, the largest |w_a l_d - w_p w l_s| at
    the end; ``escaped``, the share of starts that end away from w = 0, and the same of starts with w > 0,
    ``escaped_positive``, and with w < 0, ``escaped_negative``; ``rest``, how far w_p is from l_d / l_s at the
    most where a start has escaped and w_a is free.
    """
    # an even number of points leaves out 0; the axes differ, so that none lies on w_p = -w
    w, other = (
        grid.ravel() for grid in np.meshgrid(np.linspace(-1, 1, points), np.linspace(-0.9, 1.1, points))
    )
    starts = {"held": (other, w, np.ones_like(w)), "tied": (w, w, other), "none": (np.ones_like(w), w, other)}
    still = {"held": 2, "tied": None, "none": 0}[case]

    def rates(_: float, y: np.ndarray) -> np.ndarray:
        change = slopes(*y.reshape(3, -1), l_d=L_D, l_s=L_S)
        return np.concatenate([0 * one if i == still else one for i, one in enumerate(change)])

    solved = solve_ivp(rates, (0, t_end), np.concatenate(starts[case]), "DOP853", rtol=1e-9, atol=1e-12)
    w_p, w_end, w_a = solved.y[:, -1].reshape(3, -1)
    out = np.abs(w_end) > 0.01
    numbers = {
        "gap": float(np.abs(w_a * L_D - w_p * w_end * L_S).max()),
        "escaped": float(out.mean()),
        "escaped_positive": float(out[w > 0].mean()),
        "escaped_negative": float(out[w < 0].mean()),
    }
    if case == "tied":
        numbers["rest"] = float(np.abs(w_p - L_D / L_S)[out].max())
    series = {"w": w, "other": other, "w_end": w_end}
    return Result(numbers, {name: values.tolist() for name, values in series.items()})


def appendix_d(scrambling: str, draws: int = 4, t_end: float = 500.0, seed: int = 0) -> Result:
    """Appendix D: what is learned are the modes of Sigma_d Sigma_s^{-1} with the largest eigenvalues.

    ``scrambling`` is "additive" or "multiplicative", of drawn matrices that do not commute. Numbers:

    - ``rest``: the largest rate of the flow at fixed points of every choice of modes, mixed at random;
    - ``top_growth``, the largest rate at which a departure from a choice of the largest modes grows (weights
      8), and ``other_growth``, the smallest one from any other choice. A mode with rho = 0, as scrambled ones
      have, is left at no exponential rate: it counts as 0, and some starts end there;
    - ``learned``: the share of ``draws`` starts after which the rows of W lie in the span of the largest
      modes (all cosines > 0.999); W random and small, W_p a multiple of I with W_p^2 < W W^T, which cannot
      collapse, W_a = W;
    - ``views_error`` and ``views_error_text``: how far the theory's Sigma_s and the text's are from that of
      drawn views, relative;
    - ``product_error``: between Sigma_d Sigma_s^{-1} and what stands for it, Sigma_x (Sigma_x + Sigma_n)^{-1}
      or P_c.
    """
    random = np.random.default_rng(seed)
    sigma_d, sigma_s, numbers = _views(scrambling, random)
    rho, modes = learnable_modes(sigma_d, sigma_s)
    rests: list[float] = []
    top: list[float] = []
    others: list[float] = []
    for chosen in combinations(range(N1), N2):
        W_p, W = fixed_point(sigma_d, sigma_s, chosen, random.standard_normal((N2, N2)))
        rests.append(max(np.abs(rate).max() for rate in _flow(sigma_d, sigma_s, W, W_p).rates(W, W_p, W)))
        growth = growth_rates(*fixed_point(sigma_d, sigma_s, chosen, 8 * np.eye(N2)), sigma_d, sigma_s)
        largest = np.isclose(rho[list(chosen)], rho[:N2]).all()
        (top if largest else others).append(float(growth[0].real))
    kept = modes[rho > rho[N2 - 1] - 1e-9]
    overlaps = []
    for _ in range(draws):
        W = 0.3 * random.standard_normal((N2, N1))
        W_p = np.linalg.svd(W)[1][-1] / 2 * np.eye(N2)
        end = _flow(sigma_d, sigma_s, W, W_p).trajectory([0.0, t_end], rtol=1e-8)
        overlaps.append(float(np.cos(subspace_angles(end.W[-1].T, kept.T)).min()))
    numbers |= {
        "rest": float(max(rests)),
        "top_growth": max(top),
        "other_growth": min(others),
        "learned": float(np.mean(np.array(overlaps) > 0.999)),
    }
    return Result(numbers, {"rho": rho.tolist(), "overlap": overlaps})


def _flow(sigma_d: np.ndarray, sigma_s: np.ndarray, W: np.ndarray, W_p: np.ndarray) -> Flow:
    return Flow(sigma_d, sigma_s - sigma_d, W, W_p, eta=0.0, target="same")


def _views(
    scrambling: str, random: np.random.Generator, count: int = 200_000
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Sigma_d, Sigma_s of drawn data, and how far both and their quotient are from what they should be."""
    A, B = random.standard_normal((2, N1, N1))
    sigma_x, sigma_n = (part @ part.T / N1 + 0.2 * np.eye(N1) for part in (A, B))
    sigma_x, sigma_n = (sigma_x + sigma_x.T) / 2, (sigma_n + sigma_n.T) / 2
    x = random.multivariate_normal(np.zeros(N1), sigma_x, count)
    if scrambling == "additive":
        sigma_d, sigma_s = additive_scrambling(sigma_x, sigma_n)
        views = x + random.multivariate_normal(np.zeros(N1), sigma_n, count)
        text, product = sigma_x + sigma_n, sigma_x @ np.linalg.inv(sigma_x + sigma_n)
    else:
        u = np.linalg.qr(random.standard_normal((N1, SCRAMBLED)))[0]
        sigma_d, sigma_s = multiplicative_scrambling(sigma_x, u)
        text, product = sigma_x, np.eye(N1) - u @ u.T
        turned = np.einsum("bkl,bl->bk", random.standard_normal((count, SCRAMBLED, SCRAMBLED)), x @ u)
        views = x @ product + turned @ u.T
    drawn = views.T @ views / count

    def apart(guess: np.ndarray) -> float:
        return float(np.linalg.norm(guess - drawn) / np.linalg.norm(drawn))

    quotient = sigma_d @ np.linalg.inv(sigma_s)
    return sigma_d, sigma_s, {
        "views_error": apart(sigma_s),
        "views_error_text": apart(text),
        "product_error": float(np.abs(quotient - product).max()),
    }  # fmt: skip
