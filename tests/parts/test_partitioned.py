"""DirectPred with a correlation for every part."""

import pytest
import torch

from stopgrad.parts.predictors import DirectPred, Partitioned, Spectral

DIM = 5


def projections(seed, batch=64):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, DIM, dtype=torch.float64, generator=generator) * torch.linspace(0.3, 2, DIM) + 0.2
    )


def partitioned(seed=0, **settings):
    torch.manual_seed(seed)
    return Partitioned(**settings).build(DIM).double()


def directpred(*batches, **settings):
    predictor = DirectPred(DIM, **settings).double()
    for z in batches:
        predictor.after_step((z,))
    return predictor


@pytest.mark.parametrize("reading", ["code", "text"])
def test_parts_that_are_alike_make_plain_directpred(reading):
    """z and -z: the mean is zero and each half has the correlation of the whole."""
    predictor = partitioned(partitions=3, reading=reading)
    z = projections(0)
    both = torch.cat([z, -z])
    predictor.after_step((both,))
    torch.testing.assert_close(predictor(z), directpred(both)(z))
    assert not torch.allclose(predictor.part_correlations()[0], torch.zeros(DIM, DIM, dtype=torch.float64))


def sides(predictor, z, mean):
    """Part by part, which vectors lie in it."""
    above = torch.stack([(z - mean) @ plane >= 0 for plane in predictor.planes.T])
    return torch.cat([above, ~above])


def test_each_side_of_a_plane_is_a_directpred_of_its_own():
    predictor = partitioned(partitions=1)
    z = projections(0)
    predictor.after_step((z,))
    above, below = sides(predictor, z, z.mean(dim=0))
    assert 8 < above.sum() < 56
    for part in (above, below):
        torch.testing.assert_close(predictor(z[part]), directpred(z[part])(z[part]))


def test_code_is_the_mean_over_partitions():
    predictor = partitioned(partitions=3)
    z = projections(0)
    predictor.after_step((z,))
    parts = sides(predictor, z, z.mean(dim=0))
    weights = [directpred(z[part]).linear.weight for part in parts]
    expected = [
        sum(w @ row for w, inside in zip(weights, parts[:, i], strict=True) if inside) / 3
        for i, row in enumerate(z)
    ]
    torch.testing.assert_close(predictor(z), torch.stack(expected))
    assert torch.equal(predictor.membership(z).T.bool(), parts)


@pytest.mark.parametrize("eps_form", ["code", "text"])
def test_text_is_the_rule_on_the_sum_of_the_conditional_correlations(eps_form):
    predictor = partitioned(partitions=3, reading="text", eps_form=eps_form)
    z = projections(0)
    predictor.after_step((z,))
    parts = sides(predictor, z, z.mean(dim=0))
    total = sum(directpred(z[part]).correlation for part in parts)
    torch.testing.assert_close(predictor.part_correlations().sum(dim=0), total)
    expected = Spectral(eps_form=eps_form).weight(total)
    torch.testing.assert_close(predictor.linear.weight.detach(), expected)


@pytest.mark.parametrize(("rho", "shares"), [(0.3, (0.3, 0.7)), ("mean", (0.5, 0.5))])
def test_averages_over_steps(rho, shares):
    """Planes go through the average mean, this step included; a part's correlation is its share's."""
    predictor = partitioned(partitions=2, rho=rho)
    first, second = projections(0), projections(1) + 0.5
    predictor.after_step((first,))
    predictor.after_step((second,))
    means = first.mean(dim=0), shares[0] * first.mean(dim=0) + shares[1] * second.mean(dim=0)
    inside = sides(predictor, first, means[0]), sides(predictor, second, means[1])
    for k, found in enumerate(predictor.part_correlations()):
        sums = [z[part[k]].T @ z[part[k]] for z, part in zip((first, second), inside, strict=True)]
        counts = [part[k].sum() for part in inside]
        expected = (shares[0] * sums[0] + shares[1] * sums[1]) / (
            shares[0] * counts[0] + shares[1] * counts[1]
        )
        torch.testing.assert_close(found, expected)


def test_a_part_that_is_empty_stays_finite():
    predictor = partitioned(partitions=2)
    z = projections(0, batch=1).repeat(4, 1)  # on its own mean: above every plane, or by rounding below
    predictor.after_step((z,))
    assert predictor.linear.weight.isfinite().all()
    assert predictor(projections(1)).isfinite().all()
