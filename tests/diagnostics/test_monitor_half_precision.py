"""The monitor under autocast, in half precision, and where the gradients are scaled."""

import math

import pytest
import torch
from monitor_readings import assert_same_in_half, numbers
from monitored_net import NAMES, fresh, loss_of, views

from stopgrad.diagnostics.monitor import Monitor


@pytest.mark.parametrize("stops", [True, False])
def test_autocast_reads_what_single_precision_does(stops):
    monitors = []
    for half in (False, True):
        net, attached, stepped = fresh(stops), Monitor(every=1), Monitor(every=1)
        attached.attach(net, **NAMES)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            nodes = net.nodes(*views(0))
            loss = loss_of(*(x.float() for x in nodes[2:]))
        assert nodes[0].dtype == (torch.bfloat16 if half else torch.float32)
        loss.backward()
        stepped.step(*nodes, loss=loss, model=net)
        optimizer.step()
        monitors.append((attached, stepped))
    for single, half in zip(*monitors, strict=True):
        assert_same_in_half(half.readings, single.readings)
        assert half.readings[0].scalars["target_gradient"] == float(not stops)
    assert {"z", "p", "z_eval"} == monitors[1][0].readings[0].nodes.keys()


def test_images_in_half_precision_are_evaluated_under_autocast():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    with torch.autocast("cpu", torch.bfloat16):
        net(*views(0, torch.bfloat16)).backward()  # the weights are float32
    torch.optim.SGD(net.parameters(), lr=0.0).step()
    own = numbers(monitor.readings[0])
    assert own["z_eval.std"] == pytest.approx(own["z.std"], rel=0.2)


def test_a_predictor_that_runs_more_than_once_is_no_leak_in_half_precision():
    net = fresh()
    monitor = Monitor(every=1).attach(net, projector="projector", predictor="predictor")
    with torch.autocast("cpu", torch.bfloat16):
        z = [net.projector(net.encoder(x)) for x in views(0)]
        p = [net.predictor(z[i % 2]) * (i + 1) for i in range(10)]
    torch.stack(p).float().square().mean().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert monitor.readings[0].scalars["target_gradient"] == 0


def test_float16_with_large_norms():
    z = 500 * torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
    z = z.half()
    assert z.norm(dim=-1).min() > 256
    assert z.square().isinf().any()
    found, expected = (Monitor(every=1).step(*x, *x) for x in (z, z.float()))
    assert numbers(found) == pytest.approx(numbers(expected), rel=1e-6)
    assert all(map(math.isfinite, numbers(found).values()))
    assert numbers(found)["z.norm"] > 256


@pytest.mark.parametrize("stops", [True, False])
def test_float16_gradients_whose_norm_overflows(stops):
    net = fresh(stops, torch.float16)
    monitor = Monitor(every=1).attach(net, **NAMES)
    _, _, p1, p2, t1, t2 = net.nodes(*views(0, torch.float16))
    (2e4 * ((p1 - t2).sum() + (p2 - t1).sum())).backward()
    torch.optim.SGD(net.parameters(), lr=0.0).step()
    assert monitor.readings[0].scalars["target_gradient"] == float(not stops)


def scaled_steps(device):
    """Three steps of which the second overflows, and what was read."""
    net, scaler = fresh().to(device), torch.amp.GradScaler(device, init_scale=2.0**10)
    monitor = Monitor(every=1).attach(net, **NAMES)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step, size in enumerate((1.0, torch.inf, 1.0)):
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16 if device == "cuda" else torch.bfloat16):
            loss = net(*(x.to(device) for x in views(step)))
        scaler.scale(loss * size).backward()
        scaler.step(optimizer)
        scaler.update()
    return monitor.readings


@pytest.mark.parametrize("device", [
    "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")),
])  # fmt: skip
def test_a_step_that_the_scaler_leaves_out(device):
    readings = scaled_steps(device)
    other = fresh()
    expected = Monitor(every=1).attach(other, **NAMES)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for step in (0, 2):
        optimizer.zero_grad()
        other(*views(step)).backward()
        optimizer.step()
    assert_same_in_half(readings, expected.readings)  # gradients too: they are unscaled by then
