"""The peer's views: operations on one image at a time, of the distribution that ours have."""

import math
import random

import torch
from lightly.transforms import SimCLRTransform
from lightly.transforms.multi_view_transform import MultiViewTransform
from torch import Tensor, nn
from torchvision.transforms import v2

from stopgrad.data.sources import Dataset


def simclr_of_lightly(dataset: Dataset, *, size: int, blur: float) -> MultiViewTransform:
    """lightly's own transform at half the jitter, as it says to set it for CIFAR; ``blur`` is how often."""
    normalise = {"mean": list(dataset.mean), "std": list(dataset.std)}
    return SimCLRTransform(
        input_size=size, cj_strength=0.5, min_scale=0.2, gaussian_blur=blur, normalize=normalise
    )


def digits_of_torchvision(dataset: Dataset) -> MultiViewTransform:
    """The `digits` views image by image: torchvision's operations where it has them, else tensor code."""
    size = dataset.train.images.shape[-1]
    view = v2.Compose(
        [
            v2.Pad(size // 2, padding_mode="edge"),  # RandomAffine fills with a colour, not with the edge
            v2.RandomAffine(
                degrees=20, translate=(0.0375, 0.0375), scale=(0.8, 1.25), shear=8.6,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([v2.Lambda(box_blur)], p=0.5),
            v2.Lambda(tone),
            v2.RandomApply([v2.Lambda(cutout)], p=0.3),
            v2.Normalize(dataset.mean, dataset.std),
        ]
    )  # fmt: skip
    return MultiViewTransform(transforms=[view, view])


def box_blur(image: Tensor) -> Tensor:
    mean = nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
    return image.lerp(mean, random.random())


def tone(image: Tensor) -> Tensor:
    """Contrast about the mean, brightness, noise."""
    mean = image.mean()
    image = ((image - mean) * math.exp(random.uniform(-0.4, 0.4)) + mean).clamp_(0, 1)
    image = image.add_(random.uniform(-0.3, 0.3)).clamp_(0, 1)
    return image.add_(torch.randn_like(image), alpha=random.uniform(0, 0.08)).clamp_(0, 1)


def cutout(image: Tensor) -> Tensor:
    top, left = random.randint(0, image.shape[1] - 4), random.randint(0, image.shape[2] - 4)
    image[:, top : top + 4, left : left + 4] = image.mean()
    return image
