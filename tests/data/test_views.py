from itertools import combinations

import pytest
import torch
import yaml
from pydantic import ValidationError
from torchvision.transforms.v2 import functional as tv

from stopgrad.data.augment import ColorJitter, Grayscale, RandomResizedCrop, Solarize
from stopgrad.data.views import Views, evaluation_view, preset
from stopgrad.errors import UsageError

NAMES = ["digits", "simclr-32", "simclr-96", "byol-224"]


def pictures(count=12, channels=3, height=32, width=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_presets_give_two_different_views_in_range(name, channels):
    views = preset(name, 24)
    images = pictures(channels=channels)
    kept = images.clone()
    first, second = views(images, torch.arange(12), seed=0, epoch=0)
    assert first.shape == second.shape == (12, channels, 24, 24)
    assert first.dtype == torch.float32
    assert first.is_contiguous()
    assert not torch.equal(first, second)
    assert min(first.min(), second.min()) >= 0
    assert max(first.max(), second.max()) <= 1 + 1e-6
    assert torch.equal(images, kept)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_depends_on_seed_epoch_and_image_only(name):
    views, images, index = preset(name, 24), pictures(), torch.arange(100, 112)
    first, second = views(images, index, seed=1, epoch=2)
    again, _ = views(images, index, seed=1, epoch=2)
    assert torch.equal(first, again)
    order = torch.tensor([7, 3, 11])
    part, other = views(images[order], index[order], seed=1, epoch=2)
    # products of matrices may be summed in another order for another batch
    torch.testing.assert_close(part, first[order], rtol=0, atol=1e-5)
    torch.testing.assert_close(other, second[order], rtol=0, atol=1e-5)
    for changed in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert not torch.equal(views(images, index, **changed)[0], first)
    assert not torch.equal(views(images, index + 1, seed=1, epoch=2)[0], first)


def test_parts_of_a_large_batch_are_the_batch(monkeypatch):
    views, images, index = preset("simclr-32"), pictures(40), torch.arange(40)
    whole, _ = views(images, index, seed=0, epoch=0)
    monkeypatch.setattr("stopgrad.data.views._CACHED_VALUES", 3 * 32 * 32 * 7)
    torch.testing.assert_close(views(images, index, seed=0, epoch=0)[0], whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_views_go_through_yaml_and_back(name):
    views = preset(name)
    text = yaml.safe_dump(views.model_dump(mode="json"))
    assert Views.model_validate(yaml.safe_load(text)) == views


@pytest.mark.parametrize("name", NAMES)
def test_crop_in_workers_and_finish_make_the_same_views(name):
    views, images, index = preset(name, 32), pictures(), torch.arange(12)
    crops = torch.stack(
        [views.crops(int(i), seed=3, epoch=1).cut(image) for image, i in zip(images, index, strict=True)]
    )
    assert crops.dtype == torch.uint8
    assert crops.shape == (12, 2, 3, 32, 32)
    for found, expected in zip(
        views.finish(crops, index, seed=3, epoch=1), views(images, index, seed=3, epoch=1), strict=True
    ):
        # the crop is rounded to uint8, which jitter then enlarges
        assert (found - expected).abs().mean() < 2 / 255


@pytest.mark.parametrize("name", NAMES)
def test_views_beyond_the_second_are_other_draws_of_its_kind(name):
    views, images, index = preset(name, 24), pictures(), torch.arange(12)
    given = {"seed": 3, "epoch": 1}
    made = [views.view(view, images, index, **given) for view in range(5)]
    assert all(map(torch.equal, made, views(images, index, **given)))
    assert not any(torch.equal(a, b) for a, b in combinations(made, 2))
    alone = Views(first=(), second=views.second, size=24)
    for view in range(1, 5):
        assert torch.equal(alone.view(view, images, index, **given), made[view])


@pytest.mark.parametrize("name", NAMES)
def test_crops_of_many_views_begin_with_those_of_two(name):
    views, images, index = preset(name, 24), pictures(4), torch.arange(4)
    given = {"seed": 3, "epoch": 1}
    crops = {
        count: torch.stack(
            [views.crops(i, count=count, **given).cut(x) for i, x in enumerate(images)],
        )
        for count in (2, 5)
    }
    assert crops[5].shape == (4, 5, 3, 24, 24)
    assert torch.equal(crops[5][:, :2], crops[2])
    pair, many = (views.finish(crops[count], index, **given) for count in (2, 5))
    assert (len(pair), len(many)) == (2, 5)
    assert all(map(torch.equal, pair, many[:2]))
    for view, own in enumerate(many):
        # the crop is rounded to uint8, which jitter then enlarges
        assert (own - views.view(view, images, index, **given)).abs().mean() < 2 / 255


def test_crops_of_images_of_many_sizes():
    views = preset("simclr-32")
    for height, width in ((9, 200), (300, 200), (32, 32), (1, 1)):
        for name in NAMES:
            crops = preset(name, 32).crops(0, seed=0, epoch=0).cut(pictures(1, 3, height, width)[0])
            assert crops.shape == (2, 3, 32, 32)
    assert views.crops(0, seed=0, epoch=0).cut(pictures(1, 1, 50, 40)[0]).shape == (2, 1, 32, 32)


def test_an_op_keeps_its_numbers_when_another_is_left_out():
    jitter = ColorJitter(brightness=0.4)
    full = Views(first=(RandomResizedCrop(size=32), Grayscale(p=1.0), jitter), second=(), size=32)
    less = Views(first=(Grayscale(p=1.0), jitter), second=(), size=32)
    images, index = pictures(), torch.arange(12)
    # greyscale and jitter alone, on what the crop of the full chain made
    crop = Views(first=(RandomResizedCrop(size=32),), second=(), size=32)
    cropped = (crop.view(0, images, index, seed=0, epoch=0) * 255).round().to(torch.uint8)
    found = less.view(0, cropped, index, seed=0, epoch=0)
    assert (found - full.view(0, images, index, seed=0, epoch=0)).abs().max() < 2 / 255


def test_byol_pair_is_asymmetric():
    views = preset("byol-224")
    blur = [next(op.p for op in ops if op.op == "gaussian_blur") for ops in (views.first, views.second)]
    assert blur == [1.0, 0.1]
    assert not any(isinstance(op, Solarize) for op in views.first)
    assert [op.p for op in views.second if isinstance(op, Solarize)] == [0.2]
    assert views.first[3].kernel == 23


def test_presets_are_what_their_papers_say():
    assert [op.op for op in preset("digits").first] == [
        "affine",
        "box_blur",
        "log_contrast",
        "brightness",
        "gaussian_noise",
        "cutout",
    ]
    assert preset("digits").size == 16
    assert "gaussian_blur" not in [op.op for op in preset("simclr-32").first]
    assert preset("simclr-96").first[-1].kernel == 9
    assert preset("simclr-96", 48).first[0].size == 48


def test_bad_input_is_refused_in_one_line():
    with pytest.raises(UsageError, match="did you mean 'simclr-32'"):
        preset("simclr32")
    views = preset("simclr-32")
    for images, index in (
        (pictures().float(), torch.arange(12)),
        (pictures(channels=2), torch.arange(12)),
        (pictures(), torch.arange(3)),
        (pictures()[0], torch.arange(12)),
    ):
        with pytest.raises(UsageError, match="views: ") as caught:
            views(images, index, seed=0, epoch=0)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        evaluation_view(pictures().float(), 32)
    with pytest.raises(ValidationError, match="comes first"):
        Views(first=(Grayscale(), RandomResizedCrop(size=32)), second=(), size=32)
    with pytest.raises(ValidationError, match="not the views' size"):
        Views(first=(RandomResizedCrop(size=16),), second=(), size=32)


@pytest.mark.parametrize(
    ("shape", "size", "resized"),
    [
        ((40, 60), 20, 23),
        ((60, 40), 20, 23),
        ((40, 60), 38, 40),
        ((13, 10), 20, 20),
        ((61, 43), 30, 34),
        ((20, 20), 20, 20),
    ],
)
def test_evaluation_view_is_resize_and_centre_crop(shape, size, resized):
    images = pictures(4, 3, *shape)
    expected = tv.center_crop(tv.resize(images.float() / 255, [resized], antialias=True), [size, size])
    found = evaluation_view(images, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_empty_batch():
    first, _ = preset("simclr-32")(pictures(0), torch.arange(0), seed=0, epoch=0)
    assert first.shape == (0, 3, 32, 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_makes_the_views_of_the_cpu(name):
    views, images, index = preset(name, 32), pictures(), torch.arange(12)
    for near, far in zip(
        views(images, index, seed=0, epoch=0), views(images.cuda(), index, seed=0, epoch=0), strict=True
    ):
        torch.testing.assert_close(near, far.cpu(), rtol=0, atol=1e-4)
