"""Augmentations of colour and tone.

Legend: B images, C channels (1 or 3), H W image.
"""

from itertools import permutations
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from stopgrad.data.augment.draws import Draws
from stopgrad.data.augment.op import Op, Params, Probability, Sometimes, between, per_image

_LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey, as torchvision rounds those of ITU-R BT.601."""

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_ORDERS = tuple(permutations(range(4)))

Strength = Annotated[float, Field(ge=0)]


def grey(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W): luma of colour images; grey ones as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    return torch.mul(red, _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


class ColorJitter(Op):
    """Brightness, contrast, saturation and hue, in an order drawn for each image; torchvision's ColorJitter.

    A factor is uniform in [max(0, 1 - strength), 1 + strength]; hue is shifted by up to +-``hue`` turns. On
    one channel saturation and hue change nothing. ``p``: the probability that an image is jittered.
    """

    op: Literal["color_jitter"] = "color_jitter"
    p: Probability = 1.0
    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: float = Field(0.0, ge=0, le=0.5)

    def sample(self, draws: Draws, height: int, width: int) -> Params:
        """The parameters of every image.

        ``factors``: (B, 4), brightness, contrast, saturation, hue; ``order``: int64 (B, 4), which of them
        comes first, second, ...; ``chosen``: bool (B,).
        """
        unit = draws.uniform("factors", (6,))
        strengths = (self.brightness, self.contrast, self.saturation)
        spans = [(max(0.0, 1.0 - strength), 1.0 + strength) for strength in strengths] + [
            (-self.hue, self.hue)
        ]
        factors = torch.stack([between(unit[:, i], span) for i, span in enumerate(spans)], 1)
        orders = torch.tensor(_ORDERS, device=unit.device)[(unit[:, 4] * len(_ORDERS)).to(torch.int64)]
        return {"factors": factors, "order": orders, "chosen": unit[:, 5] < self.p}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Jitter the chosen images, in four stages: in each an image is changed by the operation due to it.

        The images are sorted by the stage of their hue, so that those whose hue is due lie side by side.
        """
        order, device = params["order"], images.device
        stage_of_hue = (order == _HUE).to(torch.uint8).argmax(1)
        # those not chosen come last, after the last stage
        stages, rows = stage_of_hue.masked_fill_(~params["chosen"], 4).sort(stable=True)
        starts = torch.searchsorted(stages, torch.arange(5, device=rows.device)).tolist()
        factors = params["factors"][rows]
        weights = _blend_weights(factors, order[rows], images.shape[1]).to(device, non_blocking=True)
        turns = factors[:, _HUE].to(device, non_blocking=True)
        images = images.index_select(0, rows.to(device, non_blocking=True))
        chosen = slice(starts[4])
        for stage, weight in enumerate(weights):
            due = slice(starts[stage], starts[stage + 1])
            if self.hue and images.shape[1] == 3:
                shift_hue(images[due], turns[due])
            # clamps what the hue's rounding left outside, too
            _blend(images[chosen], weight[:, chosen])
        return images.index_select(0, rows.argsort().to(device, non_blocking=True))


def _blend_weights(factors: Tensor, order: Tensor, channels: int) -> Tensor:
    # (4 stages, 3, B, 1, 1, 1): the shares of the image, of its grey self and of its mean grey. Brightness
    # blends with black, contrast with the mean grey, saturation with the grey image; hue and what is not due,
    # with nothing.
    own = factors.gather(1, order)
    contrasts = order == _CONTRAST
    saturates = (order == _SATURATION) & (channels == 3)
    image = torch.where(contrasts | saturates | (order == _BRIGHTNESS), own, 1.0)
    rest = 1.0 - image
    return torch.stack([image, rest * saturates, rest * contrasts]).permute(2, 0, 1)[..., None, None, None]


def _blend(images: Tensor, weight: Tensor) -> None:
    # in place: image * images + to_grey * grey + to_mean * mean grey, clamped
    image, to_grey, to_mean = weight
    plain = grey(images)
    mean = plain.mean((2, 3), keepdim=True).mul_(to_mean)
    # on one channel grey() is the image itself, which is still needed
    goal = torch.mul(plain, to_grey).add_(mean)
    torch.addcmul(goal, images, image, out=images).clamp_(0.0, 1.0)


def shift_hue(images: Tensor, turns: Tensor) -> None:
    """Turn, in place, the hue of images (B, 3, H, W) by ``turns`` (B,): torchvision's adjust_hue.

    With m the smallest channel and D the largest less the smallest, the hue lies 1 + (g + b - r - m) / D
    sixths of a turn from red, towards green if g > b and towards blue otherwise; where D is zero it does not
    matter. Back, with h in [0, 6): red is m + D clamp(|h - 3| - 1, 0, 1), green m + D clamp(2 - |h - 2|, 0,
    1), blue the same with 4. That is the hexagonal HSV without a branch on which channel is the largest.
    Results may lie outside [0, 1] by the rounding of float32.
    """
    red, green, blue = images.unbind(1)
    smallest = torch.minimum(red, green).clamp_(max=blue)
    spread = torch.maximum(red, green).clamp_(min=blue).sub_(smallest)
    full = torch.add(smallest, spread, alpha=2.0)
    none = smallest.sub_(spread)
    hue = torch.add(green, blue).sub_(red).sub_(none)
    hue.div_(spread.clamp(min=torch.finfo(images.dtype).tiny)).copysign_(green - blue)
    # in turns, and one turn more, so that what frac sees is never negative
    torch.add((turns + 1.0).view(-1, 1, 1), hue, alpha=1 / 6, out=hue).frac_()
    distance = torch.empty_like(hue)
    for out, base, place, sign in (
        (red, none, 3 / 6, 6.0),
        (green, full, 2 / 6, -6.0),
        (blue, full, 4 / 6, -6.0),
    ):
        torch.sub(hue, place, out=distance).abs_().clamp_(1 / 6, 2 / 6)
        torch.addcmul(base, spread, distance, value=sign, out=out)


class Grayscale(Sometimes):
    """Replace the colours by their luma, in as many channels; torchvision's RandomGrayscale."""

    op: Literal["grayscale"] = "grayscale"
    p: Probability = 0.1

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """None: the choice is all."""
        return {}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Grey every image."""
        return grey(images).expand_as(images)


class Solarize(Sometimes):
    """Invert the values from ``threshold`` up; torchvision's RandomSolarize."""

    op: Literal["solarize"] = "solarize"
    p: Probability = 0.5
    threshold: Probability = 0.5

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """None: the choice is all."""
        return {}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Solarize every image."""
        return torch.where(images < self.threshold, images, 1.0 - images)


class LogContrast(Sometimes):
    """Scale the distance to the image's mean by exp(u), u uniform in +-``strength``; clamped to [0, 1]."""

    op: Literal["log_contrast"] = "log_contrast"
    strength: Strength

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``factor``: (B,)."""
        return {"factor": between(draws.uniform("factor"), (-self.strength, self.strength)).exp_()}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Change the contrast of every image about its mean over pixels and channels."""
        mean = images.mean((1, 2, 3), keepdim=True)
        return images.sub_(mean).mul_(per_image(params["factor"])).add_(mean).clamp_(0.0, 1.0)


class Brightness(Sometimes):
    """Add one number, uniform in +-``strength``, to all pixels of an image; clamped to [0, 1]."""

    op: Literal["brightness"] = "brightness"
    strength: Strength

    def parameters(self, draws: Draws, height: int, width: int) -> Params:
        """``offset``: (B,)."""
        return {"offset": between(draws.uniform("offset"), (-self.strength, self.strength))}

    def transform(self, images: Tensor, params: Params) -> Tensor:
        """Lighten or darken every image."""
        return images.add_(per_image(params["offset"])).clamp_(0.0, 1.0)
