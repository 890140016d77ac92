"""The theorems of Tian et al. 2021, sections 2 and 3, on `stopgrad.theory`.

Legend: n1 inputs, n2 outputs, W (n2, n1), W_p (n2, n2), X and X' (n1, n1), t times (N,); kappa = 1 + sigma2.
All draws are from NumPy's default generator by the ``seed`` of the function.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from stopgrad.experiments.schema import Result
from stopgrad.theory import flow as flows
from stopgrad.theory import modes as of_mode
from stopgrad.theory import sgd
from stopgrad.theory.flow import Flow, FlowTrajectory
from stopgrad.theory.modes import Modes
from stopgrad.theory.reduced import Reduced
from stopgrad.theory.statistics import Moments, gaussian_views

N1, N2 = 4, 3


def lemma1(lrs: Sequence[float] = (0.04, 0.02, 0.01), t_end: float = 3.0, seed: int = 0) -> Result:
    """Lemma 1: the flow of Eqs. 2-4 is the descent of Eq. 1 with weight decay, and the limit of its SGD.

    Numbers: ``gradient_error``, the largest entry of what parts the rates from central differences of the
    loss of a sample, relative to their largest; ``twin_error``, the relative distance of W after SGD at the
    smallest of ``lrs``; ``order``, the exponent at which the distance falls with the learning rate.
    """
    random = np.random.default_rng(seed)
    flow = _drawn(random, beta=0.6)
    x1, x2 = gaussian_views(flow.X, flow.X_prime, 200, seed)
    moments = Moments.empty(N1)
    moments.update(x1, x2)
    flow = replace(flow, X=moments.X, X_prime=moments.X_prime)
    errors = []
    for lr in lrs:
        twin = sgd.train(flow, x1, x2, t_end, lr=lr, points=11)
        own = flow.trajectory(twin.t)
        errors.append(np.linalg.norm(twin.W - own.W, axis=(1, 2)).max() / own.norm_W.max())
    order = np.polyfit(np.log(lrs), np.log(errors), 1)[0]
    numbers = {
        "gradient_error": _gradient_error(flow, x1.numpy(), x2.numpy()),
        "twin_error": float(errors[-1]),
        "order": float(order),
    }
    return Result(numbers, {"lr": list(lrs), "twin_error": [float(e) for e in errors]})


def _gradient_error(flow: Flow, x1: np.ndarray, x2: np.ndarray, step: float = 1e-5) -> float:
    """How far the rates are from the descent of Eq. 1, by central differences of the sample's loss."""
    W, W_p, W_a = flow.start

    def loss(W: np.ndarray, W_p: np.ndarray) -> float:
        both = ((x1, x2), (x2, x1))
        return sum(float(np.square(a @ W.T @ W_p.T - b @ W_a.T).sum(axis=1).mean()) for a, b in both) / 4

    def gradient(block: int) -> np.ndarray:
        blocks, found = [W, W_p], np.zeros_like((W, W_p)[block])
        for index in np.ndindex(found.shape):
            ends = []
            for sign in (1, -1):
                moved = [b.copy() for b in blocks]
                moved[block][index] += sign * step
                ends.append(loss(*moved))
            found[index] = (ends[0] - ends[1]) / (2 * step)
        return found

    dW, dW_p, _ = flow.rates(*flow.start)
    gaps = (
        dW + gradient(0) + flow.eta * W,
        dW_p + flow.alpha_p * gradient(1) + flow.decay_p * W_p,
    )
    return max(np.abs(gap).max() / np.abs(rate).max() for gap, rate in zip(gaps, (dW, dW_p), strict=True))


def theorem1(
    decay: str,
    alpha_ps: Sequence[float] = (0.1, 0.5, 2.0, 5.0),
    etas: Sequence[float] = (0.01, 0.1),
    t_end: float = 6.0,
    seed: int = 0,
) -> Result:
    """Theorem 1: W W^T = W_p^T W_p / alpha_p + e^{-2 eta t} C along the flow, whatever the target does.

    ``decay`` is the predictor's convention: "theory", eta as for W, or "group", alpha_p eta, as a parameter
    group with alpha_p times the learning rate has it. Numbers: the largest ``drift`` over the grid of alpha_p
    and eta and both targets, and the ``smallest_drift``, each relative to the terms' size.
    """
    random = np.random.default_rng(seed)
    start = _drawn(random)
    times, drifts = np.linspace(0, t_end, 31), []
    for target in ("ema", "same"):
        for alpha_p in alpha_ps:
            for eta in etas:
                eta_p = alpha_p * eta if decay == "group" else eta
                flow = replace(start, alpha_p=alpha_p, eta=eta, eta_p=eta_p, target=target)
                drifts.append(float(_imbalance(flow.trajectory(times)).max()))
    return Result({"drift": max(drifts), "smallest_drift": min(drifts)}, {"drifts": drifts})


def _imbalance(path: FlowTrajectory) -> np.ndarray:
    """`FlowTrajectory.theorem1_drift`, also where the theorem's decay is not the flow's. (N,)"""
    drift = replace(path, flow=replace(path.flow, eta_p=None)).theorem1_drift
    assert drift is not None
    return drift


def theorem2(noise: str, eta: float, t_end: float = 40.0, seed: int = 0) -> Result:
    """Theorem 2: without stop-gradient (W_a = W) the encoder decays by H, and so to 0 if H is bounded below.

    ``noise`` is "full", X' positive definite, or "singular", X' with one direction that both views share;
    then X = I, the predictor starts at the identity and W reads that direction alone, the way out that is
    left. Numbers: ``equation_error`` of vec(W)' = -H vec(W) relative to W, ``bound``, the largest ||W(t)||
    over e^{-rate t} ||W(0)|| for the theorem's rate lambda_min(X') + eta, and ``left``,
    ||W(t_end)|| / ||W(0)||.
    """
    random = np.random.default_rng(seed)
    changes: dict[str, Any] = {"target": "same", "stop_gradient": False, "eta": eta}
    flow = _drawn(random, **changes)
    if noise == "singular":
        values, vectors = np.linalg.eigh(flow.X_prime)
        values[0] = 0
        X_prime = _same((vectors * values) @ vectors.T)
        W = np.outer(flow.W[:, 0], vectors[:, 0])
        flow = replace(flow, X=np.eye(N1), X_prime=X_prime, W=W, W_p=np.eye(N2))
    H = flows.theorem2_matrix(flow.W_p, flow.X, flow.X_prime, eta)
    dW = flow.rates(*flow.start)[0].ravel(order="F")
    path = flow.trajectory(np.linspace(0, t_end, 201))
    size = path.norm_W / path.norm_W[0]
    rate = flows.theorem2_rate(flow.X_prime, eta)
    numbers = {
        "equation_error": float(np.abs(H @ flow.W.ravel(order="F") + dW).max() / np.abs(flow.W).max()),
        "bound": float((size * np.exp(rate * path.t)).max()),
        "rate": rate,
        "left": float(size[-1]),
    }
    return Result(numbers, {"t": path.t.tolist(), "norm_W": size.tolist()})


def without_predictor(stop_gradient: bool, eta: float, t_end: float = 30.0, seed: int = 0) -> Result:
    """No predictor (W_p = I, W_a = W) and two noisy views: W' = -W (m X' + eta I), so that W -> 0.

    m is 1 with stop-gradient and 2 without. Numbers: ``closed_form_error``, the largest relative distance
    from W(0) exp(-t (m X' + eta I)), and ``left``, ||W(t_end)|| / ||W(0)||.
    """
    flow = _drawn(
        np.random.default_rng(seed), target="same", predictor="none", stop_gradient=stop_gradient, eta=eta
    )
    path = flow.trajectory(np.linspace(0, t_end, 61))
    pull = (1 if stop_gradient else 2) * flow.X_prime + eta * np.eye(N1)
    exact = np.stack([flow.W @ expm(-t * pull) for t in path.t])
    gap = np.linalg.norm(path.W - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
    size = path.norm_W / path.norm_W[0]
    numbers = {"closed_form_error": float(gap.max()), "left": float(size[-1])}
    return Result(numbers, {"t": path.t.tolist(), "norm_W": size.tolist()})


def theorem3(draws: int = 20, eta: float = 0.3, t_end: float = 6.0, seed: int = 0) -> Result:
    """Theorem 3: ||L(t)|| <= e^{-2 l0 t} ||L(0)|| for the commutator L, l0 the infimum of lambda_min(K) > 0.

    Numbers over ``draws`` starts with l0 > 0: ``bound``, the largest ||L(t)|| over the bound, ``left``, the
    largest ||L(t_end)|| / ||L(0)||, ``equation_error`` of L' = -L K - K L at the start, and ``starts``, how
    many there are. On the start that tells infimum and maximum apart: ``maximum``, the largest lambda_min(K)
    on its way, and ``growth``, the largest ||L(t)|| / ||L(0)||, which the appendix's bound would keep at 1.
    """
    random = np.random.default_rng(seed)
    times = np.linspace(0, t_end, 301)
    bounds, left, errors = [], [], []
    for _ in range(draws):
        W, W_p = 0.6 * random.standard_normal((N2, N1)), 0.6 * random.standard_normal((N2, N2))
        start = Reduced((W_p + W_p.T) / 2, W @ W.T, tau=0.9, alpha_p=1.6, eta=eta, sigma2=0.4)
        path = start.trajectory(times)
        if path.lowest_K.min() <= 0:
            continue
        L, K, (dW_p, dF) = path.commutator[0], path.K[0], start.rates(start.W_p, start.F)
        dL = dF @ start.W_p + start.F @ dW_p - dW_p @ start.F - start.W_p @ dF
        errors.append(np.abs(dL + L @ K + K @ L).max() / np.abs(dL).max())
        bounds.append((path.commutator_norm / path.theorem3_bound).max())
        left.append(path.commutator_norm[-1] / path.commutator_norm[0])
    shooting = Reduced([[0.06, 0.06], [0.06, 0.28]], [[0.01, 0.008], [0.008, 0.025]], 1.0, 1.0, 0.02, 0.0)
    path = shooting.trajectory(np.linspace(0, 40, 401))
    norm = path.commutator_norm / path.commutator_norm[0]
    numbers = {
        "starts": float(len(bounds)),
        "bound": float(max(bounds, default=np.inf)),
        "left": float(max(left, default=np.inf)),
        "equation_error": float(max(errors, default=np.inf)),
        "maximum": float(path.lowest_K.max()),
        "growth": float(norm.max()),
    }
    return Result(numbers, {"t": path.t.tolist(), "norm": norm.tolist(), "lowest_K": path.lowest_K.tolist()})


def decoupled(target: str, t_end: float = 8.0, seed: int = 0) -> Result:
    """Eqs. 11-13: from an aligned start every mode of the matrices runs on its own.

    ``target`` is "held", the reduced system of Eqs. 7 with W_a = tau W, or "ema", the flow of Eqs. 2-4 with a
    moving target that starts at its own share of every mode. Number: ``error``, the largest distance of p, s
    (and tau) of the matrices from those of the modes.
    """
    random = np.random.default_rng(seed)
    times = np.linspace(0, t_end, 41)
    alpha_p, beta, eta, sigma2 = 1.6, 0.4, 0.05, 0.3
    turn = np.linalg.qr(random.standard_normal((N2, N2)))[0]
    p, s = random.uniform(0.1, 1, N2), random.uniform(0.1, 1, N2)
    tau = np.full(N2, 0.8) if target == "held" else random.uniform(0.2, 1.0, N2)
    W_p, F = _same((turn * p) @ turn.T), _same((turn * s) @ turn.T)
    if target == "held":
        path = Reduced(W_p, F, 0.8, alpha_p, eta, sigma2).trajectory(times)
        found = {"p": _within(turn, path.W_p), "s": _within(turn, path.F)}
    else:
        side = np.linalg.qr(random.standard_normal((N1, N2)))[0]
        W, W_a = (turn * np.sqrt(s)) @ side.T, (turn * (tau * np.sqrt(s))) @ side.T
        whole = Flow(np.eye(N1), sigma2 * np.eye(N1), W, W_p, W_a, alpha_p, beta, eta, predictor="symmetric")
        course = whole.trajectory(times)
        weight, of_target = (_diagonal(turn.T @ w @ side) for w in (course.W, course.W_a))
        found = {"p": _within(turn, course.W_p), "s": weight**2, "tau": of_target / weight}
    gaps = []
    for j in range(N2):
        held = 0.8 if target == "held" else None
        mode = Modes(p[j], s[j], tau[j], alpha_p, beta, eta, sigma2, held).trajectory(times)
        gaps += [np.abs(values[:, j] - getattr(mode, name).numpy()).max() for name, values in found.items()]
    return Result({"error": float(max(gaps))}, {"t": times.tolist(), "p": found["p"].T.tolist()})


def integral(c: str, t_end: float = 8.0) -> Result:
    """Eq. 14, s = p^2 / alpha_p + c e^{-2 eta t}, and Eq. 15 for tau, along Eqs. 11-13 solved as they stand.

    ``c`` says where the mode starts: "zero", on the parabola with tau(0) = 0, or "free", off it with
    tau(0) = 0.3. Numbers: ``drift`` of Eq. 14 with c = s(0) - p(0)^2 / alpha_p, and ``drift_text`` with the
    main text's opposite sign, both as shares of s; ``tau_error`` of the closed form for any start, and
    ``tau_error_text`` of Eq. 15, which puts p for the weight and has tau(0) = 0.
    """
    alpha_p, beta, eta, sigma2 = 2.0, 0.4, 0.04, 0.5
    p0, s0, tau0 = (0.3, 0.045, 0.0) if c == "zero" else (0.3, 0.2, 0.3)
    start = Modes(p0, s0, tau0, alpha_p, beta, eta, sigma2)

    def rates(_: float, y: np.ndarray) -> list[float]:
        p, s, tau = (torch.tensor(value) for value in y)
        return [float(slope) for slope in of_mode.slopes(p, s, tau, start)]

    t = np.linspace(0, t_end, 401)
    p, s, tau = solve_ivp(rates, (0, t_end), [p0, s0, tau0], "DOP853", t, rtol=1e-11, atol=1e-13).y
    constant, decay = s0 - p0**2 / alpha_p, np.exp(-2 * eta * t)
    gap = s - p**2 / alpha_p
    numbers = {
        "drift": float((np.abs(gap - decay * constant) / s).max()),
        "drift_text": float((np.abs(gap + decay * constant) / s).max()),
        "tau_error": float(np.abs(of_mode.tau_closed_form(t, np.sqrt(s), beta, tau0) - tau).max()),
        "tau_error_text": float(np.abs(of_mode.tau_closed_form(t, p, beta, 0.0) - tau).max()),
    }
    return Result(numbers, {"t": t.tolist(), "p": p.tolist(), "s": s.tolist(), "tau": tau.tolist()})


def _drawn(random: np.random.Generator, **changes: Any) -> Flow:
    """A flow with drawn data, N1 inputs that are neither isotropic nor noiseless, and a drawn start."""
    A, B = random.standard_normal((2, N1, N1))
    X, X_prime = _same(A @ A.T / N1 + 0.2 * np.eye(N1)), _same(B @ B.T / (2 * N1) + 0.2 * np.eye(N1))
    W, W_p = 0.5 * random.standard_normal((N2, N1)), 0.5 * random.standard_normal((N2, N2))
    return Flow(**{"X": X, "X_prime": X_prime, "W": W, "W_p": W_p, "alpha_p": 1.7, "eta": 0.05, **changes})


def _same(matrix: np.ndarray) -> np.ndarray:
    """A matrix that is symmetric but for rounding, symmetric."""
    return (matrix + matrix.T) / 2


def _within(turn: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Diagonals of matrices in the basis of the columns of ``turn``. (N, n2)"""
    return _diagonal(turn.T @ matrices @ turn)


def _diagonal(matrices: np.ndarray) -> np.ndarray:
    return np.diagonal(matrices, axis1=1, axis2=2)
