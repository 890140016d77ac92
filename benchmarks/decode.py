"""What decoding costs: images a second and core, by decoder and at a part of the size.

    python benchmarks/decode.py            # a minute on one core
    python benchmarks/decode.py --write    # and benchmarks/results/decode.md

JPEGs of 500x375 pixels at quality 90, drawn here with the spectrum of photographs (amplitude falling as one
over frequency, and a little grain), from memory: no disk is measured. Ways take turns, forwards and
backwards, in one thread; seconds are those that the thread computed, so that other processes disturb less.
The first table only decodes; the others do what a worker of a training run does: decode, and cut the crops of
two views. "stopgrad" decodes a JPEG no larger than its crops need.
``read_image`` is stopgrad's own, with its checks.
"""

import argparse
import io
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from stopgrad.data.sources.decode import check_image, read_image, read_shrunk
from stopgrad.data.views import Crops, preset

RESULTS = Path(__file__).parent / "results"
HEIGHT, WIDTH = 375, 500
Way = Callable[[bytes, int], object]


def photo(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / WIDTH)
    layers = []
    for _ in range(3):
        phases = np.exp(2j * np.pi * random.random(amplitude.shape))
        layer = np.fft.irfft2(amplitude * phases, s=(HEIGHT, WIDTH))
        layers.append((layer - layer.mean()) / layer.std())
    light, red, blue = layers  # colours vary less than light
    rgb = np.stack([light + 0.3 * red, light, light + 0.3 * blue], 2) * 50 + 120
    rgb += random.normal(0, 2, rgb.shape)
    file = io.BytesIO()
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def pillow(data: bytes, factor: int = 1) -> Tensor:
    image = Image.open(io.BytesIO(data))
    if factor > 1:
        image.draft(None, (WIDTH // factor, HEIGHT // factor))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def native(data: bytes) -> Tensor:
    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def decoders() -> dict[str, Way]:
    return {
        "Pillow": lambda data, i: pillow(data),
        "torchvision `decode_jpeg`": lambda data, i: native(data),
        "Pillow at 1/2": lambda data, i: pillow(data, 2),
        "Pillow at 1/4": lambda data, i: pillow(data, 4),
        "Pillow at 1/8": lambda data, i: pillow(data, 8),
        "`read_image`": lambda data, i: read_image(io.BytesIO(data), 3),
        "`check_image` (once, for the index)": lambda data, i: check_image(io.BytesIO(data)),
    }


def workers(name: str) -> dict[str, Way]:
    views = preset(name)

    def crops(i: int) -> Crops:
        return views.crops(i, seed=0, epoch=0)

    def shrunk(data: bytes, i: int) -> Tensor:
        own = crops(i)
        return own.cut(torch.from_numpy(read_shrunk(io.BytesIO(data), 3, shrink=own.shrink)))

    return {
        "Pillow, channels first": lambda data, i: crops(i).cut(pillow(data).contiguous()),
        "Pillow": lambda data, i: crops(i).cut(pillow(data)),
        "torchvision": lambda data, i: crops(i).cut(native(data)),
        "stopgrad": shrunk,
    }


def rates(ways: dict[str, Way], files: list[bytes], turns: int) -> dict[str, list[float]]:
    """Images a second of each way, ``turns`` times."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        order = list(ways.items())
        for name, way in order if turn % 2 else reversed(order):
            began = time.thread_time()
            for i, data in enumerate(files):
                way(data, i)
            found[name].append(len(files) / (time.thread_time() - began))
    return {name: values[1:] for name, values in found.items()}  # the first turn warms up


def table(title: str, found: dict[str, list[float]]) -> list[str]:
    base = median(next(iter(found.values())))
    rows = [f"| {title} | images/s, median (min..max) | against the first |", "|---|---|---|"]
    for name, values in found.items():
        spread = f"{median(values):.0f} ({min(values):.0f}..{max(values):.0f})"
        rows.append(f"| {name} | {spread} | {median(values) / base:.2f} |")
    return [*rows, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    own = parser.parse_args()
    torch.set_num_threads(1)
    files = [photo(seed) for seed in range(own.images)]
    same = all(torch.equal(pillow(data), native(data)) for data in files[:50])
    lines = [
        "# What decoding costs",
        "",
        f"`python benchmarks/decode.py`, {platform.machine()}, one core, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}.",
        "",
        f"{own.images} JPEGs of {WIDTH}x{HEIGHT}, {np.mean([len(data) for data in files]) / 1024:.0f} KiB on "
        f"average, from memory; {own.turns} turns. Pillow and torchvision give "
        f"{'the same bits' if same else 'different pixels'}.",
        "",
        *table("decoding", rates(decoders(), files, own.turns)),
    ]
    for name in ("byol-224", "simclr-96", "simclr-32"):
        lines += table(
            f"decoding and the crops of two views, `{name}`", rates(workers(name), files, own.turns)
        )
    text = "\n".join(lines)
    print(text)
    if own.write:
        (RESULTS / "decode.md").write_text(text)


if __name__ == "__main__":
    main()
