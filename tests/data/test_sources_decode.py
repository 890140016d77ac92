"""The same picture in every format decodes to the same pixels; damage is named, never raised."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.data.sources.decode import UnreadableImage, check_image, printable, read_image, resize_square

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
