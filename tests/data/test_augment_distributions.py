"""The parameters that are drawn against the samplers of torchvision itself."""

from itertools import permutations

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from stopgrad.data.augment import (
    Affine,
    ColorJitter,
    Cutout,
    Draws,
    Erase,
    GaussianBlur,
    Grayscale,
    RandomResizedCrop,
    Rotation,
)

N = 3000
DRAWS = Draws(11, 2, torch.arange(N), 0)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def theirs(transform, *names, height=40, width=60, tries=N):
    image = torch.zeros(3, height, width)
    drawn = [transform.make_params([image]) for _ in range(tries)]
    return [torch.tensor([float(one[name]) for one in drawn]) for name in names]


def same(ours, others):
    assert stats.ks_2samp(ours.double().numpy(), others.double().numpy()).pvalue > 0.005


@pytest.mark.parametrize(
    ("scale", "height", "width"), [((0.08, 1.0), 40, 60), ((0.2, 1.0), 32, 32), ((0.5, 1.0), 16, 80)]
)
def test_crop_boxes(scale, height, width):
    ours = RandomResizedCrop(size=8, scale=scale).sample(DRAWS, height, width)["box"]
    others = theirs(
        v2.RandomResizedCrop(8, scale=scale), "top", "left", "height", "width", height=height, width=width
    )
    for column, other in enumerate(others):
        same(ours[:, column], other)
    # jointly: area and aspect
    same(ours[:, 2] * ours[:, 3], others[2] * others[3])
    same(ours[:, 2] / ours[:, 3], others[2] / others[3])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


@pytest.mark.parametrize("shape", [(10, 100), (100, 10), (30, 30)])
def test_crop_fallback_is_torchvision_s(shape):
    # a share of 1 never fits another aspect, so ten tries fail
    ratio = (0.5, 0.6) if shape == (30, 30) else (3 / 4, 4 / 3)
    ours = RandomResizedCrop(size=8, scale=(1.0, 1.0), ratio=ratio).sample(DRAWS, *shape)["box"]
    transform = v2.RandomResizedCrop(8, scale=(1.0, 1.0), ratio=ratio)
    others = theirs(transform, "top", "left", "height", "width", height=shape[0], width=shape[1], tries=3)
    assert torch.equal(ours.float(), torch.stack([other[0] for other in others]).expand(N, 4))


def test_jitter_factors_and_order():
    op = ColorJitter(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1)
    params = op.sample(DRAWS, 8, 8)
    names = ("brightness", "contrast", "saturation", "hue")
    others = theirs(v2.ColorJitter(0.4, 1.5, 0.2, 0.1), *(f"{name}_factor" for name in names))
    for column, other in enumerate(others):
        same(params["factors"][:, column], other)
    code = (params["order"] * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = torch.unique(code, return_counts=True)[1]
    assert len(counts) == len(list(permutations(range(4))))
    assert stats.chisquare(counts.numpy()).pvalue > 0.005


def test_blur_sigma():
    ours = GaussianBlur(kernel=9, sigma=(0.1, 2.0)).sample(DRAWS, 8, 8)["sigma"]
    drawn = [v2.GaussianBlur(9, (0.1, 2.0)).make_params([])["sigma"][0] for _ in range(N)]
    same(ours, torch.tensor(drawn))


def test_rotation_angle():
    same(Rotation(degrees=30).sample(DRAWS, 8, 8)["angle"], theirs(v2.RandomRotation(30), "angle")[0])


@pytest.mark.parametrize("scale", [(0.02, 0.33), (0.5, 1.0)])
def test_erased_boxes(scale):
    ours = Erase(scale=scale).sample(DRAWS, 40, 60)["box"].float()
    transform = v2.RandomErasing(scale=scale)
    image = torch.zeros(3, 40, 60)
    drawn = [transform.make_params([image]) for _ in range(N)]
    # where nothing fits torchvision marks it by the whole image and no value, we by an empty box
    kept = [one for one in drawn if one["v"] is not None]
    others = torch.tensor([[one[name] for name in "ijhw"] for one in kept], dtype=torch.float32)
    fits = ours[:, 2] > 0
    assert abs(fits.float().mean() - len(kept) / N) < 0.03
    for column in range(4):
        same(ours[fits, column], others[:, column])


@pytest.mark.parametrize("p", [0.2, 0.8])
def test_choice(p):
    for op in (Grayscale(p=p), ColorJitter(p=p)):
        share = op.sample(DRAWS, 8, 8)["chosen"].float().mean()
        assert abs(share - p) < 4 * (p * (1 - p) / N) ** 0.5


def test_cutout_lies_anywhere_inside():
    box = Cutout(side=4).sample(DRAWS, 10, 7)["box"]
    counts = torch.bincount(box[:, 0] * 4 + box[:, 1])
    assert len(counts) == 7 * 4
    assert stats.chisquare(counts.numpy()).pvalue > 0.005
    assert (box[:, 2:] == 4).all()


def test_affine_parameters_come_back_from_the_matrix():
    op = Affine(rotation=0.35, zoom=(0.8, 1.25), shift=0.15, shear=0.15)
    matrix = op.sample(DRAWS, 16, 20)["matrix"]
    # R(angle) K(shear) / zoom: the first column is (cos, sin) / zoom, the determinant 1 / zoom^2
    zoom = torch.linalg.det(matrix[:, :, :2]).rsqrt()
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0])
    shear = (matrix[:, 0, 1] * angle.cos() + matrix[:, 1, 1] * angle.sin()) * zoom
    for found, (low, high) in {
        zoom.log(): (-0.22314, 0.22314),
        angle: (-0.35, 0.35),
        shear: (-0.15, 0.15),
        matrix[:, 0, 2]: (-3.0, 3.0),
        matrix[:, 1, 2]: (-2.4, 2.4),
    }.items():
        assert stats.kstest(found.numpy(), "uniform", (low, high - low)).pvalue > 0.005
