"""``digits``: real handwritten digits at random pose, without a download.

The 1797 digits of 8x8 pixels that ship with scikit-learn (Alpaydin and Kaynak, UCI, 1998), each placed on a
16x16 canvas at random scale, rotation, position and contrast. Raw pixels and random features do poorly on
it, learned features do not, which makes it a fair ground for methods that learn without labels. A digit of
the validation or test part never lends an image to another part.

The set is a constant. Random numbers are NumPy's ``RandomState``, whose streams are frozen for good, and the
resampling is written out below in float64, so that no library update changes a pixel.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from stopgrad.data.sources.parts import ArrayPart, Loaded
from stopgrad.data.sources.settings import DataSettings

SIDE = 16
#: part -> (originals, images made from them)
PARTS = {"train": (1097, 4096), "val": (200, 1024), "test": (500, 1024)}
SCALE = (0.6, 0.95)  # of the canvas
ROTATION = (-0.35, 0.35)  # radians
FOREGROUND = (0.5, 1.0)
BACKGROUND = (0.0, 0.35)

Floats = NDArray[np.float64]


def load_digits(settings: DataSettings | None = None) -> Loaded:
    """The bundled set: 4096 train, 1024 validation, 1024 test images, uint8 (1, 16, 16)."""
    from sklearn.datasets import load_digits as originals_of_sklearn

    pixels, labels = originals_of_sklearn(return_X_y=True)
    originals = pixels.reshape(-1, 8, 8) / 16
    order = np.random.RandomState(0).permutation(len(originals))
    parts: dict[str, ArrayPart] = {}
    start = 0
    for number, (part, (count, images)) in enumerate(PARTS.items()):
        chosen = order[start : start + count]
        start += count
        parts[part] = _make_part(part, originals[chosen], labels[chosen], images, seed=number + 1)
    return Loaded(
        parts["train"], parts["val"], parts["test"], classes=tuple("0123456789"),
        statistics=((0.0,), (1.0,)),  # images stay in [0, 1]: the encoder's first BN does the rest
    )  # fmt: skip


def _make_part(part: str, originals: Floats, labels: NDArray[np.int64], count: int, seed: int) -> ArrayPart:
    """``count`` images from ``originals`` (N,8,8), each used equally often up to one."""
    random = np.random.RandomState(seed)
    rounds = -(-count // len(originals))
    source = np.concatenate([random.permutation(len(originals)) for _ in range(rounds)])[:count]

    def uniform(low: float, high: float) -> Floats:
        return low + (high - low) * random.random_sample(count)

    scale, angle = uniform(*SCALE), uniform(*ROTATION)
    margin = 1 - scale  # half the canvas is 1
    shift_x, shift_y = uniform(-1, 1) * margin, uniform(-1, 1) * margin
    foreground, background = uniform(*FOREGROUND)[:, None, None], uniform(*BACKGROUND)[:, None, None]
    ink = _place(originals[source], scale, angle, shift_x, shift_y)
    images = background + (foreground - background) * ink
    return ArrayPart(
        images=torch.from_numpy(np.rint(images * 255).astype(np.uint8)[:, None]),
        labels=torch.from_numpy(labels[source].astype(np.int64)),
        ids=[f"{part}/{i}" for i in range(count)],
    )


def _place(images: Floats, scale: Floats, angle: Floats, shift_x: Floats, shift_y: Floats) -> Floats:
    """Rotate, shrink and move images (N,h,w) on an empty canvas (N,SIDE,SIDE), bilinear.

    Coordinates run over [-1, 1] from edge to edge; ``scale`` 1 fills the canvas, shifts are in half canvases.
    """
    height, width = images.shape[1:]
    centre = (np.arange(SIDE) + 0.5) * 2 / SIDE - 1
    x = centre[None, None, :] - shift_x[:, None, None]
    y = centre[None, :, None] - shift_y[:, None, None]
    cos, sin = (np.cos(angle) / scale)[:, None, None], (np.sin(angle) / scale)[:, None, None]
    column = (cos * x + sin * y + 1) * width / 2 - 0.5
    row = (cos * y - sin * x + 1) * height / 2 - 0.5
    left, top = np.floor(column), np.floor(row)
    right_share, bottom_share = column - left, row - top
    # one empty pixel all around: what lies outside an original is background
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    number = np.arange(len(images))[:, None, None]

    def pixel(row: Floats, column: Floats) -> Floats:
        rows = np.clip(row + 1, 0, height + 1).astype(np.intp)
        columns = np.clip(column + 1, 0, width + 1).astype(np.intp)
        return padded[number, rows, columns]

    upper = pixel(top, left) * (1 - right_share) + pixel(top, left + 1) * right_share
    lower = pixel(top + 1, left) * (1 - right_share) + pixel(top + 1, left + 1) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share
