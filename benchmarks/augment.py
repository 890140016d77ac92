"""Views a second: stopgrad's batched augmentation against torchvision v2 and kornia, the same operations.

    python benchmarks/augment.py            # the table, 3 minutes
    python benchmarks/augment.py --write    # and benchmarks/results/augment.md, augment.json

Crop, flip, colour jitter (p 0.8), greyscale (p 0.2) at 32 x 32; at 96 x 96 Gaussian blur (p 0.5) too. Every
contender starts from the same uint8 images in memory and ends with a float32 batch in [0, 1]. torchvision
runs as people use it in a DataLoader worker, image by image, both on PIL images and on uint8 tensors; what a
worker then costs (starting, pickling, pinning) is left out, in its favour. kornia runs on the batch, with one
order of the jitter for all its images (ours and torchvision's have one for each).

On a CPU: one thread, timed in seconds of processor time, because neighbours share the machine. On an
accelerator: wall time, synchronised. All contenders take turns in every round; a ratio is that of one round,
against the faster torchvision of that round.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torchvision.transforms import v2

from stopgrad.data.views import Views, preset

RESULTS = Path(__file__).parent / "results"
Work = Callable[[], object]


def torchvision_chain(size: int, blur: bool) -> list[v2.Transform]:
    ops: list[v2.Transform] = [
        v2.RandomResizedCrop(size, scale=(0.2, 1.0)),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
    ]
    return [*ops, v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], p=0.5)] if blur else ops


def torchvision_pil(images: Tensor, size: int, blur: bool) -> Work:
    pictures = [v2.functional.to_pil_image(image) for image in images]
    chain = v2.Compose(
        [*torchvision_chain(size, blur), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    return lambda: torch.stack([chain(picture) for picture in pictures])


def torchvision_tensor(images: Tensor, size: int, blur: bool) -> Work:
    pictures = list(images)
    chain = v2.Compose([*torchvision_chain(size, blur), v2.ToDtype(torch.float32, scale=True)])
    return lambda: torch.stack([chain(picture) for picture in pictures])


def kornia_batch(images: Tensor, size: int, blur: bool) -> Work:
    import kornia.augmentation as K

    chain = K.AugmentationSequential(
        K.RandomResizedCrop((size, size), scale=(0.2, 1.0)),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        *([K.RandomGaussianBlur((9, 9), (0.1, 2.0), p=0.5)] if blur else []),
    )
    return lambda: chain(images.float() / 255)


def stopgrad_batch(images: Tensor, size: int, blur: bool) -> Work:
    chain = preset("simclr-96" if blur else "simclr-32", size).first
    views = Views(first=chain, second=(), size=size)
    index = torch.arange(len(images))
    epoch = iter(range(10**9))
    # one view, as the others make: the second, without an operation, is a conversion to float
    return lambda: views.view(0, images, index, seed=0, epoch=next(epoch))


CONTENDERS: dict[str, Callable[[Tensor, int, bool], Work]] = {
    "stopgrad": stopgrad_batch,
    "torchvision v2, PIL": torchvision_pil,
    "torchvision v2, uint8 tensor": torchvision_tensor,
    "kornia, batched": kornia_batch,
}


def seconds(work: Work, device: str, least: float) -> float:
    """Seconds a call, over as many calls as take ``least`` seconds."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    calls, start = 0, clock()
    while clock() - start < least:
        work()
        calls += 1
        if device != "cpu":
            torch.cuda.synchronize()
    return (clock() - start) / calls


def measure(size: int, batch: int, device: str, rounds: int, least: float) -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 8, 8, generator=generator) * 255
    images = (
        torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 255).to(torch.uint8)
    )
    works: dict[str, Work] = {}
    for name, make in CONTENDERS.items():
        home = "cpu" if name.startswith("torchvision") else device
        works[name] = make(images.to(home), size, size >= 96)
        works[name]()
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            home = "cpu" if name.startswith("torchvision") else device
            rates[name].append(batch / seconds(work, home, least))
    peers = [
        max(pair)
        for pair in zip(rates["torchvision v2, PIL"], rates["torchvision v2, uint8 tensor"], strict=True)
    ]
    return [
        {
            "device": device,
            "size": size,
            "batch": batch,
            "name": name,
            "views_per_second": median(found),
            "least": min(found),
            "most": max(found),
            "ratio": median(rate / peer for rate, peer in zip(found, peers, strict=True)),
        }
        for name, found in rates.items()
    ]


def header() -> str:
    names = ("torch", "torchvision", "kornia", "pillow")
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown"
    )
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{model}{device}; Python {platform.python_version()}, {versions}; one CPU thread"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(rows: list[dict[str, object]]) -> str:
    lines = [
        "| device | size | batch | | views/s, median (min..max) | times torchvision |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{row['views_per_second']:,.0f} ({row['least']:,.0f}..{row['most']:,.0f})"
        cells = (row["device"], row["size"], row["batch"], row["name"], spread, f"{row['ratio']:.1f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/augment.md and .json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of a contender in a round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for size, batch in ((32, 256), (96, 128)) if device == "cpu" else ((32, 512), (96, 512)):
            rows += measure(size, batch, device, args.rounds, args.seconds)
    text = f"{header()}\n\n{table(rows)}\n"
    print(text)
    if args.write:
        RESULTS.mkdir(exist_ok=True)
        how = f"`python benchmarks/augment.py --write` ({args.rounds} rounds)"
        (RESULTS / "augment.md").write_text(f"# Augmentation, views a second\n\n{how}. {text}")
        (RESULTS / "augment.json").write_text(
            json.dumps({"machine": header(), "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
