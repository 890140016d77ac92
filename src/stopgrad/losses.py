"""Losses for anybody's training loop: plain functions of tensors, each one reading of `Method.loss`.

All targets are constants for the gradient: whatever is given as t1, t2 is stopped here. Arithmetic is float32
at least, inside ``torch.autocast`` too. Every loss is a mean over the batch, so that averaging gradients over
processes gives the gradient on the joint batch; for a distance that compares whole batches the rows of all
ranks are gathered.

Legend: B batch, D width of the projection; z1, z2 (B, D) the online projections of the two views, p1, p2 the
predictor's outputs for them, t1, t2 the target network's projections. All are raw: neither normalised nor
centred.
"""

from torch import Tensor

from stopgrad.errors import UsageError
from stopgrad.method import Method
from stopgrad.parts.distances import Distance
from stopgrad.parts.gradient import StraightThrough
from stopgrad.parts.pairing import raft_pairs

Two = tuple[Tensor, Tensor]


def byol_loss(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor, distance: Distance | str = "cosine") -> Tensor:
    """The loss of BYOL, SimSiam and DirectPred: 1/2 d(p1, sg(t2)) + 1/2 d(p2, sg(t1)).

    SimSiam has no other network than the online one: give z1, z2 as t1, t2.

    Source: Chen and He 2021, Eq. 4. Grill et al. 2020, section 3.1, add `squared_l2` of both views, which is
    4 + 4 times this with the default: the same gradient, four times as long.

    Args:
        p1, p2, t1, t2: (B, D) each.
        distance: "cosine", "squared-l2", "euclidean" or another setting of `Method.distance`.

    Returns:
        A scalar; in [-1, 1] for the cosine, where -1 is agreement.

    Raises:
        UsageError: if the tensors are not matrices of one shape.
        pydantic.ValidationError: for an unknown distance.

    Examples:
        >>> import torch
        >>> z1, z2 = torch.eye(3), torch.eye(3)
        >>> float(byol_loss(2 * z1, z2, z1, z2))
        -1.0
    """
    return _loss("byol_loss", Method(distance=distance), (p1, p2), (p1, p2), (t1, t2))


def isoloss(
    z1: Tensor,
    z2: Tensor,
    p1: Tensor,
    p2: Tensor,
    t1: Tensor | None = None,
    t2: Tensor | None = None,
    distance: Distance | str = "cosine",
) -> Tensor:
    """IsoLoss: the value of `byol_loss`, with a gradient in z as if the predictor were the identity.

    1/2 d(z1 + sg(p1 - z1), sg(t2)) + 1/2 d(z2 + sg(p2 - z2), sg(t1)). For a predictor p = W z with a
    symmetric, positive semi-definite W, such as `DirectPred`, the gradient in z is that of the published
    losses; along the m-th eigenvector of W it is that of `byol_loss` divided by the eigenvalue, which no
    longer slows down the weak modes. No gradient reaches the predictor, so a learned one stands still.

    Source: Halvagal et al. 2023, section 4, Eqs. 15 and 17. Their Euclidean loss has no 1/2 and is twice
    ``euclidean``; the value of their cosine loss is another, its gradient is this one.

    Args:
        z1, z2, p1, p2: (B, D) each; p is the predictor's output for z.
        t1, t2: (B, D) each; left out, the target is the online network itself, t = z.
        distance: "cosine" or "euclidean" as published, or another setting of `Method.distance`.

    Returns:
        A scalar; in [-1, 1] for the cosine.

    Raises:
        UsageError: if the tensors are not matrices of one shape, or only one target is given.
        pydantic.ValidationError: for an unknown distance.

    Examples:
        >>> import torch
        >>> z1, z2 = torch.tensor([[3.0, 1.0]], requires_grad=True), torch.tensor([[1.0, 1.0]])
        >>> weight = torch.tensor([1.0, 0.1])
        >>> loss = isoloss(z1, z2, weight * z1, weight * z2, distance="euclidean")
        >>> loss.backward()
        >>> z1.grad  # (p1 - z2) / 2, where byol_loss has weight * (p1 - z2) / 2
        tensor([[ 1.0000, -0.4500]])
    """
    if (t1 is None) != (t2 is None):
        raise UsageError("isoloss: give both targets t1 and t2, or neither")
    t = (z1, z2) if t1 is None or t2 is None else (t1, t2)
    method = Method(gradient=StraightThrough(), distance=distance)
    return _loss("isoloss", method, (z1, z2), (p1, p2), t)


def raft_loss(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor, a: float = 1.0, b: float = 1.0) -> Tensor:
    """RAFT: a L_align - b L_cross, towards the other view and away from the target of the same view.

    L_align = E||p1 - p2||^2 and L_cross = 1/2 E(||p1 - t1||^2 + ||p2 - t2||^2) on l2-normalised rows. Both
    predictions of L_align get gradients. With p1, p2 negated, as by a predictor whose last, linear layer is
    negated, this is `byol_prime_loss` - 4 b exactly, so that the two train alike; without a predictor they
    do not.

    Source: Shi et al. (RAFT), Eq. 8.

    Args:
        p1, p2, t1, t2: (B, D) each.
        a: weight of the alignment, > 0 in the paper.
        b: weight of the distance to the target, > 0 in the paper.

    Returns:
        A scalar in [-4 b, 4 a].

    Raises:
        UsageError: if the tensors are not matrices of one shape.

    Examples:
        >>> import torch
        >>> p, t = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
        >>> float(raft_loss(p, p, t, t))
        -2.0
    """
    method = Method(pairing=raft_pairs(a, b), distance="squared-l2")
    return _loss("raft_loss", method, (p1, p2), (p1, p2), (t1, t2))


def byol_prime_loss(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor, a: float = 1.0, b: float = 1.0) -> Tensor:
    """BYOL': a L_align + b L_cross, see `raft_loss`; (1/a + 1/b) times it bounds E||p1 - t2||^2 from above.

    Source: Shi et al. (RAFT), Eq. 6; their bound misprints the factor.

    Args:
        p1, p2, t1, t2: (B, D) each.
        a: weight of the alignment, > 0 in the paper.
        b: weight of the distance to the target, > 0 in the paper.

    Returns:
        A scalar in [0, 4 (a + b)].

    Raises:
        UsageError: if the tensors are not matrices of one shape.

    Examples:
        >>> import torch
        >>> p, t = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
        >>> float(byol_prime_loss(p, p, t, t, b=0.5))
        1.0
    """
    method = Method(pairing=raft_pairs(a, -b), distance="squared-l2")
    return _loss("byol_prime_loss", method, (p1, p2), (p1, p2), (t1, t2))


def _loss(name: str, method: Method, z: Two, p: Two, t: Two) -> Tensor:
    shapes = {tuple(x.shape) for x in (*z, *p, *t)}
    if len(shapes) > 1 or len(z[0].shape) != 2:
        raise UsageError(
            f"{name}: every tensor is (B, D), all of one shape, got {' and '.join(map(str, sorted(shapes)))}"
        )
    return method.loss(z, p, t)
