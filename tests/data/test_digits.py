"""The bundled set is a constant, and no original lends images to two parts."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits as sklearn_digits

from stopgrad.data.sources import Dataset, DataSettings, digits, load_dataset

SUMS = {
    "train": "d269012aa1c03f9276d9129fed0fa0552731661abdc6f2b430b7e2016d394556",
    "val": "19e5ea3708fb95b3a91b0b3f71eeea2b6b25b2ed352c43ea3c9454106a061749",
    "test": "c272fbb1d573d4c573d2b0908d2e1cce30043ece72fed87cba11aa430c162105",
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(DataSettings())


@pytest.mark.parametrize("part", SUMS)
def test_checksums(data, part):
    assert hashlib.sha256(getattr(data, part).images.numpy().tobytes()).hexdigest() == SUMS[part]


def test_shapes_and_names(data):
    assert (data.name, data.channels, data.classes) == ("digits", 1, tuple("0123456789"))
    for part, count in ((data.train, 4096), (data.val, 1024), (data.test, 1024)):
        assert part.images.shape == (count, 1, 16, 16)
        assert part.images.dtype == torch.uint8
        assert part.labels.shape == (count,)
        assert len(set(part.ids)) == count
    assert data.probe is data.train


def test_parts_share_no_original_and_use_each_equally(monkeypatch):
    """Where an original lies flat on the canvas, the image is the original: so sources can be told."""
    for name, value in {
        "SCALE": (1, 1),
        "ROTATION": (0, 0),
        "FOREGROUND": (1, 1),
        "BACKGROUND": (0, 0),
    }.items():
        monkeypatch.setattr(digits, name, value)
    loaded = digits.load_digits()
    originals = sklearn_digits().images
    # scaled by two, the means of neighbouring pixels keep what tells originals apart
    flat = torch.nn.functional.interpolate(
        torch.from_numpy(originals / 16)[:, None], scale_factor=2, mode="bilinear", align_corners=False
    )
    # the canvas ends in background, interpolate ends in the last pixel: compare inside
    key = {np.rint(x[0, 1:-1, 1:-1].numpy() * 255).astype(np.uint8).tobytes(): i for i, x in enumerate(flat)}
    assert len(key) == len(originals)
    sources = {}
    for name, count in (("train", 1097), ("val", 200), ("test", 500)):
        part = getattr(loaded, name)
        used = [key[image[0, 1:-1, 1:-1].contiguous().numpy().tobytes()] for image in part.images]
        times = np.unique(used, return_counts=True)[1]
        assert len(times) == count
        assert times.max() - times.min() <= 1
        assert torch.equal(part.labels, torch.from_numpy(sklearn_digits().target[used]))
        sources[name] = set(used)
    assert set.union(*sources.values()) == set(range(1797))
    assert sum(map(len, sources.values())) == 1797


def test_pose_is_within_its_bounds(data):
    """Background at most 0.35, digits brighter than it; ink stays on the canvas: corners are background."""
    images = data.train.images[:, 0].float() / 255
    background = images.flatten(1).median(1).values.clamp_max(images[:, 0, 0])
    assert background.max() <= 0.35 + 0.5 / 255
    assert background.min() < 0.01
    assert background.max() > 0.34
    brightest = images.flatten(1).amax(1)
    assert brightest.min() > 0.4  # a peak between pixels loses some of 0.5
    assert 0.7 < brightest.median() < 0.76
    assert brightest.max() > 0.99
    # shifts reach all sides alike
    ink = (images - images.flatten(1).amin(1)[:, None, None]).mean(0)
    assert abs(ink[:8].sum() / ink.sum() - 0.5) < 0.02
    assert abs(ink[:, :8].sum() / ink.sum() - 0.5) < 0.04


def test_settings_apply(data):
    small = load_dataset(DataSettings(channels=3, image_size=32, limit=100))
    assert small.train.images.shape == (100, 3, 32, 32)
    assert small.test.images.shape == (1024, 3, 32, 32)
    assert len(small.mean) == len(small.std) == 3
    assert torch.equal(small.train.labels, data.train.labels[:100])
    assert torch.equal(small.train.images[:, 0], small.train.images[:, 2])


def test_images_stay_in_0_to_1(data):
    assert (data.mean, data.std) == ((0.0,), (1.0,))
