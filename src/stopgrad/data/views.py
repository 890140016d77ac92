"""Views of an image: chains of augmentations, and the plain view that evaluation sees.

Legend: B images, V views, C channels (1 or 3), H W image, S view size.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from stopgrad.data.augment import (
    Affine,
    AnyOp,
    BoxBlur,
    Brightness,
    ColorJitter,
    Cutout,
    Draws,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    LogContrast,
    Op,
    Params,
    RandomResizedCrop,
    Solarize,
)
from stopgrad.errors import UsageError, unknown

_CACHED_VALUES = 1 << 20
"""Values of a batch that are worked on together on a CPU: four megabytes, which stay near the core."""


class Views(BaseModel):
    """How the views of a training image are made: two, or more of the kind of the second.

    ``first`` and ``second`` are the augmentations of each view, in order; views beyond the second have those
    of the second and random numbers of their own. ``size`` is the side of the views in pixels. Images that
    no random resized crop takes to ``size`` are resized as :func:`evaluation_view` does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: tuple[AnyOp, ...]
    second: tuple[AnyOp, ...]
    size: int = Field(gt=0)

    @model_validator(mode="after")
    def _check_crops(self) -> Self:
        for name in ("first", "second"):
            for place, op in enumerate(getattr(self, name)):
                if isinstance(op, RandomResizedCrop):
                    if place:
                        raise ValueError(f"{name}.{place}: a random resized crop comes first in its view")
                    if op.size != self.size:
                        raise ValueError(f"{name}.0.size: {op.size} is not the views' size {self.size}")
        return self

    def __call__(self, images: Tensor, index: Tensor, *, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Two views, float32 (B, C, S, S) in [0, 1], of uint8 images (B, C, H, W), on the images' device.

        ``index``: int64 (B,), each image's number in its dataset, best left on the CPU. Equal ``seed``,
        ``epoch`` and ``index`` give equal views, whatever else is in the batch.

        Raises:
            UsageError: if ``images`` are not uint8 (B, 1 or 3, H, W), or ``index`` is not (B,).
        """
        first, second = (self.view(view, images, index, seed=seed, epoch=epoch) for view in (0, 1))
        return first, second

    def view(self, view: int, images: Tensor, index: Tensor, *, seed: int, epoch: int) -> Tensor:
        """One view, ``view`` from 0 on: 0 and 1 are the two that a call makes.

        Raises:
            UsageError: as a call.
        """
        _check(images, index, 4)
        return self._chain(view, images, index, seed, epoch, cropped=False)

    def crops(self, index: int, *, seed: int, epoch: int, count: int = 2) -> "Crops":
        """The crops of the first ``count`` views of one image of any size, in the worker that decodes it.

        :meth:`finish` does the rest in batches.
        """
        return Crops([self._ops(view) for view in range(count)], self.size, index, seed, epoch)

    def finish(self, crops: Tensor, index: Tensor, *, seed: int, epoch: int) -> tuple[Tensor, ...]:
        """All but the crop, for uint8 (B, V, C, S, S) from :meth:`crops`: V views, float32 (B, C, S, S).

        Raises:
            UsageError: if ``crops`` are not uint8 (B, V, 1 or 3, S, S), or ``index`` is not (B,).
        """
        _check(crops, index, 5)
        return tuple(
            self._chain(view, own, index, seed, epoch, cropped=True)
            for view, own in enumerate(crops.unbind(dim=1))
        )

    def _ops(self, view: int) -> tuple[Op, ...]:
        return self.second if view else self.first

    def _chain(
        self, view: int, images: Tensor, index: Tensor, seed: int, epoch: int, *, cropped: bool
    ) -> Tensor:
        ops = self._ops(view)
        named = list(zip(_names(ops), ops, strict=True))
        if _crop_of(ops) is None:
            images = _fit(images, self.size)
        elif cropped:
            named = named[1:]
        draws = Draws(seed, epoch, index, view)
        height, width = images.shape[-2:]
        steps: list[tuple[Op, Params]] = []
        for name, op in named:
            steps.append((op, op.sample(draws.within(name), height, width)))
            height, width = (self.size, self.size)
        batch, channels = images.shape[:2]
        out = torch.empty(batch, channels, self.size, self.size, device=images.device)
        for part in _parts(images, out):
            values = images[part].to(torch.float32).mul_(1 / 255)
            for op, params in steps:
                values = op.apply(values, {name: value[part] for name, value in params.items()})
            out[part] = values
        return out


class Crops:
    """The crops of all views of one image: where they lie is known before its pixels are.

    Ask :meth:`shrink` for how small the image may be decoded, then :meth:`cut` it.
    """

    def __init__(self, ops: Sequence[tuple[Op, ...]], size: int, index: int, seed: int, epoch: int) -> None:
        self._ops, self._size = ops, size
        self._index, self._seed, self._epoch = torch.tensor([index]), seed, epoch
        self._full: tuple[int, int] | None = None
        self._drawn: list[tuple[RandomResizedCrop, Params] | None] = []

    def shrink(self, height: int, width: int) -> int:
        """The largest of 8, 4, 2 and 1 that leaves every crop of an image (H, W) at least its pixels."""
        self._draw(height, width)
        sides = [side for drawn in self._drawn if drawn for side in drawn[1]["box"][0, 2:].tolist()]
        if None not in self._drawn:  # nor is there a view that shows all of the image
            self._factor = next(k for k in (8, 4, 2, 1) if k == 1 or min(sides) >= k * self._size)
        return self._factor

    def cut(self, image: Tensor) -> Tensor:
        """uint8 (C, H, W), of the size that ``shrink`` was told, or divided as it allowed -> (V, C, S, S)."""
        if self._full is None:
            self._draw(*image.shape[-2:])
        return torch.stack([self._piece(image, drawn) for drawn in self._drawn])

    def _draw(self, height: int, width: int) -> None:
        self._full, self._drawn, self._factor = (height, width), [], 1
        for view, ops in enumerate(self._ops):
            crop = _crop_of(ops)
            draws = Draws(self._seed, self._epoch, self._index, view)
            self._drawn.append(
                None if crop is None else (crop, crop.sample(draws.within(_names(ops)[0]), height, width))
            )

    def _piece(self, image: Tensor, drawn: tuple[RandomResizedCrop, Params] | None) -> Tensor:
        if drawn is None:
            return _fit(image.unsqueeze(0), self._size).squeeze(0).round().to(torch.uint8)
        crop, params = drawn
        if image.shape[-2:] != self._full:
            params = {**params, "box": _divided(params["box"], self._factor)}
        return crop.crop(image, params)


def _divided(box: Tensor, factor: int) -> Tensor:
    # edges to the nearest pixel of the small image, whose pixels are ``factor`` of the large one's on a side
    top, left, height, width = box[0].tolist()
    y0, x0, y1, x1 = (round(edge / factor) for edge in (top, left, top + height, left + width))
    return torch.tensor([[y0, x0, y1 - y0, x1 - x0]])


def _parts(images: Tensor, out: Tensor) -> list[slice]:
    # a CPU works on as many images as stay in its cache, an accelerator on all at once
    batch = len(out)
    _keep_freed_memory()
    values = max(images.numel(), out.numel())
    parts = -(-values // _CACHED_VALUES) if out.device.type == "cpu" else 1
    many = -(-batch // max(1, parts)) or 1
    return [slice(start, start + many) for start in range(0, batch, many)]


@cache
def _keep_freed_memory() -> None:
    # glibc returns freed megabytes to the system, and each page of the next tensor is then faulted in anew: a
    # fifth of the time here. It stops once a large block has been freed; this one is never touched, so it
    # costs nothing.
    torch.empty(31 << 18)


def _crop_of(ops: tuple[Op, ...]) -> RandomResizedCrop | None:
    return ops[0] if ops and isinstance(ops[0], RandomResizedCrop) else None


def _names(ops: tuple[Op, ...]) -> list[str]:
    # a stream belongs to the n-th op of its kind, so that leaving out another op changes nothing else
    kinds = [op.op for op in ops]
    return [f"{kind}{kinds[:place].count(kind)}" for place, kind in enumerate(kinds)]


def _check(images: Tensor, index: Tensor, dims: int) -> None:
    shape = "(B, C, H, W)" if dims == 4 else "(B, V, C, S, S)"
    if images.dtype != torch.uint8 or images.ndim != dims or images.shape[-3] not in (1, 3):
        raise UsageError(
            f"views: images are uint8 {shape} with 1 or 3 channels, got {images.dtype} {tuple(images.shape)}"
        )
    if index.shape != images.shape[:1]:
        raise UsageError(
            f"views: index has one number an image, got {tuple(index.shape)} for {len(images)} images"
        )


def evaluation_view(images: Tensor, size: int) -> Tensor:
    """float32 (B, C, S, S) in [0, 1]: the shorter side resized, then the middle.

    Images larger than ``size`` are resized to 256/224 of it first, as is usual for ImageNet; smaller ones to
    ``size``. uint8 (B, C, H, W), any size.

    Raises:
        UsageError: if ``images`` are not uint8 (B, C, H, W).
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise UsageError(
            f"evaluation_view: images are uint8 (B, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    return _fit(images, size).to(torch.float32).mul_(1 / 255)


def _fit(images: Tensor, size: int) -> Tensor:
    # (B, C, H, W) of uint8 -> (B, C, S, S) of uint8, or of float32 in [0, 255] where it had to be resized
    height, width = images.shape[-2:]
    short = min(height, width)
    if short != size:
        goal = min(short, round(size * 256 / 224)) if short > size else size
        height, width = height * goal // short, width * goal // short
        images = interpolate(
            images.float(), (height, width), mode="bilinear", align_corners=False, antialias=True
        )
    # rounded as torchvision's Resize and CenterCrop do
    top, left = round((height - size) / 2), round((width - size) / 2)
    return images[..., top : top + size, left : left + size]


def _digits(size: int) -> Views:
    ops = (
        Affine(rotation=0.35, zoom=(0.8, 1.25), shift=0.075, shear=0.15),
        BoxBlur(p=0.5),
        LogContrast(strength=0.4),
        Brightness(strength=0.3),
        GaussianNoise(sigma=(0.0, 0.08)),
        Cutout(side=4, p=0.3),
    )
    return Views(first=ops, second=ops, size=size)


def _simclr_32(size: int) -> Views:
    ops = (
        RandomResizedCrop(size=size, scale=(0.2, 1.0), flip=0.5),
        ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
        Grayscale(p=0.2),
    )
    return Views(first=ops, second=ops, size=size)


def _simclr_96(size: int) -> Views:
    ops = (
        RandomResizedCrop(size=size, scale=(0.2, 1.0), flip=0.5),
        ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
        Grayscale(p=0.2),
        GaussianBlur(kernel=_tenth(size), p=0.5),
    )
    return Views(first=ops, second=ops, size=size)


def _byol_224(size: int) -> Views:
    def ops(blur: float, solarize: float) -> tuple[AnyOp, ...]:
        chain: tuple[AnyOp, ...] = (
            RandomResizedCrop(size=size, scale=(0.08, 1.0), flip=0.5),
            ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
            Grayscale(p=0.2),
            GaussianBlur(kernel=_tenth(size), p=blur),
        )
        return (*chain, Solarize(p=solarize)) if solarize else chain

    return Views(first=ops(1.0, 0.0), second=ops(0.1, 0.2), size=size)


def _tenth(size: int) -> int:
    # the odd number nearest to a tenth of the side, at least 3: 9 at 96, 23 at 224
    return max(3, 2 * round((size / 10 - 1) / 2) + 1)


_PRESETS: dict[str, tuple[Callable[[int], Views], int]] = {
    "digits": (_digits, 16),
    "simclr-32": (_simclr_32, 32),
    "simclr-96": (_simclr_96, 96),
    "byol-224": (_byol_224, 224),
}


def preset(name: str, size: int | None = None) -> Views:
    """The views of a name, at their own size or at ``size`` pixels.

    ``digits`` (16): small affine maps, blur, tone, noise and erasing, for the bundled digits. ``simclr-32``:
    crop of at least a fifth, flip, jitter at half strength, greyscale: Chen et al. 2020 (SimCLR), appendix
    B.9, with the crops of Chen and He 2021 (SimSiam), section 4. ``simclr-96``: the same with blur.
    ``byol-224``: the asymmetric pair of Grill et al. 2020, table 6.

    Raises:
        UsageError: for an unknown name.
    """
    if name not in _PRESETS:
        raise unknown("views", name, list(_PRESETS))
    build, own = _PRESETS[name]
    return build(own if size is None else size)
