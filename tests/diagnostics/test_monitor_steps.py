"""The monitor on steps of several parts, views or optimisers, and the loss of a step."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from monitored_net import DIM, NAMES, Net, distance, fresh, loss_of, step_on, train, views
from torch import nn
from torch.nn import functional

from stopgrad.diagnostics import alignment
from stopgrad.diagnostics.monitor import Monitor
from stopgrad.diagnostics.statistics import VectorStatistics


def seen(monitor):
    return monitor.readings[-1].scalars.get("view_distance")


def test_accumulation_reads_the_last_part():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    train(net, net, steps=1, parts=3)
    assert len(monitor.readings) == 1
    assert seen(monitor) == pytest.approx(distance(fresh(), *views(2)), rel=1e-5)


def test_parts_do_not_pile_up():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    for part in range(4):
        net(*views(part)).backward()
        assert len(monitor._attached._views) == 2


def test_of_several_views_two_of_one_size_are_read():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    large, small = views(0), views(1, count=20)
    z = [net.projector(net.encoder(x)) for x in (large[0], small[0], large[1], *small, *large)]
    step_on(net, sum(net.predictor(x).square().mean() for x in z))
    assert seen(monitor) == pytest.approx(distance(net, *large), rel=1e-5)
    assert monitor.readings[0].scalars["batch"] == 48


def test_predictions_belong_to_their_views():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    z1, z2 = (net.projector(net.encoder(x)) for x in views(0))
    p2, p1 = net.predictor(z2), net.predictor(z1)
    step_on(net, loss_of(p1, p2, z1.detach(), z2.detach()))
    found = monitor.readings[0].scalars["prediction_distance"]
    assert found == pytest.approx(float(alignment(z1, p1).detach()), rel=1e-5)


def test_predictions_of_something_else_than_z():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    z = [net.projector(net.encoder(x)) for x in views(0)]
    p = [net.predictor(functional.normalize(x, dim=-1)) for x in z]
    step_on(net, loss_of(*p, *(x.detach() for x in z)))
    statistics = VectorStatistics(DIM)
    statistics.update(p[0])
    assert monitor.readings[0].nodes["p"]["std"] == pytest.approx(statistics.compute()["std"], rel=1e-5)


def test_a_target_by_the_same_projector_is_no_view():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    nodes = []
    for x in views(0):
        with torch.no_grad():
            t = net.projector(net.encoder(x))
            net.predictor(t)
        z = net.projector(net.encoder(x))
        with torch.no_grad():
            net.predictor(z)
        nodes.append((net.predictor(z), t))
    (p1, t1), (p2, t2) = nodes
    step_on(net, loss_of(p1, p2, t1, t2))
    assert seen(monitor) == pytest.approx(distance(net, *views(0)), rel=1e-5)
    assert monitor.readings[0].scalars["target_gradient"] == 0


def test_views_that_pass_as_one_batch():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    for part in range(2):  # accumulated: two batches are not two views
        z = net.projector(net.encoder(torch.cat(views(part))))
        net.predictor(z).square().mean().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert seen(monitor) is None
    assert monitor.readings[0].nodes["z"]["count"] == 96
    assert monitor.readings[0].nodes["p"]["count"] == 96


def test_two_optimisers_make_one_step():
    net = fresh()
    monitor = Monitor(every=2).attach(net, **NAMES)
    parts = [
        torch.optim.SGD(part.parameters(), lr=0.1) for part in (net.encoder, net.projector, net.predictor)
    ]
    for step in range(5):
        net(*views(step)).backward()
        for optimizer in parts:
            optimizer.step()
    assert [reading.step for reading in monitor.readings] == [0, 2, 4]


def test_a_graph_that_is_walked_twice_is_no_leak():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    _, _, p1, p2, t1, t2 = net.nodes(*views(0))
    functional.mse_loss(p1, t2).backward(retain_graph=True)
    step_on(net, functional.mse_loss(p1, t2) + functional.mse_loss(p2, t1))
    assert monitor.readings[0].scalars["target_gradient"] == 0


def test_an_encoder_that_does_not_feed_the_projector_directly():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.projector = nn.Conv1d(1, 4, 3), nn.Linear(4, 4)

        def forward(self, x):
            return self.projector(self.encoder(x[:, None]).mean(2))

    net = Pooled()
    monitor = Monitor(every=1).attach(net, encoder="encoder")
    step_on(net, sum(net(x).square().mean() for x in views(0)))
    assert "z_eval" not in monitor.readings[0].nodes


def test_a_network_in_double_precision():
    net = fresh(dtype=torch.float64)
    monitor = Monitor(every=1).attach(net, **NAMES)
    step_on(net, net(*views(0, torch.float64)))
    assert monitor.readings[0].scalars["gradient_norm_encoder"] > 0


# the loss


Out = namedtuple("Out", "z loss")


@pytest.mark.parametrize(("form", "known"), [
    (lambda loss, z: loss, True),
    (lambda loss, z: {"z": z, "loss": loss}, True),
    (lambda loss, z: Out(z, loss), True),
    (lambda loss, z: SimpleNamespace(z=z, loss=loss), True),
    (lambda loss, z: (loss, z), True),
    (lambda loss, z: (z, loss), False),
    (lambda loss, z: {"z": loss}, False),
    (lambda loss, z: z * loss, False),
    (lambda loss, z: {"loss": loss.expand(3)}, False),
])  # fmt: skip
def test_a_loss_that_the_model_returns(form, known):
    class Own(Net):
        def forward(self, x1, x2):
            z1, _, p1, p2, t1, t2 = self.nodes(x1, x2)
            self.loss = loss_of(p1, p2, t1, t2)
            return form(self.loss, z1)

    net = Own()
    monitor = Monitor(every=1).attach(net, **NAMES)
    net(*views(0))
    loss = net.loss
    net.eval()
    net(*views(1))
    net.train()
    step_on(net, loss)
    assert monitor.readings[0].loss == (float(loss.detach()) if known else None)
