"""How many directions a representation uses: measures of the eigenvalues of its covariance.

Legend: N vectors of width D, one a row; lambda_j their covariance's eigenvalues in descending order and
sigma_j = sqrt(N lambda_j) the singular values of the centred rows.

All is computed in float64 from second moments, so that the same arithmetic serves rows in memory and rows
that stream by (`stopgrad.diagnostics.statistics`). Singular values below 1e-6 of the Frobenius norm of the
rows, mean included, count as zero: some roundings of float32, by which rows that ought to agree differ, and
more than what squaring in float64 loses. Rows with a value that is not finite give NaN.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stopgrad.diagnostics.spread import double, matrix, unit

FLOOR = 1e-6
RANKME_EPS = 1e-7
LIDAR_DELTA = 1e-4
ALPHA_FIRST, ALPHA_LAST = 1, 50
TINY = torch.finfo(torch.float64).tiny


def spectrum(x: Tensor, largest: int | None = None) -> Tensor:
    """Shares of the variance of the l2-normalised rows along the principal axes, descending, sum 1.

    Args:
        x: vectors (N, D).
        largest: how many to return; all min(N, D) by default.

    Returns:
        Shares in [0, 1]; all zero when the rows do not vary at all.

    Raises:
        ValueError: unless x is a matrix with at least one row; so do all measures of this file.
    """
    return shares_of(Scatter.of(unit(matrix(x))).eigenvalues())[:largest]


def effective_rank(x: Tensor) -> Tensor:
    """exp of the entropy of sigma_j / sum sigma, in [1, min(N - 1, D)].

    1 when the rows do not vary or vary along one line only. It does not change with rotation or scale.
    Source: Roy and Vetterli 2007. `rankme` is the same without centring.
    """
    return rank_of(Scatter.of(matrix(x)).eigenvalues())


def rankme(x: Tensor) -> Tensor:
    """RankMe as published: exp(-sum p log p), p = s_j / sum s + 1e-7, s_j the uncentred singular values.

    Of K = min(N, D) terms, in [1, K] up to the epsilon. Rows are not centred, so that the mean counts as a
    direction. A rank of r reads about r (1 + 1.6e-6 (K - r)): complete collapse, all rows alike, reads 1.003
    and not 1 at K = 2048. Source: Garrido et al. 2023, Eqs. 1 and 2, epsilon for float32.
    """
    return rankme_of(Scatter.of(matrix(x)).eigenvalues(centred=False))


def participation_ratio(x: Tensor) -> Tensor:
    """(sum lambda)^2 / sum lambda^2 of the centred rows, in [1, min(N - 1, D)]; 1 when they do not vary.

    k for k equal eigenvalues. It counts the large directions where `effective_rank` counts smaller ones too,
    so that it is never above `effective_rank`. Source: Gao et al. 2017.
    """
    return participation_of(Scatter.of(matrix(x)).eigenvalues())


def alpha_req(x: Tensor, first: int = ALPHA_FIRST, last: int = ALPHA_LAST) -> Tensor:
    """The exponent alpha of lambda_j ~ j^-alpha: least squares of log lambda_j on log j, first <= j <= last.

    0 for an isotropic cloud, large where few directions dominate; near 1 is what Agrawal et al. 2022 found to
    go with good features. Eigenvalues that are zero are left out; NaN when fewer than two are left. Points
    weigh the same, as the text has it; the authors' code weighs them by 1 / j and starts at the 11th, which a
    collapsed representation does not have.

    Args:
        x: vectors (N, D).
        first, last: indices from 1 on, both included.

    Raises:
        ValueError: unless 1 <= first < last.
    """
    if not 1 <= first < last:
        raise ValueError(f"first, last: need 1 <= first < last, got {first} and {last}")
    return alpha_of(Scatter.of(matrix(x)).eigenvalues(), first, last)


def off_diagonal_covariance(x: Tensor) -> Tensor:
    """Sum of the squared covariances between different dimensions of the l2-normalised rows, over D; >= 0.

    Covariances divide by N - 1; 0 for one row. Full collapse reads 0 as decorrelation does: read it beside
    `embedding_std`. Source: Zhang et al. 2022, section 3.4 and A.6, Algorithm 5 (on raw rows).
    """
    return Scatter.of(unit(matrix(x))).off_diagonal()


def lidar(x: Tensor) -> Tensor:
    """LiDAR: the rank, as `rankme` defines it, of the views' linear discriminant analysis.

    The eigenvalues are those of Sw^{-1/2} Sb Sw^{-1/2}, Sb the covariance of the groups' means (divided by
    N), Sw that of the views about their group's mean (divided by N V) plus 1e-4 on its diagonal. In
    [1, min(N - 1, D)] up to RankMe's epsilon. Because of the 1e-4 it changes with the scale of the rows.
    Source: Thilak et al. 2024, section 4.

    Args:
        x: N groups of V >= 2 views of the same image, (N, V, D).

    Raises:
        ValueError: unless the views come in such groups.
    """
    means, deviations = groups(x)
    return lidar_of(Scatter.of(means), Scatter.of(deviations))


def groups(x: Tensor) -> tuple[Tensor, Tensor]:
    """The means (N, D) of groups (N, V, D) and what the views differ from them by (N V, D), in float64.

    Raises:
        ValueError: unless there are groups of two views or more.
    """
    if x.ndim != 3 or not len(x) or x.shape[1] < 2:
        raise ValueError(f"x: must be groups of views (N, V, D) with V >= 2, its shape is {tuple(x.shape)}")
    x = double(x)
    means = x.mean(dim=1)
    return means, (x - means[:, None]).flatten(0, 1)


class Scatter:
    """Count, mean and second moment of rows (N, D), in float64; two of them merge into that of all rows.

    Rows are held back until there are more than D of them; fewer have a Gram matrix (N, N) that is cheaper to
    decompose. Memory O(D^2). The second moment is about the mean at all times, so that a large mean costs no
    digits (Chan et al. 1983).

    Attributes:
        dim: D.
        count: N.
    """

    def __init__(self, dim: int):
        self.dim, self.count = dim, 0
        self._held: list[Tensor] = []
        self._about_mean: tuple[Tensor, Tensor] | None = None  # of the rows held back
        self._folded = 0
        self._mean = torch.zeros(dim, dtype=torch.float64)
        self._moment = torch.zeros(1, 1, dtype=torch.float64)  # (D, D) once rows are folded

    @classmethod
    def of(cls, rows: Tensor) -> "Scatter":
        """That of float64 rows (N, D)."""
        scatter = cls(rows.shape[1])
        scatter.add(rows)
        return scatter

    def add(self, rows: Tensor) -> None:
        """Take in float64 rows (N, D)."""
        if not len(rows):
            return
        self._held.append(rows)
        self._about_mean = None
        self.count += len(rows)
        if self.count - self._folded > self.dim:
            self._fold()

    def merge(self, other: "Scatter") -> None:
        """Take in what another one has; the other stays as it is."""
        held, folded = tuple(other._held), other._folded  # which change below where it is this one
        self._join(folded, other._mean, other._moment)
        self.count += folded
        for rows in held:
            self.add(rows)

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Become that of all processes' rows; ``total`` sums a tensor over the processes."""
        self._fold()
        count, mean = self._folded, self._mean
        sums = total(torch.cat([mean * count, mean.new_tensor([count])]))
        self.count = self._folded = int(sums[-1])
        self._mean = sums[:-1] / max(self.count, 1)
        gap = mean.to(sums.device) - self._mean
        own = self._moment if count else self._moment.new_zeros(self.dim, self.dim)
        self._moment = total(own.to(sums.device) + count * torch.outer(gap, gap))

    def mean(self) -> Tensor:
        """(D,)"""
        if self._folded:
            self._fold()
            return self._mean
        return self._held_about_mean()[0]

    def squares(self) -> Tensor:
        """Sum of the squared distances from the mean by dimension, (D,)."""
        if self._folded:
            self._fold()
            return self._moment.diagonal()
        return self._held_about_mean()[1].square().sum(dim=0)

    def moment(self) -> Tensor:
        """sum (x - mean) (x - mean)^T, (D, D)."""
        self._fold()
        return self._moment

    def eigenvalues(self, centred: bool = True) -> Tensor:
        """Squared singular values of the rows, about their mean or as they are, descending, min(N, D).

        What lies below the floor is zero.
        """
        gram = self._gram(centred)
        finite = gram.isfinite().all()
        values = torch.linalg.eigvalsh(torch.where(finite, gram, 0.0)).flip(-1)[: min(self.count, self.dim)]
        values = torch.where(values > FLOOR**2 * self._energy(), values, 0.0)
        return torch.where(finite, values, torch.nan)

    def off_diagonal(self) -> Tensor:
        """Sum of the squared covariances between different dimensions, divided by D; 0 for one row."""
        off = self._gram(centred=True).square().sum() - self.squares().square().sum()
        return off.clamp(min=0) / (max(self.count - 1, 1) ** 2 * self.dim)

    def _energy(self) -> Tensor:
        return self.squares().sum() + self.count * self.mean().square().sum()

    def _gram(self, centred: bool) -> Tensor:
        """X^T X (D, D) of the rows X, or X X^T (N, N) where that is smaller; both have the same spectrum."""
        if not self._folded:
            rows = self._held_about_mean()[1] if centred else self._rows()
            return rows @ rows.T
        moment, mean = self.moment(), self._mean
        return moment if centred else moment + self.count * torch.outer(mean, mean)

    def _held_about_mean(self) -> tuple[Tensor, Tensor]:
        """The mean (D,) of the rows held back, and these less it (N, D): most measures ask for both."""
        if self._about_mean is None:
            rows = self._rows()
            mean = rows.mean(dim=0)
            self._about_mean = mean, rows - mean
        return self._about_mean

    def _rows(self) -> Tensor:
        return self._held[0] if len(self._held) == 1 else torch.cat(self._held)

    def _fold(self) -> None:
        if self._held:
            mean, centred = self._held_about_mean()
            self._held, self._about_mean = [], None
            self._join(len(centred), mean, centred.T @ centred)

    def _join(self, count: int, mean: Tensor, moment: Tensor) -> None:
        total = self._folded + count
        if not self._folded:
            self._mean, self._moment = mean, moment
        elif count:
            gap = mean - self._mean
            self._mean = self._mean + gap * (count / total)
            self._moment = self._moment + moment + torch.outer(gap, gap) * (self._folded * count / total)
        self._folded = total


def shares_of(eigenvalues: Tensor) -> Tensor:
    """What `spectrum` is of squared singular values."""
    return eigenvalues / eigenvalues.sum().clamp(min=TINY)


def rank_of(eigenvalues: Tensor) -> Tensor:
    """What `effective_rank` is of squared singular values of centred rows."""
    return torch.special.entr(shares_of(eigenvalues.sqrt())).sum().exp()


def rankme_of(eigenvalues: Tensor) -> Tensor:
    """What `rankme` is of squared singular values, zeros included."""
    return torch.special.entr(shares_of(eigenvalues.sqrt()) + RANKME_EPS).sum().exp()


def participation_of(eigenvalues: Tensor) -> Tensor:
    """What `participation_ratio` is of squared singular values of centred rows."""
    shares = shares_of(eigenvalues)
    return torch.where(shares.sum() == 0, 1.0, 1 / shares.square().sum())


def alpha_of(eigenvalues: Tensor, first: int = ALPHA_FIRST, last: int = ALPHA_LAST) -> Tensor:
    """What `alpha_req` is of squared singular values of centred rows."""
    values = eigenvalues[first - 1 : last]
    index = torch.arange(first, first + len(values), dtype=values.dtype, device=values.device).log()
    counts = (values > 0).to(values.dtype)
    logs = torch.where(values > 0, values, 1.0).log()
    index = index - (counts * index).sum() / counts.sum()
    return -(counts * index * logs).sum() / (counts * index.square()).sum()


def lidar_of(means: Scatter, deviations: Scatter) -> Tensor:
    """What `lidar` is of the groups' means and of the views' deviations from them."""
    between, within = means.moment() / means.count, deviations.moment() / deviations.count
    spread = between.trace()
    scale = spread + means.mean().square().sum() + within.trace()
    finite = scale.isfinite()
    between = torch.where(finite & (spread > FLOOR**2 * scale), between, 0.0)
    within = torch.where(finite, within, 0.0)
    within = within + LIDAR_DELTA * torch.eye(means.dim, dtype=within.dtype, device=within.device)
    root = torch.linalg.cholesky(within)
    half = torch.linalg.solve_triangular(root, between, upper=False)
    whitened = torch.linalg.solve_triangular(root, half.mT, upper=False)
    eigenvalues = torch.linalg.eigvalsh((whitened + whitened.mT) / 2).clamp(min=0)
    rank = torch.special.entr(shares_of(eigenvalues) + RANKME_EPS).sum().exp()
    return torch.where(finite, rank, torch.nan)
