"""Every operation against torchvision's own, given the same parameters."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from stopgrad.data.augment import (
    ColorJitter,
    Draws,
    Erase,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    HorizontalFlip,
    RandomResizedCrop,
    Rotation,
    Solarize,
)
from stopgrad.data.augment.color import shift_hue

B, H, W = 48, 20, 27
DRAWS = Draws(0, 0, torch.arange(B), 0)


def images(channels=3, height=H, width=W):
    found = torch.rand(B, channels, height, width, generator=torch.Generator().manual_seed(0))
    # flat colours and extremes, where hue has its ties and its zero ranges
    found[:12] = (found[:12] * 2).round() / 2
    found[12] = 0.0
    return found


def close(found, expected, tolerance=3e-6):
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [8, 20, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop(size, antialias, channels):
    op = RandomResizedCrop(size=size, antialias=antialias, flip=0.5)
    params = op.sample(DRAWS, H, W)
    expected = []
    for image, box, flip in zip(
        images(channels), params["box"].tolist(), params["flip"].tolist(), strict=True
    ):
        crop = tv.resized_crop(image, *box, [size, size], antialias=antialias)
        expected.append(tv.horizontal_flip(crop) if flip else crop)
    assert 0 < params["flip"].sum() < B
    close(op.apply(images(channels), params), expected)


@pytest.mark.parametrize("antialias", [True, False])
def test_crop_of_one_uint8_image_is_torchvision_s_to_the_bit(antialias):
    op = RandomResizedCrop(size=16, antialias=antialias)
    params = op.sample(DRAWS, H, W)
    image = (images()[20] * 255).to(torch.uint8)
    for row in range(B):
        one = {name: value[row : row + 1] for name, value in params.items()}
        box = one["box"][0].tolist()
        assert torch.equal(op.crop(image, one), tv.resized_crop(image, *box, [16, 16], antialias=antialias))


def test_flip():
    close(HorizontalFlip(p=1.0).apply(images(), {}), [tv.horizontal_flip(image) for image in images()], 0)


@pytest.mark.parametrize("shape", [(H, W), (24, 24)])
def test_rotation(shape):
    op = Rotation(degrees=40)
    params = op.sample(DRAWS, *shape)
    expected = [
        tv.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)
        for image, angle in zip(images(3, *shape), params["angle"].tolist(), strict=True)
    ]
    # both place the sampling points in float32, in their own order
    close(op.apply(images(3, *shape), params), expected, 2e-5)


def jittered(image, factors, order):
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for which in order:
        image = adjust[which](image, factors[which])
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("p", [1.0, 0.6, 0.0])
def test_jitter_in_every_order(channels, p):
    op = ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5, p=p)
    params = op.sample(DRAWS, H, W)
    assert len(torch.unique(params["order"], dim=0)) > 15
    expected = [
        jittered(image, factors, order) if chosen else image
        for image, factors, order, chosen in zip(
            images(channels), *(params[name].tolist() for name in ("factors", "order", "chosen")), strict=True
        )
    ]
    found = op.apply(images(channels), params)
    close(found, expected, 1e-5)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("turns", [-0.5, -0.31, 0.0, 0.1, 0.5])
def test_hue(turns):
    found = images()
    shift_hue(found, torch.full((B,), turns))
    close(found, [tv.adjust_hue(image, turns) for image in images()])


@pytest.mark.parametrize("channels", [1, 3])
def test_greyscale(channels):
    expected = [tv.rgb_to_grayscale(image, num_output_channels=channels) for image in images(channels)]
    close(Grayscale(p=1.0).apply(images(channels), {}), expected, 1e-7)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_solarize(threshold):
    expected = [tv.solarize(image, threshold) for image in images()]
    close(Solarize(p=1.0, threshold=threshold).apply(images(), {}), expected, 0)


@pytest.mark.parametrize("kernel", [3, 9])
def test_blur(kernel):
    op = GaussianBlur(kernel=kernel)
    params = op.sample(DRAWS, H, W)
    expected = [
        tv.gaussian_blur(image, [kernel, kernel], [sigma, sigma])
        for image, sigma in zip(images(), params["sigma"].tolist(), strict=True)
    ]
    close(op.apply(images(), params), expected)


def test_erase():
    op = Erase(p=1.0, fill=0.25)
    params = op.sample(DRAWS, H, W)
    value = torch.full((3, 1, 1), 0.25)
    expected = [
        tv.erase(image, *box, value) for image, box in zip(images(), params["box"].tolist(), strict=True)
    ]
    close(op.apply(images(), params), expected, 0)


def test_uint8_rounds_where_float_does_not():
    # torchvision on uint8 rounds or floors after each operation: within two grey levels over a whole jitter
    op = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
    params = op.sample(DRAWS, H, W)
    pictures = (images() * 255).to(torch.uint8)
    rows = zip(pictures, params["factors"].tolist(), params["order"].tolist(), strict=True)
    expected = torch.stack([jittered(*row) for row in rows]).float() / 255
    assert (op.apply(pictures.float() / 255, params) - expected).abs().max() < 3.5 / 255


def test_noise_has_the_drawn_deviation():
    grey = torch.full((B, 3, 64, 64), 0.5)
    params = GaussianNoise(sigma=(0.01, 0.1)).sample(DRAWS, 64, 64)
    noise = GaussianNoise(sigma=(0.01, 0.1)).apply(grey.clone(), params) - grey
    n = noise[0].numel()
    torch.testing.assert_close(noise.std((1, 2, 3)), params["sigma"], rtol=5 / (2 * n) ** 0.5, atol=0)
    assert (noise.mean((1, 2, 3)).abs() < 5 * params["sigma"] / n**0.5).all()
