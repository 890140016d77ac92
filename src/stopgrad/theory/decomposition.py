"""Centre and residual of l2-normalised vectors, and of what pulls on them (zhang2022, sections 3-4, A.7-A.8).

Z = z / ||z|| is split into its batch mean o and the rest, Z = o + r; `stopgrad.diagnostics` has their sizes
m_o = ||o|| (`center_norm`) and m_r (`residual_norm`), with m_o^2 + m_r^2 = 1. Minus the gradient of a loss
by an anchor (Z_a or P_a) is that of a naive Siamese network, the basic gradient, and an extra one G_e, which
splits into o_e and r_e in the same way:

    anchor  method    basic   extra G_e
    P_a     SimSiam   P_b     Z_b - P_b
    Z_a     mirror    Z_b     P_b - Z_b
    Z_a     triplet   Z_b     -Z_n
    Z_a     InfoNCE   Z_b     -sum_i lam_i Z_i     (after division by 1 / temperature)

These are the gradients of one pair's -<anchor, sg(.)>; a symmetrised loss averaged over N pairs has 1 / (2 N)
times as much. What lies along the anchor itself is a dummy: normalisation takes it away.

Where the paper errs. Its o_e of InfoNCE is -o_z; exactly it is minus the mean over the anchors of
sum_i lam_i Z_i, which is that only where every key gets the same total weight, as when the temperature grows
without bound. Fig. 5a's two crossings are no independent evidence: (1 + eta_p) (1 + eta_z) = cos^2(o_z, o_p),
which is at most 1, so that one being positive makes the other negative. In A.8 the cosine must be that of
(P_a, Z_b), not of (Z_a, Z_b).

Shapes: N pairs, D dimensions; rows (N, D), centres (D,). Torch, any floating type and device.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from stopgrad.diagnostics import Gradient, decompose, unit
from stopgrad.errors import UsageError
from stopgrad.theory.domain import POSITIVE, REAL, reals


def simsiam(p_b: Tensor, z_b: Tensor) -> Gradient:
    """Of -<P_a, sg(Z_b)> by P_a (Eq. 4): G_e = Z_b - P_b, o_e = o_z - o_p.

    Args:
        p_b, z_b: predictions and projections of the other view, not yet normalised. (N, D)

    Raises:
        UsageError: unless both are matrices of one shape.
    """
    _rows(p_b=p_b, z_b=z_b)
    p_b, z_b = unit(p_b), unit(z_b)
    return Gradient(p_b, z_b - p_b)


def mirror(p_b: Tensor, z_b: Tensor) -> Gradient:
    """Of -<Z_a, sg(P_b)> by Z_a, SimSiam with its paths swapped (section 2.3): G_e = P_b - Z_b.

    Args and errors as of :func:`simsiam`.
    """
    _rows(p_b=p_b, z_b=z_b)
    p_b, z_b = unit(p_b), unit(z_b)
    return Gradient(z_b, p_b - z_b)


def triplet(z_b: Tensor, z_n: Tensor) -> Gradient:
    """Of -<Z_a, sg(Z_b - Z_n)> by Z_a (section 3.2): G_e = -Z_n.

    Args:
        z_b: projections of the other view, not yet normalised. (N, D)
        z_n: those of the negative samples, one for each pair. (N, D)

    Raises:
        UsageError: unless both are matrices of one shape.
    """
    _rows(z_b=z_b, z_n=z_n)
    return Gradient(unit(z_b), -unit(z_n))


def infonce_weights(z_a: Tensor, z_b: Tensor, temperature: float) -> Tensor:
    """lam (N, N): the softmax over the keys i of <Z_a, Z_i> / temperature (A.7), one anchor a row.

    The keys are the rows of ``z_b``: anchor j's positive is key j, the other rows are its negatives.

    Raises:
        UsageError: unless both are matrices of one shape and the temperature is > 0.
    """
    _rows(z_a=z_a, z_b=z_b)
    temperature = reals("temperature", temperature, POSITIVE).item()
    return (unit(z_a) @ unit(z_b).T / temperature).softmax(dim=1)


def infonce(z_a: Tensor, z_b: Tensor, temperature: float) -> Gradient:
    """Of the InfoNCE loss by Z_a, times the temperature (Eq. 6): G_e = -sum_i lam_i Z_i.

    The loss is -log softmax of <Z_a, Z_i> / temperature at the positive, with the keys held fixed.

    Args and errors as of :func:`infonce_weights`.
    """
    keys = unit(z_b)
    return Gradient(keys, -infonce_weights(z_a, z_b, temperature) @ keys)


def center_share(o_e: Tensor, center: Tensor) -> Tensor:
    """eta for which o_e - eta o is orthogonal to o: <o_e, o> / ||o||^2; negative where o_e takes o away.

    Fig. 5a reads it off where a curve crosses zero: eta_p = <o_z, o_p> / ||o_p||^2 - 1 for SimSiam, with
    o_e = o_z - o_p, and eta_z = <o_p, o_z> / ||o_z||^2 - 1 for its mirror image.
    """
    return o_e @ center / center.square().sum()


class CenterShares(NamedTuple):
    """Figure 5a of zhang2022 as curves over eta, and where they cross zero."""

    eta: Tensor
    simsiam: Tensor
    mirror: Tensor
    eta_p: float
    eta_z: float


def zhang2022_fig5a(p: Tensor, z: Tensor, eta: Any = None) -> CenterShares:
    """Figure 5a of zhang2022: cos(o_e - eta o, o) with o = o_p for SimSiam and o = o_z for its mirror image.

    Args:
        p, z: predictions and projections, not yet normalised. (N, D)
        eta: where to evaluate; 201 values from -1 to 1 by default. (K,)

    Returns:
        eta, the two curves (K,), and the closed-form crossings of :func:`center_share`.

    Raises:
        UsageError: unless p and z are matrices of one shape and eta numbers.
    """
    _rows(p=p, z=z)
    o_p, o_z = decompose(unit(p)).center, decompose(unit(z)).center
    eta = reals("eta", torch.linspace(-1, 1, 201) if eta is None else eta, REAL).reshape(-1).to(o_p)

    def similarity(o_e: Tensor, o: Tensor) -> Tensor:
        return torch.cosine_similarity(o_e - eta[:, None] * o, o[None], dim=1)

    return CenterShares(
        eta, similarity(o_z - o_p, o_p), similarity(o_p - o_z, o_z),
        center_share(o_z - o_p, o_p).item(), center_share(o_p - o_z, o_z).item(),
    )  # fmt: skip


class BiasOptimum(NamedTuple):
    """The bias-only predictor, see :func:`bias_only`.

    Attributes:
        bias: c o_z. (D,)
        c: (1 - rho) / (rho - ||o||^2).
        strength: of de-centring, (1 - rho) / (1 - ||o||^2) = c / (1 + c): the gradient by Z_a is along
            Z_b - strength o_z.
    """

    bias: Tensor
    c: float
    strength: float


def bias_only(z_a: Tensor, z_b: Tensor) -> BiasOptimum:
    """The best bias b of a predictor P = (Z + b) / ||Z + b||, in closed form (section 4, A.8).

    It maximises E<Z_a + b, Z_b> / sqrt(E ||Z_a + b||^2), symmetrised over the views, that is the loss with
    the length of Z + b replaced by its root mean square. The loss itself has no closed form; its optimum
    differs as far as these lengths vary over the batch.

    Args:
        z_a, z_b: projections of two views, not yet normalised. (N, D)

    Raises:
        UsageError: unless both are matrices of one shape, and two views of an image agree better than their
            centre explains: rho = E<Z_a, Z_b> > ||o||^2.
    """
    _rows(z_a=z_a, z_b=z_b)
    a, b = unit(z_a), unit(z_b)
    center = decompose(torch.cat([a, b])).center
    rho, square = (a * b).sum(dim=1).mean().item(), center.square().sum().item()
    if rho <= square:
        raise UsageError(
            f"z_a, z_b: views must agree beyond their centre, rho = {rho:g} <= ||o||^2 = {square:g}"
        )
    c = (1 - rho) / (rho - square)
    return BiasOptimum(c * center, c, (1 - rho) / (1 - square))


def _rows(**matrices: Tensor) -> None:
    for name, rows in matrices.items():
        if rows.ndim != 2 or not len(rows):
            raise UsageError(
                f"{name}: must be a matrix of at least one row, its shape is {tuple(rows.shape)}"
            )
    if len({rows.shape for rows in matrices.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(rows.shape)}" for name, rows in matrices.items())
        raise UsageError(f"{', '.join(matrices)}: must be of one shape, these are {shapes}")
