"""The same picture in every format decodes to the same pixels; damage is named, never raised."""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from stopgrad.data.batches import Batches, evaluation_batches
from stopgrad.data.sources import decode, load_folder_part, parts
from stopgrad.data.sources.decode import (
    UnreadableImage,
    check_image,
    printable,
    read_image,
    read_shrunk,
    resize_square,
)
from stopgrad.data.views import preset

NAMES = [
    "png", "png-grey", "png-grey-16", "png-rgb-16", "png-rgba", "png-grey-alpha", "png-palette",
    "png-palette-alpha", "png-1", "jpeg", "jpeg-grey", "jpeg-cmyk", "jpeg-rotated", "webp", "webp-rgba",
    "webp-lossy", "tiff", "tiff-grey-16", "tiff-rgb-16", "tiff-float", "tiff-float-255", "tiff-int-32",
    "tiff-cmyk-lzw", "bmp",
]  # fmt: skip


def test_every_format_is_listed(formats):
    assert sorted(NAMES) == sorted(formats)


@pytest.mark.parametrize("name", NAMES)
def test_format_decodes_to_the_picture(name, formats, draw, tmp_path: Path):
    kind = formats[name]
    picture = draw(36, 50, 3)
    path = tmp_path / f"x.{kind.suffix}"
    kind.write(path, picture)
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    if kind.kind == "binary":
        grey = np.where(grey >= 128, 255, 0)
    expected = picture if kind.kind == "rgb" else np.repeat(grey[..., None], 3, 2)
    read = read_image(str(path), 3)
    assert read.dtype == np.uint8
    assert read.shape == (3, 36, 50)
    assert np.abs(read.transpose(1, 2, 0).astype(int) - expected).mean() <= kind.near
    one = read_image(str(path), 1)
    assert one.shape == (1, 36, 50)
    assert np.abs(one[0].astype(int) - grey).mean() <= max(kind.near, 0.6 if "alpha" in name else 0)
    assert check_image(str(path)) == (36, 50)


def test_16_bits_are_scaled_over_their_whole_range(tmp_path: Path):
    values = np.array([[0, 255, 256, 257 * 7, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert read_image(str(tmp_path / "x.png"), 1)[0, 0].tolist() == [0, 1, 1, 7, 128, 255]


@pytest.mark.parametrize("values", [[-2.0, 0.0, 2.0], [0.0, 500.0, 1000.0], [1e-3, np.nan, 300.0]])
def test_floats_of_no_known_range_are_stretched(values, tmp_path: Path):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "x.tiff")
    row = read_image(str(tmp_path / "x.tiff"), 1)[0, 0]
    assert (row[0], row[2]) == (0, 255)
    assert row[1] == (0 if np.isnan(values[1]) else 128)


def test_damage_is_named(mixed_folder):
    root, damaged = mixed_folder
    for name in damaged:
        for read in (check_image, lambda path: read_image(path, 3)):
            with pytest.raises(UnreadableImage) as error:
                read(str(root / name))
            assert "\n" not in str(error.value)
            assert ("empty" in str(error.value)) == (name == "empty.png")


def test_bomb_is_refused_before_it_unfolds(tmp_path: Path):
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, data)]
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(UnreadableImage, match="exceeds limit"):
        read_image(str(tmp_path / "x.png"), 3)


def test_resize_square_keeps_the_middle():
    image = torch.zeros(1, 1, 40, 80, dtype=torch.uint8)
    image[..., 20:60] = 200
    assert torch.equal(resize_square(image, 40), torch.full((1, 1, 40, 40), 200, dtype=torch.uint8))
    small = resize_square(image, 10)
    assert small.shape == (1, 1, 10, 10)
    assert small[..., 1:-1].eq(200).all()
    assert resize_square(image.mT, 64).shape == (1, 1, 64, 64)


def test_printable_spells_out_what_is_not_utf_8():
    assert printable("a/ü.png") == "a/ü.png"
    assert printable("a\udcff.png") == "a\\xff.png"


def photo(height: int, width: int, seed: int) -> Image.Image:
    """Smooth structure of all sizes, as a JPEG is made for."""
    random = np.random.default_rng(seed)
    out = np.zeros((height, width, 3), np.float32)
    for cells in (3, 9, 27, 81):
        noise = random.standard_normal((cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(noise[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            out[..., channel] += np.asarray(layer) * 60 / cells**0.8
    return Image.fromarray((out + 120).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_native_jpegs_are_bit_by_bit_those_of_pillow(orientation, mode, tmp_path: Path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.jpg"
    photo(37, 53, orientation).convert(mode).save(path, quality=85, exif=exif)
    native = read_image(str(path), 3)
    assert decode._native_jpeg(path.read_bytes()) is not None
    monkeypatch.setattr(decode, "_native_jpeg", lambda data: None)
    assert np.array_equal(native, read_image(str(path), 3))
    assert check_image(str(path)) == native.shape[1:]


def test_without_torchvision_pillow_decodes(tmp_path: Path, monkeypatch):
    photo(20, 30, 0).save(tmp_path / "x.jpg")
    native = read_image(str(tmp_path / "x.jpg"), 3)
    decode._decoder.cache_clear()
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    assert decode._decoder() is None
    assert np.array_equal(native, read_image(str(tmp_path / "x.jpg"), 3))
    decode._decoder.cache_clear()


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
def test_shrunk_jpegs_are_the_picture_at_a_part_of_its_size(factor, orientation, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    height, width = (203, 301) if orientation == 1 else (208, 304)
    photo(height, width, 0).save(tmp_path / "x.jpg", quality=95, exif=exif)
    told: list[tuple[int, int]] = []

    def shrink(height: int, width: int) -> int:
        told.append((height, width))
        return factor

    whole = read_image(str(tmp_path / "x.jpg"), 3)
    small = read_shrunk(str(tmp_path / "x.jpg"), 3, shrink=shrink)
    assert told == [whole.shape[1:]] == [(height, width) if orientation == 1 else (width, height)]
    assert small.shape[1:] == tuple(-(-side // factor) for side in whole.shape[1:])
    # of blocks that are whole
    expected = avg_pool2d(torch.from_numpy(whole.copy()).float(), factor)
    found = torch.from_numpy(small.copy())[:, : expected.shape[1], : expected.shape[2]]
    assert (found - expected).abs().mean() < 1


def test_formats_without_that_are_decoded_whole(tmp_path: Path):
    photo(60, 80, 0).save(tmp_path / "x.png")
    assert read_shrunk(str(tmp_path / "x.png"), 3, shrink=lambda height, width: 8).shape == (3, 60, 80)


def test_crops_of_a_shrunk_jpeg_are_those_of_the_whole_one(tmp_path: Path):
    """The same rectangles, to half a pixel of the small image; never fewer pixels than the crop has."""
    views = preset("simclr-96", 32)
    factors = set()
    for i in range(12):
        photo(300, 400, i).save(tmp_path / f"{i}.jpg", quality=95)
        small, whole = views.crops(i, seed=0, epoch=0), views.crops(i, seed=0, epoch=0)
        asked: list[int] = []

        def shrink(height: int, width: int, asked: list[int] = asked, small=small) -> int:
            asked.append(small.shrink(height, width))
            return asked[0]

        a = small.cut(torch.from_numpy(read_shrunk(str(tmp_path / f"{i}.jpg"), 3, shrink=shrink)))
        b = whole.cut(torch.from_numpy(read_image(str(tmp_path / f"{i}.jpg"), 3)))
        assert a.shape == b.shape == (2, 3, 32, 32)
        assert (a.int() - b.int()).abs().float().mean() < 2
        sides = [int(side) for _, params in whole._drawn for side in params["box"][0, 2:]]
        assert all(side >= asked[0] * 32 for side in sides)
        assert asked[0] == 8 or any(side < 2 * asked[0] * 32 for side in sides)
        factors |= set(asked)
    assert factors >= {4}
    everything = views.model_copy(update={"first": views.first[1:], "second": views.second[1:]})
    assert everything.crops(0, seed=0, epoch=0).shrink(3000, 4000) == 1


def test_files_are_shrunk_for_crops_and_whole_for_evaluation(tmp_path: Path, monkeypatch):
    for i in range(8):
        photo(300 + i, 400, i).save(tmp_path / f"{i}.jpg")
    part, _, _ = load_folder_part(tmp_path)
    asked: list[object] = []
    read = parts.read_shrunk
    monkeypatch.setattr(parts, "read_shrunk", lambda *a: asked.append(a[3]) or read(*a))
    batches = Batches(part, preset("simclr-32", 32), 4, seed=0, workers=0)
    assert len(list(batches.epoch(0))) == 2
    assert None not in asked
    asked.clear()
    list(evaluation_batches(part, 32, workers=0))
    assert asked == [None] * 8
