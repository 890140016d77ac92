"""The square root by products, against the eigendecomposition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.parts.predictors.square_root import MARGIN, QUADRATICS, square_root, top_eigenvalue


def rotated(spectrum, seed=0):
    generator = torch.Generator().manual_seed(seed)
    dim = len(spectrum)
    q = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator)).Q
    f = (q * spectrum) @ q.T
    return (f + f.T) / 2, (q * spectrum.sqrt()) @ q.T


def spectra(dim):
    i = torch.linspace(0, 1, dim, dtype=torch.float64)
    zeros = torch.zeros(dim, dtype=torch.float64)
    return {
        "geometric, condition 1e6": 10 ** (-6 * i),
        "even, condition 1e6": 1 - i * (1 - 1e-6),
        "one large, condition 1e6": torch.cat([i[-1:], 10 ** (-2 - 4 * i[1:])]),
        "half of the rank": torch.where(i < 0.5, 10 ** (-6 * i), zeros),
        "rank 8": torch.cat([torch.linspace(1, 0.1, 8, dtype=torch.float64), zeros[8:]]),
        "rank 1": torch.cat([i[-1:], zeros[1:]]),
        "flat": i * 0 + 1,
        "condition 1e12": 10 ** (-12 * i),
    }


NAMES = list(spectra(16))


def test_the_quadratics_keep_to_their_error():
    s = torch.cat([torch.zeros(1), torch.logspace(-12, 0, 400_001)]).double()
    x, m = s.sqrt(), s
    for constant, linear, square in QUADRATICS:
        x = x * (constant + linear * m + square * m * m)
        m = x.square()
    error = (s.sqrt() * (x - 1)).abs()
    assert 1.5e-4 < float(error.max()) < 1.7e-4
    assert x[0] == 0


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
@pytest.mark.parametrize("dim", [16, 200])
@pytest.mark.parametrize("name", NAMES)
def test_root_in_single_precision_to_a_thousandth(name, dim, scale):
    f, root = rotated(spectra(dim)[name])
    single = (scale * f).float()
    found = square_root(single, top_eigenvalue(single)).double() / scale**0.5
    error = found - root
    assert torch.linalg.matrix_norm(error, 2) < 5e-4 * torch.linalg.matrix_norm(root, 2)
    assert torch.linalg.matrix_norm(error) < 5e-4 * torch.linalg.matrix_norm(root)


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.floats(-12, 0))
def test_root_turns_with_the_matrix(seed, least):
    """The root of Q F Q^T is Q F^(1/2) Q^T; in float64, to the error of the fit."""
    spectrum = torch.logspace(0, least, 12, dtype=torch.float64)
    f, root = rotated(spectrum, seed)
    found = square_root(f, top_eigenvalue(f))
    assert torch.linalg.matrix_norm(found - root, 2) < 2e-4
    torch.testing.assert_close(found, found.T, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("name", "dim"),
    [(name, dim) for name in NAMES for dim in (1, 2, 31, 32, 33, 300) if dim > 8 or name != "rank 8"],
)
def test_top_eigenvalue_from_below(name, dim):
    f, _ = rotated(spectra(dim)[name])
    exact = float(torch.linalg.eigvalsh(f)[-1])
    assert float(top_eigenvalue(f)) == pytest.approx(exact, rel=3e-4)
    assert float(top_eigenvalue(f)) <= exact * (1 + 1e-9)
    assert float(top_eigenvalue(f.float())) == pytest.approx(exact, rel=3e-4)


def test_a_top_that_is_low_by_the_margin_does_no_harm():
    f, root = rotated(spectra(64)["even, condition 1e6"])
    found = square_root(f, torch.tensor(1 / MARGIN, dtype=torch.float64))
    assert torch.linalg.matrix_norm(found - root, 2) < 2e-4


def test_a_stack_is_its_matrices():
    stack = torch.stack([rotated(spectra(16)[name])[0] * (i + 1) for i, name in enumerate(NAMES)])
    top = top_eigenvalue(stack)
    roots = square_root(stack, top)
    for f, each, root in zip(stack, top, roots, strict=True):
        torch.testing.assert_close(top_eigenvalue(f), each)
        torch.testing.assert_close(square_root(f, each), root)


def test_zero_and_nan():
    zero = torch.zeros(8, 8)
    assert top_eigenvalue(zero) == 0
    assert torch.equal(square_root(zero, top_eigenvalue(zero)), zero)
    bad = torch.eye(8)
    bad[2, 3] = torch.nan
    assert top_eigenvalue(bad).isnan()
    assert square_root(bad, top_eigenvalue(bad)).isnan().any()
