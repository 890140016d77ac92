"""Folders: labels, parts, damage, caching, and files that go bad later."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stopgrad.data.sources import (
    ArrayPart,
    DataSettings,
    FilePart,
    assemble,
    checks,
    index,
    load_dataset,
    load_folder_part,
)
from stopgrad.data.sources.blobs import Texts
from stopgrad.data.sources.parts import fixed_permutation, held_out_count
from stopgrad.errors import UsageError


def settings(root: Path, **more) -> DataSettings:
    return DataSettings(name="folder", dir=root, **more)


@pytest.fixture
def fill(draw):
    """Write `count` PNGs of one size (or of growing size) below a folder."""

    def write(root: Path, count: int, height: int = 12, width: int = 10, grow: bool = False) -> None:
        root.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture = draw(height + i * grow, width, hash(str(root)) % 1000 + i)
            Image.fromarray(picture).save(root / f"{i:02}.png")

    return write


def all_ids(data) -> list[str]:
    return [*data.train.ids, *data.val.ids, *data.test.ids]


def test_mixed_folder_trains_without_its_damaged_files(mixed_folder):
    root, damaged = mixed_folder
    data = load_dataset(settings(root))
    assert [file.path for file in data.skipped] == damaged
    assert all(file.reason and "\n" not in file.reason for file in data.skipped)
    assert data.classes is None
    assert data.train.labels is None
    assert isinstance(data.train, FilePart)
    # every readable image in exactly one part
    assert sorted(all_ids(data)) == sorted(set(os.listdir(root)) - set(damaged))
    assert [len(part) for part in (data.train, data.val, data.test)] == [195 - 38, 19, 19]
    for part in (data.train, data.val, data.test):
        for i in range(len(part)):
            assert part[i].dtype == torch.uint8
            assert part[i].shape[0] == 3
    assert all_ids(load_dataset(settings(root))) == all_ids(data)


def test_grey_on_demand(mixed_folder):
    data = load_dataset(settings(mixed_folder[0], channels=1))
    assert data.channels == 1
    assert len(data.mean) == 1
    assert {data.train[i].shape[0] for i in range(30)} == {1}


def test_image_size_makes_an_array_of_mixed_images(mixed_folder):
    data = load_dataset(settings(mixed_folder[0], image_size=16, limit=50))
    assert isinstance(data.train, ArrayPart)
    assert data.train.images.shape == (50, 3, 16, 16)
    assert data.train.images.float().std() > 10


def test_labels_are_subfolders(fill, tmp_path: Path):
    for name in ("zebra", "ant/deep/er", "bee"):
        fill(tmp_path / name, 7)
    data = load_dataset(settings(tmp_path))
    assert data.classes == ("ant", "bee", "zebra")
    for part in (data.train, data.val, data.test):
        assert [data.classes[label] for label in part.labels] == [name.split("/")[0] for name in part.ids]
    part, classes, skipped = load_folder_part(tmp_path)
    assert list(part.ids) == sorted(all_ids(data))
    assert classes == data.classes
    assert skipped == ()


@pytest.mark.parametrize("folders", [[""], ["only"], ["only", ""], ["one", "two", ""]])
def test_no_labels_where_images_lie_loose_or_in_one_folder(folders, fill, tmp_path: Path):
    for name in folders:
        fill(tmp_path / name, 9)
    data = load_dataset(DataSettings(name=str(tmp_path)))
    assert data.classes is None
    assert data.test.labels is None
    assert len(all_ids(data)) == 9 * len(folders)


def test_parts_are_sequences(fill, tmp_path: Path):
    fill(tmp_path, 9, grow=True)
    part, _, _ = load_folder_part(tmp_path)
    assert isinstance(part, FilePart)
    assert [tuple(image.shape) for image in part] == [(3, 12 + i, 10) for i in range(9)]
    assert torch.equal(part[-1], part[8])


def test_given_parts_are_kept(fill, tmp_path: Path):
    for part, count in (("train", 9), ("valid", 3), ("test", 2)):
        for name in ("cat", "dog"):
            fill(tmp_path / part / name, count)
    data = load_dataset(settings(tmp_path))
    assert data.classes == ("cat", "dog")
    assert [len(part) for part in (data.train, data.val, data.test)] == [18, 6, 4]
    assert {name.split("/")[0] for name in data.val.ids} == {"valid"}
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_a_missing_part_is_held_out_of_train_only(fill, tmp_path: Path):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            fill(tmp_path / part / name, 10)
    data = load_dataset(settings(tmp_path))
    assert len(data.val) == 20
    assert {name.split("/")[0] for name in [*data.train.ids, *data.test.ids]} == {"train"}
    assert (len(data.train), len(data.test)) == (15, 5)


def test_unlabelled_test_part_of_a_labelled_set_is_not_used(fill, tmp_path: Path, caplog):
    fill(tmp_path / "train/cat", 10)
    fill(tmp_path / "train/dog", 10)
    fill(tmp_path / "test", 10)
    with caplog.at_level(logging.WARNING):
        data = load_dataset(settings(tmp_path))
    assert "test is not labelled" in caplog.text
    assert {name.split("/")[0] for name in all_ids(data)} == {"train"}
    assert data.test.labels is not None


def test_a_class_may_be_called_train(fill, tmp_path: Path):
    for name in ("train", "bus"):
        fill(tmp_path / name, 6)
    assert load_dataset(settings(tmp_path)).classes == ("bus", "train")


def test_limit_takes_all_classes_and_grows_by_inclusion(fill, tmp_path: Path):
    for name in ("a", "b"):
        fill(tmp_path / name, 30)
    few, more = (load_dataset(settings(tmp_path, limit=n)) for n in (12, 20))
    assert set(few.train.labels.tolist()) == {0, 1}
    assert few.train.ids == more.train.ids[:12]
    assert few.val.ids == more.val.ids
    assert torch.equal(few.train.images, more.train.images[:12])


def test_memory_limit_decides_where_images_live(fill, tmp_path: Path, monkeypatch):
    fill(tmp_path, 20)
    in_memory = load_dataset(settings(tmp_path)).train
    monkeypatch.setattr(assemble, "MEMORY", 20 * 3 * 12 * 10 - 1)
    in_files = load_dataset(settings(tmp_path)).train
    assert isinstance(in_memory, ArrayPart)
    assert isinstance(in_files, FilePart)
    assert list(in_memory.ids) == list(in_files.ids)
    for i in range(len(in_files)):
        assert torch.equal(in_files[i], in_memory[i])
        assert np.array_equal(in_files[i].permute(1, 2, 0), Image.open(tmp_path / in_files.ids[i]))


def test_file_gone_bad_is_replaced_by_the_same_one_and_told_once(fill, tmp_path: Path, caplog):
    for name in ("a", "b"):
        fill(tmp_path / name, 12, grow=True)
    part = load_dataset(settings(tmp_path)).train
    assert isinstance(part, FilePart)
    images = [part[i] for i in range(len(part))]
    (tmp_path / part.ids[2]).write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        first, again = part[2], part[2]
    assert caplog.text.count(part.ids[2]) == 1
    stand_in = next(i for i in range(3, len(part)) if part.labels[i] == part.labels[2])
    assert torch.equal(first, images[stand_in])
    assert torch.equal(again, first)
    assert torch.equal(part[-1], images[-1])
    with pytest.raises(IndexError):
        part[len(part)]


def test_index_is_kept_and_follows_changes(fill, tmp_path: Path, monkeypatch):
    fill(tmp_path, 12)
    looked: list[str] = []
    check = checks.check_image

    def look(source: str, name: str) -> tuple[int, int]:
        looked.append(name)
        return check(source, name)

    monkeypatch.setattr(checks, "check_image", look)
    index.index_folder(tmp_path)
    assert len(looked) == 12
    looked.clear()
    kept = index.index_folder(tmp_path)
    assert looked == []
    assert kept.checks.height.tolist() == [12] * 12
    assert kept.checks.width.tolist() == [10] * 12
    (tmp_path / "05.png").write_bytes(b"")
    (tmp_path / "06.png").unlink()
    found = index.index_folder(tmp_path)
    assert looked == ["05.png"]
    names = [f"{i:02}.png" for i in range(12) if i != 6]
    assert list(found.store.paths) == names
    assert len(found.checks.readable) == 10
    assert [(file.path, file.reason) for file in found.skipped] == [("05.png", "empty file")]
    kept_file = checks.cache_file("folder", os.path.realpath(tmp_path))
    assert list(Texts.of_columns(checks.read_cache("folder", os.path.realpath(tmp_path)), "paths")) == names
    (tmp_path / "05.png").unlink()
    index.index_folder(tmp_path)
    assert len(checks.read_cache("folder", os.path.realpath(tmp_path))["height"]) == 10
    kept_file.write_text("damaged")
    looked.clear()
    assert index.index_folder(tmp_path).skipped == ()
    assert len(looked) == 10
    assert len(os.listdir(kept_file.parent)) == 1  # no temporary file is left


def test_cache_that_cannot_be_written_is_no_harm(fill, tmp_path: Path, monkeypatch):
    fill(tmp_path / "images", 9)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(index.index_folder(tmp_path / "images").store) == 9


def test_links_hidden_files_and_odd_names(fill, tmp_path: Path):
    root = tmp_path / "root"
    fill(root / "a", 5)
    fill(root / ".hidden", 2)
    fill(tmp_path / "elsewhere", 4)
    (root / "a" / ".dot.png").write_bytes(b"")
    (root / "a" / "notes.txt").write_text("no image")
    (root / "a" / "up").symlink_to(root)
    (root / "alias").symlink_to(root / "a")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(root / "pipe.png")
    os.rename(os.fsencode(root / "a" / "00.png"), os.fsencode(root / "a") + b"/\xff.png")
    found = index.index_folder(root)
    names = list(found.store.paths)
    assert len(names) == 9
    assert {name.split("/")[0] for name in names} == {"a", "linked"}
    assert [file.path for file in found.skipped] == ["gone.png"]
    part, _, _ = load_folder_part(root)
    assert "a/\\xff.png" in part.ids
    assert len(part) == 9


def test_bad_folders_are_one_line(fill, tmp_path: Path, mixed_folder):
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "few", 7)
    (tmp_path / "few" / "bad.png").write_bytes(b"")
    cases = [
        (settings(tmp_path / "none"), "no such folder"),
        (settings(tmp_path / "few" / "00.png"), "not a folder"),
        (settings(tmp_path / "empty"), "no readable image"),
        (settings(tmp_path / "few"), r"7 readable images .* 1 unreadable: bad.png \(empty file\)"),
        (DataSettings(name="folder"), "--data-dir"),
        (DataSettings(name="digit"), "did you mean 'digits'"),
    ]
    for bad, says in cases:
        with pytest.raises(UsageError, match=says) as error:
            load_dataset(bad)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="no readable image"):
        load_folder_part(tmp_path / "empty")


@given(st.integers(8, 5000))
def test_splits_leave_something_everywhere(count):
    held = held_out_count(count)
    assert held >= 2
    assert count - 2 * held >= count // 2
    assert sorted(fixed_permutation(count).tolist()) == list(range(count))
