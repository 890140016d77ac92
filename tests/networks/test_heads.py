import pytest
import torch
from pydantic import ValidationError
from torch import nn

from stopgrad.networks.heads import ProjectorSettings, build_projector


def outputs(settings, batch=256):
    torch.manual_seed(0)
    projector = build_projector(settings, 32)
    with torch.no_grad():
        for parameter in projector.parameters():  # away from the identity that batch norms start at
            parameter.add_(0.1 * torch.randn_like(parameter))
    return projector, projector(3.0 * torch.randn(batch, 32) + 1.0)


def test_layers_in_order():
    kinds = [type(layer) for layer in build_projector(ProjectorSettings(hidden=(20, 30), out=5), 32)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]


def test_no_hidden_layer_is_one_linear():
    projector, z = outputs(ProjectorSettings(hidden=(), out=5))
    assert [type(layer) for layer in projector] == [nn.Linear]
    assert z.shape == (256, 5)


def test_a_plain_final_norm_leaves_no_centre_and_unit_variance():
    _, z = outputs(ProjectorSettings(final_bn="plain"))
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(dim=0, correction=0), torch.ones(64), atol=1e-2, rtol=0)


@pytest.mark.parametrize("final", ["none", "affine"])
def test_other_ends_can_move_the_centre(final):
    _, z = outputs(ProjectorSettings(final_bn=final))
    assert z.mean(dim=0).abs().max() > 0.05


def test_hidden_norms_without_affine_have_no_weights():
    projector, _ = outputs(ProjectorSettings(hidden=(20,), out=5, hidden_affine=False))
    assert {name for name, _ in projector.named_parameters()} == {"0.weight", "3.weight", "3.bias"}


@pytest.mark.parametrize("final", ["none", "plain", "affine"])
def test_no_linear_has_a_bias_that_a_norm_subtracts(final):
    layers = list(build_projector(ProjectorSettings(hidden=(20, 20), final_bn=final), 32))
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.Linear):
            assert (layer.bias is None) == isinstance(following, nn.BatchNorm1d)


def test_a_bias_before_a_norm_would_do_nothing():
    """The reason to drop it: shifting the input of a norm in train mode changes nothing after it."""
    norm = nn.BatchNorm1d(20)
    x = torch.randn(64, 20)
    torch.testing.assert_close(norm(x + torch.randn(20)), norm(x), atol=1e-5, rtol=0)


def test_the_last_bias_can_be_left_out():
    assert build_projector(ProjectorSettings(bias=False), 32)[-1].bias is None


@pytest.mark.parametrize("wrong", [{"hidden": (0,)}, {"out": 0}, {"final_bn": "yes"}, {"width": 3}])
def test_settings_refuse_nonsense(wrong):
    with pytest.raises(ValidationError):
        ProjectorSettings(**wrong)
