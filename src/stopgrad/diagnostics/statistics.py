"""The measures of vectors that stream by, in memory that does not grow with their number.

Every class has ``update`` (rows of a batch), ``merge`` (what another one has seen), ``reduce`` (what all
processes have seen) and ``compute``; in any order and split the result is what the pure functions of
`stopgrad.diagnostics.spread` and `stopgrad.diagnostics.spectrum` make of all finite rows together, up to
float64's rounding. What one of them is fed or merged with must be on one device; `reduce` brings it
to where the ranks exchange it.

Legend: N rows of width D; N groups of V views.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from stopgrad.diagnostics.spectrum import (
    Scatter,
    alpha_of,
    groups,
    lidar_of,
    participation_of,
    rank_of,
    rankme_of,
    shares_of,
)
from stopgrad.diagnostics.spread import double, uniformity, unit

SPECTRUM_KEPT = 128
SAMPLE_KEPT = 1024
VALUES_AT_ONCE = 2**22


class VectorStatistics:
    """The measures of one node's vectors, see `compute`.

    Accumulators are float64: at most four matrices (D, D) and a sample of 1024 rows. Rows with a value that
    is not finite, or a norm that overflows, are counted and left out.

    Args:
        dim: D.

    Raises:
        ValueError: by `update`, unless the rows are of this width.

    Examples:
        >>> statistics = VectorStatistics(2)
        >>> statistics.update(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        >>> statistics.update(torch.tensor([[-1.0, 0.0], [0.0, -2.0]]))
        >>> measures = statistics.compute()
        >>> measures["count"], round(measures["std"], 6), round(measures["effective_rank"], 3)
        (4, 1.0, 1.89)
    """

    def __init__(self, dim: int):
        self.dim = dim
        self._raw, self._unit = Scatter(dim), Scatter(dim)
        self._counts = torch.zeros(3, dtype=torch.float64)  # rows seen, zero rows, sum of norms
        self._sample = _Sample(dim)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in rows (N, D) of any floating type."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x: must be rows of width {self.dim}, its shape is {tuple(x.shape)}")
        for rows in x.detach().split(max(VALUES_AT_ONCE // self.dim, 1)):
            self._take(rows.clone() if rows.dtype == torch.float64 else double(rows))  # rows are held back

    def merge(self, other: "VectorStatistics") -> None:
        """Take in what another one has seen; the other stays as it is."""
        self._raw.merge(other._raw)
        self._unit.merge(other._unit)
        self._counts = self._counts + other._counts
        self._sample.merge(other._sample)

    def reduce(self) -> None:
        """Become that of all ranks of torch.distributed together; every rank must call it.

        Once, before `compute`: a second call would count every row as often as there are ranks. Nothing
        happens outside torch.distributed.
        """
        if not _distributed():
            return
        self._raw.reduce(_total)
        self._unit.reduce(_total)
        self._counts = _total(self._counts)
        self._sample.reduce()

    @torch.no_grad()
    def compute(self, spectrum: bool = True) -> dict[str, float | list[float]]:
        """The measures of all rows seen so far.

        Args:
            spectrum: whether with ``spectrum``, which costs a decomposition of its own.

        Of all rows: ``count``, ``dim``, their width, and ``finite``, the share that is. Of the finite ones:
        ``zero_rows``, the share of zeros; ``norm``, the mean norm; ``raw_std``, the mean over dimensions of
        the standard deviation of raw rows (division by N); and by the functions of that name ``std``
        (`embedding_std`), ``m_o`` (`center_norm`), ``m_r`` (`residual_norm`), ``effective_rank``,
        ``rankme``, ``participation_ratio``,
        ``alpha_req``, ``off_diagonal_covariance``, ``uniformity`` and ``spectrum`` (a list, at most 128).
        ``uniformity`` is an estimate when there are more than 1024 rows: it is that of a sample of 1024.

        What is not defined is NaN: all measures without a finite row, ``uniformity`` of one, ``alpha_req`` of
        fewer than two directions.
        """
        seen, zeros, norms = self._counts.tolist()
        count = self._raw.count
        measures: dict[str, float | list[float]] = {
            "count": int(seen),
            "dim": self.dim,
            "finite": count / seen if seen else math.nan,
            **dict.fromkeys(MEASURES, math.nan),
        }
        if count:
            measures |= {"zero_rows": zeros / count, "norm": norms / count}
            measures |= {name: float(value) for name, value in self._of_raw_rows().items()}
            measures |= {name: float(value) for name, value in self._of_unit_rows().items()}
        if spectrum:
            shares = shares_of(self._unit.eigenvalues())[:SPECTRUM_KEPT] if count else self._counts[:0]
            measures["spectrum"] = shares.tolist()
        return measures

    def _of_raw_rows(self) -> dict[str, Tensor]:
        eigenvalues = self._raw.eigenvalues()
        return {
            "raw_std": _deviations(self._raw).mean(),
            "effective_rank": rank_of(eigenvalues),
            "rankme": rankme_of(self._raw.eigenvalues(centred=False)),
            "participation_ratio": participation_of(eigenvalues),
            "alpha_req": alpha_of(eigenvalues),
        }

    def _of_unit_rows(self) -> dict[str, Tensor]:
        rows = self._unit
        measures = {
            "std": _deviations(rows).mean() * math.sqrt(self.dim),
            "m_o": rows.mean().norm(),
            "m_r": (rows.squares().sum() / rows.count).sqrt(),
            "off_diagonal_covariance": rows.off_diagonal(),
        }
        if rows.count > 1:
            measures["uniformity"] = uniformity(self._sample.rows)
        return measures

    def _take(self, rows: Tensor) -> None:
        norms = rows.norm(dim=-1)
        finite = norms.isfinite()
        seen = len(rows)
        if not finite.all():
            rows, norms = rows[finite], norms[finite]
        units = unit(rows)
        sums = [rows.new_tensor(seen), (norms == 0).sum(), norms.sum()]
        self._counts = self._counts.to(rows.device) + torch.stack(sums)
        self._sample.add(rows, units, self._raw.count)
        self._raw.add(rows)
        self._unit.add(units)


MEASURES = (
    "zero_rows", "norm", "raw_std", "std", "m_o", "m_r", "effective_rank", "rankme", "participation_ratio",
    "alpha_req", "off_diagonal_covariance", "uniformity",
)  # fmt: skip


class PairStatistics:
    """The `alignment` of two views.

    Args:
        dim: D.

    Raises:
        ValueError: by `update`, unless both views are rows of this width and as many.
    """

    def __init__(self, dim: int):
        self.dim = dim
        self._sums = torch.zeros(3, dtype=torch.float64)  # pairs seen, finite ones, their squared distances

    @torch.no_grad()
    def update(self, x1: Tensor, x2: Tensor) -> None:
        """Take in the rows (N, D) of two views, row i of both from image i."""
        if x1.ndim != 2 or x1.shape[1] != self.dim or x1.shape != x2.shape:
            shapes = f"{tuple(x1.shape)} and {tuple(x2.shape)}"
            raise ValueError(f"x1, x2: must be as many rows of width {self.dim}, their shapes are {shapes}")
        distances = (unit(double(x1)) - unit(double(x2))).square().sum(dim=-1)
        finite = distances.isfinite()
        sums = [distances.new_tensor(len(distances)), finite.sum(), distances[finite].sum()]
        self._sums = self._sums.to(distances.device) + torch.stack(sums)

    def merge(self, other: "PairStatistics") -> None:
        """Take in what another one has seen; the other stays as it is."""
        self._sums = self._sums + other._sums

    def reduce(self) -> None:
        """Become that of all ranks, see `VectorStatistics.reduce`."""
        if _distributed():
            self._sums = _total(self._sums)

    def compute(self) -> dict[str, float]:
        """``count`` of the pairs, the share that is ``finite``, and their ``alignment``; NaN without one."""
        seen, finite, distances = self._sums.tolist()
        return {
            "count": int(seen),
            "finite": finite / seen if seen else math.nan,
            "alignment": distances / finite if finite else math.nan,
        }


class GroupStatistics:
    """The `lidar` of groups of views; every view weighs the same where groups differ in size.

    Args:
        dim: D.

    Raises:
        ValueError: by `update`, unless there are groups of two views or more of this width.
    """

    def __init__(self, dim: int):
        self.dim = dim
        self._means, self._deviations = Scatter(dim), Scatter(dim)
        self._seen = torch.zeros(1, dtype=torch.float64)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in groups of V views of the same image, (N, V, D)."""
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"x: must be groups of views (N, V, {self.dim}), its shape is {tuple(x.shape)}")
        self._seen = self._seen + len(x)
        finite = x[double(x).square().sum(dim=(1, 2)).isfinite().to(x.device)]
        if len(finite):
            means, deviations = groups(finite)
            self._means.add(means)
            self._deviations.add(deviations)

    def merge(self, other: "GroupStatistics") -> None:
        """Take in what another one has seen; the other stays as it is."""
        self._means.merge(other._means)
        self._deviations.merge(other._deviations)
        self._seen = self._seen + other._seen

    def reduce(self) -> None:
        """Become that of all ranks, see `VectorStatistics.reduce`."""
        if _distributed():
            self._means.reduce(_total)
            self._deviations.reduce(_total)
            self._seen = _total(self._seen)

    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        """``count`` of the groups, the share that is ``finite``, and their ``lidar``; NaN without one."""
        seen, count = int(self._seen), self._means.count
        value = float(lidar_of(self._means, self._deviations)) if count else math.nan
        return {"count": seen, "finite": count / seen if seen else math.nan, "lidar": value}


class _Sample:
    """Of all rows added those with the smallest keys: a sample of bounded size, the same on every machine.

    A key is a hash of a row's values and its running number. The number keeps rows apart that are alike, so
    that equal rows are drawn one by one; the values keep those apart that have the same number in two samples
    that are merged. Merging is associative and commutative.
    """

    def __init__(self, dim: int):
        self.rows = torch.empty(0, dim, dtype=torch.float64)
        self.keys = torch.empty(0, dtype=torch.int64)

    def add(self, values: Tensor, rows: Tensor, start: int) -> None:
        """Draw from float64 rows (N, D), numbered from ``start`` on; ``values`` (N, D) tell them apart."""
        odd = 2 * torch.arange(values.shape[1], device=values.device) + 1
        bits = values.contiguous().view(torch.int64)
        # a column's high bits reach low ones, or signs that differ in two columns would cancel
        content = ((bits ^ (bits >> 32)) * (odd * GOLDEN)).sum(dim=-1)
        number = torch.arange(start, start + len(values), device=values.device)
        self._keep(rows, _mixed(_mixed(content) + number * GOLDEN))

    def merge(self, other: "_Sample") -> None:
        """Draw from both."""
        self._keep(other.rows, other.keys)

    def reduce(self) -> None:
        """Draw from all ranks' samples."""
        missing = SAMPLE_KEPT - len(self.keys)
        keys = torch.cat([self.keys, self.keys.new_full((missing,), LARGEST)])
        rows = torch.cat([self.rows, self.rows.new_zeros(missing, self.rows.shape[1])])
        keys, rows = _gathered(keys), _gathered(rows)
        there = keys < LARGEST
        self.keys, self.rows = keys[:0], rows[:0]
        self._keep(rows[there], keys[there])

    def _keep(self, rows: Tensor, keys: Tensor) -> None:
        if len(self.keys) == SAMPLE_KEPT:  # sorted: most rows of a long stream come too late
            early = keys < self.keys[-1].to(keys.device)
            rows, keys = rows[early], keys[early]
        keys = torch.cat([self.keys.to(keys.device), keys])
        rows = torch.cat([self.rows.to(rows.device), rows])
        chosen = keys.argsort()[:SAMPLE_KEPT]
        self.keys, self.rows = keys[chosen], rows[chosen]


GOLDEN = 0x9E3779B97F4A7C15 - 2**64
LARGEST = torch.iinfo(torch.int64).max


def _mixed(x: Tensor) -> Tensor:
    """int64 to int64 one to one, each bit of the result depending on all: splitmix64 (Steele et al. 2014)."""
    x = (x ^ _shifted(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shifted(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & (2 ** (64 - bits) - 1)


def _deviations(rows: Scatter) -> Tensor:
    """Standard deviations by dimension, (D,)."""
    return (rows.squares() / rows.count).sqrt()


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _shared(x: Tensor) -> Tensor:
    """``x`` where the ranks can exchange it."""
    return x.cuda() if dist.get_backend() == "nccl" else x.cpu()


def _total(x: Tensor) -> Tensor:
    total = _shared(x).clone()
    dist.all_reduce(total)
    return total


def _gathered(x: Tensor) -> Tensor:
    x = _shared(x).contiguous()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)
