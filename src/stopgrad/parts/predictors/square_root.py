"""The square root of a positive semi-definite matrix, and its largest eigenvalue, by matrix products alone.

An eigendecomposition is accurate but slow where products are fast. Both functions work on stacks of matrices
(..., D, D), are pure functions of them (the same bits on every rank), and never wait for the device.

The root. For a scalar s in [0, 1] and x_0 = sqrt(s), a composition x_K of odd polynomials
x_{k+1} = x_k q_k(x_k^2) that takes (0, 1] near 1 gives sqrt(s) x_K as an approximation of sqrt(s). On
matrices it is the coupled iteration Y <- Y Q, Z <- Q Z with Q = q_k(Z Y), from Y = A and Z = I to Y = A^(1/2)
(Higham 2008, Functions of Matrices, section 6.7, where all q_k are Newton and Schulz's (3 - m) / 2). The q_k
here are fitted to the root itself, the one error that counts: they minimise the largest sqrt(s) |1 - x_K|
over [0, 1]. So tiny eigenvalues need not reach 1, zeros stay zeros, and 6 quadratics in 21 products reach an
error of 1.7e-4 of the largest eigenvalue's root, where Newton and Schulz's need 14 in 40.
"""

import torch
from torch import Tensor

QUADRATICS = (
    (8.559893052351605, -25.35000864341093, 18.80166550192028),
    (4.1988235716932785, -3.0450324712676915, 0.5559363127311892),
    (3.647203600330184, -2.6048825657128085, 0.4789588484441969),
    (3.081154937376741, -2.489765312566836, 0.5686460027233163),
    (2.2666682085378085, -1.7441900604048812, 0.501873080357504),
    (1.8425154153676413, -1.1824933319886435, 0.34011645057643725),
)
"""q_k(m) = a + b m + c m^2 in turn. `tests/parts/test_square_root.py` holds them to their error."""

MARGIN = 1 + 1e-3
"""The bound of the spectrum over its estimated top, which comes out low if at all: the fit ends at 1."""

KRYLOV = 32


def square_root(a: Tensor, top: Tensor) -> Tensor:
    """A^(1/2) of symmetric positive semi-definite matrices.

    Errors of eigenvalues are at most 1.7e-4 sqrt(top) in exact arithmetic; float32 adds rounding of 1e-4 at
    D = 2048 at most, which is less than it costs an eigendecomposition, where sqrt magnifies the rounding of
    small eigenvalues.

    Args:
        a: (..., D, D).
        top: (...), the largest eigenvalue to 1e-3; see `top_eigenvalue`.
    """
    bound = (MARGIN * top).clamp(min=torch.finfo(a.dtype).tiny)[..., None, None]
    y = z = a / bound
    for k, (constant, linear, square) in enumerate(QUADRATICS):
        m = y if k == 0 else z @ y
        q = square * (m @ m) + linear * m
        q.diagonal(dim1=-2, dim2=-1).add_(constant)
        y = y @ q
        if k + 1 < len(QUADRATICS):
            z = q if k == 0 else q @ z
    return y * bound.sqrt()


def top_eigenvalue(a: Tensor) -> Tensor:
    """The largest eigenvalue (...) of symmetric positive semi-definite matrices (..., D, D), a lower bound.

    By Lanczos on A^2, whose relative error stayed under 1e-3 on all spectra that were tried, the flattest
    included (D = 2048); where the largest eigenvalue stands out it is exact to rounding.
    """
    size = a.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=torch.finfo(a.dtype).tiny)
    scaled = a / size[..., None, None]
    return size * _top_of_tridiagonal(_lanczos(scaled, min(KRYLOV, a.shape[-1]))).clamp(min=0).sqrt()


def _lanczos(a: Tensor, steps: int) -> Tensor:
    """The tridiagonal matrices (..., steps, steps) of A^2 on a Krylov space, from a fixed start.

    Vectors are not made orthogonal anew: that only repeats eigenvalues, and the largest is all that is asked.
    """
    tiny = torch.finfo(a.dtype).tiny
    t = a.new_zeros(*a.shape[:-2], steps, steps)
    # turned by the golden angle from one entry to the next: orthogonal to no eigenvector that data have
    start = torch.arange(a.shape[-1], device=a.device).mul(2.399963).cos().to(a.dtype)
    v = (a @ start).unsqueeze(-1)
    v = v / v.norm(dim=-2, keepdim=True).clamp(min=tiny)
    before, beta = torch.zeros_like(v), v.new_zeros(())
    for i in range(steps):
        w = a @ (a @ v) - beta * before
        alpha = (w * v).sum(dim=-2, keepdim=True)
        t[..., i, i] = alpha[..., 0, 0]
        if i + 1 < steps:
            w = w - alpha * v
            beta = w.norm(dim=-2, keepdim=True)
            t[..., i, i + 1] = t[..., i + 1, i] = beta[..., 0, 0]
            before, v = v, w / beta.clamp(min=tiny)
    return t


def _top_of_tridiagonal(t: Tensor) -> Tensor:
    """The largest eigenvalue (...) of small symmetric matrices (..., k, k), positive semi-definite or nearly.

    The mean of the eigenvalues, weighted by their 2^16th powers: low by ln(k) / 2^17 relative at most.
    """
    tiny = torch.finfo(t.dtype).tiny
    power = t
    for _ in range(16):
        power = power / power.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=tiny)
        power = power @ power
    return (power * t).sum(dim=(-2, -1)) / power.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=tiny)
