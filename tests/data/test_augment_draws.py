import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stopgrad.data.augment.draws import Draws, normals, uniforms

INDEX = torch.arange(2000)


def uniform(seed=0, epoch=0, index=INDEX, view=0, stream="s", shape=(10,)):
    return Draws(seed, epoch, index, view).uniform(stream, shape)


def test_uniform_numbers_are_uniform():
    found = uniform().flatten().numpy()
    assert found.min() >= 0
    assert found.max() < 1
    assert stats.kstest(found, "uniform").pvalue > 0.01
    # the low bits too: the fractional part of u * 2^12
    assert stats.kstest((found * 4096) % 1, "uniform").pvalue > 0.01


def test_normal_numbers_are_normal_and_independent_within_an_image():
    found = Draws(0, 0, INDEX, 0).normal("n", (9,))
    assert stats.kstest(found.flatten().numpy(), "norm").pvalue > 0.01
    # cosine and sine of one angle share a radius: uncorrelated, in their squares as well
    for values in (found, found.square()):
        correlation = np.corrcoef(values.numpy().T) - np.eye(9)
        assert abs(correlation).max() < 5 / np.sqrt(len(INDEX))


NEIGHBOURS = {
    "seed": {"seed": 1},
    "epoch": {"epoch": 1},
    "view": {"view": 1},
    "stream": {"stream": "t"},
    "index": {"index": INDEX + 1},
}


@pytest.mark.parametrize("change", NEIGHBOURS)
def test_streams_that_differ_in_one_thing_are_independent(change):
    one, other = uniform().flatten(), uniform(**NEIGHBOURS[change]).flatten()
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(len(one))
    # jointly uniform on the square, which is more than uncorrelated
    counts, *_ = np.histogram2d(one.numpy(), other.numpy(), bins=10, range=[[0, 1]] * 2)
    assert stats.chisquare(counts.flatten()).pvalue > 0.001
    assert (one == other).float().mean() < 0.001


def test_seed_epoch_and_view_do_not_stand_in_for_each_other():
    places = [(s, e, v) for s in range(4) for e in range(4) for v in range(2)]
    drawn = [uniform(seed=s, epoch=e, view=v, index=torch.arange(3), shape=()) for s, e, v in places]
    assert len(torch.unique(torch.stack(drawn))) == 3 * len(places)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20), st.integers(-(2**70), 2**70))
def test_an_image_draws_the_same_in_any_batch(index, seed):
    together = Draws(seed, 3, torch.tensor(index), 1)
    for place, one in enumerate(index):
        alone = Draws(seed, 3, torch.tensor([one]), 1)
        assert torch.equal(together.uniform("a", (5,))[place], alone.uniform("a", (5,))[0])
        assert torch.equal(together.keys("k")[place], alone.keys("k")[0])


def test_an_inner_stream_is_another_stream():
    draws = Draws(0, 0, INDEX, 0)
    outer, inner = draws.uniform("a"), draws.within("op0").uniform("a")
    assert (outer == inner).float().mean() < 0.01
    assert torch.equal(inner, Draws(0, 0, INDEX, 0).within("op0").uniform("a"))


def test_more_numbers_begin_with_the_same_ones():
    keys = Draws(0, 0, INDEX, 0).keys("k")
    assert torch.equal(uniforms(keys, 7)[:, :3], uniforms(keys, 3))
    assert normals(keys, 5).shape == (len(INDEX), 5)


def test_words_are_those_of_splitmix64():
    # the generator's published first output from state 0, and an independent implementation
    assert splitmix(0)[0] == 0xE220A8397B1DCDAF
    found = uniforms(torch.tensor([99]), 4)[0] * 2**24
    assert found.int().tolist() == [word >> 40 for word in splitmix(99, 4)]


def splitmix(state, count=1):
    out = []
    with np.errstate(over="ignore"):
        state = np.uint64(state)
        for _ in range(count):
            state += np.uint64(0x9E3779B97F4A7C15)
            z = state
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            out.append(int(z ^ (z >> np.uint64(31))))
    return out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_draws_what_the_cpu_draws():
    assert torch.equal(uniform(index=INDEX.cuda()).cpu(), uniform())
    far = Draws(0, 0, INDEX.cuda(), 0).normal("n", (9,)).cpu()
    torch.testing.assert_close(far, Draws(0, 0, INDEX, 0).normal("n", (9,)), rtol=1e-5, atol=1e-5)
