"""Pictures in every format, written here; the index cache goes to a place of its own.

Properties are tried on the same draws in every run, so that a change is what turns a test red; new draws are
for ``make test-search``.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("same")

Rgb = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def dying_at() -> Callable[[int], object]:
    """A context in which training dies at a step, as if the process had been killed there."""
    from stopgrad.training.state import TrainState

    class Died(BaseException):
        pass

    @contextmanager
    def dying(step: int) -> Iterator[None]:
        record = TrainState.record

        def recording(state: TrainState, loss: object) -> None:
            if state.step == step:
                raise Died
            record(state, loss)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainState, "record", recording)
            with pytest.raises(Died):
                yield

    return dying


def _grey(rgb: Rgb) -> Rgb:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def _png_16_rgb(path: Path, rgb: Rgb) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = rgb.shape[:2]
    rows = (rgb.astype(">u2") * 257).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def _tiff_16_rgb(path: Path, rgb: Rgb) -> None:
    height, width = rgb.shape[:2]
    data = (rgb.astype("<u2") * 257).tobytes()
    bits = 8 + len(data)
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(
        b"II*\0"
        + struct.pack("<I", bits + 6)
        + data
        + struct.pack("<3H", 16, 16, 16)
        + directory
        + b"\0\0\0\0"
    )


def _rotated_jpeg(path: Path, rgb: Rgb) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(rgb))).save(path, quality=98, subsampling=0, exif=exif)


def _see_through(rgb: Rgb) -> Image.Image:
    """The picture, with what is white made transparent black."""
    alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    hidden = (rgb == 255).all(2)
    alpha[hidden] = 0
    colours = np.where(hidden[..., None], 0, rgb).astype(np.uint8)
    return Image.fromarray(np.concatenate([colours, alpha], 2))


def _palette(path: Path, rgb: Rgb, see_through: bool) -> None:
    image = Image.fromarray(rgb).quantize(192)
    if not see_through:
        image.save(path)
        return
    index = np.asarray(image).copy()
    index[(rgb == 255).all(2)] = 200  # a black entry
    colours = Image.fromarray(index).convert("P")
    colours.putpalette((image.getpalette() + [0] * 768)[:768])
    colours.save(path, transparency=200)


@dataclass(frozen=True)
class Format:
    """How to write a picture, and how near to it (mean absolute difference of 255) it must decode."""

    suffix: str
    write: Callable[[Path, Rgb], None]
    near: float
    kind: str = "rgb"  # or grey, binary


def _save(convert: Callable[[Rgb], Image.Image], **options: object) -> Callable[[Path, Rgb], None]:
    return lambda path, rgb: convert(rgb).save(path, **options)


def _numbers(dtype: type, scale: float) -> Callable[[Rgb], Image.Image]:
    return lambda rgb: Image.fromarray((_grey(rgb) * dtype(scale)).astype(dtype))


FORMATS: dict[str, Format] = {
    "png": Format("png", _save(Image.fromarray), 0),
    "png-grey": Format("png", _save(_numbers(np.uint8, 1)), 0, "grey"),
    "png-grey-16": Format("png", _save(_numbers(np.uint16, 257)), 0, "grey"),
    "png-rgb-16": Format("png", _png_16_rgb, 0),
    "png-rgba": Format("png", _save(_see_through), 0),
    "png-grey-alpha": Format("png", _save(lambda x: _see_through(x).convert("LA")), 1, "grey"),
    "png-palette": Format("png", lambda p, x: _palette(p, x, False), 6),
    "png-palette-alpha": Format("png", lambda p, x: _palette(p, x, True), 6),
    "png-1": Format("png", _save(lambda x: Image.fromarray(_grey(x) >= 128)), 0, "binary"),
    "jpeg": Format("jpg", _save(Image.fromarray, quality=98, subsampling=0), 2),
    "jpeg-grey": Format("JPEG", _save(_numbers(np.uint8, 1), quality=98), 2, "grey"),
    "jpeg-cmyk": Format("jpeg", _save(lambda x: Image.fromarray(x).convert("CMYK"), quality=98), 3),
    "jpeg-rotated": Format("jpg", _rotated_jpeg, 2),
    "webp": Format("webp", _save(Image.fromarray, lossless=True), 0),
    "webp-rgba": Format("webp", _save(_see_through, lossless=True), 0),
    "webp-lossy": Format("webp", _save(Image.fromarray, quality=95), 6),
    "tiff": Format("tif", _save(Image.fromarray), 0),
    "tiff-grey-16": Format("tiff", _save(_numbers(np.uint16, 257)), 0, "grey"),
    "tiff-rgb-16": Format("tiff", _tiff_16_rgb, 0),
    "tiff-float": Format("tiff", _save(_numbers(np.float32, 1 / 255)), 0, "grey"),
    "tiff-float-255": Format("tiff", _save(_numbers(np.float32, 1)), 0, "grey"),
    "tiff-int-32": Format("tiff", _save(_numbers(np.int32, 257)), 0, "grey"),
    "tiff-cmyk-lzw": Format(
        "tiff", _save(lambda x: Image.fromarray(x).convert("CMYK"), compression="tiff_lzw"), 0
    ),
    "bmp": Format("bmp", _save(Image.fromarray), 0),
}  # fmt: skip


@pytest.fixture(scope="session")
def formats() -> dict[str, Format]:
    return FORMATS


def _draw(height: int, width: int, seed: int) -> Rgb:
    """A smooth picture with black, white and saturated places, unlike its own mirror images."""
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(phase[0] + 3 * x), np.cos(phase[1] + 4 * y), np.sin(phase[2] + 2 * x + 3 * y)]
    rgb = np.rint(np.stack(waves, 2) * 127 + 128).clip(0, 255).astype(np.uint8)
    rgb[: height // 4, : width // 3] = 255
    rgb[-height // 5 :, : width // 4] = 0
    return rgb


@pytest.fixture(scope="session")
def draw() -> Callable[[int, int, int], Rgb]:
    """(height, width, seed) -> uint8 (H,W,3)."""
    return _draw


def _damage(folder: Path) -> list[str]:
    whole = folder / "whole.png"
    rgb = _draw(40, 50, 0)
    Image.fromarray(rgb).save(whole)
    png = whole.read_bytes()
    whole.unlink()
    jpeg, webp = folder / "cut.jpg", folder / "cut.webp"
    Image.fromarray(rgb).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:-400])
    Image.fromarray(rgb).save(webp)
    webp.write_bytes(webp.read_bytes()[:60])
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(png[: len(png) // 2])
    (folder / "text.tiff").write_bytes(b"this is no picture at all\n" * 20)
    return ["cut.jpg", "cut.png", "cut.webp", "empty.png", "text.tiff"]


@pytest.fixture
def mixed_folder(tmp_path: Path) -> tuple[Path, list[str]]:
    """200 flat files of all formats and many sizes, and the names of the 5 damaged ones among them."""
    root = tmp_path / "mixed"
    root.mkdir()
    kinds = list(FORMATS.items())
    for i in range(195):
        name, kind = kinds[i % len(kinds)]
        kind.write(root / f"{i:03}-{name}.{kind.suffix}", _draw(24 + i % 7, 30 + i % 11, i))
    return root, _damage(root)
