"""The eigenvalues of a linear predictor beside those of the correlation of what it sees.

A predictor that is a matrix, p = W_p z, has eigenvalues p_j with eigenvectors v_j, and in them the
correlation F = E[z z^T] of its input has s_j = v_j^T F v_j: the pairs whose course Tian et al. 2021 follow
(section 3, Fig. 2). W_p is taken by its symmetric part; F is uncentred, over both views, and with batch
normalisation in training mode, since that is the z that the predictor learns from. An MLP has no such pairs,
nor has a closed form before it is first set.

What theory needs besides to follow a pair is measured with it. Of the last linear layer of the projector,
z = W y + b, theory asks how much of z_j = v_j^T z two views share, and how fast a step on W moves z_j: with a
gradient g_j of the loss by z_j, W moves by -v_j E[g_j y^T] a unit of time, so that z_j moves by
-E'[g_j' y'^T] y. Where g_j is a multiple of z_j that is a rate of l_j = |E[y z_j]|^2 / s_j: exactly the
variance l_s of the input where W^T v_j is an eigenvector of E[y y^T], as theory has it. A bias is an input
that is always 1. Batch normalisation after the layer divides its outputs, and takes out the mean of y.

Legend: N images, D width of z, Dy width of y, K = min(D, `KEPT`) pairs, the largest p_j first.
"""

import torch
from torch import Tensor, nn

from stopgrad.method import Learner

KEPT = 16
"""Pairs of which a row of the log tells."""

Views = tuple[Tensor, Tensor]


def last_linear(projector: nn.Module) -> nn.Linear | None:
    """The last linear layer of a projector, None where it has none."""
    layers = [module for module in projector.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers else None


def has_modes(learner: Learner) -> bool:
    """Whether the predictor is a matrix now, behind a projector with a linear layer."""
    return _matrix(learner) is not None and last_linear(learner.projector) is not None


@torch.no_grad()
def measure_modes(learner: Learner, z: Views, p: Views, y: Views) -> dict[str, float | list[float]]:
    """The pairs of eigenvalues of a learner for which `has_modes`, from two views of the same images.

    Args:
        learner: whose predictor it is.
        z, p: projections and predictions of each view, batch normalisation in training mode. (N, D) each
        y: the inputs of the projector's last linear layer. (N, Dy) each

    Returns:
        ``p``: the largest eigenvalues of (W_p + W_p^T) / 2. (K,) ``s``: s_j = v_j^T F v_j, >= 0. (K,)
        ``shared``: v_j^T E[z1 z2^T] v_j / s_j, in [-1, 1], theory's l_d / l_s. (K,) ``pace``: l_j, theory's
        l_s. (K,) Both are NaN where s_j is 0. ``alignment``: the share of F in the predictor's eigenbasis,
        ||diag(V^T F V)|| / ||F||, in [0, 1]; 1 where W_p and F have the same eigenvectors. ``z_square``,
        ``p_square``: E|z|^2, the trace of F, and E|p|^2. Empty where something is not finite.
    """
    weight = _matrix(learner)
    assert weight is not None
    weight = weight.detach().double().cpu()
    if not all(bool(torch.isfinite(x).all()) for x in (weight, *z, *p, *y)):
        return {}
    values, vectors = torch.linalg.eigh((weight + weight.T) / 2)
    values, vectors = values.flip(0), vectors.flip(1)
    first, second = (x.double() for x in z)
    joint = torch.cat([first, second])
    turned = vectors.T @ (joint.T @ joint / len(joint)) @ vectors
    kept = vectors[:, :KEPT]
    s = turned.diagonal()[:KEPT].clamp(min=0)
    shared = ((first @ kept) * (second @ kept)).mean(dim=0)
    pull = _pull(learner.projector, torch.cat(y), joint @ kept, kept)
    return {
        "p": values[:KEPT].tolist(),
        "s": s.tolist(),
        "shared": (shared / s).clamp(-1, 1).tolist(),
        "pace": (pull / s).tolist(),
        "alignment": _ratio(turned.diagonal().norm(), turned.norm()),
        "z_square": float(turned.diagonal().sum()),
        "p_square": float(torch.cat(p).double().square().sum(dim=1).mean()),
    }


def _matrix(learner: Learner) -> Tensor | None:
    matrix = getattr(learner.predictor, "matrix", None)
    return matrix if isinstance(matrix, Tensor) else None


def _pull(projector: nn.Module, y: Tensor, along: Tensor, kept: Tensor) -> Tensor:
    """|E[y z_j]|^2 of inputs y (M, Dy) and the z_j (M, K) along the columns of ``kept`` (D, K). (K,)"""
    layer = last_linear(projector)
    assert layer is not None
    norm = [module for module in projector.modules() if isinstance(module, nn.BatchNorm1d | nn.Linear)][-1]
    y = y.to(along)
    if not isinstance(norm, nn.BatchNorm1d):
        pull = (y.T @ along / len(y)).square().sum(dim=0)
        return pull if layer.bias is None else pull + along.mean(dim=0).square()
    y = y - y.mean(dim=0)
    outputs = y @ layer.weight.detach().to(along).T
    size = (outputs.square().mean(dim=0) + norm.eps).rsqrt()
    size = size if norm.weight is None else size * norm.weight.detach().to(along)
    pull = (y.T @ along / len(y)).square().sum(dim=0)
    return (kept * size[:, None]).square().sum(dim=0) * pull


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if whole > 0 else 1.0
