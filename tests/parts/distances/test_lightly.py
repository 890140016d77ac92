"""Values and gradients of the losses that lightly has too."""

from collections.abc import Callable

import pytest
import torch
from lightly.loss import (
    BarlowTwinsLoss,
    DINOLoss,
    NegativeCosineSimilarity,
    NTXentLoss,
    VICRegLoss,
)
from lightly.loss.wmse_loss import WMSELoss
from torch import Tensor

from stopgrad.parts.distances import (
    BarlowTwins,
    Cosine,
    CrossEntropy,
    Distance,
    NtXent,
    VicReg,
    WhitenedMse,
)

B, D = 32, 8


def wmse(q: Tensor, k: Tensor) -> Tensor:
    # the 1e-4 is of theirs, whose default is 0
    loss = WMSELoss(embedding_dim=D, w_size=B, eps=1e-4, track_running_stats=False)
    loss.to(q.dtype)
    return loss(torch.cat([q, k]))


def dino(q: Tensor, k: Tensor) -> Tensor:
    # two teacher views and two student views; the pairs of one view are left out
    return DINOLoss(output_dim=D, teacher_temp=0.04, student_temp=0.1)([k, k], [q, q])


PAIRS: list[tuple[Distance, Callable[[Tensor, Tensor], Tensor]]] = [
    (Cosine(), NegativeCosineSimilarity()),
    (NtXent(), NTXentLoss()),
    (NtXent(temperature=0.1), NTXentLoss(temperature=0.1)),
    (BarlowTwins(), BarlowTwinsLoss()),
    (BarlowTwins(redundancy=0.3), BarlowTwinsLoss(lambda_param=0.3)),
    (VicReg(), VICRegLoss()),
    (
        VicReg(invariance=2, variance=3, covariance=4, eps=0.01),
        VICRegLoss(lambda_param=2, mu_param=3, nu_param=4, eps=0.01),
    ),
    (WhitenedMse(), wmse),
    (CrossEntropy(), dino),
]


def value_and_gradients(loss, q, k):
    q, k = q.clone().requires_grad_(), k.clone().requires_grad_()
    value = loss(q, k)
    return value, *torch.autograd.grad(value, (q, k))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda x: getattr(x, "kind", ""))
@pytest.mark.parametrize("seed", [0, 1])
def test_value_and_gradients_are_lightlys(ours, theirs, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    shared, q, k = (torch.randn(B, D, dtype=dtype, generator=generator) for _ in range(3))
    q, k = 0.4 * (shared + q) + 0.1, 0.4 * (shared + k)  # variances on both sides of VICReg's hinge
    # lightly keeps DINO's temperatures in float32
    tolerance = 1e-10 if dtype == torch.float64 and not isinstance(ours, CrossEntropy) else 1e-6
    for a, b in zip(value_and_gradients(ours, q, k), value_and_gradients(theirs, q, k), strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()
