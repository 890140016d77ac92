import json
import pickle
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from stopgrad import diagnostics
from stopgrad.errors import UsageError
from stopgrad.evaluation.vectors import save_vectors
from stopgrad.postmortem import files
from stopgrad.postmortem.files import open_vectors

ROWS, DIM = 103, 12


def npy(path, x):
    np.save(path, x)


def npz(path, x):
    np.savez_compressed(path, vectors=x, labels=np.arange(len(x)))


def ours(path, x):
    save_vectors(path, torch.from_numpy(x), [str(i) for i in range(len(x))], torch.arange(len(x)))


def lists(path, x):
    pq.write_table(pa.table({"name": ["a"] * len(x), "emb": list(x)}), path, row_group_size=30)


def arrow_tensors(path, x):
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))
    pq.write_table(pa.table({"emb": column}), path, row_group_size=30)


def pt(path, x):
    torch.save(torch.from_numpy(x), path)


def old_pt(path, x):
    torch.save({"z": torch.from_numpy(x), "epoch": 3}, path, _use_new_zipfile_serialization=False)


def safetensors(path, x):
    save_file({"z": torch.from_numpy(x), "labels": torch.arange(len(x))}, path)


WRITERS = {
    "npy": npy, "npz": npz, "ours.npz": ours, "ours.parquet": ours, "lists.parquet": lists,
    "tensors.parquet": arrow_tensors, "pt": pt, "old.pt": old_pt, "safetensors": safetensors,
}  # fmt: skip


def read(path, key=None):
    return torch.cat(list(open_vectors(path, key).chunks()))


@pytest.mark.parametrize("chunk", [5 * DIM, ROWS * DIM, 2**22])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_rows_in_order_whatever_the_chunk(tmp_path, rng, monkeypatch, kind, chunk):
    x = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    path = tmp_path / f"x.{kind}"
    WRITERS[kind](path, x)
    monkeypatch.setattr(files, "CHUNK", chunk)
    opened = open_vectors(path)
    parts = list(opened.chunks())
    assert (opened.rows, opened.dim) == x.shape
    assert max(len(part) for part in parts) <= max(1, chunk // DIM)
    assert torch.equal(torch.cat(parts), torch.from_numpy(x))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "longdouble", "i1", "u2", ">i4", "u8"])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_every_real_dtype_and_order_of_numpy(tmp_path, rng, monkeypatch, kind, dtype, order):
    x = (100 * rng.random((ROWS, DIM))).astype(dtype)
    x = np.asarray(x, order=order)
    WRITERS[kind](tmp_path / f"x.{kind}", x)
    monkeypatch.setattr(files, "CHUNK", 50 * DIM)
    assert np.array_equal(read(tmp_path / f"x.{kind}").double().numpy(), x.astype(np.float64))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_bfloat16(tmp_path, suffix):
    x = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0)).bfloat16()
    path = tmp_path / f"x.{suffix}"
    torch.save({"z": x}, path) if suffix == "pt" else save_file({"z": x}, path)
    assert torch.equal(read(path), x)


def test_a_key_chooses_and_an_obvious_name_needs_none(tmp_path, rng):
    x, y = rng.normal(size=(2, ROWS, DIM)).astype(np.float32)
    np.savez(tmp_path / "a.npz", h=x, z=y)
    np.savez(tmp_path / "b.npz", other=x, embeddings=y)
    np.savez(tmp_path / "c.npz", only=y, labels=np.arange(9), flat=x[0])
    assert np.array_equal(read(tmp_path / "a.npz", "z"), y)
    assert np.array_equal(read(tmp_path / "b.npz"), y)
    assert np.array_equal(read(tmp_path / "c.npz"), y)
    with pytest.raises(UsageError, match=r"2 arrays \(N, D\), say which by --key: h \(103, 12\) float32, z"):
        open_vectors(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r"no 'q' in it; it holds h \(103, 12\) float32"):
        open_vectors(tmp_path / "a.npz", "q")
    with pytest.raises(UsageError, match=r"'flat': expected shape \(N, D\)"):
        open_vectors(tmp_path / "c.npz", "flat")


class Planted:
    def __reduce__(self):
        return pytest.fail, ("code in the file ran",)


def damaged(tmp_path, rng):
    """name -> what the one line says."""
    x = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    np.save(tmp_path / "objects.npy", np.array([[Planted()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", v=np.array([[Planted()]], dtype=object))
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Planted()))
    torch.save({"z": Planted()}, tmp_path / "planted.pt")
    np.save(tmp_path / "whole.npy", x)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-7])
    (tmp_path / "header.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:20])
    np.savez(tmp_path / "whole.npz", v=x)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-700])
    with zipfile.ZipFile(tmp_path / "inner.npz", "w") as archive:
        archive.writestr("v.npy", (tmp_path / "whole.npy").read_bytes()[:-7])
    for name in ("text.npy", "text.npz", "text.pt", "text.safetensors", "text.parquet"):
        (tmp_path / name).write_text("these are no vectors, whatever the name says\n" * 9)
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "flat.npy", x[0])
    np.save(tmp_path / "cube.npy", x[:, :, None])
    np.save(tmp_path / "complex.npy", x.astype(np.complex64))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "none.npy", x[:0])
    np.save(tmp_path / "one.npy", x[:1])
    np.save(tmp_path / "narrow.npy", x[:, :3])
    np.save(tmp_path / "no-width.npy", x[:, :0])
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    torch.save({f"layer{i}.weight": torch.zeros(9, 9) for i in range(9)}, tmp_path / "weights.pt")
    pq.write_table(pa.table({"a": [1.0, 2.0]}), tmp_path / "scalars.parquet")
    ragged = [[1.0] * 9] * 8 + [[1.0] * 7]
    pq.write_table(pa.table({"v": ragged}), tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"v": [*ragged[:8], None]}), tmp_path / "missing.parquet")
    pq.write_table(pa.table({"v": pa.array([], pa.list_(pa.float32()))}), tmp_path / "none.parquet")
    (tmp_path / "x.csv").write_text("1,2\n")
    return {
        "objects.npy": "Python objects", "objects.npz": "no array .* of real numbers; it holds v .* object",
        "pickle.pt": "not a file of torch.save|only running code",
        "planted.pt": "holds a .*Fail.*torch.save\\(c\\['state_dict'\\]",
        "cut.npy": "cut off", "header.npy": "not an array", "cut.npz": "damaged", "inner.npz": "cut off",
        "text.npy": "not an array of numpy.save", "text.npz": "not an archive",
        "text.pt": "not a file of torch.save",
        "text.safetensors": "not a safetensors file", "text.parquet": "not a Parquet file",
        "empty.npy": "the file is empty", "flat.npy": r"expected shape \(N, D\).* got \(12,\)",
        "cube.npy": r"got \(103, 12, 1\)", "complex.npy": "holds complex64, not real numbers",
        "words.npy": "not real numbers", "none.npy": "0 vectors, at least 7",
        "one.npy": "1 vector, at least 7",
        "narrow.npy": r"vectors of width 3; .* effective rank below 3\.1",
        "no-width.npy": "vectors of width 0",
        "list.pt": "holds a list", "numbers.pt": "no tensor under its names",
        "weights.pt": "--model timm/NAME --data", "scalars.parquet": "no array .* it holds a",
        "ragged.parquet": "row 8 of 'v' has 7 numbers, the first row 9",
        "missing.parquet": "row 8 .* no vector",
        "none.parquet": "0 vectors", "x.csv": "cannot read '.csv'", "absent.npy": "no such file",
    }  # fmt: skip


def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path, rng):
    for name, says in damaged(tmp_path, rng).items():
        with pytest.raises(UsageError, match=says) as error:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value), name


def test_a_missing_number_is_a_bad_row_and_no_shift(tmp_path):
    rows = [[float(i + j) for j in range(9)] for i in range(20)]
    rows[4][2] = None
    pq.write_table(pa.table({"v": rows}), tmp_path / "x.parquet")
    x = read(tmp_path / "x.parquet")
    assert x[4].isnan().sum() == 1
    assert x[5].tolist() == rows[5]


def test_reading_holds_few_chunks_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 2**20)
    x = np.zeros((200_000, 64), np.float16)  # 25.6 MB
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "x.npz", x=x)
    del x
    for name in ("x.npy", "x.npz"):
        opened = open_vectors(tmp_path / name)
        tracemalloc.start()
        assert sum(len(chunk) for chunk in opened.chunks()) == 200_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4.5 * 2 * files.CHUNK, name  # two bytes a number; one chunk is used while one is read


@pytest.mark.slow
def test_a_million_vectors_stream_in_half_a_gibibyte(tmp_path, rng):
    path = tmp_path / "x.npy"
    block = rng.normal(size=(20_000, 512)).astype(np.float16)
    head = {"descr": "<f2", "fortran_order": False, "shape": (1_000_000, 512)}
    with path.open("wb") as file:  # by parts: a child's peak memory begins at its parent's
        np.lib.format.write_array_header_1_0(file, head)
        for _ in range(50):
            block.tofile(file)
    script = (
        "import json, resource, sys; from stopgrad.postmortem.diagnose import diagnose\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "diagnose(sys.argv[1])\n"  # loads all that it needs
        "before, found = peak(), diagnose(sys.argv[2])\n"
        "print(json.dumps([found['verdict'], found['measures']['std'], peak() - before]))"
    )
    few = tmp_path / "few.npy"
    np.save(few, block[:1000])
    done = subprocess.run(
        [sys.executable, "-c", script, few, path], capture_output=True, text=True, check=True
    )
    verdict, std, added = json.loads(done.stdout)
    assert verdict == "healthy"
    assert std == pytest.approx(float(diagnostics.embedding_std(torch.from_numpy(block))), rel=1e-5)
    assert added < 2**19  # KiB
