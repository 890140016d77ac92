"""DirectPred and its family: a linear predictor set in closed form from the correlation of the projections.

Legend: B batch, D width of the projection, V views, Fhat (D, D) the average of E[z z^T] over the steps,
s_j its eigenvalues and s_max the largest of them.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.eigenvectors import eigenvectors
from stopgrad.parts.predictors.moments import Moments, Rho, joined
from stopgrad.parts.predictors.predictor import ClosedForm
from stopgrad.parts.predictors.square_root import square_root, top_eigenvalue

FLOOR = 1e-4


class SpectralRule(Frozen):
    """From a correlation F = U diag(s) U^T to W_p = U diag(p) U^T.

    p_j = max(max(r_j - c, 0)^alpha + eps, floor).

    Source: Tian et al. 2021, section 4, Eq. 18 and Algorithm 1. Where the text and the authors' code differ,
    ``eps_form`` decides: with ``code`` (default) r_j = s_j / s_max; with ``text`` r_j = s_j and eps is
    multiplied by s_max. The two agree when s_max = 1. The floor is the code's.

    ``exponent`` is alpha: 1/2 for DirectPred, 1 for DirectCopy (Wang et al. 2021; Halvagal et al. 2023).
    ``offset`` is c (Tian et al. 2021, Table 7). Their code has it as a negative eps within the root, and
    clips there at 1e-4: eps 0 and floor 0.01. With offset -e and eps 0 it is the (s_j / s_max + e)^alpha of
    Halvagal et al.'s code.

    ``solver`` says how: ``eigh`` decomposes; ``products`` takes the square root by matrix products, which is
    possible where no eigenvalue is clipped (alpha 1/2 or 1, c <= 0, floor out of reach). ``auto`` takes
    products where that is possible and quicker (`benchmarks/predictor.py`): off the CPU, and on it for widths
    from 256 on with alpha 1, which needs no root.
    """

    kind: str  # first, so that settings files open with it; the subclasses say which
    eps: float = Field(0.1, ge=0)
    eps_form: Literal["code", "text"] = "code"
    exponent: float = Field(0.5, gt=0)
    offset: float = 0.0
    floor: float = Field(FLOOR, ge=0)
    solver: Literal["auto", "eigh", "products"] = "auto"

    @model_validator(mode="after")
    def _check_solver(self) -> Self:
        if self.solver == "products" and not self.unclipped:
            raise ValueError(
                "solver: 'products' needs exponent 0.5 or 1, offset <= 0 and a floor that no eigenvalue can "
                "reach (eps >= floor, or floor 0); use 'auto' or 'eigh'"
            )
        return self

    @property
    def unclipped(self) -> bool:
        """Whether W_p is a root or a multiple of a matrix without clipping, whatever the spectrum."""
        lowest = max(-self.offset, 0) ** self.exponent + (self.eps if self.eps_form == "code" else 0)
        return self.exponent in (0.5, 1) and self.offset <= 0 and lowest >= self.floor

    def weight(self, f: Tensor) -> Tensor:
        """W_p (..., D, D) for correlations F (..., D, D). A spectrum with NaN gives a weight of NaN."""
        return self._by_products(f) if self._prefers_products(f) else self._by_eigenvectors(f)

    def eigenvalues(self, s: Tensor) -> Tensor:
        """The eigenvalues p_j (..., D) of W_p for the eigenvalues s_j (..., D) of F."""
        s = s.clamp(min=0)
        top = s.amax(dim=-1, keepdim=True)
        if self.eps_form == "code":
            s, top = s / top.clamp(min=torch.finfo(s.dtype).tiny), torch.ones_like(top)
        return ((s - self.offset).clamp(min=0) ** self.exponent + self.eps * top).clamp(min=self.floor)

    def formula(self) -> str:
        """p_j in terms of s_j."""
        code = self.eps_form == "code"
        r = "s_j/s_max" if code else "s_j"
        if self.offset:
            r = f"max({r} {'-' if self.offset > 0 else '+'} {abs(self.offset):g}, 0)"
        power = (
            f"sqrt({r})" if self.exponent == 0.5 else r if self.exponent == 1 else f"({r})^{self.exponent:g}"
        )
        p = f"{power} + {self.eps:g}{'' if code else ' s_max'}"
        return p if self.floor == FLOOR else f"max({p}, {self.floor:g})"

    def _prefers_products(self, f: Tensor) -> bool:
        if self.solver != "auto":
            return self.solver == "products"
        return self.unclipped and (f.device.type != "cpu" or (self.exponent == 1 and f.shape[-1] >= 256))

    def _by_eigenvectors(self, f: Tensor) -> Tensor:
        values, vectors = eigenvectors(f)
        return (vectors * self.eigenvalues(values).unsqueeze(-2)) @ vectors.mT

    def _by_products(self, f: Tensor) -> Tensor:
        top = top_eigenvalue(f).clamp(min=torch.finfo(f.dtype).tiny)
        eps: Tensor | float = self.eps * top.unsqueeze(-1)
        if self.eps_form == "code":
            f, top, eps = f / top[..., None, None], torch.ones_like(top), self.eps
        if self.offset:
            f = f.clone()
            f.diagonal(dim1=-2, dim2=-1).sub_(self.offset)
        weight = f.clone() if self.exponent == 1 else square_root(f, top - self.offset)
        weight.diagonal(dim1=-2, dim2=-1).add_(eps)
        return weight


class Spectral(SpectralRule):
    """W_p set from Fhat, the average of the projections' correlation: DirectPred by default.

    Source: Tian et al. 2021, section 4. ``rho`` is the share of Fhat that is kept per step, or ``mean`` for
    the average over all steps so far. ``freq`` sets W_p every that many steps from the first on, as in their
    code, with ordinary gradient steps on it in between. Fhat is raw; ``centred`` takes the correlation of the
    mean out of it, which the paper found worse.

    ``noise`` adds noise (N - N^T) / k to the W_p of step k (from 1), N drawn once with independent standard
    normal entries: the authors' code, to try an asymmetric W_p.
    """

    kind: Literal["spectral"] = "spectral"
    rho: Rho = 0.3
    freq: int = Field(1, ge=1)
    centred: bool = False
    noise: float = Field(0.0, ge=0)

    def build(self, dim: int) -> "DirectPred":
        """The module for projections of width ``dim``."""
        return DirectPred(dim, **dict(self))

    def equation(self) -> str:
        """How p_v is made, in one line."""
        every = "step" if self.freq == 1 else f"{self.freq} steps"
        noise = f", plus {self.noise:g} (N - N^T)/step" if self.noise else ""
        follows = Moments.equation(self.rho, "Fhat", "E[z z^T]")
        centred = f", {Moments.equation(self.rho, 'm', 'E[z]')}" if self.centred else ""
        return (
            f"p_v = W_p z_v, W_p = U diag(p_j) U^T every {every}{noise}, p_j = {self.formula()}, "
            f"where U diag(s_j) U^T = {'Fhat - m m^T, ' if self.centred else ''}{follows}{centred}"
        )


class DirectPred(ClosedForm):
    """The DirectPred predictor as a module for any training loop.

    Call it on raw projections; after each optimiser step call ``after_step((z1, z2))`` once, with all parts
    where gradients are accumulated. It detaches them itself. ``forward`` never changes it, and under
    ``torch.distributed`` the correlation is averaged over the ranks, so that every rank holds what one
    process would hold on the joint batch.

    Args:
        dim: width D of the projections.
        settings: fields of `Spectral` by name, such as ``eps=0.1, rho=0.3, freq=1``.

    Raises:
        pydantic.ValidationError: for a setting that is unknown or out of its range.

    Examples:
        >>> predictor = DirectPred(4)
        >>> z = torch.randn(8, 4)
        >>> predictor.after_step((z, z))
        >>> weight = predictor.linear.weight
        >>> bool(torch.allclose(weight, weight.T, atol=1e-6))
        True
    """

    def __init__(self, dim: int, **settings: Any):
        rule = Spectral(**settings)
        shapes: dict[str, tuple[int, ...]] = {"correlation": (dim, dim)}
        if rule.centred:
            shapes["mean"] = (dim,)
        super().__init__(dim, dim, rule.freq, Moments(rule.rho, **shapes))
        self.rule = rule
        if rule.noise:
            normal = torch.randn(dim, dim)
            self.register_buffer("skew", rule.noise * (normal - normal.T))

    @property
    def correlation(self) -> Tensor:
        """Fhat (D, D), uncentred."""
        return self.moments.get_buffer("correlation")

    def observe(self, z: Sequence[Tensor], t: Sequence[Tensor]) -> None:
        """Move Fhat, and the mean where it is needed."""
        joint = joined(z)
        sums = {"correlation": joint.T @ joint}
        if self.rule.centred:
            sums["mean"] = joint.sum(dim=0)
        self.moments.update(len(joint), **sums)

    def solve(self) -> Tensor:
        """W_p (D, D) for the present Fhat."""
        f = self.correlation
        if self.rule.centred:
            mean = self.moments.get_buffer("mean")
            f = f - torch.outer(mean, mean)
        weight = self.rule.weight(f)
        return weight + self.get_buffer("skew") / self.moments.steps if self.rule.noise else weight
