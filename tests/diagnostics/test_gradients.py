import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stopgrad import diagnostics as d
from stopgrad.diagnostics import Gradient, unit


def cloud(seed, n=40, dim=6):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_norms_by_part():
    online, predictor, target = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(4, 3)
    x = torch.randn(8, 4)
    (predictor(online(x)) - target(x).detach()).square().mean().backward()
    parts = {"online": online, "predictor": predictor, "target": target}
    norms = d.gradient_norms({name: part.parameters() for name, part in parts.items()})
    for name in ("online", "predictor"):
        flat = torch.cat([parameter.grad.flatten() for parameter in parts[name].parameters()])
        assert norms[name] == pytest.approx(float(flat.norm()), rel=1e-6)
    assert norms["target"] == 0
    online.weight.grad[0, 0] = torch.nan
    assert math.isnan(d.gradient_norms({"online": online.parameters()})["online"])


def test_half_precision_gradients_do_not_overflow():
    weight = torch.zeros(1000, dtype=torch.float16, requires_grad=True)
    weight.grad = torch.full_like(weight, 6e4)
    assert d.gradient_norms({"w": [weight]})["w"] == pytest.approx(6e4 * math.sqrt(1000), rel=1e-3)


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.integers(1, 50), st.integers(2, 8))
def test_noise_scale_inverts_the_expected_norms(noise, signal, small, factor):
    """E |G_B|^2 = |G|^2 + tr(Sigma) / B."""
    big = small * factor
    found = d.gradient_noise_scale(signal + noise / small, signal + noise / big, small, big)
    assert found.noise == pytest.approx(noise, rel=1e-6)
    assert found.signal == pytest.approx(signal, rel=1e-6)
    assert found.scale == pytest.approx(noise / signal, rel=1e-6)


def test_noise_of_parts_is_unbiased():
    mean = torch.full((20,), 0.3, dtype=torch.float64)
    deviations = torch.linspace(0.5, 1.5, 20, dtype=torch.float64)
    samples = mean + deviations * cloud(0, 4000 * 8 * 5, 20)
    parts = samples.view(4000, 8, 5, 20).mean(dim=2)
    found = [d.gradient_noise_of_parts(part, batch=5) for part in parts]
    assert sum(f.noise for f in found) / 4000 == pytest.approx(float(deviations.square().sum()), rel=0.02)
    assert sum(f.signal for f in found) / 4000 == pytest.approx(20 * 0.3**2, rel=0.03)


def test_no_signal_is_an_infinite_scale_and_bad_batches_are_refused():
    assert d.gradient_noise_scale(1.0, 0.5, 1, 2).scale == math.inf
    with pytest.raises(ValueError, match="small_batch < big_batch"):
        d.gradient_noise_scale(1.0, 1.0, 4, 4)
    with pytest.raises(ValueError, match="two parts"):
        d.gradient_noise_of_parts(torch.ones(1, 5), 4)


@given(st.integers(0, 2**31), st.integers(2, 30))
def test_decorrelation_pull_is_minus_the_gradient_of_the_off_diagonal_covariance(seed, n):
    z = cloud(seed, n) + 0.5
    rows = unit(z).requires_grad_()
    residual = rows - rows.mean(dim=0)
    covariance = residual.T @ residual / (n - 1)
    loss = (covariance.square().sum() - covariance.diagonal().square().sum()) / 6
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(d.off_diagonal_covariance(z)))
    torch.testing.assert_close(d.decorrelation_pull(z), -rows.grad)


def test_cosines_of_the_extra_gradient():
    z, p = cloud(0) + 0.5, cloud(1) + torch.tensor([1.0, 0, 0, 0, 0, 0])
    pull = d.decorrelation_pull(z)
    o_z, o_p = unit(z).mean(dim=0), unit(p).mean(dim=0)
    found = d.extra_cosines(Gradient(unit(p), -2 * o_z + 3 * pull), z, p)
    assert found.o_e_o_z == pytest.approx(-1)
    assert found.o_e_o_p == pytest.approx(-float(o_z @ o_p / (o_z.norm() * o_p.norm())))
    assert found.r_e_decorrelation == pytest.approx(1)
    simsiam = d.extra_cosines(Gradient(unit(p), unit(z) - unit(p)), z, p)
    assert simsiam.o_e_o_p == pytest.approx(float((o_z - o_p) @ o_p / ((o_z - o_p).norm() * o_p.norm())))
    assert math.isnan(d.extra_cosines(Gradient(unit(z), unit(z)), z).o_e_o_p)


def test_decorrelation_needs_two_rows():
    with pytest.raises(ValueError, match="at least two rows"):
        d.decorrelation_pull(torch.ones(1, 3))
