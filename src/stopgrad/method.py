"""The training equation: a method is a sentence of parts, and this is the only place where gradients stop.

Legend: v a view (1 or 2), x_v (B, C, S, S) its images, z_v (B, D) the online projection g(f(x_v)),
p_v (B, D) the predictor's output for z_v, t_v (B, D) the target's projection of x_v.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stopgrad.frozen import Frozen
from stopgrad.networks.encoders import Encoder
from stopgrad.networks.heads import ProjectorSettings, build_projector
from stopgrad.parts.distance import DISTANCES, FORMULAS, DistanceName
from stopgrad.parts.gradient import GradientName, straight_through
from stopgrad.parts.pairing import CROSS_VIEW, Pair
from stopgrad.parts.predictors import Identity, Linear, Mlp, Predictor, PredictorSettings, Spectral
from stopgrad.parts.target import Ema, EmaTarget, Same, Target


class Branch(NamedTuple):
    """The nodes of one view: h (B, Dh), z (B, D), p (B, D), t (B, D)."""

    h: Tensor
    z: Tensor
    p: Tensor
    t: Tensor


class Nodes(NamedTuple):
    """What one forward pass computed; the diagnostics read the same tensors as the loss."""

    loss: Tensor
    h: tuple[Tensor, ...]
    z: tuple[Tensor, ...]
    p: tuple[Tensor, ...]
    t: tuple[Tensor, ...]


class Learner(nn.Module, ABC):
    """What the trainer trains: an encoder with whatever its method hangs on it."""

    encoder: Encoder
    projector: nn.Module
    predictor: nn.Module

    def forward(self, views: Sequence[Tensor], labels: Tensor | None = None) -> Nodes:
        """The loss of a batch and the nodes it was made of.

        One forward pass per view, so that batch normalisation sees each view alone, as in the papers.
        """
        return self.join([self.branch(x) for x in views], labels)

    @abstractmethod
    def branch(self, x: Tensor) -> Branch:
        """The nodes of one view."""

    @abstractmethod
    def join(self, branches: Sequence[Branch], labels: Tensor | None = None) -> Nodes:
        """The loss of a batch from the nodes of its views."""

    def after_step(self, nodes: Nodes, progress: float) -> None:
        """Everything that changes after the optimiser's step: closed-form predictor, moving averages.

        Args:
            nodes: what `forward` returned for the step; with gradient accumulation, of all its parts.
            progress: share of the run that is done, 0 to 1.
        """

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder features h (B, Dh), projections z (B, D) and predictions p (B, D) of images."""
        h = self.encoder(x)
        z = self.projector(h)
        return h, z, self.predictor(z)


class Method(Frozen):
    """target x predictor x gradient x pairing x distance.

    Combinations that collapse are legal: collapse is an experiment here. `notes` says what theory expects.

    Example:
        >>> simsiam = Method(predictor=Mlp(hidden=64))
        >>> byol = simsiam.but(target=Ema(tau=0.99))
        >>> byol.target.tau
        0.99
    """

    target: Target = Same()
    predictor: PredictorSettings = Mlp()
    gradient: GradientName = "exact"
    pairing: tuple[Pair, ...] = CROSS_VIEW
    distance: DistanceName = "cosine"

    def build(self, encoder: Encoder, projector: ProjectorSettings) -> "SiameseLearner":
        """A learner around ``encoder`` and a fresh projector."""
        return SiameseLearner(self, encoder, projector)

    def loss(self, z: Sequence[Tensor], p: Sequence[Tensor], t: Sequence[Tensor]) -> Tensor:
        """The scalar loss of a batch from its nodes, one tensor (B, D) per view in each argument."""
        if self.gradient == "straight-through":
            p = [straight_through(zv, pv) for zv, pv in zip(z, p, strict=True)]
        if self.stops_gradient:
            t = [tv.detach() for tv in t]
        nodes = {f"{letter}{v}": x for letter, row in zip("zpt", (z, p, t), strict=True)
                 for v, x in enumerate(row, start=1)}  # fmt: skip
        distance = DISTANCES[self.distance]
        terms = [pair.weight * distance(nodes[pair.query], nodes[pair.key]) for pair in self.pairing]
        return torch.stack(terms).sum()

    @property
    def stops_gradient(self) -> bool:
        """Whether the keys are constants for the gradient."""
        return isinstance(self.target, Ema) or self.target.stop_gradient

    def explain(self) -> str:
        """The equations of the method, in one paragraph."""
        terms = " + ".join(map(str, self.pairing))
        through = "" if self.gradient == "exact" else " Gradient: p_v enters as z_v + sg(p_v - z_v)."
        return (
            f"L = {terms}, where {FORMULAS[self.distance]}; z_v = g(f(x_v)) for views v = 1, 2; "
            f"{self.predictor.equation()}; {self.target.equation()}.{through}"
        )

    def notes(self) -> list[str]:
        """What theory expects of this combination of parts, each note with its source."""
        notes = []
        if not self.stops_gradient:
            notes.append(
                "Without stop-gradient the linear model collapses when the augmentation's noise or the "
                "weight decay is positive in every direction (Tian et al. 2021, Theorem 2)."
            )
        if isinstance(self.predictor, Identity):
            notes.append(
                "Without a predictor the linear model obeys W' = -W (X' + eta I), so W -> 0: collapse, "
                "with or without stop-gradient (Tian et al. 2021, section 2)."
            )
        if isinstance(self.predictor, Linear | Spectral) and self.stops_gradient:
            notes.append(
                "A linear predictor: the modes obey s = p^2/alpha_p + exp(-2 eta t) c, and collapse is "
                "unavoidable for eta > tau^2 / (4 (1 + sigma^2)) (Tian et al. 2021, section 3)."
            )
        if isinstance(self.predictor, Spectral):
            notes.append(
                "W_p shares its eigenspace with the correlation of z by construction; eps lifts its small "
                "eigenvalues and keeps weak modes from dying (Tian et al. 2021, section 4)."
            )
        if isinstance(self.predictor, Mlp) and self.stops_gradient:
            notes.append("An MLP predictor has no closed form; SimSiam and BYOL train with it in practice.")
        return notes


class SiameseLearner(Learner):
    """Two views through one encoder and projector, a predictor, and a target that is the same or an EMA."""

    def __init__(self, method: Method, encoder: Encoder, projector: ProjectorSettings):
        super().__init__()
        self.method = method
        self.encoder = encoder
        self.projector = build_projector(projector, encoder.width)
        self.predictor: Predictor = method.predictor.build(projector.out)
        self.target = EmaTarget(self.online, method.target.tau) if isinstance(method.target, Ema) else None

    @property
    def online(self) -> nn.Sequential:
        """Encoder and projector: the part that an EMA target follows."""
        return nn.Sequential(self.encoder, self.projector)

    def branch(self, x: Tensor) -> Branch:
        """Through the online network, and through the target's where it is another."""
        h, z, p = self.embed(x)
        return Branch(h, z, p, z if self.target is None else self.target(x))

    def join(self, branches: Sequence[Branch], labels: Tensor | None = None) -> Nodes:
        """The method's loss; it needs no labels."""
        h, z, p, t = zip(*branches, strict=True)
        return Nodes(self.method.loss(z, p, t), h, z, p, t)

    @torch.no_grad()
    def after_step(self, nodes: Nodes, progress: float) -> None:
        """Closed-form predictor first, then the target: the authors' order (Tian et al. 2021, their code)."""
        self.predictor.after_step([z.detach() for z in nodes.z], [t.detach() for t in nodes.t])
        if self.target is not None and isinstance(self.method.target, Ema):
            self.target.update(self.online, self.method.target.tau_at(progress))


class Supervised(Frozen):
    """The reference: the same encoder and views, trained on the labels by cross-entropy.

    It has no projection of its own: h, z and p are the encoder's features.
    """

    def build(self, encoder: Encoder, classes: int) -> "SupervisedLearner":
        """A learner around ``encoder`` for ``classes`` classes."""
        return SupervisedLearner(encoder, classes)

    def explain(self) -> str:
        """The equation of the method."""
        return "L = 1/2 CE(W f(x_1) + b, y) + 1/2 CE(W f(x_2) + b, y), CE the cross-entropy with label y."

    def notes(self) -> list[str]:
        """What to expect."""
        return ["Uses the labels: an upper reference for the others, not a method for unlabelled images."]


class SupervisedLearner(Learner):
    """Encoder and linear classifier."""

    def __init__(self, encoder: Encoder, classes: int):
        super().__init__()
        self.encoder = encoder
        self.projector, self.predictor = nn.Identity(), nn.Identity()
        self.classifier = nn.Linear(encoder.width, classes)

    def branch(self, x: Tensor) -> Branch:
        """The encoder's features, which stand for all nodes."""
        h = self.encoder(x)
        return Branch(h, h, h, h)

    def join(self, branches: Sequence[Branch], labels: Tensor | None = None) -> Nodes:
        """Mean cross-entropy over the views."""
        if labels is None:
            raise ValueError("supervised training needs labels")
        h = tuple(branch.h for branch in branches)
        losses = [nn.functional.cross_entropy(self.classifier(features), labels) for features in h]
        return Nodes(torch.stack(losses).mean(), h, h, h, h)
