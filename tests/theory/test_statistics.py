"""Moments of two views: against all pairs at once, in any split and order, and from real images."""

import itertools
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.data.sources import ArrayPart
from stopgrad.data.views import preset
from stopgrad.errors import UsageError
from stopgrad.theory import statistics
from stopgrad.theory.flow import Flow
from stopgrad.theory.statistics import Moments, estimate, gaussian_views


def pairs(seed, count=40, dim=3, shift=2.0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(count, dim, generator=generator, dtype=torch.float64)  # noqa: E731
    image = shift + draw() @ draw()[:dim]
    return image + 0.3 * draw(), image + 0.1 + 0.5 * draw()


def direct(x1, x2, centred):
    """Sigma_s and Sigma_d as defined, in both orders of the views, by the outer products of each pair."""
    x1, x2 = x1.numpy(), x2.numpy()
    mean = (x1.mean(0) + x2.mean(0)) / 2 if centred else np.zeros(x1.shape[1])
    a, b = x1 - mean, x2 - mean
    sigma_s = np.mean([(np.outer(p, p) + np.outer(q, q)) / 2 for p, q in zip(a, b, strict=True)], axis=0)
    sigma_d = np.mean([(np.outer(p, q) + np.outer(q, p)) / 2 for p, q in zip(a, b, strict=True)], axis=0)
    return sigma_s, sigma_d


def seen(x1, x2, **options):
    moments = Moments.empty(x1[0].numel(), **options)
    moments.update(x1, x2)
    return moments


def assert_same(first, second, rtol=1e-12):
    assert first.count == second.count
    for name in ("mean", "X", "X_prime", "sigma_s"):
        one, other = np.asarray(getattr(first, name)), np.asarray(getattr(second, name))
        np.testing.assert_allclose(one, other, atol=rtol * np.abs(other).max())


@pytest.mark.parametrize("centred", [False, True])
def test_moments_are_the_definitions(centred):
    x1, x2 = pairs(0)
    moments = seen(x1, x2, centred=centred)
    sigma_s, sigma_d = direct(x1, x2, centred)
    np.testing.assert_allclose(moments.sigma_s, sigma_s, rtol=1e-11)
    np.testing.assert_allclose(moments.X, sigma_d, rtol=1e-11)
    np.testing.assert_allclose(moments.X_prime, sigma_s - sigma_d, rtol=1e-10)
    assert (moments.X == moments.X.T).all()
    assert moments.X.dtype == np.float64


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=4, unique=True), order=st.randoms(use_true_random=False),
       centred=st.booleans())  # fmt: skip
def test_any_split_in_any_order_merges_to_the_whole(cuts, order, centred):
    x1, x2 = pairs(1, shift=100.0)
    bounds = [0, *sorted(cuts), 40]
    parts = [seen(x1[a:b], x2[a:b]) for a, b in itertools.pairwise(bounds)]
    order.shuffle(parts)
    whole = Moments.empty(3, centred=centred)
    whole.merge(Moments.empty(3))
    for part in parts:
        whole.merge(part)
    whole.merge(Moments.empty(3))
    streamed = Moments.empty(3, centred=centred)
    for a, b in itertools.pairwise(bounds):
        streamed.update(x1[a:b], x2[a:b])
    assert_same(whole, seen(x1, x2, centred=centred), rtol=1e-11)
    assert_same(streamed, whole, rtol=1e-11)


def test_small_differences_of_large_values_are_not_lost():
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(2, 1000, 2, generator=generator, dtype=torch.float64)
    x1 = 1e6 + noise[0]
    x2 = x1 + 1e-3 * noise[1]
    gap = x1 - x2
    moments = Moments.empty(2, centred=True)
    for a in range(0, 1000, 100):
        moments.update(x1[a : a + 100], x2[a : a + 100])
    np.testing.assert_allclose(moments.X_prime, (gap.T @ gap / 2000).numpy(), rtol=1e-9)
    middle = (x1 + x2) / 2
    np.testing.assert_allclose(moments.X, torch.cov(middle.T, correction=0).numpy(), rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_a_few_views_of_many_values_are_a_flow(seed, count):
    x1, x2 = pairs(seed, 6, 5)
    moments = seen(x1[:count], x2[:count])
    assert np.linalg.eigvalsh(moments.X_prime)[0] > -1e-12 * moments.X_prime.max()
    Flow(moments.X, moments.X_prime, np.eye(5), np.eye(5))


def test_half_precision_images_are_summed_in_float64():
    x1, x2 = (x.reshape(40, 1, 1, 3) for x in pairs(3))
    moments = seen(x1.half(), x2.half())
    assert_same(moments, seen(x1.half().double(), x2.half().double()), rtol=0)


def joint_process_sum(count):
    """`torch.distributed` as `count` threads see it."""
    barrier, slots = threading.Barrier(count), {}

    def all_reduce(tensor):
        slots[threading.get_ident()] = tensor.clone()
        barrier.wait()
        total = sum(slots[key] for key in sorted(slots))
        barrier.wait()
        tensor.copy_(total)

    return types.SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, all_reduce=all_reduce
    )


def test_processes_end_with_the_moments_of_all(monkeypatch):
    x1, x2 = pairs(4, shift=50.0)
    monkeypatch.setattr(statistics, "dist", joint_process_sum(3))
    ends: list[Moments | None] = [None] * 3
    parts = [
        seen(x1[:5], x2[:5], centred=True),
        seen(x1[5:], x2[5:], centred=True),
        Moments.empty(3, centred=True),
    ]
    before = [part.count for part in parts]

    def reduce(rank):
        ends[rank] = parts[rank].all_reduced()

    threads = [threading.Thread(target=reduce, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for end in ends:
        assert_same(end, seen(x1, x2, centred=True), rtol=1e-11)
        assert end.centred
    assert [part.count for part in parts] == before
    assert_same(parts[0], seen(x1[:5], x2[:5], centred=True))


def test_one_process_reduces_to_a_copy():
    moments = seen(*pairs(5))
    copy = moments.all_reduced()
    assert_same(copy, moments)
    copy.update(*pairs(6))
    assert_same(moments, seen(*pairs(5)))


WORKER = """
import sys, torch, torch.distributed as dist
from stopgrad.theory.statistics import Moments
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
x = torch.arange(24, dtype=torch.float64).reshape(8, 3).sin()
moments = Moments.empty(3)
moments.update(x[rank::2], x[rank::2].cos())
joint, whole = moments.all_reduced(), Moments.empty(3)
whole.update(x, x.cos())
assert joint.count == 8 and abs(joint.X - whole.X).max() < 1e-14
assert abs(joint.X_prime - whole.X_prime).max() < 1e-14
"""


@pytest.mark.slow
def test_two_real_processes_do_so_too(tmp_path):
    commands = [[sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store")] for rank in range(2)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        assert process.wait(120) == 0, process.stderr.read()


@pytest.mark.parametrize("X", [np.diag([2.0, 0.5, 0.0]), np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, -0.2]])])
def test_gaussian_views_have_the_moments_asked_for(X):
    X_prime = np.diag([0.3, 0.2, 0.4])
    count = 40_000
    x1, x2 = gaussian_views(X, X_prime, count, seed=1)
    moments = seen(x1, x2)
    # standard errors of second moments of a Gaussian
    sigma_s = X + X_prime
    error = np.sqrt((np.outer(np.diag(sigma_s), np.diag(sigma_s)) + X**2) / count)
    assert (np.abs(moments.sigma_s - sigma_s) < 4 * error).all()
    assert (np.abs(moments.X - X) < 4 * error).all()
    assert np.abs(moments.mean.numpy()).max() < 4 * np.sqrt(2 / count)
    first, second = (x.T.numpy() @ x.numpy() / count for x in (x1, x2))
    assert (np.abs(first - second) < 8 * error).all()
    again = gaussian_views(X, X_prime, count, seed=1)
    assert torch.equal(again[0], x1)
    assert not torch.equal(gaussian_views(X, X_prime, count, seed=2)[0], x1)


def images(count=23, channels=1):
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, channels, 16, 16), dtype=torch.uint8, generator=generator)


def test_an_estimate_is_the_moments_of_the_pipelines_views(monkeypatch):
    views = preset("digits", 8)
    expected = Moments.empty(64, centred=True)
    for draw in range(3):
        x1, x2 = views(images(), torch.arange(23), seed=5, epoch=draw)
        expected.update((x1 - 0.4) / 0.3, (x2 - 0.4) / 0.3)
    options = {"draws": 3, "seed": 5, "centred": True, "mean": (0.4,), "std": (0.3,)}
    assert_same(estimate(images(), views, **options), expected, rtol=1e-6)
    assert_same(estimate(ArrayPart(images(), None, []), views, **options), expected, rtol=1e-6)
    monkeypatch.setattr(statistics, "TOGETHER", 8)
    parts = estimate(images(), views, **options)
    assert parts.count == 63  # batches of 7: 2 images are left out of each draw
    other = estimate(images(), views, **{**options, "seed": 6})
    assert np.abs(other.X - parts.X).max() > 1e-3


def test_draws_of_colour_images_fill_the_space_between_views():
    one, many = (estimate(images(12, 3), preset("simclr-32", 8), draws=draws) for draws in (1, 10))
    assert one.X.shape == (192, 192)
    ranks = [np.linalg.matrix_rank(moments.X_prime, tol=1e-10) for moments in (one, many)]
    assert ranks == [12, 120]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Moments.empty(3).X, "moments: no views"),
        (lambda: Moments.empty(3).merge(Moments.empty(2)), "moments: of 2 values a view, these are of 3"),
        (lambda: seen(torch.ones(2, 3), torch.ones(3, 3)), "views: two batches of 3 values"),
        (lambda: Moments.empty(3).update(torch.ones(2, 2), torch.ones(2, 2)), "views: two batches of 3"),
        (lambda: Moments.empty(3).update(torch.ones(0, 3), torch.ones(0, 3)), "views: two batches of 3"),
        (lambda: seen(torch.ones(2, 3), torch.full((2, 3), torch.nan)), "views: not all values are finite"),
        (lambda: gaussian_views(np.eye(2), -np.eye(2), 1, 0), "X_prime: has the eigenvalue -1"),
        (lambda: gaussian_views(-np.eye(2), np.eye(2), 1, 0), "X: no two views"),
        (lambda: gaussian_views(np.eye(2), np.eye(3), 1, 0), "X_prime: has shape"),
        (lambda: gaussian_views(np.eye(2), np.eye(2), 0, 0), "count: 0 is outside"),
        (lambda: estimate(images(), preset("digits"), draws=0), "draws: 0 is outside"),
        (lambda: estimate(images()[:0], preset("digits")), "images: empty"),
        (lambda: estimate(images()[0], preset("digits")), "images: uint8 .* are needed"),
        (lambda: estimate(images().float(), preset("digits")), "views: images are uint8"),
    ],
)
def test_bad_input_is_one_line_that_names_the_argument(call, message):
    with pytest.raises(UsageError, match=f"^{message}") as error:
        call()
    assert "\n" not in str(error.value)
