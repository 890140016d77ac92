import pytest
import torch
from torch import nn

from stopgrad.errors import UsageError
from stopgrad.networks.encoders import EncoderSettings, build_encoder


def weights(encoder):
    return sum(parameter.numel() for parameter in encoder.parameters())


def test_convnet_s_is_the_published_one():
    encoder = build_encoder(EncoderSettings(), channels=1, image_size=16)
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    shapes = [(c.out_channels, c.kernel_size, c.stride) for c in convolutions]
    assert shapes == [(width, (3, 3), (2, 2)) for width in (32, 64, 128)]
    # weights by hand: convolutions, Linear 512 -> 128, scale and shift of four batch norms
    norms = 2 * (32 + 64 + 128 + 128)
    assert weights(encoder) == 9 * (1 * 32 + 32 * 64 + 64 * 128) + 512 * 128 + norms
    assert encoder.width == 128


@pytest.mark.parametrize("size", [7, 16, 28, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_convnet_s_takes_any_size(size, channels):
    encoder = build_encoder(EncoderSettings(), channels, size)
    assert encoder.training
    assert encoder(torch.rand(4, channels, size, size)).shape == (4, 128)


@pytest.mark.parametrize(
    ("stem", "size", "side"), [("auto", 32, 4), ("auto", 64, 2), ("imagenet", 32, 1), ("cifar", 64, 8)]
)
def test_stems_of_resnet18(stem, size, side):
    """The CIFAR stem keeps the resolution: an 8-fold reduction, against 32-fold with ImageNet's."""
    encoder = build_encoder(EncoderSettings(name="resnet18", stem=stem), channels=3, image_size=size)
    sides = []
    encoder.body.layer4.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, encoder.width) == (2, 512)
    assert sides == [side]
    assert encoder.settings.stem == ("cifar" if side * 8 == size else "imagenet")


def test_resnets_are_those_of_torchvision_without_a_classifier():
    torchvision = pytest.importorskip("torchvision")
    for name, classifier in (("resnet18", 512 * 1000 + 1000), ("resnet50", 2048 * 1000 + 1000)):
        encoder = build_encoder(EncoderSettings(name=name, stem="imagenet"), channels=3, image_size=64)
        assert weights(encoder) == weights(getattr(torchvision.models, name)()) - classifier
        assert encoder.width == classifier // 1000 - 1


# mobilenetv3 returns other features than `num_features` says; the ViT needs to be told the image size
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_timm_models_give_one_vector_an_image(name):
    encoder = build_encoder(EncoderSettings(name=f"timm/{name}"), channels=1, image_size=32)
    assert encoder(torch.rand(2, 1, 32, 32)).shape == (2, encoder.width)
    assert encoder.training


def test_the_same_seed_gives_the_same_weights():
    def drawn(seed):
        torch.manual_seed(seed)
        return build_encoder(EncoderSettings(name="resnet18"), 3, 32).body.conv1.weight

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_building_leaves_the_batch_norms_untouched():
    encoder = build_encoder(EncoderSettings(), 1, 16)
    norms = [layer for layer in encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(norm.num_batches_tracked == 0 and not norm.running_mean.any() for norm in norms)


@pytest.mark.parametrize(
    ("settings", "size", "says"),
    [
        (EncoderSettings(name="convnet"), 16, "did you mean 'convnet-s'"),
        (EncoderSettings(name="timm/resnt10t"), 32, "timm/resnet10t"),
        (EncoderSettings(name="timm/inception_v3"), 16, "does not take 3x16x16 images"),
        (EncoderSettings(name="convnet-s", stem="cifar"), 16, "encoder.stem"),
        (EncoderSettings(name="timm/resnet18", stem="cifar"), 32, "encoder.stem"),
    ],
)
def test_what_cannot_be_built_is_named_in_one_line(settings, size, says):
    with pytest.raises(UsageError, match=says) as error:
        build_encoder(settings, channels=3, image_size=size)
    assert "\n" not in str(error.value)
