"""The training equation: a method is a sentence of parts, and this is the only place where gradients stop.

Legend: v a view (1, 2, ...), x_v (B, C, S, S) its images, z_v (B, D) the online projection g(f(x_v)),
p_v (B, D) the predictor's output for z_v, t_v (B, D) the target's projection of x_v.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.func import functional_call

from stopgrad.frozen import Frozen
from stopgrad.networks.encoders import Encoder
from stopgrad.networks.heads import ProjectorSettings, build_projector
from stopgrad.parts.distances import Cosine, DistanceSettings
from stopgrad.parts.expectations import expectations
from stopgrad.parts.gradient import Decomposed, Exact, GradientSettings, Tangential
from stopgrad.parts.pairing import CROSS_VIEW, Node, Pair
from stopgrad.parts.predictors import (
    Identity,
    Mlp,
    Optimal,
    Partitioned,
    Predictor,
    PredictorSettings,
    Spectral,
)
from stopgrad.parts.ranks import joint
from stopgrad.parts.target import Expectation, Same, Target


class Branch(NamedTuple):
    """The nodes of one view: h (B, Dh), z (B, D), p (B, D), t (B, D)."""

    h: Tensor
    z: Tensor
    p: Tensor
    t: Tensor


class Nodes(NamedTuple):
    """What one forward pass computed; the diagnostics read the same tensors as the loss.

    ``indices`` holds the images' numbers in the training part, int64 (B,), where they are known.
    """

    loss: Tensor
    h: tuple[Tensor, ...]
    z: tuple[Tensor, ...]
    p: tuple[Tensor, ...]
    t: tuple[Tensor, ...]
    indices: Tensor | None = None


class Learner(nn.Module, ABC):
    """What the trainer trains: an encoder with whatever its method hangs on it."""

    encoder: Encoder
    projector: nn.Module
    predictor: nn.Module

    def forward(
        self, views: Sequence[Tensor], labels: Tensor | None = None, indices: Tensor | None = None
    ) -> Nodes:
        """The loss of a batch and the nodes it was made of.

        One forward pass per view, so that batch normalisation sees each view alone, as in the papers.

        Args:
            views: each (B, C, S, S).
            labels: int64 (B,), for what learns from them.
            indices: the images' numbers in the training part, int64 (B,), for what remembers them.
        """
        return self.join([self.branch(x) for x in views], labels, indices)

    @abstractmethod
    def branch(self, x: Tensor) -> Branch:
        """The nodes of one view."""

    @abstractmethod
    def join(
        self, branches: Sequence[Branch], labels: Tensor | None = None, indices: Tensor | None = None
    ) -> Nodes:
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

    Examples:
        >>> simsiam = Method(predictor=Mlp(hidden=64))
        >>> mirror = simsiam.but(pairing=(Pair(query="z1", key="p(t2)"), Pair(query="z2", key="p(t1)")))
        >>> mirror.calls_predictor
        True
    """

    target: Target = Same()
    predictor: PredictorSettings = Mlp()
    gradient: GradientSettings = Exact()
    pairing: tuple[Pair, ...] = CROSS_VIEW
    distance: DistanceSettings = Cosine()

    @model_validator(mode="after")
    def _has_the_views(self) -> Self:
        for text in (text for pair in self.pairing for text in (pair.query, pair.key)):
            if Node.read(text).view > self.views:
                raise ValueError(f"pairing: {text} is of a view beyond the {self.views} of a step")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        gradient, distance = self.gradient, self.distance
        if not self.pairing:
            raise ValueError("pairing: needs at least one pair")
        if isinstance(gradient, Tangential) and not distance.normalises:
            raise ValueError(
                f"gradient: 'tangential' is of distances on the sphere, not of '{distance.kind}'"
            )
        if isinstance(gradient, Decomposed):
            probe = torch.ones(2, 2)
            if distance.pull(probe, probe, probe) is None:
                raise ValueError(f"gradient: 'decomposed' knows no extra gradient of '{distance.kind}'")
            if gradient.predictor_loss == "shared" and not self._predictor_learns_from_queries:
                raise ValueError(
                    "gradient.predictor_loss: no query of the pairing passes the predictor, which would "
                    "learn nothing; use 'separate'"
                )
        if "inv" in self.functions and isinstance(self.predictor, Spectral | Partitioned | Optimal):
            raise ValueError(f"pairing: inv() needs a learned predictor, '{self.predictor.kind}' is none")
        return self

    def build(
        self, encoder: Encoder, projector: ProjectorSettings, images: int | None = None
    ) -> "SiameseLearner":
        """A learner around ``encoder`` and a fresh projector.

        Args:
            encoder: the network.
            projector: settings of what comes behind it.
            images: the number of training images, for a target that remembers each.

        Raises:
            UsageError: for such a target without that number.
        """
        return SiameseLearner(self, encoder, projector, images)

    def loss(
        self,
        z: Sequence[Tensor],
        p: Sequence[Tensor],
        t: Sequence[Tensor],
        predictor: nn.Module | None = None,
        inverse: nn.Module | None = None,
    ) -> Tensor:
        """The scalar loss of a batch from its nodes, one tensor (B, D) per view in each argument.

        Args:
            z, p, t: the nodes.
            predictor, inverse: what ``p()`` and ``inv()`` of the pairing stand for; needed where it has them,
                and ``predictor`` where `calls_predictor` says so.
        """
        if self.stops_gradient:
            t = [tv.detach() for tv in t]
        functions: dict[str, Callable[[Tensor], Tensor] | None] = {
            "sg": torch.detach, "p": predictor, "inv": inverse,
        }  # fmt: skip
        separate = isinstance(self.gradient, Decomposed) and self.gradient.predictor_loss == "separate"
        if not separate:
            p = [self.gradient.prediction(zv, pv) for zv, pv in zip(z, p, strict=True)]
            return self._sum(_Values(functions, z=z, p=p, t=t))
        assert predictor is not None
        fixed = _fixed(predictor)
        constant = {"p": fixed, "inv": None if inverse is None else _fixed(inverse)}
        encoder_loss = self._sum(_Values(functions | constant, z=z, p=[fixed(zv) for zv in z], t=t))
        z, t = ([x.detach() for x in row] for row in (z, t))
        own = [predictor(zv) for zv in z]
        predictor_loss = self.but(gradient=Exact())._sum(_Values(functions, z=z, p=own, t=t))
        return encoder_loss + predictor_loss

    def _sum(self, value: "_Values") -> Tensor:
        """The weighted terms of the pairing, added up."""
        of_batch = self.distance.of_batch or self.gradient.of_batch
        terms = []
        for pair in self.pairing:
            query, key = Node.read(pair.query), Node.read(pair.key)
            # only where the gradient is decomposed is the basic part read
            basic = query._replace(view=key.view) if self.gradient.of_batch else query
            rows = [value(node) for node in (query, key, basic)]
            rows = [joint(x) for x in rows] if of_batch else rows
            terms.append(pair.weight * self.gradient.term(self.distance, *rows))
        return torch.stack(terms).sum()

    @property
    def _predictor_learns_from_queries(self) -> bool:
        """Whether a learned predictor, if there is one, has a part in any query."""
        closed = isinstance(self.predictor, Identity | Spectral | Partitioned | Optimal)
        return closed or any("p" in pair.query for pair in self.pairing)

    @property
    def views(self) -> int:
        """Views of each image that a step needs."""
        return self.target.views if isinstance(self.target, Expectation) else 2

    @property
    def stops_gradient(self) -> bool:
        """Whether the keys are constants for the gradient."""
        return not isinstance(self.target, Same) or self.target.stop_gradient

    @property
    def functions(self) -> set[str]:
        """The functions that the pairing applies to nodes."""
        return {name for pair in self.pairing for text in (pair.query, pair.key)
                for name in Node.read(text).functions}  # fmt: skip

    @property
    def calls_predictor(self) -> bool:
        """Whether the loss runs the predictor again, beyond the p_v of each view."""
        separate = isinstance(self.gradient, Decomposed) and self.gradient.predictor_loss == "separate"
        return separate or bool(self.functions & {"p", "inv"})

    def explain(self) -> str:
        """The equations of the method, in one paragraph."""
        terms = " + ".join(map(str, self.pairing)).replace("+ -", "- ")
        views = "1, 2" if self.views == 2 else f"1 to {self.views}"
        inverse = ", inv another such network" if "inv" in self.functions else ""
        return (
            f"L = {terms}, where {self.distance.formula()}; z_v = g(f(x_v)) for views v = {views}; "
            f"{self.predictor.equation()}{inverse}; {self.target.equation()}.{self.gradient.explain()}"
        )

    def notes(self) -> list[str]:
        """What theory expects of this combination of parts, each note with its source."""
        return expectations(self)


def _fixed(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module's function, with weights that are constants for the gradient."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    return lambda x: functional_call(module, weights, (x,))


class _Values:
    """The value of each node, computed once."""

    def __init__(
        self, functions: dict[str, Callable[[Tensor], Tensor] | None], **letters: Sequence[Tensor]
    ) -> None:
        self._functions, self._letters = functions, letters
        self._known: dict[Node, Tensor] = {}

    def __call__(self, node: Node) -> Tensor:
        if node not in self._known:
            self._known[node] = self._compute(node)
        return self._known[node]

    def _compute(self, node: Node) -> Tensor:
        if not node.functions:
            return self._letters[node.letter][node.view - 1]
        outermost, *rest = node.functions
        function = self._functions[outermost]
        assert function is not None, f"{node} needs the module that {outermost}() stands for"
        return function(self(node._replace(functions=tuple(rest))))


class SiameseLearner(Learner):
    """Views through one encoder and projector, a predictor, and a target that is the same or another."""

    def __init__(
        self, method: Method, encoder: Encoder, projector: ProjectorSettings, images: int | None = None
    ):
        super().__init__()
        self.method = method
        self.encoder = encoder
        self.projector = build_projector(projector, encoder.width)
        self.predictor: Predictor = method.predictor.build(projector.out)
        self.inverse = method.predictor.build(projector.out) if "inv" in method.functions else None
        self.target = method.target.build(self.online, projector.out, images)

    @property
    def online(self) -> nn.Sequential:
        """Encoder and projector: the part that an EMA target follows."""
        return nn.Sequential(self.encoder, self.projector)

    def forward(
        self, views: Sequence[Tensor], labels: Tensor | None = None, indices: Tensor | None = None
    ) -> Nodes:
        """As of every learner; views that the target alone needs go through without a graph."""
        branches = []
        for number, x in enumerate(views, start=1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.target.learns_from(number)):
                branches.append(self.branch(x))
        return self.join(branches, labels, indices)

    def branch(self, x: Tensor) -> Branch:
        """Through the online network, and through the target's where it is another."""
        h, z, p = self.embed(x)
        return Branch(h, z, p, self.target.branch(x, z))

    def join(
        self, branches: Sequence[Branch], labels: Tensor | None = None, indices: Tensor | None = None
    ) -> Nodes:
        """The method's loss; it needs no labels."""
        h, z, p, t = zip(*branches, strict=True)
        t = self.target.join(t, indices)
        return Nodes(self.method.loss(z, p, t, self.predictor, self.inverse), h, z, p, t, indices)

    @torch.no_grad()
    def after_step(self, nodes: Nodes, progress: float) -> None:
        """Closed-form predictor first, then the target: the authors' order (Tian et al. 2021, their code)."""
        t = [tv.detach() for tv in nodes.t]
        self.predictor.after_step([z.detach() for z in nodes.z], t)
        if self.inverse is not None:
            self.inverse.after_step(())
        self.target.after_step(self.online, t, nodes.indices, progress)


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

    def join(
        self, branches: Sequence[Branch], labels: Tensor | None = None, indices: Tensor | None = None
    ) -> Nodes:
        """Mean cross-entropy over the views."""
        if labels is None:
            raise ValueError("supervised training needs labels")
        h = tuple(branch.h for branch in branches)
        losses = [nn.functional.cross_entropy(self.classifier(features), labels) for features in h]
        return Nodes(torch.stack(losses).mean(), h, h, h, h, indices)
