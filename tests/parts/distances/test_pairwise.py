import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.parts.distances import DISTANCES, cosine, euclidean, squared_l2


def pair(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 4, dtype=dtype, generator=generator), torch.randn(
        5, 4, dtype=dtype, generator=generator
    )


@given(st.integers(0, 2**31))
def test_against_loops(seed):
    q, k = pair(seed)
    rows = [(a.tolist(), b.tolist()) for a, b in zip(q, k, strict=True)]
    dot = [sum(x * y for x, y in zip(a, b, strict=True)) for a, b in rows]
    norms = [math.hypot(*a) * math.hypot(*b) for a, b in rows]
    similarity = sum(d / n for d, n in zip(dot, norms, strict=True)) / 5
    distance = sum(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in rows) / 5
    assert float(cosine(q, k)) == pytest.approx(-similarity, abs=1e-12)
    assert float(squared_l2(q, k)) == pytest.approx(2 - 2 * similarity, abs=1e-12)
    assert float(euclidean(q, k)) == pytest.approx(distance / 2, abs=1e-12)


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_cosine_does_not_see_scale_and_its_gradient_is_tangential(seed, scale):
    q, k = pair(seed)
    q.requires_grad_()
    assert cosine(scale * q, k).item() == pytest.approx(cosine(q, k).item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(cosine(q, k), q)
    assert (gradient * q).sum(dim=1).abs().max() < 1e-12


def test_half_precision_is_normalised_in_single():
    q = torch.full((1, 4096), 60.0, dtype=torch.float16)  # its squared norm overflows float16
    assert float(cosine(q, q)) == pytest.approx(-1, abs=1e-3)


def test_the_settings_stand_for_the_functions():
    q, k = pair(0)
    for name, function in {"cosine": cosine, "squared-l2": squared_l2, "euclidean": euclidean}.items():
        distance = DISTANCES[name]()
        assert torch.equal(distance(q, k), function(q, k))
        scaled = distance(3 * q, 0.1 * k)
        assert (scaled.item() == pytest.approx(distance(q, k).item())) == distance.normalises
