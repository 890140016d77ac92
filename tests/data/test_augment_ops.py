"""What the operations that torchvision does not have must do, by their own definition."""

import pytest
import torch
from pydantic import ValidationError

from stopgrad.data.augment import (
    Affine,
    BoxBlur,
    Brightness,
    ColorJitter,
    Cutout,
    Draws,
    Erase,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    HorizontalFlip,
    LogContrast,
    RandomResizedCrop,
    Rotation,
    Solarize,
)

B = 32
DRAWS = Draws(5, 0, torch.arange(B), 0)

EVERY = [
    RandomResizedCrop(size=12, flip=0.5),
    HorizontalFlip(),
    Rotation(degrees=20, p=0.5),
    Affine(rotation=0.3, zoom=(0.8, 1.25), shift=0.1, shear=0.1),
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    Grayscale(p=0.5),
    Solarize(),
    LogContrast(strength=0.4),
    Brightness(strength=0.3, p=0.5),
    GaussianBlur(kernel=5, p=0.5),
    BoxBlur(p=0.5),
    GaussianNoise(sigma=(0.0, 0.1)),
    Erase(fill="mean"),
    Cutout(side=4, p=0.5),
]


def images(channels=3):
    return torch.rand(B, channels, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.op)
def test_every_op_stays_in_range_and_treats_images_one_by_one(op, channels):
    params = op.sample(DRAWS, 12, 12)
    found = op.apply(images(channels), params)
    assert found.shape == (B, channels, 12, 12)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    for row in (0, 7, 31):
        one = op.apply(images(channels)[row : row + 1], {k: v[row : row + 1] for k, v in params.items()})
        torch.testing.assert_close(found[row], one[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("op", [op for op in EVERY if hasattr(op, "p")], ids=lambda op: op.op)
def test_images_that_are_not_chosen_are_left_alone(op):
    op = op.model_copy(update={"p": 0.5})
    params = op.sample(DRAWS, 12, 12)
    found = op.apply(images(), params)
    assert 0 < params["chosen"].sum() < B
    assert torch.equal(found[~params["chosen"]], images()[~params["chosen"]])
    assert not torch.equal(found[params["chosen"]], images()[params["chosen"]])


def test_affine_identity_and_pure_moves():
    found = Affine().apply(images(), Affine().sample(DRAWS, 12, 12))
    torch.testing.assert_close(found, images(), rtol=0, atol=1e-5)
    # two pixels to the right, the left edge continued
    matrix = torch.tensor([[1.0, 0.0, -2.0], [0.0, 1.0, 0.0]]).expand(B, 2, 3)
    found = Affine().apply(images(), {"matrix": matrix})
    expected = torch.cat([images()[..., :1].expand(-1, -1, -1, 2), images()[..., :-2]], 3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_zoom_above_one_enlarges():
    square = torch.zeros(1, 1, 16, 16)
    square[..., 6:10, 6:10] = 1
    one = Draws(0, 0, torch.arange(1), 0)
    op = Affine(zoom=(2.0, 2.0))
    assert op.apply(square.clone(), op.sample(one, 16, 16)).sum() > 3 * square.sum()


def test_box_blur_is_the_mean_of_what_lies_inside():
    found = BoxBlur().apply(images(), {"share": torch.ones(B)})
    torch.testing.assert_close(found[..., 5, 5], images()[..., 4:7, 4:7].mean((2, 3)))
    torch.testing.assert_close(found[..., 0, 0], images()[..., :2, :2].mean((2, 3)))
    assert torch.equal(BoxBlur().apply(images(), {"share": torch.zeros(B)}), images())


def test_tone():
    # small enough that nothing is clamped
    grey = 0.4 + 0.2 * images()
    factor = torch.linspace(0.5, 2.0, B)
    found = LogContrast(strength=1.0).apply(grey.clone(), {"factor": factor})
    torch.testing.assert_close(found.mean((1, 2, 3)), grey.mean((1, 2, 3)))
    torch.testing.assert_close(found.std((1, 2, 3)), grey.std((1, 2, 3)) * factor)
    offset = torch.linspace(-0.3, 0.3, B)
    found = Brightness(strength=0.3).apply(grey.clone(), {"offset": offset})
    torch.testing.assert_close(found - grey, offset.view(-1, 1, 1, 1).expand_as(grey))


def test_cutout_fills_with_the_mean_of_the_image():
    op = Cutout(side=4)
    params = op.sample(DRAWS, 12, 12)
    found = op.apply(images(), params)
    changed = found != images()
    assert (changed.sum((2, 3)) == 16).all()
    for row, (top, left, _, _) in enumerate(params["box"].tolist()):
        patch = found[row, :, top : top + 4, left : left + 4]
        torch.testing.assert_close(patch, images()[row].mean((1, 2)).view(3, 1, 1).expand(3, 4, 4))


def test_noise_depends_on_the_image_only():
    op = GaussianNoise(sigma=(0.1, 0.1))
    grey = torch.full((B, 1, 8, 8), 0.5)
    together = op.apply(grey.clone(), op.sample(DRAWS, 8, 8))
    alone = op.apply(grey[:1].clone(), op.sample(Draws(5, 0, torch.tensor([7]), 0), 8, 8))
    assert torch.equal(together[7], alone[0])
    assert len(torch.unique(together[:, 0, 0, 0])) == B


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GaussianBlur(kernel=4), "odd"),
        (lambda: GaussianBlur(kernel=3, sigma=(0.0, 1.0)), "greater than 0"),
        (lambda: RandomResizedCrop(size=8, scale=(1.0, 0.5)), "lowest, highest"),
        (lambda: RandomResizedCrop(size=8, scale=(-0.5, 0.5)), "scale"),
        (lambda: RandomResizedCrop(size=8, ratio=(0.0, 1.0)), "ratio"),
        (lambda: Affine(zoom=(0.0, 1.0)), "zoom"),
        (lambda: Grayscale(p=1.5), "less than or equal to 1"),
        (lambda: ColorJitter(hue=0.6), "0.5"),
        (lambda: GaussianNoise(sigma=(-0.1, 0.1)), "sigma"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, says):
    with pytest.raises(ValidationError, match=says):
        make()
