"""What of a term's gradient reaches the query: all of it, or a part of it.

Legend: B batch, D width; nodes are (B, D).
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from stopgrad.diagnostics import unit
from stopgrad.frozen import Frozen, named
from stopgrad.parts.distances import Distance
from stopgrad.parts.precision import single


def straight_through(z: Tensor, p: Tensor) -> Tensor:
    """A tensor with the value of ``p`` whose gradient goes to ``z`` as if the predictor were the identity.

    With a predictor that is symmetric and set in closed form, a plain loss on this tensor has exactly the
    gradients of IsoLoss. Source: Halvagal et al. 2023, section 4; `z + sg(p - z)` is our reading of it.
    """
    z, p = single(z), single(p)  # the sum rounds to the precision of z, which may be far larger than p
    return z + (p - z).detach()


def tangential(x: Tensor) -> Tensor:
    """The rows of ``x`` (B, D), of length 1, as they are; of their gradient the part along them is left out.

    Source: Shi et al. (RAFT), Theorem 5.1, condition iii. A loss whose rows are l2-normalised by autograd has
    no other part, so that nothing changes there.
    """
    return _Tangential.apply(x)


class _Tangential(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        (x,), (gradient,) = ctx.saved_tensors, gradients  # type: ignore[attr-defined]
        return gradient - (gradient * x).sum(dim=-1, keepdim=True) * x


class GradientRule(Frozen):
    """What a term of the loss and its predictions look like to autograd; the base is as they are written."""

    kind: str  # first, so that settings files open with it; the subclasses say which

    of_batch: ClassVar[bool] = False
    """Whether it needs averages over the batch: rows then meet those of all ranks."""

    def prediction(self, z: Tensor, p: Tensor) -> Tensor:
        """p_v as the loss reads it."""
        return p

    def term(self, distance: Distance, query: Tensor, key: Tensor, basic: Tensor) -> Tensor:
        """One term of the loss, a scalar; ``basic`` is the node of the query's kind in the key's view."""
        return distance(query, key)

    def explain(self) -> str:
        """What is not exact, as a sentence with a space before it, or nothing."""
        return ""


class Exact(GradientRule):
    """The gradient of the loss as it is written."""

    kind: Literal["exact"] = "exact"


class StraightThrough(GradientRule):
    """The predictor passes gradients on as the identity would: IsoLoss. See `straight_through`."""

    kind: Literal["straight-through"] = "straight-through"

    def prediction(self, z: Tensor, p: Tensor) -> Tensor:
        """z_v + sg(p_v - z_v)."""
        return straight_through(z, p)

    def explain(self) -> str:
        """What is not exact."""
        return " Gradient: p_v enters as z_v + sg(p_v - z_v)."


class Tangential(GradientRule):
    """Only what is tangential to the sphere of the l2-normalised nodes. See `tangential`."""

    kind: Literal["tangential"] = "tangential"

    def term(self, distance: Distance, query: Tensor, key: Tensor, basic: Tensor) -> Tensor:
        """The same number; gradients by the normalised nodes are projected on their tangents."""
        return distance(tangential(unit(query)), tangential(unit(key)))

    def explain(self) -> str:
        """What is not exact."""
        return " Gradient: by q/||q|| and k/||k||, the tangential part only."


class Decomposed(GradientRule):
    """The extra gradient G_e = o_e + r_e without its centre, its residual, or both.

    Each term is -<q/||q||, sg(basic + what is kept of G_e)>, see `stopgrad.diagnostics.Gradient`; o_e is the
    mean over the batch. With both kept it has the gradient of the exact term by the query, for keys that are
    stopped. Source: Zhang et al. 2022, section 3, Tables 3 and 4.

    ``predictor_loss`` says what the predictor learns from, which the paper leaves open: ``shared`` from the
    same loss; ``separate`` from the exact one on sg(z_v), while the encoder learns through fixed weights.
    """

    kind: Literal["decomposed"] = "decomposed"
    center: bool = True
    residual: bool = True
    predictor_loss: Literal["shared", "separate"] = "shared"
    of_batch: ClassVar[bool] = True

    def term(self, distance: Distance, query: Tensor, key: Tensor, basic: Tensor) -> Tensor:
        """-<q/||q||, sg(target)>, mean over the batch."""
        pull = distance.pull(query, key, basic)
        assert pull is not None, "Method checks it"
        target = pull.target(center=self.center, residual=self.residual)
        return -(unit(query) * target).sum(dim=-1).mean()

    def explain(self) -> str:
        """What is not exact."""
        kept = [name for name, keep in (("o_e", self.center), ("r_e", self.residual)) if keep]
        target = " + ".join(["basic gradient", *kept])
        separate = self.predictor_loss == "separate"
        own = "; the predictor learns from the exact loss on sg(z_v)" if separate else ""
        return f" Gradient: each term is -<q/||q||, sg({target})>, G_e = o_e + r_e the extra one{own}."


GradientSettings = Annotated[
    Exact | StraightThrough | Tangential | Decomposed, Field(discriminator="kind"), BeforeValidator(named)
]
