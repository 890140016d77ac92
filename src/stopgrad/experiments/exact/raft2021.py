"""The exact claims of Shi et al. 2020 (RAFT) on `stopgrad.theory.raft` and on the catalogue's methods.

`circle` and `identity_start` train: what they look at is no measure of a finished run.

Legend: N images, B batch, D width of the projections z; p, t (B, D); theta (m, n), W (m, m).
All draws are from generators by the ``seed`` of the function.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad.catalog import CATALOG
from stopgrad.experiments.schema import Result, Trial
from stopgrad.experiments.trials import run_trial, temporary_run
from stopgrad.method import Method, SiameseLearner
from stopgrad.networks.encoders import EncoderSettings, build_encoder
from stopgrad.networks.heads import ProjectorSettings
from stopgrad.parts.gradient import Tangential
from stopgrad.parts.pairing import raft_pairs
from stopgrad.parts.target import Ema
from stopgrad.theory import raft
from stopgrad.theory.flow import Flow
from stopgrad.theory.nonisotropic import additive_scrambling
from stopgrad.training.settings import merge


def bound(
    weights: Sequence[Sequence[float]] = ((1.0, 1.0), (1.0, 0.1), (0.3, 2.0)), draws: int = 400, seed: int = 0
) -> Result:
    """Theorem 4.1: L_BYOL <= (1/a + 1/b) L_BYOL' for single images, and no smaller constant will do.

    Numbers over the pairs (a, b) of ``weights``: ``largest``, the largest L_BYOL over the bound of draws that
    are near to each other and far; ``sharpness``, the smallest over the pairs of that ratio for vectors close
    by on one great circle; ``sum_largest``, the largest L_BYOL over (a + b) L_BYOL' of the same vectors.
    """
    random = torch.Generator().manual_seed(seed)
    drawn, sharp, of_sum = [], [], []
    for a, b in weights:
        for near in torch.logspace(-2, 1, draws).tolist():
            center = torch.randn(1, 1, 3, generator=random, dtype=torch.float64)
            spread = torch.randn(4, 1, 3, generator=random, dtype=torch.float64)
            terms = raft.losses(*(center + near * spread))
            drawn.append(float(terms.byol / terms.byol_prime(a, b)) / raft.bound_constant(a, b))
        # p_v to its teacher is to p_1 to p_2 as a is to b
        angles = 1e-3 * torch.tensor([-1, 1, -1 - 2 * a / b, 1 + 2 * a / b], dtype=torch.float64)
        terms = raft.losses(*torch.stack([angles.cos(), angles.sin()], dim=1)[:, None])
        ratio = float(terms.byol / terms.byol_prime(a, b))
        sharp.append(ratio / raft.bound_constant(a, b))
        of_sum.append(ratio / (a + b))
    return Result({"largest": max(drawn), "sharpness": min(sharp), "sum_largest": max(of_sum)})


def correspondence(predictor: Mapping[str, Any], b: float = 1.0, steps: int = 50, seed: int = 0) -> Result:
    """Theorem 5.1: RAFT from (theta, -W) goes where BYOL' goes from (theta, W); 50 steps of Adam in float64.

    Both are the catalogue's methods with a = 1 on random images, EMA included; ``predictor`` is settings of
    one. "-W" negates the layer that it ends in; the identity has none, so that both start at the same place.
    Numbers: ``loss_error``, the largest distance of L_RAFT from L_BYOL' - 4 b; ``encoder_distance``, how far
    the encoders and projectors are apart in the end, and ``moved``, how far BYOL' went, both relative to the
    start; ``predictor_error``, the largest entry of p + p' relative to p; ``tangential_error``, what the
    tangential rule changes in the gradients of BYOL' at the start, relative to them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = _learner("byol-prime", predictor, b)
        other = copy.deepcopy(learner)
        other.method = _method("raft", predictor, b)
        if predictor["kind"] != "identity":
            other.predictor = raft.negated(other.predictor)
        tangential_error = _tangential_error(learner)
        before = _online(learner)
        optimizers = [torch.optim.Adam(x.parameters(), lr=2e-3) for x in (learner, other)]
        gaps = []
        for step in range(steps):
            views, losses = _views(step), []
            for trained, optimizer in zip((learner, other), optimizers, strict=True):
                nodes = trained(views)
                optimizer.zero_grad()
                nodes.loss.backward()
                optimizer.step()
                trained.after_step(nodes, step / steps)
                losses.append(nodes.loss.item())
            gaps.append(abs(losses[1] - losses[0] + 4 * b))
        with torch.no_grad():
            (_, _, p), (_, _, q) = (trained.embed(_views(steps)[0]) for trained in (learner, other))
    after, size = _online(learner), before.norm()
    numbers = {
        "loss_error": max(gaps),
        "encoder_distance": float((after - _online(other)).norm() / size),
        "moved": float((after - before).norm() / size),
        "predictor_error": float((p + q).abs().max() / p.abs().max()),
        "tangential_error": tangential_error,
    }
    return Result(numbers, {"loss_gap": gaps})


def _method(name: str, predictor: Mapping[str, Any], b: float) -> Method:
    """BYOL' or RAFT with a = 1 and a quick target."""
    method = CATALOG[name].method
    assert isinstance(method, Method)
    pairing = raft_pairs(1, b if name == "raft" else -b)
    return method.but(predictor=dict(predictor), pairing=pairing, target=Ema(tau=0.9))


def _learner(name: str, predictor: Mapping[str, Any], b: float) -> SiameseLearner:
    encoder = build_encoder(EncoderSettings(), channels=1, image_size=16)
    projector = ProjectorSettings(hidden=(32,), out=8, final_bn="none")
    return _method(name, predictor, b).build(encoder, projector).double()


def _views(step: int) -> list[Tensor]:
    """Two noisy views of 8 random images. (8, 1, 16, 16) each"""
    random = torch.Generator().manual_seed(step)
    image, *noise = torch.randn(3, 8, 1, 16, 16, generator=random, dtype=torch.float64)
    return [image + 0.3 * x for x in noise]


def _online(learner: SiameseLearner) -> Tensor:
    """All weights of encoder and projector in one row."""
    return torch.nn.utils.parameters_to_vector(learner.online.parameters()).detach().clone()


def _tangential_error(learner: SiameseLearner) -> float:
    """What leaving out the gradient along the unit vectors changes; the learner stays as it is."""
    rows = []
    for gradient in (learner.method.gradient, Tangential()):
        own = copy.deepcopy(learner)
        own.method = learner.method.but(gradient=gradient)
        own(_views(0)).loss.backward()
        rows.append(torch.cat([w.grad.flatten() for w in own.parameters() if w.grad is not None]))
    return float((rows[0] - rows[1]).abs().max() / rows[0].abs().max())


def fixed_encoders(m: int = 3, n: int = 4, draws: int = 20, seed: int = 0) -> Result:
    """Appendix I: W theta = theta B A^{-1} has a theta beside 0 just if W and B A^{-1} share an eigenvalue.

    A and B are correlations of a view and of two views with additive noise, W drawn with as many of their
    eigenvalues as is said, from 0 to m. Numbers: ``miscounted``, the share of draws in which the dimension of
    the solutions is not the number of shared eigenvalues; ``residual``, the largest entry of W theta - theta
    B A^{-1} over solutions of norm 1. Of the gradient flow of the linear model on such data, without weight
    decay, the smallest share of ||theta|| that is left in the end: ``left_positive`` from starts with W near
    I / 2, ``left`` from these and from starts near -I.
    """
    random = np.random.default_rng(seed)
    wrong: list[bool] = []
    residuals, positive, negative = list[float](), list[float](), list[float]()
    for draw in range(draws):
        base, other = random.standard_normal((2, n, n))
        b, a = additive_scrambling(base @ base.T / n, other @ other.T / n + 0.2 * np.eye(n))
        share = b @ np.linalg.inv(a)
        shared = draw % (m + 1)
        # those of B A^{-1} lie in (0, 1)
        values = np.concatenate([np.linalg.eigvals(share).real[:shared], 1.5 + np.arange(m - shared)])
        turn = random.standard_normal((m, m)) + 2 * np.eye(m)
        w = turn @ np.diag(values) @ np.linalg.inv(turn)
        basis = raft.fixed_encoders(w, b, a)
        wrong.append(len(basis) != shared)
        residuals += [float(np.abs(w @ theta - theta @ share).max()) for theta in basis]
        if draw < 5:
            for found, size in ((positive, 0.5), (negative, -1.0)):
                start = size * np.eye(m) + 0.05 * random.standard_normal((m, m))
                found.append(_left(b, a - b, start, random.standard_normal((m, n))))
    numbers = {
        "miscounted": float(np.mean(wrong)),
        "residual": max(residuals),
        "left_positive": min(positive),
        "left": min(positive + negative),
    }
    return Result(numbers)


def _left(X: np.ndarray, X_prime: np.ndarray, W_p: np.ndarray, direction: np.ndarray) -> float:
    """||theta|| at the end of the flow from a small theta over that at its start."""
    theta = 0.2 * direction / np.linalg.norm(direction)
    path = Flow(_same(X), _same(X_prime), theta, W_p, eta=0.0, target="same").trajectory([0.0, 60.0])
    return float(path.norm_W[-1] / path.norm_W[0])


def _same(matrix: np.ndarray) -> np.ndarray:
    """A matrix that is symmetric but for rounding, symmetric."""
    return (matrix + matrix.T) / 2


def identity_start(changes: Mapping[str, Any], untrained: Mapping[str, Any], seed: int) -> Result:
    """Fig. 4: how the uniformity of z goes in a training, epoch by epoch on the validation images.

    ``changes`` are a run's settings, as `stopgrad.training.settings.resolve` takes them; with those of
    ``untrained`` besides, the weights stay where they start. Numbers: ``deterioration``, the worst uniformity
    after an epoch less that of the start; ``recovery``, the worst less that in the end; ``gain``, that of the
    start less that in the end; ``worst_epoch``. Series, from epoch 0 on: ``z.uniformity``, ``loss``.

    Raises:
        ValueError: if the run diverged.
    """
    changes = merge(changes, {"seed": seed})
    start = run_trial(Trial("training", merge(changes, untrained))).series["z.uniformity"][-1]
    trained = run_trial(Trial("training", merge(changes, {"evaluation": {"every": 1}})))
    # before the first step batch normalisation has no statistics; `start` is measured with some
    trace = trained.series["z.uniformity"][1:]
    if None in trace:
        raise ValueError(f"seed {seed}: the run diverged")
    worst = max(trace)
    numbers = {
        "deterioration": worst - start,
        "recovery": worst - trace[-1],
        "gain": start - trace[-1],
        "worst_epoch": float(trace.index(worst) + 1),
        "linear_probe": trained.numbers["linear_probe"],
    }
    return Result(numbers, {"z.uniformity": [start, *trace], "loss": trained.series["loss"]})


def circle(changes: Mapping[str, Any], seed: int, arcs: int = 36) -> Result:
    """Fig. 3: unit projections of the test images along their first two principal components, by direction.

    ``changes`` are a run's settings. Numbers: ``entropy`` of the images' shares of the arcs of a circle over
    log(arcs), 1 where all arcs are alike, 0 where one has all; ``fullest``, the largest share; both again as
    ``entropy_origin`` and ``fullest_origin`` with components and directions from the origin in place of the
    mean. Series: the angles, in (-pi, pi].
    """
    z = torch.nn.functional.normalize(torch.from_numpy(_projections(merge(changes, {"seed": seed}))), dim=-1)
    angles = _angles((z - z.mean(dim=0)).double().numpy())
    from_origin = _angles(z.double().numpy())
    entropy, fullest = _evenness(angles, arcs)
    entropy_origin, fullest_origin = _evenness(from_origin, arcs)
    numbers = {
        "entropy": entropy,
        "fullest": fullest,
        "entropy_origin": entropy_origin,
        "fullest_origin": fullest_origin,
    }
    return Result(numbers, {"angle": angles.tolist(), "angle_origin": from_origin.tolist()})


def _projections(changes: Mapping[str, Any]) -> np.ndarray:
    """z of the test images after a training. (N, D)"""
    from stopgrad.training.folder import RunFolder
    from stopgrad.training.pretrain import run
    from stopgrad.training.settings import resolve

    with temporary_run() as folder:
        run(resolve(changes), folder, show_progress=False)
        with np.load(RunFolder(folder).evaluation) as arrays:
            return np.asarray(arrays["z"])


def _angles(rows: np.ndarray) -> np.ndarray:
    """Directions of rows (N, D) in the plane of their first two right singular vectors. (N,)

    The signs of the axes, which are free, are those that make each component's sum of cubes positive.
    """
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    plane = rows @ axes[:2].T
    plane *= np.where((plane**3).sum(axis=0) < 0, -1.0, 1.0)
    return np.arctan2(plane[:, 1], plane[:, 0])


def _evenness(angles: np.ndarray, arcs: int) -> tuple[float, float]:
    """Entropy of the shares of the arcs over its largest value, and the largest share."""
    counts, _ = np.histogram(angles, bins=arcs, range=(-np.pi, np.pi))
    shares = counts[counts > 0] / len(angles)
    return float(-(shares * np.log(shares)).sum() / np.log(arcs)), float(shares.max())
