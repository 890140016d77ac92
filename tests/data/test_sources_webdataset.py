"""Tar shards: WebDataset's naming, parts, labels, damage, and an index that follows changes."""

import gzip
import io
import json
import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stopgrad.data.sources import DataSettings, checks, load_dataset
from stopgrad.data.sources.webdataset import Shards, _list_shard, find_shards
from stopgrad.errors import UsageError

from .shards import write_shard


def png(i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((10 + i % 5, 12, 3), 2 * i, np.uint8)).save(file, "PNG")
    return file.getvalue()


def plain(path: Path, numbers: range) -> Path:
    return write_shard(path, [(f"{i:03}.png", png(i)) for i in numbers])


def load(place: Path | str, **more):
    return load_dataset(DataSettings(name="webdataset", dir=Path(place), workers=1, **more))


def everything(data) -> list[str]:
    return sorted([*data.train.ids, *data.val.ids, *data.test.ids])


def test_samples_are_those_that_webdataset_reads(tmp_path: Path):
    library = pytest.importorskip("webdataset")
    with library.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i in range(12):
            sample = {"__key__": f"dir.one/{i:04}", "png": png(i), "seg.png": b"mask", "json": {"a": 1}}
            writer.write({**sample, "cls": i % 4})
    pipeline = library.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    theirs = [(s["__key__"], s["png"], s["cls"].decode()) for s in pipeline]
    shard = _list_shard(str(tmp_path / "a.tar"), DataSettings())
    store = Shards("here", [shard])
    ours = [
        (name.removesuffix(".png"), store.open(row).read(), shard.labels[row])
        for row, name in enumerate(shard.names)
    ]
    assert ours == theirs
    assert len(ours) == 12
    assert store.name(3) == "a.tar/dir.one/0003.png"


def test_patterns_name_shards_in_order(tmp_path: Path):
    for name in ("a-00", "a-01", "a-02", "b-00"):
        plain(tmp_path / f"{name}.tar", range(2))
    pytest.importorskip("braceexpand")

    def names(pattern: str) -> list[str]:
        return [Path(path).stem for path in find_shards(pattern)]

    assert names(f"{tmp_path}/a-{{02..00}}.tar") == ["a-02", "a-01", "a-00"]
    assert names(f"{tmp_path}/{{b,a}}-*.tar") == ["b-00", "a-00", "a-01", "a-02"]
    assert names(str(tmp_path)) == ["a-00", "a-01", "a-02", "b-00"]
    for bad, says in (
        (f"{tmp_path}/a-{{00..03}}.tar", "a-03.tar: no such file"),
        (f"{tmp_path}/c-*.tar", "no shard"),
        ("pipe:cat a.tar", "only files on disk"),
        (str(Path("https://example.org/a.tar")), "only files on disk"),
    ):
        with pytest.raises(UsageError, match=says):
            find_shards(bad)


def test_parts_are_named_by_the_shards(tmp_path: Path):
    plain(tmp_path / "pets-train-00.tar", range(20))
    plain(tmp_path / "pets-train-01.tar", range(20, 30))
    plain(tmp_path / "pets-val-00.tar", range(30, 35))
    data = load(tmp_path)
    assert {name.split("/")[0] for name in data.val.ids} == {"pets-val-00.tar"}
    assert len(data.val) == 5
    assert {name.split("/")[0] for name in [*data.train.ids, *data.test.ids]} == {
        "pets-train-00.tar",
        "pets-train-01.tar",
    }
    plain(tmp_path / "more.tar", range(35, 40))  # of no part: then no name is
    assert len(everything(load(tmp_path))) == 40
    assert len(load(tmp_path).val) == 8


def labelled(path: Path, label, count: int = 24) -> Path:
    members = []
    for i in range(count):
        members += [(f"{i:03}.png", png(i)), (f"{i:03}.json", json.dumps({"kind": label(i)}).encode())]
    return write_shard(path, members)


def test_labels_of_a_json_key_are_numbers_in_their_order_or_names(tmp_path: Path):
    numbers = load(labelled(tmp_path / "n.tar", lambda i: (9, 10, 100)[i % 3]), label="json.kind")
    assert numbers.classes == ("9", "10", "100")
    names = load(labelled(tmp_path / "t.tar", lambda i: ("ox", "ant")[i % 2]), label="json.kind")
    assert names.classes == ("ant", "ox")
    for data, step in ((numbers, 3), (names, 2)):
        for part in (data.train, data.val, data.test):
            place = [int(Path(name).stem) for name in part.ids]
            expected = [
                data.classes.index(str(((9, 10, 100), ("ox", "ant"))[step == 2][i % step])) for i in place
            ]
            assert part.labels.tolist() == expected
    assert load(tmp_path / "n.tar").classes is None  # no .cls


def test_a_missing_label_is_refused_where_labels_were_asked_for(tmp_path: Path, caplog):
    path = labelled(tmp_path / "a.tar", lambda i: i % 2 if i != 7 else None)
    with pytest.raises(UsageError, match=r"a.tar/007.png has no label .json.kind"):
        load(path, label="json.kind")
    members = [
        (f"{i:03}.{kind}", png(i) if kind == "png" else b"1") for i in range(20) for kind in ("png", "cls")
    ]
    with caplog.at_level(logging.WARNING):
        assert load(write_shard(tmp_path / "b.tar", members[:-1])).classes is None
    assert "1 images have no label" in caplog.text


def test_the_image_is_the_member_of_the_suffix_asked_for(tmp_path: Path):
    members = [
        (f"{i:03}.{kind}.png", png(i + shift)) for i in range(20) for kind, shift in (("a", 0), ("b", 50))
    ]
    path = write_shard(tmp_path / "x.tar", members)
    data = load(path, image="b.png")
    assert all(name.endswith(".b.png") for name in everything(data))
    assert {int(data.train[i].max()) for i in range(len(data.train))} <= set(range(100, 140, 2))
    with pytest.raises(UsageError, match="sample without an image"):
        load(path)


def test_a_shard_cut_off_keeps_what_is_whole_and_says_so(tmp_path: Path):
    whole = plain(tmp_path / "s.tar", range(30))
    with tarfile.open(whole) as tar:
        members = tar.getmembers()
    content = whole.read_bytes()
    for at in (members[25].offset_data + 40, members[25].offset + 100):
        whole.write_bytes(content[:at])
        data = load(whole)
        assert everything(data) == [f"s.tar/{i:03}.png" for i in range(25)]
        assert any(
            Path(s.path).name == "s.tar" and "cut off or damaged after" in s.reason for s in data.skipped
        )
    broken = bytearray(content)
    broken[members[20].offset : members[20].offset + 300] = b"x" * 300
    whole.write_bytes(broken)
    data = load(whole)
    assert len(everything(data)) == 20
    assert ["damaged head" in s.reason for s in data.skipped] == [True]


def test_shards_that_cannot_be_read_in_any_order_are_refused(tmp_path: Path):
    packed = tmp_path / "p.tar"
    packed.write_bytes(gzip.compress(plain(tmp_path / "x.tar", range(20)).read_bytes()))
    text = tmp_path / "t.tar"
    text.write_text("no tar at all\n" * 100)
    for path in (packed, text):
        with pytest.raises(UsageError, match="no tar file") as error:
            load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="--data-dir"):
        load_dataset(DataSettings(name="webdataset"))


def test_only_a_changed_shard_is_read_again(tmp_path: Path, monkeypatch):
    for shard in range(3):
        plain(tmp_path / f"{shard}.tar", range(10 * shard, 10 * shard + 10))
    looked: list[str] = []
    check = checks.check_image
    monkeypatch.setattr(
        checks, "check_image", lambda source, name: looked.append(name) or check(source, name)
    )
    first = load(tmp_path)
    assert len(looked) == 30
    looked.clear()
    again = load(tmp_path)
    assert looked == []
    assert everything(again) == everything(first)
    plain(tmp_path / "1.tar", range(10, 19))
    os.utime(tmp_path / "1.tar", ns=(1, 1))
    changed = load(tmp_path)
    assert {name.split("/")[0] for name in looked} == {"1.tar"}
    assert len(everything(changed)) == 29
