"""Whole learners, small and in float64, and batches for them."""

import pytest
import torch

from stopgrad.networks.encoders import EncoderSettings, build_encoder
from stopgrad.networks.heads import ProjectorSettings


@pytest.fixture(scope="session")
def build():
    """A learner of a method: convnet-s on 8x8 images, projections of width 6; an EMA target stands apart."""

    def make(method, seed=0, **projector):
        torch.manual_seed(seed)
        encoder = build_encoder(EncoderSettings(), channels=1, image_size=8)
        learner = method.build(encoder, ProjectorSettings(hidden=(12,), out=6, **projector)).double()
        for weight in learner.target.parameters():
            weight.data.add_(0.05 * torch.randn_like(weight))
        return learner

    return make


@pytest.fixture(scope="session")
def draw():
    """Both views of some images."""

    def views(seed=0, batch=10):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, 1, 8, 8, dtype=torch.float64, generator=generator)
        return [x + 0.5 * torch.randn(x.shape, dtype=x.dtype, generator=generator) for _ in range(2)]

    return views


@pytest.fixture(scope="session")
def gradients():
    """The gradients of a scalar by all weights of a learner; zero where it does not reach."""

    def of(loss, learner):
        weights = {name: w for name, w in learner.named_parameters() if w.requires_grad}
        found = torch.autograd.grad(
            loss, list(weights.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return dict(zip(weights, found, strict=True))

    return of
