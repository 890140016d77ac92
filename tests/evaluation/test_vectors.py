import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.errors import UsageError
from stopgrad.evaluation.vectors import check_suffix, check_vectors, load_vectors, save_vectors

BOTH = pytest.mark.parametrize("suffix", [".npz", ".parquet"])
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@pytest.fixture(autouse=True)
def _needs_pyarrow():
    pytest.importorskip("pyarrow")


@BOTH
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read(suffix, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / f"emb{suffix}"
    count, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    vectors = torch.randn(count, width) * 1e3
    ids = data.draw(st.lists(text, min_size=count, max_size=count))
    classes = data.draw(st.none() | st.lists(text, min_size=1, max_size=4, unique=True))
    labelled = st.lists(st.integers(0, len(classes or [0]) - 1), min_size=count, max_size=count)
    labels = data.draw(st.none() | labelled.map(torch.tensor))
    save_vectors(path, vectors, ids, labels, classes)
    read = load_vectors(path)
    assert torch.equal(read.vectors, vectors)
    assert read.vectors.dtype == torch.float32
    assert read.ids == tuple(ids)
    assert read.classes == (None if classes is None else tuple(classes))
    assert (read.labels is None) == (labels is None)
    assert labels is None or (torch.equal(read.labels, labels) and read.labels.dtype == torch.int64)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_libraries_read_the_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    save_vectors(
        tmp_path / "e.parquet", torch.eye(3), ["a", "b", "c"], torch.tensor([1, 0, 1]), ["x", "y", "z"]
    )
    rows = parquet.read_table(tmp_path / "e.parquet").to_pylist()
    assert rows[0] == {"id": "a", "vector": [1.0, 0.0, 0.0], "label": 1, "class": "y"}


@BOTH
def test_a_failed_write_leaves_the_old_file(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"emb{suffix}"
    save_vectors(path, torch.eye(2), ["a", "b"])
    old = path.read_bytes()
    writer = {".npz": "_write_npz", ".parquet": "_write_parquet"}[suffix]

    def dies_half_way(path, *_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(f"stopgrad.evaluation.vectors.{writer}", dies_half_way)
    with pytest.raises(OSError, match="disk full"):
        save_vectors(path, torch.zeros(2, 2), ["a", "b"])
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["emb.csv", "emb", "emb.npz.gz"])
def test_an_unknown_suffix_is_one_line(name, tmp_path):
    with pytest.raises(UsageError, match=r"\.npz or \.parquet") as error:
        check_suffix(tmp_path / name)
    assert "\n" not in str(error.value)


@BOTH
@pytest.mark.parametrize("content", [b"", b"no such format"])
def test_a_foreign_file_is_one_line(suffix, content, tmp_path):
    path = tmp_path / f"emb{suffix}"
    with pytest.raises(UsageError, match="no such file"):
        load_vectors(path)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not an embedding file") as error:
        load_vectors(path)
    assert "\n" not in str(error.value)


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def test_a_pickle_inside_is_not_run(tmp_path):
    path, trace = tmp_path / "emb.npz", tmp_path / "trace"
    np.savez(path, vectors=np.array([Hostile(trace)], dtype=object), ids=np.array(["a"]))
    with pytest.raises(UsageError, match="not an embedding file"):
        load_vectors(path)
    assert not trace.exists()
    with np.load(path, allow_pickle=True) as file:
        _ = file["vectors"]
    assert trace.exists()  # so it would have been run


def test_lengths_that_differ_are_refused(tmp_path):
    with pytest.raises(UsageError, match="1 ids"):
        save_vectors(tmp_path / "e.npz", torch.eye(2), ["a"])
    with pytest.raises(UsageError, match="expected 2 labels"):
        save_vectors(tmp_path / "e.npz", torch.eye(2), ["a", "b"], torch.tensor([0]))
    with pytest.raises(UsageError, match="no name"):
        save_vectors(tmp_path / "e.npz", torch.eye(2), ["a", "b"], torch.tensor([0, 1]), ["x"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_vectors_of_a_diverged_run_are_named(bad):
    vectors = torch.zeros(5, 3)
    vectors[2, 1] = bad
    with pytest.raises(UsageError, match="1 of 5 vectors"):
        check_vectors(vectors, "train")
