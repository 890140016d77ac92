"""Where the keys of the loss come from: the online network itself, a slow copy of it, a memory, a mean.

Legend: B batch of one process, D width of the projection, V views, M training images; x_v (B, C, S, S) the
images of view v, z_v (B, D) their online projections g(f(x_v)), t_v (B, D) the target's.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stopgrad.errors import UsageError
from stopgrad.frozen import Frozen
from stopgrad.parts.ranks import joint, joint_means

Schedule = Literal["constant", "cosine"]
Init = Literal["copy", "independent", "zero"]
Buffers = Literal["own", "copy", "average"]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class TargetModule(nn.Module):
    """What makes t_v; as it stands, t_v = z_v."""

    def learns_from(self, view: int) -> bool:
        """Whether view ``view``, from 1 on, goes through the online network with a graph."""
        return True

    def branch(self, x: Tensor, z: Tensor) -> Tensor:
        """t_v (B, D) from one view's images (B, C, S, S) and projections (B, D) alone."""
        return z

    def join(self, t: Sequence[Tensor], indices: Tensor | None) -> tuple[Tensor, ...]:
        """t_v of all views, V times (B, D), from what `branch` gave for each and the images' numbers (B,)."""
        return tuple(t)

    def after_step(
        self, online: nn.Module, t: Sequence[Tensor], indices: Tensor | None, progress: float
    ) -> None:
        """Follow the online network, once per training step.

        Args:
            online: encoder and projector.
            t: the step's targets as `join` gave them, detached, V times (B, D).
            indices: numbers of the step's images in the training part, int64 (B,).
            progress: share of the run that is done, 0 to 1.
        """


class Same(Frozen):
    """The target is the online network (SimSiam): t_v = z_v, with or without stop-gradient.

    Source: Chen and He 2021, section 3; without stop-gradient: Tian et al. 2021, Theorem 2.
    """

    kind: Literal["same"] = "same"
    stop_gradient: bool = True

    def equation(self) -> str:
        """How t_v is made, in one line."""
        return "t_v = sg(z_v)" if self.stop_gradient else "t_v = z_v (no stop-gradient)"

    def build(self, online: nn.Module, dim: int, images: int | None = None) -> TargetModule:
        """The module beside an online network with projections of width ``dim``."""
        return TargetModule()


class Ema(Frozen):
    """The target is an exponential moving average of the online network (BYOL).

    W_a <- tau W_a + (1 - tau) W after every optimiser step; tau = 1 - alpha beta in the terms of the
    theory. No gradient reaches the copy: it is no parameter of the optimiser.

    Attributes:
        tau: share that is kept at each update, in [0, 1].
        schedule: ``constant`` keeps tau; ``cosine`` raises it from tau to 1 over the run (Grill et al. 2020,
            section 3.3).
        init: the copy at the start: ``copy`` of the online weights; ``independent``, another random draw of
            the same architecture; ``zero``, all weights 0 (tau_0 = 0 in Tian et al. 2021, Eq. 15).
        buffers: running statistics of the copy, see `EmaTarget`.
        centring: share m in [0, 1) of the centre that is kept per step, see `Centre`; None for no centring.
    """

    kind: Literal["ema"] = "ema"
    tau: float = Field(0.996, ge=0, le=1)
    schedule: Schedule = "constant"
    init: Init = "copy"
    buffers: Buffers = "own"
    centring: Momentum | None = None

    def equation(self) -> str:
        """How t_v is made, in one line."""
        rate = f"tau = {self.tau:g}" + (" rising to 1" if self.schedule == "cosine" else "")
        start = {
            "copy": "",
            "independent": ", W_a drawn by itself at the start",
            "zero": ", W_a = 0 at the start",
        }
        made, centre = "g_a(f_a(x_v))", ""
        if self.centring is not None:
            centre = f", c <- {self.centring:g} c + {1 - self.centring:g} mean over v and batch of {made}"
            made += " - c"
        step = "W_a <- tau W_a + (1 - tau) W after each step"
        return f"t_v = sg({made}), {step}, {rate}{start[self.init]}{centre}"

    def build(self, online: nn.Module, dim: int, images: int | None = None) -> "EmaTarget":
        """The module beside an online network with projections of width ``dim``."""
        centre = None if self.centring is None else Centre(dim, self.centring)
        return EmaTarget(online, self.tau, self.schedule, init=self.init, buffers=self.buffers, centre=centre)


class Memory(Frozen):
    """The target is a moving average of each image's projections over the epochs.

    t_v = sg(m eta_x + (1 - m) z_v), where eta_x is what the memory holds of the image, and
    eta_x <- mean over v of t_v after the step. At an image's first visit t_v = z_v.

    Source: Chen and He 2021, section 5.2 (m = 0.8, no predictor); Zhang et al. 2022, Table 1, "moving
    average". They say neither how two views share one eta_x nor whether z is normalised first; here eta_x is
    the mean of both views' targets, of raw projections.

    Attributes:
        momentum: m, in [0, 1).
    """

    kind: Literal["memory"] = "memory"
    momentum: Momentum = 0.8

    def equation(self) -> str:
        """How t_v is made, in one line."""
        m = self.momentum
        return f"t_v = sg({m:g} eta_x + {1 - m:g} z_v), eta_x <- mean over v of t_v, one for each image x"

    def build(self, online: nn.Module, dim: int, images: int | None = None) -> "MemoryTarget":
        """The module for ``images`` training images and projections of width ``dim``.

        Raises:
            UsageError: without the number of images.
        """
        if images is None:
            raise UsageError("target: 'memory' needs the number of training images; build it with images=N")
        return MemoryTarget(images, dim, self.momentum)


class Expectation(Frozen):
    """The target is the expectation over augmentations, taken explicitly in the batch.

    t_v = sg(mean of z_2, ..., z_N) for every v, of raw projections. Views 2 to N go through the online
    network without a graph: no gradient comes from them, whatever the pairing says, so that p1 with t1 is
    the pair to take. They are batches of the online network like any other: its batch normalisation
    normalises each with its own statistics and counts them among its running ones.

    Source: Zhang et al. 2022, Table 1, "same batch", and appendix A.3 (N = 10 and 25).

    Attributes:
        views: N, at least 3.
    """

    kind: Literal["expectation"] = "expectation"
    views: int = Field(10, ge=3)

    def equation(self) -> str:
        """How t_v is made, in one line."""
        return f"t_v = sg(mean of z_2, ..., z_{self.views}) of {self.views} views, z_1 alone with a gradient"

    def build(self, online: nn.Module, dim: int, images: int | None = None) -> "ExpectationTarget":
        """The module; it needs nothing of its arguments."""
        return ExpectationTarget(self.views)


Target = Annotated[Same | Ema | Memory | Expectation, Field(discriminator="kind")]


class Centre(nn.Module):
    """A running mean c of the target's outputs, which is subtracted from them.

    c <- m c + (1 - m) mean over views, batch and ranks, from c = 0. Source: Caron et al. 2021 (DINO),
    Eq. 4. In mixed precision it stays float32.

    Args:
        dim: D, width of the outputs.
        momentum: m, in [0, 1).

    Examples:
        >>> centre = Centre(2, momentum=0.5)
        >>> t = centre(torch.tensor([[2.0, 0.0], [4.0, 2.0]]))
        >>> centre.update([t])
        >>> centre.mean
        tensor([1.5000, 0.5000])
    """

    mean: Tensor

    def __init__(self, dim: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x - c, (B, D)."""
        return x - self.mean

    @torch.no_grad()
    def update(self, centred: Sequence[Tensor]) -> None:
        """Move c, once per training step, by what `forward` has returned since the last time.

        As that is x - c, m c + (1 - m) mean(x) is c + (1 - m) mean(centred).

        Args:
            centred: outputs without the present c, one tensor (B, D) per view.
        """
        rows = torch.cat([t.to(self.mean.dtype) for t in centred])
        self.mean += (1 - self.momentum) * joint_means({"mean": rows.sum(dim=0)}, len(rows))["mean"]


class EmaTarget(TargetModule):
    """A slow copy of a network that follows it by an exponential moving average.

    Parameters are averaged. In training mode, which is the copy's in a run, its batch normalisation always
    uses the statistics of the copy's own batches, as in BYOL; ``buffers`` says what its running statistics,
    and any other buffers, hold:

    - ``own``: what the copy's own forward passes leave there; the update does not touch them.
    - ``copy``: those of the network that it follows, as they are at the update.
    - ``average``: floating-point buffers are averaged as the parameters are, others are copied.

    Args:
        network: the network to follow; it is copied, not shared.
        tau: the share that is kept at each update, in [0, 1].
        schedule: of tau over the run, see `Ema`.
        init: the copy's weights at the start, see `Ema`. ``independent`` draws from torch's global generator:
            by `reset_parameters` of every module that has it, then by `init_weights` of networks that have
            that (timm's).
        buffers: one of the above.
        centre: what to subtract from the copy's outputs in `join`.

    Raises:
        UsageError: where ``independent`` cannot draw a parameter anew.

    Examples:
        >>> net = nn.Linear(2, 2)
        >>> target = EmaTarget(net, tau=0.9)
        >>> before = target.network.weight.clone()
        >>> with torch.no_grad(): _ = net.weight.add_(1)
        >>> target.update(net)
        >>> bool(torch.allclose(target.network.weight, before + 0.1))
        True
    """

    def __init__(
        self,
        network: nn.Module,
        tau: float = 0.996,
        schedule: Schedule = "constant",
        *,
        init: Init = "copy",
        buffers: Buffers = "own",
        centre: Centre | None = None,
    ):
        super().__init__()
        self.tau, self.schedule, self.buffer_policy = tau, schedule, buffers
        self.network = copy.deepcopy(network).requires_grad_(False)
        if init == "independent":
            _draw_anew(self.network)
        elif init == "zero":
            torch._foreach_zero_(list(self.network.parameters()))
        self.centre = centre

    def forward(self, x: Tensor) -> Tensor:
        """The copy's output for ``x``, not centred, without a graph."""
        with torch.no_grad():
            return self.network(x)

    def branch(self, x: Tensor, z: Tensor) -> Tensor:
        """The copy's projections (B, D) of one view's images."""
        output: Tensor = self(x)
        return output

    def join(self, t: Sequence[Tensor], indices: Tensor | None) -> tuple[Tensor, ...]:
        """The copy's projections, centred if there is a centre."""
        return tuple(t) if self.centre is None else tuple(self.centre(tv) for tv in t)

    def after_step(
        self, online: nn.Module, t: Sequence[Tensor], indices: Tensor | None, progress: float
    ) -> None:
        """Move the copy at the rate that the schedule has now, and the centre by the step's targets."""
        self.update(online, self.tau_at(progress))
        if self.centre is not None:
            self.centre.update(t)

    def tau_at(self, progress: float) -> float:
        """The rate when ``progress`` (0 to 1) of the run is done."""
        if self.schedule == "constant":
            return self.tau
        return 1 - (1 - self.tau) * (math.cos(math.pi * progress) + 1) / 2

    @torch.no_grad()
    def update(self, source: nn.Module, tau: float | None = None) -> None:
        """Move the copy towards ``source``: W_a <- tau W_a + (1 - tau) W, and its buffers by their policy.

        Args:
            source: the online network.
            tau: in place of the module's own; with a schedule, ``tau_at(progress)``.
        """
        tau = self.tau if tau is None else tau
        move(self.network.parameters(), source.parameters(), tau)
        if self.buffer_policy == "own":
            return
        for own, other in zip(self.network.buffers(), source.buffers(), strict=True):
            if self.buffer_policy == "average" and own.is_floating_point():
                own.lerp_(other, 1 - tau)
            else:
                own.copy_(other)


class MemoryTarget(TargetModule):
    """A row of the projection's width for every training image; see `Memory`.

    Under ``torch.distributed`` every rank holds what one process would hold on the joint batch; the ranks'
    shares of it must be of one size, as those of `stopgrad.data.batches.Batches` are. An image comes at most
    once in a joint batch: an epoch there is a permutation. Rows are float32 in mixed precision.

    Args:
        images: M, the number of training images.
        dim: D, width of the projections.
        momentum: m, in [0, 1).

    Examples:
        >>> memory = MemoryTarget(images=5, dim=1, momentum=0.75)
        >>> z, image = torch.tensor([[4.0]]), torch.tensor([3])
        >>> for _ in range(2):
        ...     t = memory.join([z, z + 4], image)
        ...     memory.after_step(nn.Identity(), t, image, progress=0.0)
        >>> [tv.item() for tv in t]
        [5.5, 6.5]
    """

    rows: Tensor
    seen: Tensor

    def __init__(self, images: int, dim: int, momentum: float = 0.8):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("rows", torch.zeros(images, dim))
        self.register_buffer("seen", torch.zeros(images, dtype=torch.bool))

    @torch.no_grad()
    def join(self, t: Sequence[Tensor], indices: Tensor | None) -> tuple[Tensor, ...]:
        """m eta_x + (1 - m) z_v of every view, without a graph; z_v of images never seen before.

        Raises:
            ValueError: without the images' numbers.
        """
        indices = self._known(indices)
        eta, seen = self.rows[indices], self.seen[indices].unsqueeze(1)
        fresh = [tv.to(eta.dtype) for tv in t]
        return tuple(torch.where(seen, z.lerp(eta, self.momentum), z) for z in fresh)

    @torch.no_grad()
    def after_step(
        self, online: nn.Module, t: Sequence[Tensor], indices: Tensor | None, progress: float
    ) -> None:
        """Remember the mean over views of every image's targets, of all ranks."""
        mean = torch.stack([tv.to(self.rows.dtype) for tv in t]).mean(dim=0)
        numbers = joint(self._known(indices))
        self.rows[numbers] = joint(mean)
        self.seen[numbers] = True

    def _known(self, indices: Tensor | None) -> Tensor:
        if indices is None:
            raise ValueError("target: 'memory' needs the images' numbers, learner(views, indices=...)")
        return indices.to(self.rows.device, non_blocking=True)


class ExpectationTarget(TargetModule):
    """The mean of all views' projections but the first's; see `Expectation`.

    Args:
        views: N, at least 3.
    """

    def __init__(self, views: int = 10):
        super().__init__()
        self.views = views

    def learns_from(self, view: int) -> bool:
        """The first view alone."""
        return view == 1

    def join(self, t: Sequence[Tensor], indices: Tensor | None) -> tuple[Tensor, ...]:
        """N times the mean of z_2, ..., z_N, without a graph.

        Raises:
            ValueError: for another number of views.
        """
        if len(t) != self.views:
            raise ValueError(f"target: 'expectation' is of {self.views} views, got {len(t)}")
        mean = torch.stack([z.detach() for z in t[1:]]).mean(dim=0)
        return (mean,) * self.views


def move(average: Iterable[Tensor], new: Iterable[Tensor], tau: float) -> None:
    """In place, average <- tau average + (1 - tau) new, all tensors in one call."""
    torch._foreach_lerp_(list(average), list(new), 1 - tau)


def _draw_anew(network: nn.Module) -> None:
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    for module in network.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    _draw_as_libraries_do(network)
    for name, weight in network.named_parameters():
        # what starts as a constant, such as a bias of 0, is the same in every draw
        if torch.equal(weight, before[name]) and weight.min() < weight.max():
            raise UsageError(
                f"target.init: 'independent' cannot draw {name} of {type(network).__name__} anew"
            )


def _draw_as_libraries_do(module: nn.Module) -> None:
    """By the outermost `init_weights`, which timm's networks have where PyTorch's defaults are not theirs."""
    if callable(draw := getattr(module, "init_weights", None)):
        draw()
        return
    for child in module.children():
        _draw_as_libraries_do(child)
