"""Hugging Face data sets: columns, splits, streams, and one line for what cannot work."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.data.batches import Batches
from stopgrad.data.sources import DataSettings, checks, huggingface, load_dataset
from stopgrad.data.views import preset
from stopgrad.errors import UsageError

library = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    library.disable_progress_bars()


def png(i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((10 + i % 5, 12, 3), 2 * i, np.uint8)).save(file, "PNG")
    return file.getvalue()


def rows(numbers: range, **columns) -> "library.Dataset":
    data = library.Dataset.from_dict({"img": [png(i) for i in numbers], **columns})
    return data.cast_column("img", library.Image())


def load(place: Path, **more):
    return load_dataset(DataSettings(name=f"hf:{place}", workers=1, **more))


def saved(path: Path, data) -> Path:
    data.save_to_disk(path)
    return path


def test_splits_are_parts_and_labels_of_numbers_or_names_are_classes(tmp_path: Path, caplog):
    def split(numbers: range, label):
        return rows(numbers, number=[9 + i % 3 for i in numbers], name=[label(i) for i in numbers])

    parts = {
        "train": split(range(30), lambda i: ("ox", "ant")[i % 2]),
        "validation": split(range(30, 40), lambda i: ("ox", "ant")[i % 2]),
        "test": split(range(40, 45), lambda i: "cow"),
    }
    place = saved(tmp_path / "d", library.DatasetDict(parts))
    data = load(place, label="number")
    assert data.classes == ("9", "10", "11")
    assert [len(part) for part in (data.train, data.val, data.test)] == [30, 10, 5]
    assert sorted(data.val.ids) == sorted(f"validation/{i}" for i in range(10))
    assert data.test.labels.tolist() == [i % 3 for i in range(40, 45)]
    with caplog.at_level(logging.WARNING):
        names = load(place, label="name")
    assert "test is not labelled as train is" in caplog.text
    assert names.classes == ("ant", "ox")
    assert {name.split("/")[0] for name in names.test.ids} == {"train"}
    assert load(place).classes is None
    other = load(place, split="validation")
    assert {name.split("/")[0] for name in other.train.ids} == {"validation"}


def test_a_column_of_bytes_is_one_of_images_where_it_is_named(tmp_path: Path):
    data = library.Dataset.from_dict({"raw": [png(i) for i in range(20)], "number": list(range(20))})
    place = saved(tmp_path / "d", data)
    assert len(load(place, image="raw").train) == 20 - 2 * 5
    for more, says in (
        ({}, r"--set data.image=COLUMN. Columns: raw, number"),
        ({"image": "row"}, "unknown 'row', did you mean 'raw'"),
        ({"image": "raw", "label": "numbr"}, "did you mean 'number'"),
    ):
        with pytest.raises(UsageError, match=says) as error:
            load(place, **more)
        assert "\n" not in str(error.value)


def test_rows_are_looked_at_once_until_the_data_set_changes(tmp_path: Path, monkeypatch):
    looked: list[str] = []
    check = checks.check_image
    monkeypatch.setattr(
        checks, "check_image", lambda source, name: looked.append(name) or check(source, name)
    )
    place = saved(tmp_path / "d", rows(range(20)))
    load(place)
    load(place)
    assert len(looked) == 20
    looked.clear()
    load(saved(tmp_path / "other", rows(range(12))))
    assert len(looked) == 12


def test_what_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    two = library.DatasetDict({"a": rows(range(9)), "b": rows(range(9))})
    for settings, says in (
        (DataSettings(name="hf"), "--data hf:NAME-or-path"),
        (DataSettings(name=f"hf:{tmp_path / 'none'}"), "none"),
        (DataSettings(name=f"hf:{saved(tmp_path / 'two', two)}"), r"split: unknown 'train'.* Known: a, b"),
        (DataSettings(name="hf:x", dir=tmp_path), "leave out --data-dir"),
    ):
        with pytest.raises(UsageError, match=says) as error:
            load_dataset(settings)
        assert "\n" not in str(error.value)


def parquet(tmp_path: Path, count: int) -> Path:
    rows(range(count)).to_parquet(tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def test_a_stream_has_to_say_how_long_it_is(tmp_path: Path):
    with pytest.raises(UsageError, match=r"data\.limit=IMAGES"):
        load(parquet(tmp_path, 30), streaming=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_that_ends_early_says_so_in_one_line(workers, tmp_path: Path):
    data = load(parquet(tmp_path, 30), streaming=True, limit=40)
    batches = Batches(data.train, preset("simclr-32", 8), 4, seed=0, workers=workers)
    with pytest.raises(UsageError, match=r"ended after \d+ training images: --set data.limit=") as error:
        list(batches.epoch(0))
    assert "\n" not in str(error.value)
    batches.close()


def test_a_stream_is_read_through_once_an_epoch(tmp_path: Path, monkeypatch):
    """Samples come shuffled among neighbours, from few encoded images that are kept."""
    monkeypatch.setattr(huggingface, "NEAR", 10)
    monkeypatch.setattr(huggingface.Stream, "near", 10)
    monkeypatch.setattr(huggingface, "_AT_ONCE", 2)
    part = load(parquet(tmp_path, 90), streaming=True, limit=64).train
    starts: list[int] = []
    most = 0
    read = huggingface._cells
    monkeypatch.setattr(huggingface, "_cells", lambda data: starts.append(1) or read(data))
    batches = Batches(part, preset("simclr-32", 8), 8, seed=0, workers=0)
    for epoch in range(2):
        order = []
        for batch in batches.epoch(epoch):
            order += batch.index.tolist()
            most = max(most, len(part.store._kept))
        assert order != sorted(order)
        assert sorted(order) == list(range(64))
        assert max(abs(place - row) for place, row in enumerate(order)) < 10
        assert len(starts) == epoch + 1
    assert most <= 12


def test_images_elsewhere_are_fetched(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(png(7))
    source = huggingface._encoded("a", {"bytes": None, "path": f"file://{tmp_path}/x.png"})
    assert source.read() == png(7)
    for missing in (f"file://{tmp_path}/y.png", None, {"bytes": None, "path": None}):
        with pytest.raises(huggingface.UnreadableImage):
            huggingface._encoded("a", missing)


def test_streams_and_rows_give_the_same_pixels(tmp_path: Path):
    path = parquet(tmp_path, 40)
    stream, whole = load(path, streaming=True, limit=20).train, load(path)
    by_name = {name: whole.train[i] for i, name in enumerate(whole.train.ids)}
    held = 40 - len(stream) - 2 * 5  # read from the head: 5 for validation, 5 for test
    assert held == 10
    same = [i for i in range(len(stream)) if f"train/{i + 10}" in by_name]
    assert len(same) > 8
    assert all(torch.equal(stream[i], by_name[f"train/{i + 10}"]) for i in same)
