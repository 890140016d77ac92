"""What Zhang et al. 2022 show of vectors and gradients while a network learns: short trainings on `digits`.

A run's summary holds no centres, biases, gradients or covariances, so these claims train by themselves, on
the settings of the recipe ``digits-smoke`` (2048 images, batches of 64, 32 steps an epoch), and measure the
validation images with batch normalisation in training mode, as the losses see it. The same seed gives the
same images, views and first weights to all arms.

Legend: N images, D width, Z = z / ||z|| and P = p / ||p|| (N, D), o the mean row and r the rest,
m_o = ||o||, m_r^2 = 1 - m_o^2; G_e = o_e + r_e the extra gradient.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from stopgrad.data.batches import Batches
from stopgrad.diagnostics import (
    center_norm,
    decompose,
    decorrelation_pull,
    extra_cosines,
    residual_norm,
    unit,
)
from stopgrad.errors import UsageError
from stopgrad.evaluation.linear import linear_probe
from stopgrad.evaluation.measures import materialise, mode
from stopgrad.experiments.schema import Result
from stopgrad.method import Nodes
from stopgrad.parts.distances import Cosine, Decorrelation
from stopgrad.theory.decomposition import bias_only, infonce, zhang2022_fig5a
from stopgrad.training.build import uses_channels_last
from stopgrad.training.distributed import launch
from stopgrad.training.optimizer import build_optimizer, set_learning_rate
from stopgrad.training.precision import threads_of_an_operation
from stopgrad.training.pretrain import Session
from stopgrad.training.settings import merge, resolve

CONSTANT = {"schedule": {"name": "constant", "warmup_epochs": 0}}
"""No cosine: the loss changes on the way, or is followed from the first step."""
TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
WIDE = (0.05, 1.0)
"""The wide range of temperatures of Fig. 5c."""
ROWS = 256
"""Images of one InfoNCE softmax: the paper's batch."""

Loss = Callable[[Nodes], Tensor]


class Vectors(NamedTuple):
    """Projections and predictions of two views, (N, D) each."""

    z1: Tensor
    z2: Tensor
    p1: Tensor
    p2: Tensor


@dataclass
class Training:
    """A network in training whose loss may change; ``epoch`` of its epochs are done."""

    session: Session
    optimizer: torch.optim.Optimizer
    epoch: int = 0

    @classmethod
    def of(cls, method: str, final_bn: str, seed: int, changes: dict[str, Any] | None = None) -> "Training":
        """A method of the catalogue before its first step.

        Args:
            final_bn: of the projector, "plain" or "none".
            changes: of settings, beyond the recipe.
        """
        base = {
            "method": method, "recipe": "digits-smoke", "data": {"name": "digits"}, "seed": seed,
            "device": "cpu", "precision": "fp32", "threads": 1, "projector": {"final_bn": final_bn},
        }  # fmt: skip
        settings = resolve(merge(base, changes or {}))
        session = Session.open(settings, launch(settings))
        if uses_channels_last(session.learner, session.fabric.device):  # rounds as the main job does
            session.learner.to(memory_format=torch.channels_last)
        return cls(session, build_optimizer(settings.optimizer, session.learner))

    def train(self, epochs: int, loss: Loss | None = None) -> Iterator[Nodes]:
        """Go on for some epochs; the nodes of every step, without a graph, come after it.

        Args:
            epochs: how many; the schedule's length is that of the settings.
            loss: of a step's nodes; the method's own by default.
        """
        settings, learner = self.session.settings, self.session.learner
        data, views = self.session.dataset.train, self.session.views
        batches = Batches(data, views, settings.batch_size, seed=settings.seed)
        steps = settings.epochs * len(batches)
        for _ in range(epochs):
            learner.train()
            done = self.epoch * len(batches)
            for step, batch in enumerate(batches.epoch(self.epoch), start=done):
                with threads_of_an_operation(settings.threads):
                    set_learning_rate(self.optimizer, settings.schedule.factor(step, steps, len(batches)))
                    nodes = learner([self.session.embedder.normalise(view) for view in batch.views])
                    (nodes.loss if loss is None else loss(nodes)).backward()
                    self.optimizer.step()
                    self.optimizer.zero_grad(set_to_none=True)
                    nodes = Nodes(*(_detached(part) for part in nodes[:5]))
                    learner.after_step(nodes, min(1.0, (step + 1) / steps))
                yield nodes
            self.epoch += 1

    def finish(self) -> None:
        """Train to the end of the settings' epochs."""
        for _ in self.train(self.session.settings.epochs - self.epoch):
            pass

    def vectors(self) -> Vectors:
        """Of two views of the validation images."""
        session = self.session
        settings = session.settings
        images = materialise(session.dataset.val, settings.evaluation.images, settings.view_size)
        with mode(session.learner, training=True), threads_of_an_operation(settings.threads):
            first, second = session.embedder.embed_views(session.learner, images, session.views)
        return Vectors(first.z, second.z, first.p, second.p)

    def probe(self) -> float:
        """Accuracy of a linear probe on the encoder's features, in [0, 1], on the test part."""
        data, session = self.session.dataset, self.session
        with threads_of_an_operation(session.settings.threads):
            fit, val, test = (
                session.embedder.embed_evaluating(session.learner, part).h
                for part in (data.probe, data.val, data.test)
            )
        assert data.val.labels is not None
        return linear_probe(fit, data.probe.labels, test, data.test.labels, (val, data.val.labels)).accuracy


def figure4(component: str, final_bn: str, seed: int, epochs: int = 4) -> Result:
    """Fig. 4: what one component of the dummy gradient Z_a does to m_o, from the first step on.

    The loss is -<Z, sg(c)>, for both views: ``component`` "o" has c = o_z, "r" c = Z - o_z, and "random" a
    Gaussian row of the expected length of r, drawn anew at every step.

    Numbers: ``m_o_start``, of the first step's batches, ``m_o`` and ``m_r`` at the end (mean of the last 16
    steps), and ``m_o_change``. Series: m_o and m_r of every step.
    """
    training = Training.of("simsiam-naive", final_bn, seed, CONSTANT)
    noise = torch.Generator().manual_seed(seed)

    def push(nodes: Nodes) -> Tensor:
        terms = [
            -(Z * _component(component, Z.detach(), noise)).sum(dim=1).mean() for Z in map(unit, nodes.z)
        ]
        return torch.stack(terms).mean()

    steps = [
        [float(torch.stack([size(z) for z in nodes.z]).mean()) for size in (center_norm, residual_norm)]
        for nodes in training.train(epochs, push)
    ]
    m_o, m_r = (list(column) for column in zip(*steps, strict=True))
    end = torch.tensor(steps[-16:]).mean(dim=0)
    numbers = {
        "m_o_start": m_o[0],
        "m_o": float(end[0]),
        "m_r": float(end[1]),
        "m_o_change": float(end[0]) - m_o[0],
    }
    return Result(numbers, {"m_o": m_o, "m_r": m_r})


def _component(name: str, Z: Tensor, noise: torch.Generator) -> Tensor:
    """What Z is pushed along, see `figure4`. (N, D)"""
    o, r = decompose(Z)
    if name == "random":
        rows = torch.randn(Z.shape, generator=noise, dtype=Z.dtype)
        return rows * r.square().mean().sqrt()
    return {"o": o.expand_as(r), "r": r}[name]


def figure5a(final_bn: str, seed: int, epochs: int = 8) -> Result:
    """Fig. 5a: how much of o_p is in o_z - o_p, and of o_z in o_p - o_z, of a trained SimSiam.

    Numbers: ``eta_p`` and ``eta_z``, the shares in closed form; ``crossing_error``, the largest |cosine| of
    the figure's curves there; ``product_error``, of (1 + eta_p) (1 + eta_z) = cos^2(o_z, o_p). Series: the
    curves.
    """
    training = Training.of("simsiam", final_bn, seed, _lasting(epochs))
    training.finish()
    v = training.vectors()
    p, z = torch.cat([v.p1, v.p2]).double(), torch.cat([v.z1, v.z2]).double()
    curves = zhang2022_fig5a(p, z)
    crossings = zhang2022_fig5a(p, z, [curves.eta_p, curves.eta_z])
    cosine = torch.cosine_similarity(unit(p).mean(dim=0), unit(z).mean(dim=0), dim=0)
    numbers = {
        "eta_p": curves.eta_p,
        "eta_z": curves.eta_z,
        "crossing_error": max(abs(float(crossings.simsiam[0])), abs(float(crossings.mirror[1]))),
        "product_error": abs((1 + curves.eta_p) * (1 + curves.eta_z) - float(cosine**2)),
    }
    series = {name: getattr(curves, name).tolist() for name in ("eta", "simsiam", "mirror")}
    return Result(numbers, series)


def figure5b(
    normalise: Literal["batch", "l2"],
    final_bn: str,
    seed: int,
    learn: int = 5,
    collapse: int = 6,
    recover: int = 6,
) -> Result:
    """Fig. 5b: SimSiam, then a collapsing loss, then de-correlation alone.

    The three phases last ``learn``, ``collapse`` and ``recover`` epochs: the collapsing loss has about as
    many steps as the paper's single epoch has. ``normalise`` is what the de-correlation loss does to z first:
    "batch" or "l2".

    Numbers: m_r at the end of each phase, ``m_r_learnt``, ``m_r_collapsed`` and ``m_r_recovered``, and
    ``gain``, the last less the one before. Series: m_r of every step, mean of the views.
    """
    training = Training.of("simsiam", final_bn, seed, CONSTANT)
    decorrelation, cosine = Decorrelation(normalise=normalise), Cosine()
    phases: tuple[tuple[str, int, Loss | None], ...] = (
        ("learnt", learn, None),
        ("collapsed", collapse, lambda nodes: cosine(nodes.z[0], nodes.z[1])),
        ("recovered", recover, lambda nodes: decorrelation(nodes.z[0], nodes.z[1])),
    )
    numbers, m_r = {}, []
    for name, epochs, loss in phases:
        m_r += [sum(map(_m_r, nodes.z)) / len(nodes.z) for nodes in training.train(epochs, loss)]
        v = training.vectors()
        numbers[f"m_r_{name}"] = (_m_r(v.z1) + _m_r(v.z2)) / 2
    numbers["gain"] = numbers["m_r_recovered"] - numbers["m_r_collapsed"]
    return Result(numbers, {"m_r": m_r})


def figure5c(seed: int, epochs: int = 8) -> Result:
    """Fig. 5c: cosine of InfoNCE's r_e, and o_e, with the de-correlating gradient, over the temperature.

    One network is trained at the catalogue's temperature; its vectors are then read at all `TEMPERATURES`, by
    `ROWS` images a softmax, averaged over the softmaxes.

    Numbers: ``lowest``, the smallest cosine of r_e for temperatures in `WIDE`, ``peak``, where it is largest
    of all, and ``highest``, how large; ``o_e``, the largest |cosine| of o_e; ``o_e_o_z``, the cosine of o_e
    and o_z at temperature 0.2; ``length``, ||r_e|| at the highest temperature over that at 0.1. Series: the
    temperatures and both cosines.
    """
    training = Training.of("infonce", "plain", seed, _lasting(epochs))
    training.finish()
    v = training.vectors()
    groups = list(zip(v.z1.double().split(ROWS), v.z2.double().split(ROWS), strict=True))
    read = {t: torch.tensor([_alike(a, b, t) for a, b in groups]).mean(dim=0) for t in TEMPERATURES}
    r_e, o_e, o_z, length = (torch.stack(list(read.values())).T).tolist()
    wide = [c for t, c in zip(TEMPERATURES, r_e, strict=True) if WIDE[0] <= t <= WIDE[1]]
    numbers = {
        "lowest": min(wide),
        "highest": max(r_e),
        "peak": TEMPERATURES[r_e.index(max(r_e))],
        "o_e": max(map(abs, o_e)),
        "o_e_o_z": o_z[TEMPERATURES.index(0.2)],
        "length": length[-1] / length[TEMPERATURES.index(0.1)],
    }
    return Result(numbers, {"temperature": list(TEMPERATURES), "r_e": r_e, "o_e": o_e})


def _alike(z_a: Tensor, z_b: Tensor, temperature: float) -> list[float]:
    """Cosines of r_e and of o_e (as rows) with the de-correlating pull, of o_e and o_z, and ||r_e||."""
    gradient = infonce(z_a, z_b, temperature)
    pull = decorrelation_pull(z_a)
    center = gradient.o_e.expand_as(pull)
    of_center = float((center * pull).sum() / (center.norm() * pull.norm()))
    cosines = extra_cosines(gradient, z_a)
    return [cosines.r_e_decorrelation, of_center, cosines.o_e_o_z, float(gradient.r_e.norm())]


def correlation(
    method: str, seed: int, temperature: float | None = None, epochs: int = 8, probe: bool = False
) -> Result:
    """Figs. 6 and 8: the covariance of z over training, of a method with batch normalisation at the end.

    It is `Decorrelation` of the two views, the columns of z standardised: shrinking does not lower it.

    Args:
        method: of the catalogue.
        seed: of images and weights.
        temperature: of InfoNCE, the catalogue's by default.
        epochs: how many.
        probe: whether to fit a linear probe at the end.

    Returns:
        Numbers: ``covariance`` at the end, ``fall``, the share by which it is below the largest value after
        an epoch of training, and ``linear_probe`` if asked for. Series: the covariance before training and
        after each epoch.
    """
    changes = _lasting(epochs)
    if temperature is not None:
        changes["distance"] = {"kind": "infonce", "temperature": temperature}
    training, measure = Training.of(method, "plain", seed, changes), Decorrelation(normalise="batch")

    def now() -> float:
        v = training.vectors()
        return float(measure(v.z1, v.z2))

    trace = [now()]
    for _ in range(epochs):
        for _ in training.train(1):
            pass
        trace.append(now())
    numbers = {"covariance": trace[-1], "fall": 1 - trace[-1] / max(trace[1:])}
    if probe:
        numbers["linear_probe"] = training.probe()
    return Result(numbers, {"epoch": list(range(epochs + 1)), "covariance": trace})


def bias_to_center(method: str, final_bn: str, seed: int, epochs: int = 8) -> Result:
    """Table 6 and A.8: the predictor's last bias beside the centre o_z.

    Numbers: ``cosine`` of the two; ``c``, the bias along o_z in units of ||o_z||; ``m_o``; of the bias-only
    predictor also ``strength``, that of its de-centring, c / (1 + c), ``strength_closed``, what A.8 in its
    corrected form gives for the vectors, and ``strength_error``, the distance of the two.
    """
    training = Training.of(method, final_bn, seed, _lasting(epochs))
    training.finish()
    v = training.vectors()
    center = decompose(unit(torch.cat([v.z1, v.z2]))).center
    bias = _last_bias(training.session.learner.predictor)
    c = float(bias @ center / center.square().sum())
    numbers = {
        "cosine": float(torch.cosine_similarity(bias, center, dim=0)),
        "c": c,
        "m_o": float(center.norm()),
    }
    if method == "simsiam-bias":
        try:
            closed = bias_only(v.z1, v.z2).strength
        except UsageError:  # views agree no further than their centre: the limit, where c grows without bound
            closed = 1.0
        strength = c / (1 + c)
        numbers |= {
            "strength": strength,
            "strength_closed": closed,
            "strength_error": abs(strength - closed),
        }
    return Result(numbers)


def _last_bias(predictor: nn.Module) -> Tensor:
    """The vector that a predictor adds at its end. (D,)"""
    return [weight.detach() for name, weight in predictor.named_parameters() if name.endswith("bias")][-1]


def _lasting(epochs: int) -> dict[str, Any]:
    return {"epochs": epochs, "schedule": {"warmup_epochs": min(1, epochs)}}


def _m_r(z: Tensor) -> float:
    return float(residual_norm(z))


def _detached(part: Any) -> Any:
    return part.detach() if isinstance(part, Tensor) else tuple(x.detach() for x in part)
