"""DirectPred: a linear predictor set in closed form from the correlation of the projections.

Legend: B batch, D width of the projection, C (D, D) correlation of a batch, Fhat (D, D) its moving average.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.predictor import Predictor

FLOOR = 1e-4


class Spectral(Frozen):
    """W_p = U diag(max(sqrt(s_j / s_max) + eps, 1e-4)) U^T from Fhat = U diag(s) U^T.

    Source: Tian et al. 2021, section 4, Algorithm 1. Where the text and the authors' code differ,
    ``eps_form`` decides: ``code`` (default) divides the spectrum by its largest value first and adds eps
    then; ``text`` is sqrt(s_j) + eps max_j s_j. They agree only when s_max = 1.

    ``rho`` is the share of Fhat that is kept per step; ``freq`` sets W_p every that many steps, with
    ordinary gradient steps on it in between.
    """

    kind: Literal["spectral"] = "spectral"
    eps: float = Field(0.1, ge=0)
    eps_form: Literal["code", "text"] = "code"
    rho: float = Field(0.3, ge=0, lt=1)
    freq: int = Field(1, ge=1)

    def build(self, dim: int) -> "DirectPred":
        """The module for projections of width ``dim``."""
        return DirectPred(dim, self.eps, self.eps_form, self.rho, self.freq)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        p = (
            f"sqrt(s_j/s_max) + {self.eps:g}"
            if self.eps_form == "code"
            else f"sqrt(s_j) + {self.eps:g} s_max"
        )
        every = "step" if self.freq == 1 else f"{self.freq} steps"
        return (
            f"p_v = W_p z_v, W_p = U diag(p_j) U^T every {every}, p_j = {p}, "
            f"where U diag(s_j) U^T = Fhat <- {self.rho:g} Fhat + {1 - self.rho:g} E[z z^T]"
        )


class DirectPred(Predictor):
    """The DirectPred predictor as a module for any training loop.

    Call it on projections; after each optimiser step call ``after_step((z1, z2))`` once. ``forward`` never
    changes it, and under ``torch.distributed`` the correlation is averaged over the ranks, so that every
    rank holds what one process would hold on the joint batch.

    Args:
        dim: width D of the projections.
        eps, eps_form, rho, freq: see `Spectral`.

    Example:
        >>> predictor = DirectPred(4)
        >>> z = torch.randn(8, 4)
        >>> predictor.after_step((z, z))
        >>> weight = predictor.linear.weight
        >>> bool(torch.allclose(weight, weight.T, atol=1e-6))
        True
    """

    correlation: Tensor

    def __init__(
        self,
        dim: int,
        eps: float = 0.1,
        eps_form: Literal["code", "text"] = "code",
        rho: float = 0.3,
        freq: int = 1,
    ):
        super().__init__()
        self.eps, self.eps_form, self.rho, self.freq = eps, eps_form, rho, freq
        self.linear = nn.Linear(dim, dim, bias=False)
        # a weight that is overwritten at every step needs no gradient
        self.linear.weight.requires_grad_(freq > 1)
        self.register_buffer("correlation", torch.zeros(dim, dim))
        self.steps = 0

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return self.linear(z)

    @torch.no_grad()
    def after_step(self, z: Sequence[Tensor]) -> None:
        """Move Fhat by this step's projections and set W_p from it when its turn has come.

        Args:
            z: the raw projections of each view, (B, D): uncentred and not normalised.
        """
        batch = correlation(z)
        self.correlation.lerp_(batch, 1 - self.rho if self.steps else 1.0)
        self.steps += 1
        if self.steps % self.freq == 0:
            self.linear.weight.copy_(self.solve())

    def get_extra_state(self) -> Tensor:
        """The number of steps taken: a host-side count, so that asking for it never waits for the device."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of steps."""
        self.steps = int(state)

    def solve(self) -> Tensor:
        """W_p (D, D) for the present Fhat; symmetric, its eigenvalues at least 1e-4."""
        values, vectors = torch.linalg.eigh(self.correlation)
        return (vectors * self.eigenvalues(values)) @ vectors.T

    def eigenvalues(self, s: Tensor) -> Tensor:
        """The eigenvalues p_j of W_p for the eigenvalues ``s`` (D,) of Fhat."""
        s = s.clamp(min=0)
        top = s.max()
        if self.eps_form == "code":
            p = (s / top.clamp(min=torch.finfo(s.dtype).tiny)).sqrt() + self.eps
        else:
            p = s.sqrt() + self.eps * top
        return p.clamp(min=FLOOR)


def correlation(z: Sequence[Tensor]) -> Tensor:
    """E[z z^T] (D, D) over the views and the ranks: raw, uncentred, float32 at least."""
    joint = torch.cat([view.detach() for view in z])
    # autocast would round the products to half precision and with them the small eigenvalues
    with torch.autocast(joint.device.type, enabled=False):
        joint = joint.float() if joint.dtype.itemsize < 4 else joint
        result = joint.T @ joint / len(joint)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(result)
        result /= dist.get_world_size()
    return result
