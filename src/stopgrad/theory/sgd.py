"""The trained twin of the flow: the package's own method parts on a linear network, by plain SGD.

`train` builds the learner that the trainer would build (`Method.build`, with its predictor, its target and
its loss) around a linear encoder without bias, and takes SGD steps on pairs of views; the flow of
:mod:`stopgrad.theory.flow` is the limit of small steps and many samples. Time is t = lr * steps.

What corresponds (tian2021, section 2): learning rate lr for W and lr alpha_p for W_p; PyTorch's
``weight_decay`` of W is eta, that of W_p is eta_p / alpha_p, since PyTorch multiplies it by the group's own
rate; the moving average keeps gamma_a = 1 - lr beta. The loss is 1/2 || p - t ||^2 averaged over both orders
of the views, half the mean of each, as the paper's J.

Two errors part the twin from the flow: that of the steps, of order lr, and that of the sample, of order
1 / sqrt(samples). A flow whose X and X' are the sample's own (:class:`stopgrad.theory.statistics.Moments`)
has the first alone, where a batch is the whole sample.

Shapes: n1 inputs, n2 outputs, B pairs in a sample, N times. All numbers float64.
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad.errors import UsageError
from stopgrad.method import Method, SiameseLearner
from stopgrad.networks.encoders import Encoder, EncoderSettings
from stopgrad.networks.heads import ProjectorSettings
from stopgrad.parts.distances import Euclidean
from stopgrad.parts.predictors import Identity, Linear
from stopgrad.parts.target import Ema, EmaTarget, Same
from stopgrad.theory.domain import POSITIVE, reals
from stopgrad.theory.flow import Flow, FlowTrajectory


def method_of(flow: Flow, lr: float) -> Method:
    """The method whose SGD at learning rate ``lr`` the flow is the limit of.

    Raises:
        UsageError: for the predictor "optimal", which no part of a method trains, or an ``lr`` above
            1 / beta, whose moving average would overshoot.
    """
    if flow.predictor == "optimal":
        raise UsageError("predictor: 'optimal' has no part that trains it; take 'linear', 'frozen' or 'none'")
    if flow.target == "ema" and lr * flow.beta > 1:
        raise UsageError(f"lr: {lr:g} is above 1 / beta = {1 / flow.beta:g}; the target would overshoot")
    return Method(
        target=Ema(tau=1 - lr * flow.beta)
        if flow.target == "ema"
        else Same(stop_gradient=flow.stop_gradient),
        predictor=Identity() if flow.predictor == "none" else Linear(symmetric=flow.predictor == "symmetric"),
        distance=Euclidean(),
    )


def learner_of(flow: Flow, lr: float) -> SiameseLearner:
    """The learner of :func:`method_of`, float64, with the flow's start as its weights.

    Its encoder passes a view on as it is and its projector is W, so that a view is a row of n1 values.

    Raises:
        UsageError: as :func:`method_of`.
    """
    W, W_p, W_a = (torch.from_numpy(np.array(block)) for block in flow.start)
    outputs, inputs = W.shape
    encoder = Encoder(nn.Identity(), EncoderSettings(), channels=1, image_size=1, width=inputs)
    projector = ProjectorSettings(hidden=(), out=outputs, bias=False)
    learner = method_of(flow, lr).build(encoder, projector).double()
    with torch.no_grad():
        _weight(learner.projector).copy_(W)
        if isinstance(learner.target, EmaTarget):
            _weight(learner.target).copy_(W_a)
        if flow.predictor != "none":
            _weight(learner.predictor).copy_(W_p).requires_grad_(flow.predictor != "frozen")
    return learner


def optimizer_of(flow: Flow, learner: SiameseLearner, lr: float) -> torch.optim.SGD:
    """SGD without momentum whose steps are the flow's: see the module's head for rates and decays."""
    groups: list[dict[str, Any]] = [{"params": [_weight(learner.projector)], "weight_decay": flow.eta}]
    learned = [weight for weight in learner.predictor.parameters() if weight.requires_grad]
    if learned:
        rate, decay = lr * flow.alpha_p, flow.decay_p / flow.alpha_p
        groups.append({"params": learned, "lr": rate, "weight_decay": decay})
    return torch.optim.SGD(groups, lr=lr)


def train(
    flow: Flow,
    x1: Tensor,
    x2: Tensor,
    t_end: float,
    *,
    lr: float = 1e-3,
    batch_size: int | None = None,
    points: int = 51,
) -> FlowTrajectory:
    """Train the flow's twin on pairs of views and record its matrices.

    Args:
        flow: start and hyper-parameters; its X and X' are not used, except by the diagnostics of what is
            returned (F = W X W^T).
        x1, x2: the pairs. (B, n1)
        t_end: end time, > 0; round(t_end / lr) steps are taken.
        lr: learning rate, > 0.
        batch_size: pairs a step, by default all; batches follow each other in the order of the pairs, over
            and over, without those that do not fill one.
        points: times to record, >= 2, evenly spread over the steps as nearly as whole steps allow.

    Returns:
        The trajectory at the recorded steps, t = lr * step; `flow.trajectory(that.t)` is the flow at the
        same times.

    Raises:
        UsageError: naming the argument that is outside its domain.
    """
    lr, t_end = (reals(name, value, POSITIVE).item() for name, value in (("lr", lr), ("t_end", t_end)))
    x1, x2 = _pairs(flow, x1), _pairs(flow, x2)
    if x1.shape != x2.shape:
        raise UsageError(f"views: x1 has shape {tuple(x1.shape)}, x2 has {tuple(x2.shape)}")
    size = len(x1) if batch_size is None else batch_size
    if not 1 <= size <= len(x1):
        raise UsageError(f"batch_size: {size} is outside its domain [1, {len(x1)}], the pairs given")
    if points < 2:
        raise UsageError(f"points: {points} is outside its domain [2, inf)")
    learner, steps = learner_of(flow, lr), max(1, round(t_end / lr))
    optimizer = optimizer_of(flow, learner, lr)
    recorded = np.unique(np.linspace(0, steps, points).round().astype(int))
    states, last = [_matrices(learner)], 0
    full = len(x1) - len(x1) % size
    batches = itertools.cycle(list(zip(x1[:full].split(size), x2[:full].split(size), strict=True)))
    for step in recorded[1:]:
        for views in itertools.islice(batches, int(step) - last):
            nodes = learner(views)
            optimizer.zero_grad()
            nodes.loss.backward()
            optimizer.step()
            learner.after_step(nodes, 0.0)
        states.append(_matrices(learner))
        last = int(step)
    W, W_p, W_a = (np.stack(blocks) for blocks in zip(*states, strict=True))
    return FlowTrajectory(flow, lr * recorded, W, W_p, W_a)


def _pairs(flow: Flow, x: Tensor) -> Tensor:
    columns = flow.W.shape[1]
    if x.ndim != 2 or x.shape[1] != columns or not len(x):
        raise UsageError(f"views: of shape (B, {columns}) are needed, got {tuple(x.shape)}")
    return x.double()


def _weight(module: nn.Module) -> nn.Parameter:
    (weight,) = module.parameters()
    return weight


def _matrices(learner: SiameseLearner) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, W_p and W_a, copied."""
    W = _weight(learner.projector).detach().numpy().copy()
    learned = [weight.detach().numpy().copy() for weight in learner.predictor.parameters()]
    follows = isinstance(learner.target, EmaTarget)
    target = _weight(learner.target).numpy().copy() if follows else W
    return W, learned[0] if learned else np.eye(len(W)), target
