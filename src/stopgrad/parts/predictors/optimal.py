"""The linear predictor that is best at every instant, in closed form.

Legend: B batch, D width of the projection, V views, M = E[z z^T] and M_2 = E[t_u z_v^T] (D, D) over the pairs
u != v of views, both averaged over the steps.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.frozen import Frozen
from stopgrad.parts.predictors.eigenvectors import eigenvectors
from stopgrad.parts.predictors.moments import Moments, Rho, joined
from stopgrad.parts.predictors.predictor import ClosedForm

Form = Literal["right", "left", "symmetrised", "lyapunov"]

EQUATIONS: dict[Form, str] = {
    "right": "W_p = M_2 (M + {ridge:g} I)^-1",
    "left": "W_p = (M + {ridge:g} I)^-1 M_2",
    "symmetrised": "W_p = (M_2 + M_2^T)/2 (M + {ridge:g} I)^-1",
    "lyapunov": "M W_p + W_p M + {ridge:g} W_p = M_2 + M_2^T",
}


class Optimal(Frozen):
    """W_p that predicts the target projections best. Source: Tian et al. 2021, Table 1.

    ``form`` is the equation that W_p solves:

    - ``right`` (default): least squares, the minimum of E||W z_v - t_u||^2 + ridge ||W||^2;
    - ``symmetrised``: the same with M_2 made symmetric, the table's caption (W_p itself is not symmetric);
    - ``left``: the inverse on the other side, the default of the authors' code (where for want of a ``diag``
      that inverse is a vector, so that it is no guide to the table);
    - ``lyapunov``: the rest point of the symmetrised dynamics, "minimal_space" in their code: the best
      symmetric W_p.

    ``ridge`` is their absolute regularisation; with 0 the solution is the one of least norm. ``rho`` and
    ``freq`` are those of `Spectral`: the table varies ``freq``.

    By theory it fails: with W_p at the optimum the gradient flow of a linear encoder W leaves W W^T to weight
    decay alone, so nothing that is learned can grow.
    """

    kind: Literal["optimal"] = "optimal"
    form: Form = "right"
    ridge: float = Field(1e-4, ge=0)
    rho: Rho = 0.3
    freq: int = Field(1, ge=1)

    def build(self, dim: int) -> "OptimalPredictor":
        """The module for projections of width ``dim``."""
        return OptimalPredictor(dim, self)

    def equation(self) -> str:
        """How p_v is made, in one line."""
        every = "step" if self.freq == 1 else f"{self.freq} steps"
        m = Moments.equation(self.rho, "M", "E[z z^T]")
        cross = Moments.equation(self.rho, "M_2", "E[t_u z_v^T]")
        solution = EQUATIONS[self.form].format(ridge=self.ridge)
        return f"p_v = W_p z_v, {solution} every {every}, where {m}, {cross}"


class OptimalPredictor(ClosedForm):
    """The optimal linear predictor as a module: call ``after_step((z1, z2), (t1, t2))`` once per step.

    Args:
        dim: width D of the projections.
        settings: see `Optimal`.
    """

    def __init__(self, dim: int, settings: Optimal):
        moments = Moments(settings.rho, correlation=(dim, dim), cross=(dim, dim))
        super().__init__(dim, dim, settings.freq, moments)
        self.settings = settings

    def observe(self, z: Sequence[Tensor], t: Sequence[Tensor]) -> None:
        """Move M and M_2. Every view predicts the targets of all others.

        Raises:
            UsageError: without the targets of the same views, or with one view alone.
        """
        if len(t) != len(z) or len(z) < 2:
            raise UsageError(
                f"after_step: the optimal predictor needs projections and targets of the same two or more "
                f"views, not of {len(z)} and {len(t)}"
            )
        joint, targets = joined(z), joined(t)
        # t of all views but v, summed, beside each row of z_v
        others = targets.unflatten(0, (len(t), -1)).sum(dim=0).repeat(len(t), 1) - targets
        cross = others.T @ joint / (len(t) - 1)
        self.moments.update(len(joint), correlation=joint.T @ joint, cross=cross)

    def solve(self) -> Tensor:
        """W_p (D, D) for the present averages."""
        cross = self.moments.get_buffer("cross")
        form, ridge = self.settings.form, self.settings.ridge
        s, u = eigenvectors(self.moments.get_buffer("correlation"))
        s = s.clamp(min=0)
        if form in ("symmetrised", "lyapunov"):
            cross = (cross + cross.T) / 2
        if form == "lyapunov":
            within = 2 * (u.T @ cross @ u) * _inverse(s + s.unsqueeze(-1) + ridge, s)
            return u @ within @ u.T
        inverse = (u * _inverse(s + ridge, s)) @ u.T
        return inverse @ cross if form == "left" else cross @ inverse


def _inverse(x: Tensor, s: Tensor) -> Tensor:
    """1/x, and 0 where x is no more than the rounding of the spectrum ``s``."""
    noise = len(s) * torch.finfo(s.dtype).eps * s.amax()
    return torch.where(x <= noise, 0, 1 / x)
