"""What a linear predictor and a target network are made of: measures of weights.

Legend: W_p (D, D) the weight of a linear predictor, p = W_p z; F (D, D) the correlation E[z z^T] of the
projections, or any symmetric matrix. Eigenvalues and eigenvectors of W_p are those of its symmetric part,
(W_p + W_p^T) / 2. All is computed in float64; a matrix with a value that is not finite gives NaN.
"""

import torch
from torch import Tensor, nn

from stopgrad.diagnostics.spread import double

DEGENERATE = 1e-3


def weight_spectrum(w: Tensor) -> Tensor:
    """The eigenvalues of the symmetric part of W_p (or of F), in descending order. (D,)

    Source: Tian et al. 2021, Fig. 2.

    Raises:
        ValueError: unless w is a square matrix; so do all measures of weights.
    """
    return _eigen(w)[0]


def asymmetry(w: Tensor) -> Tensor:
    """||W - W^T||_F / ||W||_F, in [0, 2]: 0 symmetric (or zero), 2 antisymmetric.

    Source: Tian et al. 2021, Fig. 2 (4), which does not divide.
    """
    w = _square(w)
    return _ratio((w - w.T).norm(), w.norm())


def negative_part(w: Tensor) -> Tensor:
    """The negative eigenvalues' share of sum |eigenvalue| of the symmetric part, in [0, 1].

    0 for a positive semi-definite (or zero) predictor. Source: Tian et al. 2021, Fig. 2 (2) shows it shrink.
    """
    values = weight_spectrum(w)
    return _ratio(values.clamp(max=0).abs().sum(), values.abs().sum())


def commutator_norm(w: Tensor, f: Tensor) -> Tensor:
    """||F W - W F||_F / (||F||_F ||W||_F), in [0, sqrt(2)]; 0 where they commute (or one is zero).

    Source: Tian et al. 2021, Theorem 3, relative; the bound is Boettcher and Wenzel's (2008).
    """
    w, f = _square(w), _square(f)
    return _ratio((f @ w - w @ f).norm(), f.norm() * w.norm())


def eigenvector_cosine(w: Tensor, f: Tensor) -> Tensor:
    """|cos| of the angle between u_j and W_p u_j for each eigenvector u_j of F, by falling eigenvalue. (D,)

    1 where u_j is an eigenvector of W_p too, or W_p u_j = 0. Between equal eigenvalues of F the u_j are
    arbitrary, and so is this; `eigenspace_alignment` is not. Source: Tian et al. 2021, Fig. 2 (3).
    """
    vectors = _eigen(f)[1]
    images = _square(w) @ vectors
    overlaps, sizes = (vectors * images).sum(dim=0).abs(), images.norm(dim=0)
    return torch.where(sizes == 0, 1.0, overlaps / sizes).clamp(max=1)


def eigenspace_alignment(w: Tensor, f: Tensor, tolerance: float = DEGENERATE) -> Tensor:
    """How far the eigenspaces of W_p and F agree, in (0, 1]: 1 where they commute, whatever is degenerate.

    The sum of cos^4 of the principal angles over all pairs of an eigenspace of F and one of W_p, divided by
    D: the mean of cos^2 with the weights cos^2, which sum to 1 for each direction. It depends on the
    eigenspaces alone and not on a choice of vectors in them. Random lines give 3 / (D + 2).

    Args:
        w, f: matrices (D, D); of both the symmetric part counts.
        tolerance: neighbouring eigenvalues closer than this share of the largest |eigenvalue| belong to one
            eigenspace. What is left apart is compared vector by vector, what is joined is less distinct:
            with everything in one eigenspace, as for W_p = identity, the alignment is 1.

    Raises:
        ValueError: unless both are square matrices of one size.
    """
    (values_f, vectors_f), (values_w, vectors_w) = _eigen(f), _eigen(w)
    if values_f.shape != values_w.shape:
        raise ValueError(f"w, f: must be of one size, they are {len(values_w)} and {len(values_f)} wide")
    overlaps = vectors_f.T @ vectors_w
    if not overlaps.isfinite().all():
        return overlaps.new_tensor(torch.nan)
    of_f, of_w = _eigenspaces(values_f, tolerance), _eigenspaces(values_w, tolerance)
    # an eigenspace of one dimension has one angle: ||M M^T||^2 = ||M||^4 is all there is to it
    blocks = overlaps.square()
    blocks = torch.stack([rows.sum(dim=0) for rows in blocks.split(of_f)])
    blocks = torch.stack([columns.sum(dim=1) for columns in blocks.split(of_w, dim=1)], dim=1)
    fourth = blocks.square()
    wide = [j for j, size in enumerate(of_w) if size > 1]
    for i, rows in enumerate(overlaps.split(of_f)):
        if of_f[i] > 1 and wide:
            parts = rows.split(of_w, dim=1)
            for j in wide:
                fourth[i, j] = (parts[j] @ parts[j].T).square().sum()
    return fourth.sum() / len(values_f)


def predictor_optimality_gap(z: Tensor, p: Tensor, t: Tensor) -> Tensor:
    """How much of the target a linear predictor could explain and this one does not; 0 is optimal.

    The best linear predictor's share of explained energy, 1 - min_W E ||W z - t||^2 / E ||t||^2, less that of
    c p with the best factor c >= 0, 1 - min_c E ||c p - t||^2 / E ||t||^2 = cos^2(p, t). In [0, 1] for a
    linear predictor; a network can do better than every linear map, and then it is negative. The factor is
    free because cosine losses do not see it. On N <= D rows of full rank the best predictor explains
    everything, and the gap says nothing of its optimum on other data. Ours, after Tian et al. 2021, section 3
    (the optimal predictor) and Eq. 1; no bias.

    Args:
        z: projections (N, D), what the predictor saw.
        p: predictions (N, D).
        t: targets (N, D).

    Raises:
        ValueError: unless all three are matrices of as many rows, p and t of one width.
    """
    if z.ndim != 2 or p.ndim != 2 or p.shape != t.shape or len(z) != len(p) or not len(z):
        shapes = ", ".join(str(tuple(x.shape)) for x in (z, p, t))
        raise ValueError(f"z, p, t: must be matrices of as many rows, p and t of one width; shapes {shapes}")
    z, p, t = double(z), double(p), double(t)
    if not all(bool(x.isfinite().all()) for x in (z, p, t)):
        return z.new_tensor(torch.nan)
    left, sizes, _ = torch.linalg.svd(z, full_matrices=False)
    basis = left[:, sizes > torch.finfo(z.dtype).eps * max(z.shape) * sizes[:1]]
    energy = t.square().sum()
    best = _ratio((basis.T @ t).square().sum(), energy)
    own = _ratio((p * t).sum().clamp(min=0).square(), p.square().sum() * energy)
    return best - own


def parameter_distance(online: nn.Module, target: nn.Module) -> Tensor:
    """||theta - xi|| / ||theta|| over the parameters of an online network theta and its target xi, >= 0.

    0 for equal networks; for an EMA target it falls as training settles, and stays 0 or grows without bound
    where the target is the same or frozen. How far their outputs are apart is `alignment`. Raw values: layers
    before a normalisation count although their scale changes no output.

    Raises:
        ValueError: naming the first parameter that one has and the other has not, or in another shape.
    """
    mine, theirs = dict(online.named_parameters()), dict(target.named_parameters())
    for name in mine | theirs:
        if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape:
            raise ValueError(f"online, target: differ in their parameter {name}")
    gap = size = torch.zeros((), dtype=torch.float64)
    for name, parameter in mine.items():
        own, other = double(parameter.detach()), double(theirs[name].detach())
        gap = gap + (own - other.to(own.device)).square().sum().cpu()
        size = size + own.square().sum().cpu()
    return _ratio(gap.sqrt(), size.sqrt())


def _square(w: Tensor) -> Tensor:
    if w.ndim != 2 or w.shape[0] != w.shape[1] or not len(w):
        raise ValueError(f"a weight or correlation must be a square matrix, its shape is {tuple(w.shape)}")
    return double(w.detach())


def _eigen(w: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,) in descending order and eigenvectors (D, D), in columns, of the symmetric part."""
    w = _square(w)
    if not w.isfinite().all():
        return torch.full_like(w[0], torch.nan), torch.full_like(w, torch.nan)
    values, vectors = torch.linalg.eigh((w + w.T) / 2)
    return values.flip(-1), vectors.flip(-1)


def _eigenspaces(values: Tensor, tolerance: float) -> list[int]:
    """The dimensions of the eigenspaces of eigenvalues (D,) in descending order."""
    apart = values[:-1] - values[1:] > tolerance * values.abs().max()
    ends = [*(torch.nonzero(apart).flatten() + 1).tolist(), len(values)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where the whole is 0."""
    return torch.where(whole == 0, 0.0, part / whole)
