"""Embedding a part of a data set, and measuring what came out.

Legend: N images, Dh width of the encoder's features h, D width of the projections z and predictions p, Dy
width of what the projector's last linear layer takes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stopgrad import diagnostics
from stopgrad.data.batches import evaluation_batches
from stopgrad.data.sources import ArrayPart, Part
from stopgrad.data.sources.parts import fixed_permutation
from stopgrad.data.sources.threads import processors
from stopgrad.data.views import Views
from stopgrad.evaluation.modes import has_modes, last_linear, measure_modes
from stopgrad.evaluation.shares import ALONE, Shares
from stopgrad.method import Learner

SPECTRUM_KEPT = 128


@dataclass(frozen=True)
class Embedding:
    """What a learner makes of N images, float32 on the CPU: h (N, Dh), z (N, D), p (N, D).

    ``y`` (N, Dy) is what the projector's last linear layer takes, where it was asked for.
    """

    h: Tensor
    z: Tensor
    p: Tensor
    y: Tensor | None = None


@dataclass(frozen=True)
class Embedder:
    """How images reach a learner in evaluation: their size, their normalisation, the device, the precision.

    ``normalise`` maps images (B, C, S, S) in [0, 1] to what the encoder expects; ``autocast`` opens the
    precision of the run. Of several processes (``shares``) each embeds its share and all get the whole, so
    all must call it. Shares are whole batches: also in training mode, where batch normalisation ties the
    images of a batch together, the numbers are those of one process.
    """

    size: int
    device: torch.device
    normalise: Callable[[Tensor], Tensor]
    autocast: Callable[[], AbstractContextManager[object]]
    batch_size: int = 256
    workers: int | None = None
    shares: Shares = ALONE

    @torch.no_grad()
    def embed(self, learner: Learner, part: Part) -> Embedding:
        """Embed every image of a part as it is, in order. The learner's mode decides how BN normalises."""
        return Embedding(*self._collect(learner.embed, self._shown(part), len(part), 3))

    @torch.no_grad()
    def features(self, learner: Learner, part: Part) -> Tensor:
        """The features h (N, Dh) of every image alone, with the learner in evaluation mode."""
        with mode(learner, training=False):
            return self._collect(learner.embed, self._shown(part), len(part), 1)[0]

    def embed_evaluating(self, learner: Learner, part: Part) -> Embedding:
        """`embed` with the learner in evaluation mode."""
        with mode(learner, training=False):
            return self.embed(learner, part)

    @torch.no_grad()
    def embed_views(
        self, learner: Learner, part: ArrayPart, views: Views, *, inputs: bool = False
    ) -> tuple[Embedding, Embedding]:
        """Embed two augmented views of every image; the same views at every call.

        ``inputs`` asks for `Embedding.y` too, of a projector that has a linear layer.
        """
        pairs = [
            views(part.images[rows].to(self.device), rows, seed=0, epoch=0)
            for rows in self._own(len(part)).split(self.batch_size)
            if len(rows)
        ]
        embed = partial(_embed_with_inputs, learner) if inputs else learner.embed
        first, second = (
            self._collect(embed, (pair[view] for pair in pairs), len(part), 4 if inputs else 3)
            for view in (0, 1)
        )
        return Embedding(*first), Embedding(*second)

    def _shown(self, part: Part) -> Iterator[Tensor]:
        """The images of this process's share, batch by batch."""
        own, workers = self._own(len(part)), self.workers
        if not len(own):
            return
        if self.shares.world > 1:
            part = part.take(own)
            workers = max(1, processors() // self.shares.world) if workers is None else workers
        for _, images in evaluation_batches(
            part, self.size, self.batch_size, device=self.device, workers=workers
        ):
            yield images

    def _own(self, count: int) -> Tensor:
        """Row numbers of this process's share."""
        return torch.arange(count)[self.shares.of(count, self.batch_size)]

    def _collect(
        self,
        embed: Callable[[Tensor], Sequence[Tensor]],
        batches: Iterable[Tensor],
        count: int,
        nodes: int,
    ) -> list[Tensor]:
        """The first ``nodes`` of what ``embed`` gives, of all processes' images."""
        rows = []
        for images in batches:
            with self.autocast():
                made = embed(self.normalise(images.to(self.device)))[:nodes]
            rows.append([x.float().cpu() for x in made])
        columns = [torch.cat(column) for column in zip(*rows, strict=True)] or [torch.empty(0, 0)] * nodes
        return [self.shares.gather(column, count, self.batch_size) for column in columns]


def _embed_with_inputs(learner: Learner, x: Tensor) -> tuple[Tensor, ...]:
    """h, z and p of images, and y."""
    layer, seen = last_linear(learner.projector), []
    assert layer is not None
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        return (*learner.embed(x), seen[0])
    finally:
        handle.remove()


def materialise(part: Part, count: int, size: int) -> ArrayPart:
    """At most ``count`` images of a part, a fixed random choice, in memory as evaluation shows them."""
    rows = fixed_permutation(len(part))[:count]
    if isinstance(part, ArrayPart):
        return part.take(rows)
    chosen = part.take(rows)
    images = torch.cat([images for _, images in evaluation_batches(chosen, size)])
    return ArrayPart(images.mul(255).round().to(torch.uint8), chosen.labels, chosen.ids)


Measures = dict[str, float | list[float]]


def measure(vectors: Tensor, first: Tensor, second: Tensor) -> Measures:
    """The measures of one node: of plain images ``vectors`` (N, D), and of their two views (N, D) each.

    Keys: dim (D), std, uniformity, alignment, effective_rank, m_o, m_r, spectrum (shares of variance, at most
    128). All but D are NaN, and the spectrum is empty, when a vector is not finite.
    """
    dim = vectors.shape[1]
    names = ("std", "uniformity", "alignment", "effective_rank", "m_o", "m_r")
    if not all(bool(torch.isfinite(x).all()) for x in (vectors, first, second)):
        return {"dim": dim, **dict.fromkeys(names, math.nan), "spectrum": []}
    values = (
        diagnostics.embedding_std(vectors),
        diagnostics.uniformity(vectors),
        diagnostics.alignment(first, second),
        diagnostics.effective_rank(vectors),
        diagnostics.center_norm(vectors),
        diagnostics.residual_norm(vectors),
    )
    spectrum = diagnostics.spectrum(vectors, SPECTRUM_KEPT).tolist()
    measures = {name: float(value) for name, value in zip(names, values, strict=True)}
    return {"dim": dim, **measures, "spectrum": spectrum}


class Measured(NamedTuple):
    """What `measure_learner` finds.

    Attributes:
        plain: the plain images' embedding in evaluation mode.
        nodes: the measures of "z", "p", "z_train" and "p_train".
        modes: the predictor's pairs of eigenvalues (`stopgrad.evaluation.modes`); empty without any.
    """

    plain: Embedding
    nodes: dict[str, Measures]
    modes: Measures


def measure_learner(learner: Learner, embedder: Embedder, part: ArrayPart, views: Views) -> Measured:
    """Measures of z and p with BN in evaluation mode ("z", "p") and in training mode ("z_train", "p_train").

    Where they part, batch normalisation carries the signal. Nothing of the learner changes.
    """
    rows: dict[str, Measures] = {}
    modes: Measures = {}
    with mode(learner, training=True):
        inputs = has_modes(learner)
        plain = embedder.embed(learner, part)
        first, second = embedder.embed_views(learner, part, views, inputs=inputs)
        if first.y is not None and second.y is not None:
            modes = measure_modes(learner, (first.z, second.z), (first.p, second.p), (first.y, second.y))
        rows["z_train"] = measure(plain.z, first.z, second.z)
        rows["p_train"] = measure(plain.p, first.p, second.p)
    with mode(learner, training=False):
        plain, (first, second) = embedder.embed(learner, part), embedder.embed_views(learner, part, views)
        rows["z"] = measure(plain.z, first.z, second.z)
        rows["p"] = measure(plain.p, first.p, second.p)
    return Measured(plain, rows, modes)


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put a module in training or evaluation mode for a while; its buffers and its mode come back after."""
    before = [(m, m.training) for m in module.modules()]
    buffers = [(b, b.clone()) for b in module.buffers()] if training else []
    module.train(training)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)
        for m, was in before:
            m.training = was
