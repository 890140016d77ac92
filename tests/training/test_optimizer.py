import itertools
import math

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from stopgrad.method import Method
from stopgrad.networks.encoders import EncoderSettings, build_encoder
from stopgrad.networks.heads import ProjectorSettings
from stopgrad.parts.pairing import Pair
from stopgrad.parts.predictors import Linear
from stopgrad.training.optimizer import (
    OptimizerSettings,
    ScheduleSettings,
    build_optimizer,
    set_learning_rate,
)


def learner():
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(), 1, 16)
    return Method(predictor=Linear()).build(encoder, ProjectorSettings(hidden=(8,), out=4))


def shrinkage(net, settings):
    """What weight decay alone does to W_p and to the first encoder weight in one step, as factors."""
    optimizer = build_optimizer(settings, net)
    set_learning_rate(optimizer, 1.0)
    for w in net.parameters():
        w.grad = torch.zeros_like(w)
    weights = net.predictor.linear.weight, net.encoder.body[0].weight
    before = [w.detach().clone() for w in weights]
    optimizer.step()
    return [float((w.detach() / b).median()) for w, b in zip(weights, before, strict=True)]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_conventions_of_the_predictor(name):
    """theory: both shrink by lr eta, as Theorem 1 needs; group: the predictor alpha_p times faster."""
    lr, eta, alpha_p = 0.1, 0.05, 4.0
    for decay, factor in (("theory", 1.0), ("group", alpha_p)):
        settings = OptimizerSettings(
            name=name, lr=lr, weight_decay=eta, predictor={"lr_scale": alpha_p, "decay": decay}
        )
        predictor, encoder = shrinkage(learner(), settings)
        assert encoder == pytest.approx(1 - lr * eta, abs=1e-6)
        assert predictor == pytest.approx(1 - lr * eta * factor, abs=1e-6)


class LinearEncoder(nn.Linear):
    width = 4


@pytest.mark.parametrize("decay", ["theory", "group"])
def test_balance_of_theorem_1_holds_in_the_theorys_convention_only(decay):
    """W W^T - W_p^T W_p / alpha_p = e^{-2 eta t} C of the flow, which SGD follows at a small step."""
    torch.manual_seed(0)
    alpha_p, eta, lr, steps = 3.0, 0.2, 1e-3, 1000
    pairs = (Pair(query="p1", key="t2", weight=1),)
    method = Method(predictor=Linear(), distance="euclidean", pairing=pairs)
    net = method.build(
        LinearEncoder(6, 4, bias=False), ProjectorSettings(hidden=(), out=4, bias=False)
    ).double()
    with torch.no_grad():
        net.projector[0].weight.copy_(torch.eye(4))
    net.projector.requires_grad_(False)
    settings = OptimizerSettings(
        name="sgd", lr=lr, momentum=0.0, weight_decay=eta, predictor={"lr_scale": alpha_p, "decay": decay}
    )
    optimizer = build_optimizer(settings, net)

    def balance():
        w, wp = net.encoder.weight.detach(), net.predictor.linear.weight.detach()
        return w @ w.T - wp.T @ wp / alpha_p

    start = balance()
    x = torch.randn(2, 512, 6, dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        net((x[0], x[0] + 0.3 * x[1])).loss.backward()
        optimizer.step()
    drift = (balance() - math.exp(-2 * eta * lr * steps) * start).norm() / start.norm()
    assert (drift < 0.01) == (decay == "theory")


def test_schedule_warms_up_linearly_and_ends_at_its_final_share():
    schedule = ScheduleSettings(warmup_epochs=2, final=0.1)
    factors = [schedule.factor(s, 100, 10) for s in range(100)]
    assert factors[:20] == pytest.approx([(s + 1) / 20 for s in range(20)])
    assert factors[20] == 1
    assert factors[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule.factor(100, 100, 10) == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[20:]))
    assert ScheduleSettings(name="constant").factor(50, 100, 10) == 1


def test_constant_predictor_rate_and_no_silent_rescaling():
    settings = OptimizerSettings(lr=0.3, predictor={"lr_scale": 2.0, "constant_lr": True})
    optimizer = build_optimizer(settings, learner())
    assert set_learning_rate(optimizer, 0.1) == pytest.approx(0.03)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.03, 0.6])


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_norms_and_biases_can_be_left_alone(name):
    net = learner()
    groups = build_optimizer(
        OptimizerSettings(name=name, lr=0.1, weight_decay=0.1, decay_all=False), net
    ).param_groups
    for group in groups:
        for w in group["params"]:
            assert (group["weight_decay"] == 0) == (w.ndim <= 1)
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_clips_what_is_scaled_for_fp16(name):
    """As on a GPU: the norm that is bounded is the gradient's own, without the scale."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    fabric = Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu", scaler=scaler))
    settings, own = OptimizerSettings(name=name, lr=0.1, clip=1e-3), learner()
    net, optimizer = fabric.setup(own, build_optimizer(settings, own))
    views = torch.randn(2, 12, 1, 16, 16)
    fabric.backward(net(views.unbind()).loss)
    fabric.clip_gradients(net, optimizer, max_norm=settings.clip, error_if_nonfinite=False)
    gradients = [w.grad for w in own.parameters() if w.grad is not None]
    assert float(nn.utils.get_total_norm(gradients)) == pytest.approx(settings.clip, rel=1e-4)
    optimizer.step()
    assert scaler.get_scale() == 8.0  # no gradient was infinite
