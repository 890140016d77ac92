"""Pickles may hold data and nothing else."""

import io
import pickle

import numpy as np
import pytest

from stopgrad.data.sources.safe_pickle import load_pickle
from stopgrad.errors import UsageError


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"cstopgrad.errors\nrequire\n.",
        b"c__main__\nx\n.",
    ],
)
def test_nothing_but_data_can_be_named(program):
    with pytest.raises(UsageError, match="refused"):
        load_pickle(io.BytesIO(program))


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array([1.5]),
        np.array([1], ">i4"),
        np.array(["x"]),
        np.zeros(1, "u1,u1"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_only_plain_integers_are_admitted(array, protocol):
    with pytest.raises((pickle.UnpicklingError, UsageError)):
        load_pickle(io.BytesIO(pickle.dumps({"data": array}, protocol)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "i8", "<i4"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_survive(order, dtype, protocol):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    loaded = load_pickle(io.BytesIO(pickle.dumps({"data": array}, protocol)))["data"]
    assert loaded.dtype == array.dtype
    assert np.array_equal(loaded, array)
