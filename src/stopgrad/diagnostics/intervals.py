"""Confidence intervals of measures that are estimated from few samples.

Legend: N samples, the first dimension of what a measure reads; G groups that are left out one at a time.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

GROUPS = 32
FEWEST_GROUPS = 8
GROUPS_AT_ONCE = 8


class Interval(NamedTuple):
    """A measure of the samples, and where that of the population lies.

    Attributes:
        value: of the N samples.
        low, high: ends of the interval. It is centred at the value less its estimated bias, which can exceed
            half of its width, as for ranks on few samples: the value need not lie in it.
    """

    value: float
    low: float
    high: float


@torch.no_grad()
def interval(
    measure: Callable[..., Tensor], *samples: Tensor, level: float = 0.95, groups: int = GROUPS, seed: int = 0
) -> Interval:
    """A confidence interval of a measure by the jackknife that leaves groups of samples out.

    Source: Busing et al. 1999, for groups that differ in size; here by one sample at most.

    The samples are dealt at random into G groups; the measure without each of them gives the bias, of order
    1 / N, and the standard error, and Student's t with G - 1 degrees of freedom the width. It is right for
    measures that are smooth in the samples' distribution, with samples that are drawn independently: for the
    means (`embedding_std`, `center_norm`, `alignment`, `uniformity`) and for the ranks where N is some 10 D
    or more. A bootstrap would not do for ranks: repeated rows have fewer directions. On fewer samples per
    dimension a rank's bias is not of order 1 / N alone, and the interval lies too low. At an end of a
    measure's range the interval may reach beyond it. NaN where a measure is.

    Args:
        measure: of tensors like ``samples`` to a scalar; it must work under `torch.vmap`, as the functions of
            `stopgrad.diagnostics` on vectors do.
        samples: tensors of N rows each, (N, ...), whose rows i belong together, such as two views.
        level: in (0, 1), the share of such intervals that hold the population's measure.
        groups: G, or N where there are fewer samples.
        seed: of the dealing.

    Raises:
        ValueError: for fewer than 8 samples or groups, samples of different number, or a level out of range.
    """
    count = len(samples[0])
    if any(len(x) != count for x in samples):
        raise ValueError(f"samples: must be as many in each, they are {[len(x) for x in samples]}")
    if min(count, groups) < FEWEST_GROUPS:
        raise ValueError(f"interval needs {FEWEST_GROUPS} samples and groups, got {count} and {groups}")
    if not 0 < level < 1:
        raise ValueError(f"level: must be between 0 and 1, got {level}")
    value = float(measure(*samples))
    over = torch.vmap(lambda rows: measure(*(x[rows] for x in samples)), chunk_size=GROUPS_AT_ONCE)
    pseudo, sizes = [], []
    for kept in _kept(count, min(count, groups), seed):
        size = count - kept.shape[1]
        without = over(kept.to(samples[0].device)).double()
        pseudo.append((count * value - (count - size) * without) / size)
        sizes.append(torch.full_like(without, size))
    values, weights = torch.cat(pseudo), torch.cat(sizes)
    centre = float((values * weights).sum() / count)
    variance = ((values - centre).square() * weights / (count - weights)).mean()
    half = float(variance.sqrt()) * student_quantile((1 + level) / 2, len(values) - 1)
    return Interval(value, centre - half, centre + half)


def student_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t, for 7 degrees of freedom and more to 1e-3 between 0.005 and 0.995.

    Source: the expansion of Fisher and Cornish 1960 in 1 / degrees, to the fourth order.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**order for order, term in enumerate(terms, start=1))


def _kept(count: int, groups: int, seed: int) -> list[Tensor]:
    """Indices of the samples that stay when a group is left out, (G', N - d), for each size d of groups."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split(groups)
    without = [torch.cat([*parts[:i], *parts[i + 1 :]]) for i in range(groups)]
    larger = count % groups  # the first ones have one sample more
    return [torch.stack(rows) for rows in (without[:larger], without[larger:]) if rows]
