"""Phase diagrams: where training collapses, beside where theory says so (tian2021, section 3).

A panel has the weight decay eta on one axis and alpha_p or beta on the other; a function here trains one row
of it, one network for every eta, and a panel's rows are the arms of an experiment. Every network of a panel
starts from the same weights and sees the same views, which ``seed`` draws.

What is predicted. X and X' of the views are measured and taken apart into modes: the eigenvectors v of X,
with l_d = v^T X v and l_s = v^T (X + X') v. A mode starts at p0 and s0 and follows its equation.
None lives beyond eta = l_d^2 / (4 l_s), the saddle-node; below it, alpha_p and beta decide which basin the
start is in. Nothing is fitted.

Legend: G points of a row, M modes; n1 inputs, n2 outputs, B pairs a batch, K batches, N validation images.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad import diagnostics
from stopgrad.data.batches import Batches
from stopgrad.data.sources import ArrayPart
from stopgrad.diagnostics.spectrum import rank_of
from stopgrad.evaluation.measures import materialise, mode
from stopgrad.experiments.exact.rounding import rounded
from stopgrad.experiments.exact.zhang2022 import CONSTANT, Training
from stopgrad.experiments.schema import Result
from stopgrad.method import SiameseLearner
from stopgrad.parts.predictors.linear import LinearPredictor
from stopgrad.theory.basins import collapses
from stopgrad.theory.modes import Modes
from stopgrad.theory.statistics import Moments, gaussian_views
from stopgrad.training.build import build_learner, uses_channels_last
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.precision import threads_of_an_operation
from stopgrad.training.pretrain import Session

# Of the linear network: eigenvalues of X and of X', in one random basis
SHARED = (1.0, 0.8, 0.6, 0.45, 0.3, 0.2)
NOISE = 0.2
PAIRS, BATCH = 4096, 32
LINEAR_LR, LINEAR_TIME = 0.05, 600.0
P0, S0 = 0.8, 0.02
ALIVE = 0.05
"""A mode of the linear network lives if s is above this share of (l_d / l_s)^2 / alpha_p, where it would rest
on the parabola without weight decay. At the saddle-node it rests at 1/4 of that."""

# Of the encoder
IMAGES, SMALL_BATCH = 1024, 32
ENCODER_LR, MOMENTUM = 0.01, 0.9
STEPS = 160
OUTPUTS = 64
VALIDATION = 512
SMALLEST = 0.01
"""l_d of the modes of h that the prediction follows; what is below holds hardly any of the variance."""
MODES_KEPT = 8
"""Of the encoder's measured modes, in the series."""


@dataclass(frozen=True)
class Measured:
    """Data as modes.

    Attributes:
        v: the modes, in descending order of l_d, as columns. (n1, M)
        l_d, l_s: see the module's head. (M,) each
        center: which of them is nearest to the mean of the views.
        dropped: what of X' is off these modes' axes and left out, as a share of X + X' (Frobenius norms).
    """

    v: Tensor
    l_d: Tensor
    l_s: Tensor
    center: int
    dropped: float

    @classmethod
    def of(cls, moments: Moments) -> "Measured":
        """The modes of a sample."""
        X, X_prime = torch.from_numpy(moments.X), torch.from_numpy(moments.X_prime)
        l_d, v = torch.linalg.eigh(X)
        l_d, v = l_d.flip(0), v.flip(1)
        noise = v.T @ X_prime @ v
        off = noise - noise.diagonal().diag()
        dropped = float(off.norm() / torch.linalg.matrix_norm(X + X_prime))
        center = int((moments.mean @ v).abs().argmax())
        return cls(v, l_d, l_d + noise.diagonal().clamp(min=0), center, dropped)

    def only(self, held: Tensor) -> "Measured":
        """Some of the modes, (M,), which keep the number of the centre."""
        return replace(self, v=self.v[:, held], l_d=self.l_d[held], l_s=self.l_s[held])

    def sizes(self, W: Tensor, W_p: Tensor) -> tuple[Tensor, Tensor]:
        """p and s of every mode: s = ||W v||^2, p = (W v)^T W_p W v / s. (..., M) each

        Args:
            W: (..., n2, n1)
            W_p: (..., n2, n2)
        """
        w = W.double() @ self.v
        s = w.square().sum(dim=-2)
        return (w * (W_p.double() @ w)).sum(dim=-2) / s, s


def modes_of(
    data: Measured, p0: Tensor, s0: Tensor, etas: Sequence[float], alpha_p: float, beta: float
) -> Modes:
    """The theory's modes of data whose l_d are all > 0, for every eta. (G, M)

    In the time l_d t a mode is theirs with sigma2 = (l_s - l_d) / l_d, eta / l_d and beta / l_d.

    Args:
        data: the modes.
        p0, s0: their starts; the target starts as the network. (M,) each
        etas: weight decays. (G,)
        alpha_p, beta: of the row.
    """
    eta = torch.tensor(etas, dtype=torch.float64)[:, None] / data.l_d
    sigma2 = (data.l_s - data.l_d) / data.l_d
    return Modes(p0=p0, s0=s0, tau0=1.0, alpha_p=alpha_p, beta=beta / data.l_d, eta=eta, sigma2=sigma2)


def sizes_at(
    data: Measured, p0: Tensor, s0: Tensor, etas: Sequence[float], alpha_p: float, beta: float, t: float
) -> Tensor:
    """s of every mode at the time t, 0 where l_d < `SMALLEST`; for the arguments see `modes_of`. (G, M)"""
    held = data.l_d >= SMALLEST
    modes = modes_of(data.only(held), p0[held], s0[held], etas, alpha_p, beta)
    s = torch.zeros(len(etas), len(held), dtype=torch.float64)
    s[:, held] = modes.final(t * data.l_d[held], rtol=1e-6, compiled=False).s
    return s


def agreement(predicted: Sequence[bool], observed: Sequence[bool | None]) -> dict[str, float]:
    """``right``, the share of points where both say the same, and the table: the points of each kind.

    Where nothing was observed (None) the prediction is not right, and the point in no cell of the table.
    """
    pairs = list(zip(predicted, observed, strict=True))
    return {
        "right": sum(p == o for p, o in pairs) / len(pairs),
        "both_collapse": pairs.count((True, True)),
        "both_survive": pairs.count((False, False)),
        "only_predicted": pairs.count((True, False)),
        "only_observed": pairs.count((False, True)),
    }


def train_stacked(
    W: Tensor,
    W_p: Tensor,
    x1: Tensor,
    x2: Tensor,
    etas: Sequence[float],
    *,
    alpha_p: float,
    beta: float,
    t_end: float,
    lr: float,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Train G linear networks at once, each as :func:`stopgrad.theory.sgd.train` trains one, to rounding.

    The gradients of 1/2 ||W_p W x1 - sg(W_a x2)||^2, over both orders of the views, need the batch's moments
    alone. The target starts as the network and follows at beta.

    Args:
        W, W_p: the start of all. (n2, n1), (n2, n2)
        x1, x2: the pairs; batches follow each other in their order, over and over. (K B, n1)
        etas: weight decay of each network. (G,)
        alpha_p, beta, t_end, lr, batch_size: see there.

    Returns:
        W and W_p at the end. (G, n2, n1), (G, n2, n2)
    """
    first, second = (
        x.double()[: len(x) - len(x) % batch_size].unflatten(0, (-1, batch_size)) for x in (x1, x2)
    )
    cross = first.mT @ second / batch_size
    sigma_d = (cross + cross.mT) / 2
    sigma_s = (first.mT @ first + second.mT @ second) / (2 * batch_size)
    eta = torch.tensor(etas, dtype=torch.float64)[:, None, None]
    W, W_p = (weight.double().repeat(len(etas), 1, 1) for weight in (W, W_p))
    W_a = W.clone()
    batches = itertools.cycle(zip(sigma_s, sigma_d, strict=True))
    for one_s, one_d in itertools.islice(batches, max(1, round(t_end / lr))):
        away = W_p @ W @ one_s - W_a @ one_d
        of_W, of_W_p = W_p.mT @ away + eta * W, alpha_p * (away @ W.mT) + eta * W_p
        W, W_p = W - lr * of_W, W_p - lr * of_W_p
        W_a = W_a + lr * beta * (W - W_a)
    return W, W_p


def linear_row(
    alpha_p: float, beta: float, etas: Sequence[float], seed: int = 0, t_end: float = LINEAR_TIME
) -> Result:
    """A row of the linear network's panel.

    Square networks W = sqrt(S0) times a random orthogonal matrix and W_p = P0 I, so that every mode of any
    data starts at P0 and S0, learn from `PAIRS` pairs of Gaussian views in batches of `BATCH`, by plain SGD.
    The prediction is made from the moments of these very pairs. A network has collapsed if no mode lives
    (see `ALIVE`); by theory (:func:`stopgrad.theory.basins.collapses`) if every mode is in the basin of 0.

    Args:
        alpha_p, beta: of the row.
        etas: weight decays, > 0.
        seed: of views and start.
        t_end: learning rate times steps.

    Returns:
        Numbers: `agreement` on collapse, ``modes_right``, the share of the points with as many living modes
        as predicted, and ``dropped``. Series, a value for each eta: ``observed`` and ``predicted`` modes;
        ``largest``, the largest s in units of (l_d / l_s)^2 / alpha_p; ``p`` and ``s`` of each mode; besides
        ``eta``, and ``l_d`` and ``l_s`` of the modes.
    """
    W, x1, x2 = linear_start(seed)
    W_p = P0 * torch.eye(len(W), dtype=torch.float64)
    moments = Moments.empty(len(W))
    moments.update(x1, x2)
    data = Measured.of(moments)
    p0, s0 = data.sizes(W, W_p)
    predicted = (~collapses(modes_of(data, p0, s0, etas, alpha_p, beta))).sum(dim=1).tolist()
    end = train_stacked(
        W, W_p, x1, x2, etas, alpha_p=alpha_p, beta=beta, t_end=t_end, lr=LINEAR_LR, batch_size=BATCH
    )
    p, s = data.sizes(*end)
    shares = s * alpha_p * (data.l_s / data.l_d) ** 2
    observed = (shares > ALIVE).sum(dim=1).tolist()
    numbers = agreement([n == 0 for n in predicted], [n == 0 for n in observed])
    numbers["modes_right"] = float(np.mean(np.equal(predicted, observed)))
    numbers["dropped"] = data.dropped
    series = {"eta": list(etas), "observed": observed, "predicted": predicted}
    matrices = {"largest": shares.amax(dim=1), "p": p, "s": s, "l_d": data.l_d, "l_s": data.l_s}
    return Result(numbers, series | {name: rounded(values) for name, values in matrices.items()})


def linear_start(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """W at the start, (n1, n1), and the two views of all pairs, (PAIRS, n1) each; see `linear_row`."""
    random = np.random.default_rng(seed)
    width = len(SHARED)
    basis, turn = (np.linalg.qr(random.standard_normal((width, width)))[0] for _ in range(2))
    X = basis * np.array(SHARED) @ basis.T
    x1, x2 = gaussian_views((X + X.T) / 2, NOISE * np.eye(width), PAIRS, seed)
    return torch.from_numpy(np.sqrt(S0) * turn), x1, x2


def encoder_row(
    alpha_p: float, beta: float, etas: Sequence[float], seed: int = 0, steps: int = STEPS
) -> Result:
    """A row of the small encoder's panel: BYOL with a linear predictor on `digits`, all of it trained.

    The encoder is convnet-s. z = W h without bias, h the projector's hidden features, whose batch
    normalisation learns no scale, as in the authors' code: a scale would make up for the decay of W. The
    distance is Euclidean, the predictor starts as I. The weight decay eta acts on W and W_p, as in the
    theory; all other weights have the recipe's. SGD with momentum m, constant rate: a step takes lr / (1 - m)
    of the theory's time, and the target keeps 1 - beta lr / (1 - m). The recipe is ``digits-smoke``, but
    `IMAGES` images in batches of `SMALL_BATCH`, and a learning rate at which steps along the mean of h, the
    steepest mode, do not diverge.

    Prediction: from the moments of h over the first epoch's views before the first step, uncentred, as a
    network without bias has them. Each mode starts where W and W_p have it, and is followed for the time of
    the training (`sizes_at`): a training this short does not see what the modes come to in the end. h has a
    large mean, whose direction is by far the largest mode: where it alone is left, all z are equal. So it is
    read off what the modes do to the vectors: the mode nearest to the mean gives z its centre, all others
    give it variance, s l_d each; :func:`stopgrad.diagnostics.judge`, which judges the trained vectors, judges
    the spread and the effective rank that follow. ``late`` does the same with the moments of h after the
    training, each point's own: it is no prediction, and no part of a rule.

    Observed: `judge` on z of `VALIDATION` validation images, batch normalisation in evaluation mode; complete
    and dimensional collapse are both collapse. A point that diverged counts as a wrong one.

    Args:
        alpha_p, beta: of the row; beta <= (1 - m) / lr.
        etas: weight decays, > 0.
        seed: of weights, images' order and views.
        steps: of training.

    Returns:
        Numbers: `agreement` on collapse, ``late_right``, the same share for ``late``, ``diverged`` points,
        and ``dropped``. Series, a value for each eta: ``observed``, ``predicted`` and ``late``, 1 where it
        collapses (None: diverged); ``std`` and ``rank`` of z, and ``predicted_std`` and ``predicted_rank``;
        ``loss``; ``l_d``, ``l_s``, ``p`` and ``s`` of the `MODES_KEPT` largest modes of the trained features.
        Besides ``eta``, and ``start_l_d`` and ``start_l_s`` of the untrained.
    """
    row = Row.of(alpha_p, beta, seed, steps)
    learner, _ = row.learner(etas[0])
    start, data = _weights(learner), row.measure(learner)
    spreads = [spread_of(data, s) for s in row.sizes(data, start, etas)]
    predicted = [bool(_collapsed(*spread)) for spread in spreads]
    points = [row.point(eta, start) for eta in etas]
    series: dict[str, list[Any]] = {name: [point[name] for point in points] for name in points[0]}
    observed = [None if o is None else bool(o) for o in series["observed"]]
    numbers = agreement(predicted, observed)
    numbers["late_right"] = agreement([bool(c) for c in series["late"]], observed)["right"]
    numbers |= {"diverged": float(observed.count(None)), "dropped": data.dropped}
    series |= {"eta": list(etas), "predicted": [float(c) for c in predicted]}
    for name, column in zip(("std", "rank"), torch.tensor(spreads).T, strict=True):
        series[f"predicted_{name}"] = rounded(column)
    series |= {f"start_{name}": rounded(getattr(data, name)[:MODES_KEPT]) for name in ("l_d", "l_s")}
    return Result(numbers, series)


def spread_of(data: Measured, s: Tensor) -> tuple[float, float]:
    """Spread (std) and effective rank of vectors whose modes have the sizes s, (M,); see `encoder_row`."""
    others = torch.arange(len(s)) != data.center
    variances = (s * data.l_d)[others].clamp(min=0)
    total = variances.sum() + s[data.center] * data.l_d[data.center]
    std = float((variances.sum() / total).sqrt()) if total else 0.0
    return std, float(rank_of(variances)) if variances.any() else 0.0


def _collapsed(std: float, rank: float, loss: float = 0.0) -> bool | None:
    """What `judge` says of z: whether it collapsed, None where it diverged."""
    measures = {"std": std, "effective_rank": rank, "dim": OUTPUTS}
    verdict, _ = diagnostics.judge({"z": measures}, loss)
    return None if verdict == "diverged" else "collapse" in verdict


@dataclass(frozen=True)
class Row:
    """What the points of a row of encoders share.

    Attributes:
        alpha_p, beta: of the row.
        session: settings, data and how images are normalised; its own learner is not trained.
        views: of every step, normalised: two of each image, (B, C, S, S) each.
        images: the validation images that are judged.
    """

    alpha_p: float
    beta: float
    session: Session
    views: list[tuple[Tensor, Tensor]]
    images: ArrayPart

    @classmethod
    def of(cls, alpha_p: float, beta: float, seed: int, steps: int) -> "Row":
        """The row's data and views; see `encoder_row`."""
        changes = {
            "distance": "euclidean",
            "predictor": {"init": "identity"},
            "projector": {"out": OUTPUTS, "bias": False, "hidden_affine": False},
            "target": {"kind": "ema", "tau": 1 - beta * ENCODER_LR / (1 - MOMENTUM)},
            "optimizer": {"lr": ENCODER_LR, "momentum": MOMENTUM, "predictor": {"lr_scale": alpha_p}},
            "batch_size": SMALL_BATCH,
            "data": {"limit": IMAGES},
            **CONSTANT,
        }
        session = Training.of("byol-lp", "none", seed, changes).session
        settings, normalise = session.settings, session.embedder.normalise
        batches = Batches(session.dataset.train, session.views, settings.batch_size, seed=settings.seed)
        endless = (batch.views for epoch in itertools.count() for batch in batches.epoch(epoch))
        views = [(normalise(x1), normalise(x2)) for x1, x2 in itertools.islice(endless, steps)]
        return cls(
            alpha_p, beta, session, views, materialise(session.dataset.val, VALIDATION, settings.view_size)
        )

    def learner(self, eta: float) -> tuple[SiameseLearner, torch.optim.Optimizer]:
        """A fresh learner, the same for every eta, and its optimiser; eta decays W and W_p alone."""
        settings = self.session.settings
        learner = build_learner(settings, self.session.facts)
        assert isinstance(learner, SiameseLearner)
        if uses_channels_last(learner, self.session.fabric.device):
            learner.to(memory_format=torch.channels_last)
        own = settings.optimizer.predictor.but(weight_decay=eta)
        optimizer = build_optimizer(settings.optimizer.but(predictor=own), learner)
        rest, W = optimizer.param_groups[0], _last(learner).weight
        rest["params"] = [weight for weight in rest["params"] if weight is not W]
        optimizer.add_param_group({**rest, "params": [W], "weight_decay": eta})
        return learner, optimizer

    def measure(self, learner: SiameseLearner) -> Measured:
        """The modes of h over the first epoch's views, batch normalisation as in training."""
        moments = Moments.empty(_last(learner).in_features)
        with (
            torch.no_grad(),
            mode(learner, training=True),
            threads_of_an_operation(self.session.settings.threads),
        ):
            for pair in self.views[: IMAGES // SMALL_BATCH]:
                moments.update(*(hidden(learner, x) for x in pair))
        return Measured.of(moments)

    def sizes(self, data: Measured, start: tuple[Tensor, Tensor], etas: Sequence[float]) -> Tensor:
        """s of the modes after all steps, by theory, from the weights W and W_p. (G, M)"""
        t = len(self.views) * ENCODER_LR / (1 - MOMENTUM)
        return sizes_at(data, *data.sizes(*start), etas, self.alpha_p, self.beta, t)

    def train(self, eta: float) -> tuple[SiameseLearner, float]:
        """The learner after all steps, and the last step's loss."""
        learner, optimizer = self.learner(eta)
        learner.train()
        loss = torch.zeros(())
        with threads_of_an_operation(self.session.settings.threads):
            for step, views in enumerate(self.views, start=1):
                nodes = learner(views)
                nodes.loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                learner.after_step(nodes, step / len(self.views))
                loss = nodes.loss.detach()
        return learner, float(loss)

    def point(self, eta: float, start: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """One value, or list over modes, of every series of `encoder_row` that is measured after training."""
        learner, loss = self.train(eta)
        with threads_of_an_operation(self.session.settings.threads):
            z = self.session.embedder.embed_evaluating(learner, self.images).z
        std = rank = math.nan
        if bool(z.isfinite().all()):
            std, rank = float(diagnostics.embedding_std(z)), float(diagnostics.effective_rank(z))
        collapsed = _collapsed(std, rank, loss)
        if collapsed is None:
            return {**dict.fromkeys(("observed", "std", "rank", "loss", "l_d", "l_s", "p", "s")), "late": 0.0}
        data = self.measure(learner)
        p, s = data.sizes(*_weights(learner))
        late = spread_of(data, self.sizes(data, start, [eta])[0])
        kept = {"l_d": data.l_d, "l_s": data.l_s, "p": p, "s": s}
        return {
            "observed": float(collapsed),
            "late": float(bool(_collapsed(*late))),
            **{name: rounded(torch.tensor(x)) for name, x in (("std", std), ("rank", rank), ("loss", loss))},
            **{name: rounded(values[:MODES_KEPT]) for name, values in kept.items()},
        }


def hidden(learner: SiameseLearner, x: Tensor) -> Tensor:
    """h: what the projector's last layer gets of images x. (B, C, S, S) to (B, n1)"""
    assert isinstance(learner.projector, nn.Sequential)
    features: Tensor = learner.projector[:-1](learner.encoder(x))
    return features


def _last(learner: SiameseLearner) -> nn.Linear:
    assert isinstance(learner.projector, nn.Sequential)
    last = learner.projector[-1]
    assert isinstance(last, nn.Linear)
    return last


def _weights(learner: SiameseLearner) -> tuple[Tensor, Tensor]:
    """W and W_p, copied."""
    assert isinstance(learner.predictor, LinearPredictor)
    return _last(learner).weight.detach().clone(), learner.predictor.linear.weight.detach().clone()
