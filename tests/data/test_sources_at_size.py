"""Folders, shards, Hugging Face data sets and streams: each sample once an epoch, and no damaged one.

Every picture is of one grey of its own and of a size of its own, so that what a batch shows tells which
samples it was made of.
"""

import gc
import io
import pickle
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.data.augment import RandomResizedCrop
from stopgrad.data.batches import Batch, Batches, evaluation_batches
from stopgrad.data.sources import DataSettings, FilePart, huggingface, is_data_set, load_dataset
from stopgrad.data.sources.blobs import Blobs, Texts
from stopgrad.data.sources.parts import Files
from stopgrad.data.views import Views
from stopgrad.errors import MissingExtra

from .shards import write_shard

COUNT = 47
DAMAGED = {5: b"no picture at all", 31: None}  # None: the first half of its file
CROP = (RandomResizedCrop(size=8),)
VIEWS = Views(first=CROP, second=CROP, size=8)
KINDS = ("folder", "webdataset", "hf-disk", "hf-parquet", "hf-images", "hf-stream")


def encoded(i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((10 + i % 5, 12, 3), 5 * i, np.uint8)).save(file, "PNG")
    whole = file.getvalue()
    return whole if i not in DAMAGED else DAMAGED[i] or whole[: len(whole) // 2]


def label(i: int) -> int:
    return i % 3


def write_folder(root: Path) -> DataSettings:
    for i in range(COUNT):
        (root / str(label(i))).mkdir(parents=True, exist_ok=True)
        (root / str(label(i)) / f"{i:02}.png").write_bytes(encoded(i))
    return DataSettings(name=str(root))


def write_shards(root: Path) -> DataSettings:
    for shard in range(4):
        members = []
        for i in range(shard * 13, min(COUNT, shard * 13 + 13)):
            members += [(f"{i:02}.cls", str(label(i)).encode()), (f"{i:02}.png", encoded(i))]
        write_shard(root / f"s-{shard:03}.tar", members)
    return DataSettings(name="webdataset", dir=root / "s-{000..003}.tar")


def rows(library):
    kinds = library.Features({"picture": library.Image(), "kind": library.ClassLabel(names=["a", "b", "c"])})
    cells = [{"picture": {"bytes": encoded(i), "path": None}, "kind": label(i)} for i in range(COUNT)]
    return library.Dataset.from_list(cells, features=kinds)


def write_disk(root: Path) -> DataSettings:
    rows(pytest.importorskip("datasets")).save_to_disk(root)
    return DataSettings(name=f"hf:{root}")


def write_parquet(root: Path) -> DataSettings:
    data, root = rows(pytest.importorskip("datasets")), root / "parquet"
    root.mkdir(parents=True)
    for part in range(2):
        data.shard(2, part, contiguous=True).to_parquet(root / f"{part}.parquet")
    return DataSettings(name=f"hf:{root}/*.parquet")


def write_images(root: Path) -> DataSettings:
    pytest.importorskip("datasets")
    write_folder(root / "train")
    return DataSettings(name="hf", dir=root)


def write_stream(root: Path) -> DataSettings:
    settings = write_parquet(root)
    return settings.model_copy(update={"streaming": True, "limit": 30})


WRITE: dict[str, Callable[[Path], DataSettings]] = dict(
    zip(
        KINDS,
        (write_folder, write_shards, write_disk, write_parquet, write_images, write_stream),
        strict=True,
    )
)


@pytest.fixture(params=KINDS)
def settings(request, tmp_path: Path, monkeypatch) -> DataSettings:
    if request.param.startswith("hf"):
        library = pytest.importorskip("datasets")
        monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hf")
        library.disable_progress_bars()
        monkeypatch.setattr(huggingface, "NEAR", 7)
        monkeypatch.setattr(huggingface.Stream, "near", 7)
        monkeypatch.setattr(huggingface, "_AT_ONCE", 3)
    return WRITE[request.param](tmp_path / "data").model_copy(update={"workers": 1})


def shown(batch: Batch) -> list[int]:
    """Which samples a batch was made of, by both of its views."""
    first, second = ((view.mean((1, 2, 3)) * 255 / 5).round().int().tolist() for view in batch.views)
    assert first == second
    return first


def samples(part) -> list[int]:
    return [round(float(part[i].float().mean()) / 5) for i in range(len(part))]


def test_each_sample_once_an_epoch_over_ranks_and_workers(settings):
    part = load_dataset(settings).train
    assert isinstance(part, FilePart)
    everything = samples(part)
    if not settings.streaming:
        assert len(set(everything)) == len(part)
        assert not set(everything) & set(DAMAGED)
    orders = set()
    for world, workers, epoch in ((1, 0, 0), (1, 2, 1), (2, 0, 2), (2, 2, 0)):
        ranks = [
            Batches(part, VIEWS, 4, seed=3, rank=rank, world=world, workers=workers) for rank in range(world)
        ]
        seen = [list(batches.epoch(epoch)) for batches in ranks]
        indices = [i for batches in seen for batch in batches for i in batch.index.tolist()]
        assert len(indices) == len(part) // 4 * 4
        assert len(set(indices)) == len(indices)
        contents = Counter(i for batches in seen for batch in batches for i in shown(batch))
        assert contents == Counter(everything[i] for i in indices)
        orders.add(tuple(indices))
        for batches in ranks:
            batches.close()
    assert len(orders) == 4


def test_resume_equals_the_rest_of_the_epoch(settings):
    part = load_dataset(settings).train
    whole = [list(Batches(part, VIEWS, 4, seed=1, workers=0).epoch(epoch)) for epoch in (0, 1)]
    for workers, epoch, start in ((0, 1, 3), (2, 0, 4), (0, 0, 5)):
        again = load_dataset(settings).train  # as a new process would
        batches = Batches(again, VIEWS, 4, seed=1, workers=workers)
        resumed = list(batches.epoch(epoch, start))
        assert len(resumed) == len(whole[epoch]) - start > 0
        for a, b in zip(resumed, whole[epoch][start:], strict=True):
            assert torch.equal(a.index, b.index)
            assert all(map(torch.equal, a.views, b.views))
        batches.close()


def test_damaged_samples_are_left_out_counted_and_named(settings):
    data = load_dataset(settings)
    parts = [data.train, data.val, data.test]
    if settings.streaming:
        assert [s.path for s in data.skipped] == ["val/5"]
        # the other one lies in the stream, where the next readable one takes its place
        contents = samples(data.train)
        assert 31 not in contents
        assert contents.count(32) == 2
        return
    assert len(data.skipped) == len(DAMAGED)
    everything = [i for part in parts for i in samples(part)]
    assert sorted(everything) == sorted(set(range(COUNT)) - set(DAMAGED))
    where = [int("".join(filter(str.isdigit, Path(s.path).stem))) for s in data.skipped]
    order = sorted(range(COUNT), key=lambda i: (label(i), i)) if settings.name == "hf" else range(COUNT)
    assert sorted(order[i] if settings.name.startswith("hf") else i for i in where) == list(DAMAGED)
    assert data.classes is not None
    for part in parts:
        assert [i % 3 for i in samples(part)] == part.labels.tolist()


def test_labels_of_a_stream_are_those_of_what_is_held_back(tmp_path, monkeypatch):
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    data = load_dataset(write_stream(tmp_path))
    assert data.train.labels is None
    assert data.classes == ("a", "b", "c")
    held = [data.val, data.test, data.probe]
    assert [len(part) for part in held] == [6, 7, 7]
    for part in held:
        assert [i % 3 for i in samples(part)] == part.labels.tolist()
    # what is evaluated is not trained on; the bank of neighbours is
    assert not {*samples(data.val), *samples(data.test)} & set(samples(data.train))
    assert set(samples(data.probe)) <= set(samples(data.train))


def test_parts_are_the_same_in_a_process_that_starts_afresh(settings):
    part = load_dataset(settings).train
    again = pickle.loads(pickle.dumps(part))
    assert samples(again) == samples(part)
    assert [index.tolist() for index, _ in evaluation_batches(again, 8, 16, workers=0)] == [
        list(range(start, min(start + 16, len(part)))) for start in range(0, len(part), 16)
    ]


@pytest.mark.parametrize(
    ("module", "name"), [("datasets", "hf:somebody/something"), ("braceexpand", "webdataset:{a,b}.tar")]
)
def test_a_missing_extra_is_named(module, name, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"^{module} is not installed: pip install 'stopgrad\[data\]'$"):
        load_dataset(DataSettings(name=name))


def test_names_with_a_place_reach_every_command(tmp_path: Path):
    settings = write_shards(tmp_path)
    short = DataSettings(name=f"webdataset:{tmp_path}/s-*.tar")
    assert samples(load_dataset(short).train) == samples(load_dataset(settings).train)
    assert is_data_set(short.name)
    assert is_data_set("hf:x/y")
    assert not is_data_set(str(tmp_path))


def test_texts_and_blobs_are_what_went_in():
    names = ["a/ü.png", "", "b\udcff.png", "x" * 300]
    texts = Texts(names)
    assert list(texts) == names
    assert texts[-1] == names[-1]
    assert texts[1:3] == names[1:3]
    assert list(Texts.of_columns(texts.columns("n"), "n")) == names
    assert list(Texts()) == list(Blobs()) == []
    with pytest.raises(IndexError):
        texts[4]
    damaged = {**texts.columns("n"), "n.data": np.zeros(3, np.uint8)}
    with pytest.raises(ValueError, match="no strings"):
        Texts.of_columns(damaged, "n")


def test_a_part_of_many_files_holds_no_object_for_each():
    """What a worker would copy by touching it: objects that the garbage collector and counts reach."""
    part = FilePart(Files(Path("/nowhere"), (f"folder/{i:08}.jpg" for i in range(100_000))), None, 3)
    assert len(part) == 100_000
    reached, todo = set(), [part]
    while todo:
        todo = [
            x
            for x in gc.get_referents(*todo)
            if id(x) not in reached and not isinstance(x, type | ModuleType)
        ]
        reached |= {id(x) for x in todo}
        assert len(reached) < 1000
