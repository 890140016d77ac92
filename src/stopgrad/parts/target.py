"""Where the keys of the loss come from: the online network itself, or a slow copy of it.

Legend: B batch, D width of the projection, V views; t_v (B, D) the target's projection of view v.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stopgrad.frozen import Frozen

Schedule = Literal["constant", "cosine"]


class TargetModule(nn.Module):
    """What makes t_v; as it stands, t_v = z_v."""

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
            t: the step's targets, detached, V times (B, D).
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

    def build(self, online: nn.Module) -> TargetModule:
        """The module beside an online network."""
        return TargetModule()


class Ema(Frozen):
    """The target is an exponential moving average of the online network (BYOL).

    W_a <- tau W_a + (1 - tau) W after every optimiser step; tau = 1 - alpha beta in the terms of the
    theory. No gradient reaches the copy: it is no parameter of the optimiser.

    ``constant`` keeps tau; ``cosine`` raises it from tau to 1 over the run (Grill et al. 2020, section 3.3).
    """

    kind: Literal["ema"] = "ema"
    tau: float = Field(0.996, ge=0, le=1)
    schedule: Schedule = "constant"

    def equation(self) -> str:
        """How t_v is made, in one line."""
        rate = f"tau = {self.tau:g}" + (" rising to 1" if self.schedule == "cosine" else "")
        return f"t_v = sg(g_a(f_a(x_v))), W_a <- tau W_a + (1 - tau) W after each step, {rate}"

    def build(self, online: nn.Module) -> "EmaTarget":
        """The module beside an online network."""
        return EmaTarget(online, self.tau, self.schedule)


Target = Annotated[Same | Ema, Field(discriminator="kind")]


class EmaTarget(TargetModule):
    """A slow copy of a network that follows it by an exponential moving average.

    Parameters are averaged. Buffers (the running statistics of batch normalisation) are the copy's own:
    it runs in the mode of training and normalises with the statistics of its own batches, as BYOL does.

    Args:
        network: the network to follow; it is copied, not shared.
        tau: the share that is kept at each update, in [0, 1].
        schedule: of tau over the run, see `Ema`.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> target = EmaTarget(net, tau=0.9)
        >>> before = target.network.weight.clone()
        >>> with torch.no_grad(): _ = net.weight.add_(1)
        >>> target.update(net)
        >>> bool(torch.allclose(target.network.weight, before + 0.1))
        True
    """

    def __init__(self, network: nn.Module, tau: float = 0.996, schedule: Schedule = "constant"):
        super().__init__()
        self.tau, self.schedule = tau, schedule
        self.network = copy.deepcopy(network).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The copy's output for ``x``, without a graph."""
        with torch.no_grad():
            return self.network(x)

    def branch(self, x: Tensor, z: Tensor) -> Tensor:
        """The copy's projections (B, D) of one view's images."""
        output: Tensor = self(x)
        return output

    def after_step(
        self, online: nn.Module, t: Sequence[Tensor], indices: Tensor | None, progress: float
    ) -> None:
        """Move the copy at the rate that the schedule has now."""
        self.update(online, self.tau_at(progress))

    def tau_at(self, progress: float) -> float:
        """The rate when ``progress`` (0 to 1) of the run is done."""
        if self.schedule == "constant":
            return self.tau
        return 1 - (1 - self.tau) * (math.cos(math.pi * progress) + 1) / 2

    @torch.no_grad()
    def update(self, source: nn.Module, tau: float | None = None) -> None:
        """Move the copy towards ``source``: W_a <- tau W_a + (1 - tau) W."""
        move(self.network.parameters(), source.parameters(), self.tau if tau is None else tau)


def move(average: Iterable[Tensor], new: Iterable[Tensor], tau: float) -> None:
    """In place, average <- tau average + (1 - tau) new, all tensors in one call."""
    torch._foreach_lerp_(list(average), list(new), 1 - tau)
