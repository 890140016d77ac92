"""CIFAR, STL-10 and Tiny-ImageNet from small archives written here in the official formats."""

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.data.sources import DataSettings, load_dataset
from stopgrad.errors import UsageError

Files = dict[str, bytes]


def tar(path: Path, folder: str, files: Files) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def unpack(root: Path, folder: str, files: Files) -> None:
    for name, data in files.items():
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (root / folder / name).write_bytes(data)


def python_2_pickle(batch: dict[bytes, object]) -> bytes:
    """Protocol 2 as Python 2 and NumPy 1 wrote it: byte strings as SHORT_BINSTRING, arrays by numpy.core."""

    def text(value: bytes) -> bytes:
        short = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + len(value).to_bytes(4, "little")
        return short + value

    def item(value: object) -> bytes:
        if isinstance(value, bytes):
            return text(value)
        if isinstance(value, int):
            return b"K" + bytes([value])
        if isinstance(value, list):
            return b"](" + b"".join(map(item, value)) + b"e"
        assert isinstance(value, np.ndarray)
        shape = b"".join(b"J" + n.to_bytes(4, "little") for n in value.shape)
        shape = b"(" + shape + b"t"
        dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNN"
        dtype += b"J\xff\xff\xff\xff" * 2
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
            b"(K\1" + shape + dtype + b"K\0tb\x89" + text(value.tobytes()) + b"tb"
        )  # fmt: skip

    return b"\x80\x02}(" + b"".join(text(key) + item(value) for key, value in batch.items()) + b"u."


def python_3_pickle(protocol: int) -> Callable[[dict[bytes, object]], bytes]:
    return lambda batch: pickle.dumps(batch, protocol)


WRITERS = {"python2": python_2_pickle, "protocol2": python_3_pickle(2), "protocol5": python_3_pickle(5)}


def cifar10(pickled: Callable[[dict[bytes, object]], bytes] = python_2_pickle) -> tuple[Files, np.ndarray]:
    """20 training images in five batches, 6 test images, 3 classes; and all pixels (26,3072)."""
    pixels = np.random.default_rng(0).integers(0, 256, (26, 3072), dtype=np.uint8)
    files = {"batches.meta": pickled({b"label_names": [b"cat", b"dog", b"eel"], b"num_vis": 3})}
    for i in range(6):
        rows = pixels[4 * i : 4 * i + 4] if i < 5 else pixels[20:]
        name = f"data_batch_{i + 1}" if i < 5 else "test_batch"
        files[name] = pickled(
            {
                b"batch_label": name.encode(),
                b"labels": [(4 * i + j) % 3 for j in range(len(rows))],
                b"data": rows,
                b"filenames": [b"x.png"] * len(rows),
            }
        )
    return files, pixels


def test_the_writer_above_writes_what_python_reads():
    batch = {b"labels": [1, 2], b"data": np.arange(600, dtype=np.uint8).reshape(2, 300), b"x": b"y"}
    loaded = pickle.loads(python_2_pickle(batch), encoding="bytes")
    assert np.array_equal(loaded.pop(b"data"), batch.pop(b"data"))
    assert loaded == batch


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("packed", [True, False])
def test_cifar10(writer, packed, tmp_path: Path):
    files, pixels = cifar10(WRITERS[writer])
    if packed:
        tar(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    else:
        unpack(tmp_path, "cifar-10-batches-py", files)
    data = load_dataset(DataSettings(name="cifar10", dir=tmp_path))
    assert data.classes == ("cat", "dog", "eel")
    assert [len(part) for part in (data.train, data.val, data.test)] == [15, 5, 6]
    expected = torch.from_numpy(pixels.reshape(-1, 3, 32, 32))
    for part in (data.train, data.val, data.test):
        for i, name in enumerate(part.ids):
            number = int(name.split("/")[1]) + (20 if name.startswith("test") else 0)
            assert torch.equal(part[i], expected[number])
            assert part.labels[i] == number % 3
    assert not set(data.train.ids) & set(data.val.ids)
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert load_dataset(DataSettings(name="cifar10", dir=tmp_path)).val.ids == data.val.ids


def test_cifar_folder_or_archive_itself_and_other_settings(tmp_path: Path):
    files, pixels = cifar10()
    tar(tmp_path / "any-name.tar.gz", "cifar-10-batches-py", files)
    unpack(tmp_path, "cifar-10-batches-py", files)
    for place in ("any-name.tar.gz", "cifar-10-batches-py"):
        data = load_dataset(DataSettings(name="cifar10", dir=tmp_path / place, channels=1, limit=7))
        assert data.train.images.shape == (7, 1, 32, 32)
    number = int(data.train.ids[0].split("/")[1])
    picture = Image.fromarray(np.ascontiguousarray(pixels[number].reshape(3, 32, 32).transpose(1, 2, 0)))
    assert np.array_equal(data.train[0][0], np.asarray(picture.convert("L")))
    grey = data.train.images.double() / 255
    assert data.mean == pytest.approx((grey.mean().item(),))


def test_cifar100_takes_fine_labels(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3072), dtype=np.uint8)
    fine = [i % 7 for i in range(30)]
    files = {
        "meta": python_2_pickle({b"fine_label_names": [b"f%d" % i for i in range(7)]}),
    }
    for name, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
        files[name] = python_2_pickle(
            {b"data": pixels[rows], b"fine_labels": fine[rows], b"coarse_labels": [0] * len(fine[rows])}
        )
    tar(tmp_path / "cifar-100-python.tar.gz", "cifar-100-python", files)
    data = load_dataset(DataSettings(name="cifar100", dir=tmp_path))
    assert data.classes == tuple(f"f{i}" for i in range(7))
    assert data.test.labels.tolist() == fine[20:]
    assert torch.equal(data.test.images.flatten(1), torch.from_numpy(pixels[20:]))


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def test_hostile_pickle_is_refused_and_does_not_run(tmp_path: Path):
    files, _ = cifar10()
    target = tmp_path / "was-here"
    files["data_batch_3"] = pickle.dumps({b"labels": [0], b"data": Hostile(target)}, 2)
    tar(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    with pytest.raises(UsageError, match=r"refused: it names .*mkdir") as error:
        load_dataset(DataSettings(name="cifar10", dir=tmp_path))
    assert "\n" not in str(error.value)
    assert not target.exists()
    pickle.loads(files["data_batch_3"])  # and it would have
    assert target.exists()


def stl10() -> tuple[Files, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    shapes = {"unlabeled": 12, "train": 20, "test": 6}
    images = {k: random.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8) for k, n in shapes.items()}
    files: Files = {}
    for part in ("test", "train", "unlabeled"):
        files[f"{part}_X.bin"] = images[part].transpose(0, 1, 3, 2).tobytes()  # column by column
        if part != "unlabeled":
            files[f"{part}_y.bin"] = bytes(1 + i % 10 for i in range(shapes[part]))
    files["class_names.txt"] = "\n".join(f"class{i}" for i in range(10)).encode()
    return files, images


@pytest.mark.parametrize("packed", [True, False])
def test_stl10(packed, tmp_path: Path):
    files, images = stl10()
    if packed:
        tar(tmp_path / "stl10_binary.tar.gz", "stl10_binary", files)
    else:
        unpack(tmp_path, "stl10_binary", files)
    data = load_dataset(DataSettings(name="stl10", dir=tmp_path))
    assert data.classes == tuple(f"class{i}" for i in range(10))
    assert [len(p) for p in (data.train, data.probe, data.val, data.test)] == [27, 15, 5, 6]
    assert data.train.labels is None
    for part in (data.train, data.probe, data.val, data.test):
        for i, name in enumerate(part.ids):
            split, number = name.split("/")
            assert np.array_equal(part[i], images[split][int(number)])
            if part.labels is not None:
                assert part.labels[i] == int(number) % 10
    # what is probed on, or selected on, is not lost to pretraining, but test and validation are
    assert set(data.train.ids) == {f"unlabeled/{i}" for i in range(12)} | set(data.probe.ids)
    assert not set(data.probe.ids) & set(data.val.ids)
    for limit in (5, 12, 14):
        few = load_dataset(DataSettings(name="stl10", dir=tmp_path, limit=limit))
        assert torch.equal(few.train.images, data.train.images[:limit])
        assert list(few.train.ids) == list(data.train.ids[:limit])
        assert len(few.probe) == 15


def tiny_imagenet() -> Files:
    random = np.random.default_rng(0)

    def jpeg(label: int, grey: bool = False) -> bytes:
        pixels = random.integers(0, 20, (64, 64, 3), dtype=np.uint8)
        pixels[..., label] += 200
        stream = io.BytesIO()
        Image.fromarray(pixels[..., label] if grey else pixels).save(stream, "JPEG")
        return stream.getvalue()

    wnids = ["n03", "n01", "n02"]
    files: Files = {"wnids.txt": "\n".join(wnids).encode()}
    words = ["n01\tant, emmet", "n02\tbee", "n03\tcat, true cat", "n99\tzebra"]
    files["words.txt"] = "\n".join(words).encode()
    for label, wnid in enumerate(wnids):
        for i in range(10):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(label, grey=i == 0)
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"x\t0\t0\t1\t1\n"
    for i in range(6):
        files[f"val/images/val_{i}.JPEG"] = jpeg(i % 3)
    rows = [f"val_{i}.JPEG\t{wnids[i % 3]}\t0\t0\t9\t9" for i in range(6)]
    files["val/val_annotations.txt"] = "\n".join(rows).encode()
    files["test/images/test_0.JPEG"] = jpeg(0)
    return files


def zipped(path: Path, files: Files) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet(packed, tmp_path: Path):
    files = tiny_imagenet()
    files["train/n01/images/n01_7.JPEG"] = files["train/n01/images/n01_7.JPEG"][:300]
    if packed:
        zipped(tmp_path / "tiny-imagenet-200.zip", files)
    else:
        unpack(tmp_path, "tiny-imagenet-200", files)
    data = load_dataset(DataSettings(name="tiny-imagenet", dir=tmp_path))
    assert data.classes == ("cat", "ant", "bee")
    assert [file.path for file in data.skipped] == ["train/n01/images/n01_7.JPEG"]
    assert len(data.train) + len(data.val) == 29
    assert len(data.test) == 6
    assert list(data.test.ids) == [f"val/images/val_{i}.JPEG" for i in range(6)]
    for part in (data.train, data.val, data.test):
        assert part.images.shape[1:] == (3, 64, 64)
        for i, name in enumerate(part.ids):
            if name.endswith("_0.JPEG") and name.startswith("train"):
                continue  # the grey ones
            assert part[i].float().mean((1, 2)).argmax() == part.labels[i]
    few = load_dataset(DataSettings(name="tiny-imagenet", dir=tmp_path, limit=8, channels=1, image_size=32))
    assert few.train.images.shape == (8, 1, 32, 32)
    assert list(few.train.ids) == list(data.train.ids[:8])
    assert len(set(few.train.labels.tolist())) == 3


SETS = ["cifar10", "cifar100", "stl10", "tiny-imagenet"]
ARCHIVES = {
    "cifar10": "cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
    "stl10": "stl10_binary.tar.gz",
    "tiny-imagenet": "tiny-imagenet-200.zip",
}


def one_line(settings: DataSettings, *says: str) -> None:
    with pytest.raises(UsageError) as error:
        load_dataset(settings)
    assert "\n" not in str(error.value)
    for words in says:
        assert words in str(error.value)


@pytest.mark.parametrize("name", SETS)
def test_missing_archive_says_which_and_where(name, tmp_path: Path):
    one_line(DataSettings(name=name), "--data-dir", ARCHIVES[name])
    one_line(DataSettings(name=name, dir=tmp_path), ARCHIVES[name], str(tmp_path), "http")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_damaged_archive_is_one_line(name, damage, tmp_path: Path):
    path = tmp_path / ARCHIVES[name]
    if name == "tiny-imagenet":
        zipped(path, tiny_imagenet())
    else:
        files = stl10()[0] if name == "stl10" else cifar10()[0]
        tar(path, {"stl10": "stl10_binary"}.get(name, "cifar-10-batches-py"), files)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": bytes(range(256)) * 40, "cut": whole[: len(whole) // 2]}[damage])
    one_line(DataSettings(name=name, dir=tmp_path), str(path))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("data_batch_2", None, "lacks data_batch_2"),
        ("data_batch_2", {b"labels": [0], b"data": np.zeros((2, 3072), np.uint8)}, "for 17 labels"),
        ("test_batch", {b"labels": [7], b"data": np.zeros((1, 3072), np.uint8)}, "labels outside 0..2"),
        ("test_batch", {b"labels": [1]}, "damaged"),
        ("test_batch", [1], "damaged"),
    ],
)
def test_wrong_contents_are_one_line(name, change, says, tmp_path: Path):
    files = cifar10()[0]
    if change is None:
        del files[name]
    else:
        files[name] = pickle.dumps(change, 2)
    unpack(tmp_path, "cifar-10-batches-py", files)
    one_line(DataSettings(name="cifar10", dir=tmp_path), *([says] if says != "damaged" else []))


def test_stl10_of_wrong_size_is_one_line(tmp_path: Path):
    files, _ = stl10()
    files["train_y.bin"] += b"\1"
    unpack(tmp_path, "stl10_binary", files)
    one_line(DataSettings(name="stl10", dir=tmp_path), "20 images for 21 labels")
    files["test_X.bin"] += b"\1"
    unpack(tmp_path, "stl10_binary", files)
    one_line(DataSettings(name="stl10", dir=tmp_path), "test_X.bin", "no multiple")


def test_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch):
    import torchvision.datasets.utils as utilities

    def offline(url: str, root: str, filename: str, md5: str) -> None:
        assert (filename, len(md5)) == ("cifar-10-python.tar.gz", 32)
        raise OSError("no route\nto host")

    monkeypatch.setattr(utilities, "download_url", offline)
    settings = DataSettings(name="cifar10", dir=tmp_path, download=True)
    one_line(settings, "no route", "cifar-10-python.tar.gz", str(tmp_path), "https://www.cs.toronto.edu")


def test_download_that_works_is_loaded(tmp_path: Path, monkeypatch):
    import torchvision.datasets.utils as utilities

    def online(url: str, root: str, filename: str, md5: str) -> None:
        tar(Path(root) / filename, "cifar-10-batches-py", cifar10()[0])

    monkeypatch.setattr(utilities, "download_url", online)
    assert len(load_dataset(DataSettings(name="cifar10", dir=tmp_path, download=True)).test) == 6
