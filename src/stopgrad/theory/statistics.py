"""The data as the theory sees it: X and X' of pairs of views, from a stream, from images, or given.

For two views x1, x2 of an image, Sigma_s = E[x x^T] over both views, Sigma_d = E[x1 x2^T] in both orders,
X = Sigma_d and X' = Sigma_s - Sigma_d (tian2021, section 2). With u = (x1 + x2) / 2 and v = (x1 - x2) / 2,

    X' = 2 E[v v^T],   Sigma_s = E[u u^T] + E[v v^T],   X = E[u u^T] - E[v v^T]

so that the sums of u u^T and v v^T are all that is kept: X' has no negative eigenvalue by construction and
is not a difference of large numbers. A finite sample's X, which is one, may have small negative eigenvalues.

The theory's moments are uncentred, as are inputs to a linear network without bias. Centred ones, about the
mean of both views, are what a bias that is free to follow the mean would leave.

Shapes: B pairs of a batch, n1 values a view (an image is flattened). All sums float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stopgrad.data.batches import Batches
from stopgrad.data.sources import ArrayPart, Part
from stopgrad.data.views import Views
from stopgrad.errors import UsageError
from stopgrad.theory.domain import check_views, matrix
from stopgrad.theory.linear_algebra import square_root

# Pairs of views worked on together by `estimate`
TOGETHER = 1024


@dataclass
class Moments:
    """Running sums of pairs of views; they take 2 n1^2 + n1 float64 numbers.

    Two of them merge to what one would hold that had seen all pairs; ``all_reduced`` does so over the
    processes of ``torch.distributed``.

    Attributes:
        count: pairs seen.
        mean: mean of u. (n1,)
        means: sum of (u - mean) (u - mean)^T. (n1, n1)
        gaps: sum of v v^T. (n1, n1)
        centred: whether X and Sigma_s are about the mean of both views.

    Examples:
        >>> moments = Moments.empty(2)
        >>> moments.update(torch.eye(2), torch.eye(2))
        >>> moments.X.tolist(), moments.X_prime.tolist()
        ([[0.5, 0.0], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]])
    """

    count: float
    mean: Tensor
    means: Tensor
    gaps: Tensor
    centred: bool = False

    @classmethod
    def empty(cls, dim: int, *, centred: bool = False, device: torch.device | str = "cpu") -> Self:
        """No pairs yet, of views with ``dim`` values; the sums live on ``device``."""
        zeros = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        return cls(0.0, zeros[0].clone(), zeros.clone(), zeros, centred)

    @property
    def X(self) -> np.ndarray:
        """Sigma_d, symmetric. (n1, n1)"""
        return self._mean_of(self._u) - self._mean_of(self.gaps)

    @property
    def X_prime(self) -> np.ndarray:
        """Sigma_s - Sigma_d, symmetric, no negative eigenvalue. (n1, n1)"""
        return 2 * self._mean_of(self.gaps)

    @property
    def sigma_s(self) -> np.ndarray:
        """E[x x^T] over both views, symmetric. (n1, n1)"""
        return self._mean_of(self._u) + self._mean_of(self.gaps)

    @torch.no_grad()
    def update(self, x1: Tensor, x2: Tensor) -> None:
        """Add a batch of pairs.

        Args:
            x1, x2: the two views of each image. (B, ...), n1 values a row

        Raises:
            UsageError: if they are not two finite batches of that shape.
        """
        dim = len(self.mean)
        if x1.shape != x2.shape or x1.ndim < 2 or x1.shape[1:].numel() != dim or not len(x1):
            shapes = f"{tuple(x1.shape)} and {tuple(x2.shape)}"
            raise UsageError(f"views: two batches of {dim} values a row are needed, got {shapes}")
        first, second = (x.flatten(1).to(self.mean) for x in (x1, x2))
        if not bool(torch.isfinite(first).all() and torch.isfinite(second).all()):
            raise UsageError("views: not all values are finite")
        u, v = (first + second) / 2, (first - second) / 2
        mean = u.mean(dim=0)
        u -= mean
        self.merge(Moments(float(len(u)), mean, u.T @ u, v.T @ v))

    def merge(self, other: "Moments") -> None:
        """Add the pairs that ``other`` has seen; whether the result is centred stays as it is.

        Raises:
            UsageError: if its views have another number of values.
        """
        if other.mean.shape != self.mean.shape:
            raise UsageError(f"moments: of {len(other.mean)} values a view, these are of {len(self.mean)}")
        if not other.count:
            return
        count = self.count + other.count
        mean = self.mean + (other.mean.to(self.mean) - self.mean) * (other.count / count)
        self.means = self._about(mean) + other._about(mean.to(other.mean)).to(self.means)
        self.gaps = self.gaps + other.gaps.to(self.gaps)
        self.count, self.mean = count, mean

    def all_reduced(self) -> "Moments":
        """The moments of the pairs of all processes of ``torch.distributed``; without it, a copy."""
        if not (dist.is_available() and dist.is_initialized()):
            return replace(self)
        # first the joint mean, about which the sums of all processes can then be added
        total = torch.cat([self.count * self.mean, self.mean.new_tensor([self.count])])
        dist.all_reduce(total)
        mean = total[:-1] / total[-1].clamp(min=1)
        means, gaps = self._about(mean), self.gaps.clone()
        dist.all_reduce(means)
        dist.all_reduce(gaps)
        return Moments(float(total[-1]), mean, means, gaps, self.centred)

    @property
    def _u(self) -> Tensor:
        return self.means if self.centred else self._about(torch.zeros_like(self.mean))

    def _about(self, point: Tensor) -> Tensor:
        """Sum of (u - point) (u - point)^T."""
        away = self.mean - point
        return self.means + self.count * torch.outer(away, away)

    def _mean_of(self, total: Tensor) -> np.ndarray:
        if not self.count:
            raise UsageError("moments: no views seen yet")
        return ((total + total.T) / (2 * self.count)).cpu().numpy()


def gaussian_views(X: Any, X_prime: Any, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Independent pairs of Gaussian views whose expected moments are X and X'.

    They are u + v and u - v with u of covariance X + X'/2 and v of X'/2. For X without negative eigenvalues
    that is the law of x + n1 and x + n2 with Cov(x) = X and Cov(n1) = Cov(n2) = X'.

    Args:
        X, X_prime: symmetric, X' and 2 X + X' without negative eigenvalues. (n1, n1)
        count: pairs, >= 1.
        seed: of NumPy's default generator, >= 0.

    Returns:
        x1 and x2, float64. (count, n1)

    Raises:
        UsageError: naming the argument that is outside its domain.
    """
    X, X_prime = (matrix(name, m, symmetric=True) for name, m in (("X", X), ("X_prime", X_prime)))
    if X_prime.shape != X.shape:
        raise UsageError(f"X_prime: has shape {X_prime.shape}, X has {X.shape}")
    check_views(X, X_prime)
    if count < 1:
        raise UsageError(f"count: {count} is outside its domain [1, inf)")
    random = np.random.default_rng(seed)
    u, v = (
        torch.from_numpy(random.standard_normal((count, len(X))) @ square_root(half).T)
        for half in (X + X_prime / 2, X_prime / 2)
    )
    return u + v, u - v


def estimate(
    images: Tensor | Part,
    views: Views,
    *,
    draws: int = 1,
    seed: int = 0,
    centred: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
) -> Moments:
    """Moments of images under an augmentation pipeline.

    Args:
        images: uint8 (N, C, H, W), or a part of a data set.
        views: how the two views are made; n1 = C * views.size ** 2.
        draws: pairs of views to draw of each image, >= 1.
        seed: of the views.
        centred: see `Moments`.
        mean, std: per channel, of images in [0, 1]: what training subtracts and divides by
            (``Dataset.mean``, ``Dataset.std``); by default nothing.
        device: where the views are made and summed; the sums take 16 n1^2 bytes.

    Returns:
        The moments; of a number of images that batches do not divide, a few are left out of each draw.

    Raises:
        UsageError: if the images are not of that kind, or ``draws`` is less than 1.
    """
    if draws < 1:
        raise UsageError(f"draws: {draws} is outside its domain [1, inf)")
    if isinstance(images, Tensor) and images.ndim != 4:
        raise UsageError(f"images: uint8 (N, C, H, W) are needed, got shape {tuple(images.shape)}")
    part = ArrayPart(images, None, []) if isinstance(images, Tensor) else images
    if not len(part):
        raise UsageError("images: empty; give at least one image")
    size = len(part) // -(-len(part) // TOGETHER)
    batches = Batches(part, views, size, seed=seed, device=device)
    shift, scale = (torch.tensor(values or [empty], device=device)[:, None, None]
                    for values, empty in ((mean, 0.0), (std, 1.0)))  # fmt: skip
    moments = Moments.empty(part.channels * views.size**2, centred=centred, device=device)
    try:
        for draw in range(draws):
            for batch in batches.epoch(draw):
                moments.update(*((view - shift) / scale for view in batch.views))
    finally:
        batches.close()
    return moments
