"""BYOL, its upper bound BYOL' and RAFT (raft2021): what they are to each other, exactly.

With all vectors l2-normalised, p_v the prediction and t_v the target's vector of view v, and a, b > 0:

    L_align = E||p1 - p2||^2          L_cross = 1/2 E(||p1 - t1||^2 + ||p2 - t2||^2)
    L_BYOL  = 1/2 E(||p1 - t2||^2 + ||p2 - t1||^2)
    L_BYOL' = a L_align + b L_cross   L_RAFT  = a L_align - b L_cross

- L_BYOL <= (1/a + 1/b) L_BYOL' (Theorem 4.1). For single pairs this needs the symmetrised L_BYOL.
- L_RAFT = L_BYOL' - 4 b once p changes its sign, that is for any predictor that ends in a linear layer once
  that layer does (:func:`negated`). Gradients by everything else agree, so that with an initialisation that
  is symmetric in sign both train alike: they are one method, with two names for the predictor.

Where the paper errs. The scanned constant a + b of the bound is wrong, for instance at (1, 0.1). Theorem 5.1
needs neither a linear predictor nor tangential gradients. Appendix I has the sizes of its identity matrices
swapped, and a non-trivial fixed point does not prevent collapse by existing: theta = 0 is one as well.

Shapes: N pairs, D dimensions; rows (N, D). W (m, m), theta (m, n), A and B (n, n).
"""

import copy
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor, nn

from stopgrad.errors import UsageError
from stopgrad.parts.distances import squared_l2
from stopgrad.theory.domain import POSITIVE, matrix, reals


class Losses(NamedTuple):
    """L_align, L_cross and L_BYOL of a batch, scalars."""

    align: Tensor
    cross: Tensor
    byol: Tensor

    def byol_prime(self, a: float, b: float) -> Tensor:
        """L_BYOL' = a L_align + b L_cross."""
        return a * self.align + b * self.cross

    def raft(self, a: float, b: float) -> Tensor:
        """L_RAFT = a L_align - b L_cross."""
        return a * self.align - b * self.cross


def losses(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor) -> Losses:
    """The terms of a batch; rows (N, D) that are normalised here."""
    return Losses(
        align=squared_l2(p1, p2),
        cross=(squared_l2(p1, t1) + squared_l2(p2, t2)) / 2,
        byol=(squared_l2(p1, t2) + squared_l2(p2, t1)) / 2,
    )


def bound_constant(a: float, b: float) -> float:
    """The smallest C with L_BYOL <= C L_BYOL' for all vectors of a Euclidean space: 1/a + 1/b.

    Raises:
        UsageError: unless a > 0 and b > 0.
    """
    return 1 / reals("a", a, POSITIVE).item() + 1 / reals("b", b, POSITIVE).item()


Network = TypeVar("Network", bound=nn.Module)


def negated(predictor: Network) -> Network:
    """A copy whose output has the other sign, by negating weight and bias of the linear layer it ends in.

    Raises:
        UsageError: if its last layer with parameters is not linear; an identity predictor has none.
    """
    twin = copy.deepcopy(predictor)
    layers = [module for module in twin.modules() if next(module.parameters(recurse=False), None) is not None]
    if not layers or not isinstance(layers[-1], nn.Linear):
        raise UsageError("predictor: must end in a linear layer, whose sign can be changed")
    for parameter in layers[-1].parameters():
        parameter.data.neg_()
    return twin


def fixed_encoders(w: Any, b: Any, a: Any) -> np.ndarray:
    """A basis of all encoders theta with W theta = theta B A^{-1}, the fixed points for a given predictor.

    There are some beside 0 exactly if W and B A^{-1} share an eigenvalue (raft2021, appendix I). A is Sigma_s
    and B Sigma_d of `stopgrad.theory.nonisotropic`, whose fixed points these are.

    Args:
        w: the predictor. (m, m)
        b: E[x2 x1^T]. (n, n)
        a: E[x1 x1^T], invertible. (n, n)

    Returns:
        k orthonormal matrices. (k, m, n)

    Raises:
        UsageError: for matrices that are not square or of different sizes, or a singular A.
    """
    w, b, a = matrix("w", w, square=True), matrix("b", b, square=True), matrix("a", a, square=True)
    if a.shape != b.shape:
        raise UsageError(f"b: has shape {b.shape}, a has {a.shape}")
    if np.linalg.cond(a) > 1e10:
        raise UsageError("a: must be invertible")
    m, n = len(w), len(a)
    share = b @ np.linalg.inv(a)
    # row-major: vec(W theta - theta M) = (kron(W, I_n) - kron(I_m, M^T)) vec(theta)
    operator = np.kron(w, np.eye(n)) - np.kron(np.eye(m), share.T)
    _, values, vectors = np.linalg.svd(operator)
    return vectors[values < 1e-10 * (np.abs(w).max() + np.abs(share).max())].reshape(-1, m, n)
