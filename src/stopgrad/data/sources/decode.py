"""From image files of any kind to uint8 pixels (C, H, W).

What happens to a file:

- EXIF orientation is applied; of several frames the first is read.
- Transparency is laid over white, as viewers show it. (Dropping alpha, which ``convert("RGB")`` does, brings
  up whatever colour lies hidden under transparent pixels: line art on a transparent ground turns all black.)
- 16-bit grey and RGB are scaled from 0..65535 to 0..255, not clipped.
- Floats within [0, 1] are scaled by 255, within [0, 255] are kept, and any other range, for which there is no
  convention, is stretched from the image's own minimum and maximum; so are 32-bit integers beyond 16 bits.
- CMYK, palette, 1-bit and the rest are converted by Pillow; grey is luma, ITU-R BT.601.

JPEGs in RGB are decoded by torchvision: bit by bit what Pillow makes of them, in less time
(``benchmarks/decode.py``). A reader that needs less than all pixels says so, and gets a JPEG at a half, a
quarter or an eighth of its size, which the format allows at a fraction of the work.
"""

import importlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from stopgrad.errors import require

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
#: (height, width) of an upright image -> by which of 1, 2, 4 and 8 its sides may be divided
Shrink = Callable[[int, int], int]
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are images on their side


class UnreadableImage(Exception):
    """A file that does not decode; the message is the reason in a few words, ``path`` names the file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def printable(path: str) -> str:
    """``path`` with bytes that are not UTF-8 spelt out, so that any log or table can hold it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_image(source: str | IO[bytes], channels: int, name: str | None = None) -> Pixels:
    """Decode a file into uint8 (channels, H, W), in any order of memory.

    Raises:
        UnreadableImage: if it is empty, cut off, damaged, too large to be meant, or of an unknown kind.
    """
    return read_shrunk(source, channels, name, None)


def read_shrunk(
    source: str | IO[bytes], channels: int, name: str | None = None, shrink: Shrink | None = None
) -> Pixels:
    """``read_image``, smaller where the format can be decoded so and ``shrink`` allows it.

    Raises:
        UnreadableImage: as ``read_image``.
    """
    with _opened(source, name) as (data, image):
        factor = 1 if shrink is None else shrink(*_upright(image))
        if image.format == "JPEG":
            if factor > 1:
                image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
            elif channels == 3 and image.mode in ("RGB", "L") and (native := _native_jpeg(data)) is not None:
                return native
        return _to_array(image, channels)


def check_image(source: str | IO[bytes], name: str | None = None) -> tuple[int, int]:
    """Decode a file to see that it decodes (JPEG at an eighth of its size, which reads it all the same).

    Returns:
        height and width of the upright image.

    Raises:
        UnreadableImage: as ``read_image``.
    """
    with _opened(source, name) as (_, image):
        height, width = _upright(image)
        if image.format == "JPEG":
            image.draft("RGB", (1, 1))
        _to_array(image, 3)
        return height, width


@contextmanager
def _opened(source: str | IO[bytes], name: str | None) -> Iterator[tuple[bytes, "Image"]]:
    """The bytes of an image and the image; whatever damage raises becomes the reason and the file's name."""
    images = require("PIL.Image", "vision")
    path = name or (source if isinstance(source, str) else "stream")
    try:
        data = _read(source)
        if not data:
            raise ValueError("empty file")
        with images.open(io.BytesIO(data)) as image:
            yield data, image
    # decoders raise nearly anything on damaged input: OSError, SyntaxError, ValueError, RuntimeError,
    # struct.error, IndexError, DecompressionBombError, MemoryError ...
    except Exception as error:
        raise UnreadableImage(path, _reason(path, error)) from error


def _read(source: str | IO[bytes]) -> bytes:
    if not isinstance(source, str):
        return source.read()
    with open(source, "rb") as file:
        return file.read()


def _upright(image: "Image") -> tuple[int, int]:
    """Height and width as it is to be seen, from the head of the file alone."""
    on_its_side = image.getexif().get(_ORIENTATION, 1) >= 5
    return image.size if on_its_side else image.size[::-1]


def _native_jpeg(data: bytes) -> Pixels | None:
    """An RGB or grey JPEG as uint8 (3, H, W), turned upright; None where torchvision has no decoder."""
    vision = _decoder()
    if vision is None:
        return None
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    decoded: Tensor = vision.decode_jpeg(encoded, vision.ImageReadMode.RGB, apply_exif_orientation=True)
    pixels: Pixels = decoded.numpy()
    return pixels


@cache
def _decoder() -> Any:
    # it is deprecated since torchvision 0.29; without it Pillow reads the same pixels
    try:
        vision = importlib.import_module("torchvision.io")
    except ImportError:
        return None
    return vision if hasattr(vision, "decode_jpeg") else None


def _reason(path: str, error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image, or damaged at its start"
    text = str(error).replace("\n", " ").strip().replace(repr(path), "").strip(" :")
    return text or type(error).__name__


def _to_array(image: "Image", channels: int) -> Pixels:
    """An open Pillow image as uint8 (channels, H, W)."""
    operations: Any = require("PIL.ImageOps", "vision")
    image = operations.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_8_bit(np.asarray(image))
        return np.repeat(grey[None], channels, axis=0)
    if image.has_transparency_data:
        image = _over_white(image)
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    pixels = np.array(image, dtype=np.uint8)
    # channels last in memory, as decoders write it: crops are resized from it in less time
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _over_white(image: "Image") -> "Image":
    image = image.convert("RGBA")
    images = require("PIL.Image", "vision")
    white: Image = images.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    return white


def _to_8_bit(values: NDArray[Any]) -> Pixels:
    """Scale integers of more than 8 bits, or floats, (H,W) to uint8: see the head of this file."""
    integer = np.issubdtype(values.dtype, np.integer)
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    if not finite.any():
        raise ValueError("no finite pixel")
    low, high = float(wide[finite].min()), float(wide[finite].max())
    wide[~finite] = low
    if integer and low >= 0 and high <= 65535:
        wide /= 257
    elif not integer and low >= 0 and high <= 1:
        wide *= 255
    elif integer or low < 0 or high > 255:
        wide = (wide - low) * (255 / max(high - low, np.finfo(np.float64).tiny))
    return np.rint(wide).astype(np.uint8)


def resize_square(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side to ``size`` and cut out the centre: uint8 (B,C,H,W) -> uint8 (B,C,size,size).

    Bilinear with anti-aliasing.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    scale = size / min(height, width)
    target = (max(size, round(height * scale)), max(size, round(width * scale)))
    resized = interpolate(images.float(), target, mode="bilinear", antialias=True, align_corners=False)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return resized[..., top : top + size, left : left + size].round_().clamp_(0, 255).to(torch.uint8)
