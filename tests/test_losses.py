"""Shapes: z, p, t (B, D) as in stopgrad.losses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

import stopgrad as sg
from stopgrad import losses
from stopgrad.errors import UsageError
from stopgrad.method import Method
from stopgrad.parts.distances import Euclidean
from stopgrad.parts.gradient import StraightThrough
from stopgrad.parts.pairing import raft_pairs

seeds = st.integers(0, 2**31)
weights = st.floats(0.1, 3)


def nodes(seed: int, count: int = 6, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(5, 4, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
        for _ in range(count)
    ]


def psd(seed: int) -> tuple[Tensor, Tensor]:
    """A symmetric positive semi-definite matrix (D, D) and its root."""
    (a,) = nodes(seed, 1)
    values, basis = torch.linalg.eigh((a.T @ a).detach())
    values = values.clamp(min=0)
    return basis @ values.diag() @ basis.T, basis @ values.sqrt().diag() @ basis.T


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True))


@given(seeds, weights, weights)
def test_values_are_the_formulas_by_hand(seed, a, b):
    z1, z2, p1, p2, t1, t2 = nodes(seed)
    cos = cosine_similarity
    byol = -(cos(p1, t2).mean() + cos(p2, t1).mean()) / 2
    torch.testing.assert_close(sg.byol_loss(p1, p2, t1, t2), byol)
    torch.testing.assert_close(sg.isoloss(z1, z2, p1, p2, t1, t2), byol)
    own = -(cos(p1, z2).mean() + cos(p2, z1).mean()) / 2
    torch.testing.assert_close(sg.isoloss(z1, z2, p1, p2), own)
    raw = ((p1 - t2).square().sum() + (p2 - t1).square().sum()) / (4 * len(p1))
    torch.testing.assert_close(sg.byol_loss(p1, p2, t1, t2, distance="euclidean"), raw)
    torch.testing.assert_close(sg.isoloss(z1, z2, p1, p2, t1, t2, distance="euclidean"), raw)
    p1, p2, t1, t2 = (normalize(x, dim=1) for x in (p1, p2, t1, t2))
    align = (p1 - p2).square().sum(1).mean()
    cross = ((p1 - t1).square().sum(1).mean() + (p2 - t2).square().sum(1).mean()) / 2
    torch.testing.assert_close(sg.raft_loss(p1, p2, t1, t2, a, b), a * align - b * cross)
    torch.testing.assert_close(sg.byol_prime_loss(p1, p2, t1, t2, a, b), a * align + b * cross)


@given(seeds)
def test_they_are_the_training_equation_bit_for_bit(seed):
    z1, z2, p1, p2, t1, t2 = every = nodes(seed)
    pairs = [
        (sg.byol_loss(p1, p2, t1, t2), Method()),
        (sg.byol_loss(p1, p2, t1, t2, "squared-l2"), Method(distance="squared-l2")),
        (sg.isoloss(z1, z2, p1, p2, t1, t2), Method(gradient=StraightThrough())),
        (
            sg.isoloss(z1, z2, p1, p2, t1, t2, Euclidean()),
            Method(gradient=StraightThrough(), distance=Euclidean()),
        ),
        (sg.raft_loss(p1, p2, t1, t2, 2, 3), Method(pairing=raft_pairs(2, 3), distance="squared-l2")),
        (sg.byol_prime_loss(p1, p2, t1, t2, 2, 3), Method(pairing=raft_pairs(2, -3), distance="squared-l2")),
    ]
    for loss, method in pairs:
        expected = method.loss((z1, z2), (p1, p2), (t1, t2))
        assert torch.equal(loss, expected)
        for own, of_method in zip(gradients(loss, every), gradients(expected, every), strict=True):
            assert (own is None) == (of_method is None)
            assert own is None or torch.equal(own, of_method)


@given(seeds)
def test_the_targets_are_stopped_and_nothing_else(seed):
    z1, z2, p1, p2, t1, t2 = nodes(seed)
    for loss in (
        sg.byol_loss(p1, p2, t1, t2), sg.raft_loss(p1, p2, t1, t2), sg.byol_prime_loss(p1, p2, t1, t2)
    ):  # fmt: skip
        assert gradients(loss, [t1, t2]) == [None, None]
        assert all(g is not None and g.abs().max() > 0 for g in gradients(loss, [p1, p2]))
    iso = sg.isoloss(z1, z2, p1, p2, t1, t2)
    assert gradients(iso, [p1, p2, t1, t2]) == [None] * 4
    assert all(g is not None and g.abs().max() > 0 for g in gradients(iso, [z1, z2]))


@given(seeds)
def test_isoloss_has_the_gradient_of_the_published_euclidean_loss(seed):
    """Halvagal et al. 2023, Eq. 15: ||sg(z2 + z1 - D z1) - z1||^2, one side, no 1/2."""
    z1, z2, *_ = nodes(seed)
    weight, _ = psd(seed)
    loss = sg.isoloss(z1, z2, z1 @ weight, z2 @ weight, distance="euclidean")
    published = (
        ((z2 + z1 - z1 @ weight).detach() - z1).square().sum()
        + ((z1 + z2 - z2 @ weight).detach() - z2).square().sum()
    ) / len(z1)
    for own, theirs in zip(gradients(loss, [z1, z2]), gradients(published, [z1, z2]), strict=True):
        torch.testing.assert_close(4 * own, theirs)


@given(seeds)
def test_isoloss_has_the_gradient_of_the_published_cosine_loss(seed):
    """Halvagal et al. 2023, Eq. 17, one side, with the root of W that straight-through does without."""
    z1, z2, *_ = nodes(seed)
    weight, root = psd(seed)

    def published(query: Tensor, key: Tensor) -> Tensor:
        p = query @ weight
        lengths = p.norm(dim=1), key.norm(dim=1)
        first = (query * (key / (lengths[0] * lengths[1])[:, None]).detach()).sum(1)
        slope = ((p * key).sum(1) / (lengths[0] ** 3 * lengths[1])).detach()
        return (-first + slope * (query @ root).square().sum(1) / 2).mean()

    loss = sg.isoloss(z1, z2, z1 @ weight, z2 @ weight)
    theirs = gradients((published(z1, z2.detach()) + published(z2, z1.detach())) / 2, [z1, z2])
    for own, other in zip(gradients(loss, [z1, z2]), theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9)


@given(seeds)
def test_byol_loss_is_isoloss_times_the_eigenvalue_in_every_mode(seed):
    z1, z2, _, _, t1, t2 = nodes(seed)
    weight, _ = psd(seed)
    values, basis = torch.linalg.eigh(weight)
    p1, p2 = z1 @ weight, z2 @ weight
    (plain,) = gradients(sg.byol_loss(p1, p2, t1, t2), [z1])
    (iso,) = gradients(sg.isoloss(z1, z2, p1, p2, t1, t2), [z1])
    torch.testing.assert_close(plain @ basis, values * (iso @ basis), rtol=1e-6, atol=1e-9)


@given(seeds, weights, weights)
def test_raft_of_negated_predictions_is_byol_prime(seed, a, b):
    p1, p2, t1, t2 = nodes(seed, 4)
    raft, prime = sg.raft_loss(-p1, -p2, t1, t2, a, b), sg.byol_prime_loss(p1, p2, t1, t2, a, b)
    torch.testing.assert_close(raft, prime - 4 * b, rtol=1e-12, atol=1e-12)
    cross_view = (normalize(p1, dim=1) - normalize(t2, dim=1)).square().sum(1).mean()
    swapped = (normalize(p2, dim=1) - normalize(t1, dim=1)).square().sum(1).mean()
    assert 0 <= prime <= 4 * (a + b)
    assert -4 * b <= raft <= 4 * a
    assert (cross_view + swapped) / 2 <= (1 / a + 1 / b) * prime + 1e-9


@pytest.mark.parametrize("distance", ["cosine", "squared-l2", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, distance):
    # lengths of 600: squares that float16 cannot hold; p far from z: a sum that bfloat16 would round
    z1, z2, p1, p2 = (300 * x.detach().to(dtype) for x in nodes(1, 4))
    loss = sg.isoloss(z1, z2, p1 / 64, p2 / 64, distance=distance)
    expected = sg.isoloss(*(x.double() for x in (z1, z2, p1 / 64, p2 / 64)), distance=distance)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sg.isoloss(z1, z2, p1 / 64, p2 / 64, distance=distance), loss)


@pytest.mark.parametrize("wrong", [torch.ones(5, 3), torch.ones(1, 4), torch.ones(4)])
def test_shapes_that_would_broadcast_are_refused(wrong):
    p1, p2, t1, t2 = nodes(0, 4)
    with pytest.raises(UsageError, match=r"byol_loss: every tensor is \(B, D\), all of one shape"):
        sg.byol_loss(p1, p2, t1, wrong)
    with pytest.raises(UsageError, match="isoloss: every"):
        sg.isoloss(wrong, p2, t1, t2)
    with pytest.raises(UsageError, match="raft_loss: every"):
        sg.raft_loss(*[wrong[0]] * 4)


def test_one_target_alone_is_refused():
    z1, z2, p1, p2, t1, _ = nodes(0)
    with pytest.raises(UsageError, match="both targets"):
        sg.isoloss(z1, z2, p1, p2, t1)


def test_an_unknown_distance_names_the_field():
    with pytest.raises(ValueError, match=r"distance\n.*'cosin'"):
        sg.byol_loss(*nodes(0, 4), distance="cosin")


@pytest.mark.parametrize("name", ["byol_loss", "byol_prime_loss", "isoloss", "raft_loss"])
def test_the_package_has_them(name):
    assert getattr(sg, name) is getattr(losses, name)
    assert name in sg.__all__
    assert name in dir(sg)
