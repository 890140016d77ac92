"""From image files of any kind to uint8 pixels (C, H, W).

What happens to a file:

- EXIF orientation is applied; of several frames the first is read.
- Transparency is laid over white, as viewers show it. (Dropping alpha, which ``convert("RGB")`` does, brings
  up whatever colour lies hidden under transparent pixels: line art on a transparent ground turns all black.)
- 16-bit grey and RGB are scaled from 0..65535 to 0..255, not clipped.
- Floats within [0, 1] are scaled by 255, within [0, 255] are kept, and any other range, for which there is no
  convention, is stretched from the image's own minimum and maximum; so are 32-bit integers beyond 16 bits.
- CMYK, palette, 1-bit and the rest are converted by Pillow; grey is luma, ITU-R BT.601.
"""

import os
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
    """Decode a file into uint8 (channels, H, W).

    Raises:
        UnreadableImage: if it is empty, cut off, damaged, too large to be meant, or of an unknown kind.
    """
    return _decode(source, channels, name, check=False)[0]


def check_image(path: str) -> tuple[int, int]:
    """Decode a file to see that it decodes (JPEG at an eighth of its size, which reads it all the same).

    Returns:
        height and width of the upright image.

    Raises:
        UnreadableImage: as ``read_image``.
    """
    return _decode(path, 3, None, check=True)[1]


def _decode(
    source: str | IO[bytes], channels: int, name: str | None, check: bool
) -> tuple[Pixels, tuple[int, int]]:
    images = require("PIL.Image", "vision")
    path = name or (source if isinstance(source, str) else "stream")
    try:
        with images.open(source) as image:
            upright = None
            if check and image.format == "JPEG":
                on_its_side = image.getexif().get(_ORIENTATION, 1) >= 5
                upright = image.size if on_its_side else image.size[::-1]
                image.draft("RGB", (1, 1))
            pixels = _to_array(image, channels)
            return pixels, upright or pixels.shape[1:]
    # Pillow's decoders raise nearly anything on damaged input: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, DecompressionBombError, MemoryError ...
    except Exception as error:
        raise UnreadableImage(path, _reason(path, error)) from error


def _reason(path: str, error: Exception) -> str:
    try:
        if os.path.getsize(path) == 0:
            return "empty file"
    except OSError:
        pass
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
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


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
