"""De-correlation, Barlow Twins, VICReg, W-MSE and batch normalisation: what they see, where they are 0."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.diagnostics import unit
from stopgrad.errors import UsageError
from stopgrad.parts.distances import (
    BarlowTwins,
    Decorrelation,
    StandardisedMse,
    VicReg,
    WhitenedMse,
    cosine,
)
from stopgrad.parts.distances.redundancy import standardised

seeds = st.integers(0, 2**31)


def mixed(seed, count=16, width=4):
    """Correlated rows off the origin."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, dtype=torch.float64, generator=generator)
    rows = torch.randn(count, width, dtype=torch.float64, generator=generator)
    return rows @ (mixing + torch.eye(width)) + 0.7


def cov(x):
    return np.cov(x.detach().numpy(), rowvar=False)


@settings(max_examples=30)
@given(seeds)
def test_whitened_rows_have_the_identity_as_covariance_in_every_slice(seed):
    white = WhitenedMse(slice=8, eps=0).whitened(mixed(seed))
    for part in white.split(8):
        assert np.allclose(cov(part), np.eye(4), atol=1e-8)
        assert part.mean(dim=0).abs().max() < 1e-10


@settings(max_examples=30)
@given(seeds, st.floats(1e-2, 1e2))
def test_wmse_does_not_see_scale_and_position(seed, scale):
    q, k = mixed(seed), mixed(seed + 1)
    loss = WhitenedMse(eps=0)
    assert loss(scale * q + 3, k - 1).item() == pytest.approx(loss(q, k).item(), rel=1e-8)


@settings(max_examples=30)
@given(seeds)
def test_wmse_slices_are_batches_of_their_own(seed):
    q, k = mixed(seed), mixed(seed + 1)
    parts = [WhitenedMse()(a, b).item() for a, b in zip(q.split(8), k.split(8), strict=True)]
    assert WhitenedMse(slice=8)(q, k).item() == pytest.approx(sum(parts) / 2, rel=1e-10)


@pytest.mark.parametrize(
    ("slice", "count", "message"),
    [(4, 16, "4 dimensions needs more rows than 4"), (None, 3, "than 3"), (6, 16, "do not divide")],
)
def test_wmse_says_which_slices_it_cannot_whiten(slice, count, message):
    x = torch.randn(count, 4)
    with pytest.raises(ValueError, match=rf"^distance.slice: [^\n]*{message}") as error:
        WhitenedMse(slice=slice)(x, x)
    assert isinstance(error.value, UsageError)


def test_wmse_with_dead_directions_needs_its_eps():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    x[:, 5] = 0
    assert WhitenedMse()(x, x + 0.1 * x.roll(1, 0)).isfinite()
    assert WhitenedMse(eps=0)(x, x).isnan()


def test_wmse_is_nan_and_no_half_made_number_where_rounding_left_no_factor(monkeypatch):
    indefinite = torch.diag(torch.tensor([1.0, -1e-3, 1.0]))[None]
    monkeypatch.setattr("stopgrad.parts.distances.whitening.covariance", lambda x: indefinite)
    assert WhitenedMse()(torch.randn(9, 3), torch.randn(9, 3)).isnan()


@settings(max_examples=30)
@given(seeds)
def test_white_views_that_agree_are_where_barlow_twins_and_vicreg_are_zero(seed):
    x = WhitenedMse(eps=0).whitened(mixed(seed))
    assert VicReg()(x, x).item() == pytest.approx(0, abs=1e-12)
    assert BarlowTwins()(x, x).item() == pytest.approx(0, abs=1e-8)
    assert Decorrelation()(x, x).item() == pytest.approx(0, abs=1e-12)
    assert WhitenedMse()(x, x).item() == 0


@settings(max_examples=30)
@given(seeds)
def test_barlow_twins_does_not_see_scale_and_position_of_a_dimension(seed):
    q, k = 100 * mixed(seed), 100 * mixed(seed + 1)  # far above the 1e-5 of the normalisation
    scale = torch.tensor([1.0, 2.0, 30.0, 5.0], dtype=torch.float64)
    assert BarlowTwins()(scale * q + 7, k).item() == pytest.approx(BarlowTwins()(q, k).item(), rel=1e-6)


@settings(max_examples=30)
@given(seeds)
def test_vicreg_turns_with_both_views_up_to_its_variance_and_covariance(seed):
    q, k = mixed(seed), mixed(seed + 1)
    turn, _ = torch.linalg.qr(mixed(seed + 2, count=4))
    alone = VicReg(variance=0, covariance=0)
    assert alone(q @ turn, k @ turn).item() == pytest.approx(alone(q, k).item(), rel=1e-10)
    assert alone(q, k).item() == pytest.approx(25 * (q - k).square().mean().item(), rel=1e-12)
    large = VicReg(invariance=0, covariance=0)
    assert large(50 * q, 50 * k).item() == pytest.approx(0, abs=1e-12)


@settings(max_examples=30)
@given(seeds)
def test_decorrelation_of_l2_normalised_rows_falls_in_a_collapse_that_of_standardised_ones_does_not(seed):
    x = mixed(seed)
    center = torch.full((4,), 3.0, dtype=torch.float64)
    collapsing = center + 0.02 * (x - x.mean(dim=0))
    loss = {how: Decorrelation(normalise=how) for how in ("l2", "batch")}
    assert loss["l2"](collapsing, collapsing) < 1e-3 * loss["l2"](x, x)
    assert loss["batch"](collapsing, collapsing).item() == pytest.approx(loss["batch"](x, x).item(), rel=0.2)


@settings(max_examples=30)
@given(seeds)
def test_standardised_is_one_less_the_correlation_over_the_batch(seed):
    q, k = mixed(seed), mixed(seed + 1)
    correlations = [
        np.corrcoef(a.numpy(), b.numpy())[0, 1] for a, b in zip(unit(q).T, unit(k).T, strict=True)
    ]
    assert StandardisedMse()(q, k).item() == pytest.approx(1 - np.mean(correlations), abs=1e-3)
    assert 0 <= StandardisedMse()(q, k).item() <= 2


@settings(max_examples=30)
@given(seeds)
def test_standardised_columns_have_mean_zero_and_variance_one(seed):
    x = 100 * mixed(seed)
    found = standardised(x)
    layer = torch.nn.BatchNorm1d(4, affine=False).double()
    assert torch.allclose(found, layer(x), atol=1e-12)
    assert found.mean(dim=0).abs().max() < 1e-12
    assert np.allclose(cov(found).diagonal() * 15 / 16, 1, atol=1e-6)


@pytest.mark.parametrize("width", [4, 512])
def test_standardised_sees_the_same_at_any_width(width):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(256, width, generator=generator) for _ in range(2))
    assert StandardisedMse()(q, k).item() == pytest.approx(1, abs=0.15)
    assert StandardisedMse()(q, -q).item() == pytest.approx(2, abs=1e-3)


def test_a_shift_after_the_l2_is_no_business_of_batch_norm_after_it(monkeypatch):
    q, k = mixed(0), mixed(1)

    def by_shift(loss, module):
        shift = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        with monkeypatch.context() as patch:
            patch.setattr(f"stopgrad.parts.distances.{module}.unit", lambda x: unit(x) + shift)
            return torch.autograd.grad(loss(q, k), shift)[0].abs().max().item()

    assert by_shift(StandardisedMse(), "whitening") < 1e-14
    # batch normalisation before the l2, as in a projector that ends in one, leaves a centre in the loss
    assert by_shift(lambda a, b: cosine(standardised(a), standardised(b)), "pairwise") > 1e-3
