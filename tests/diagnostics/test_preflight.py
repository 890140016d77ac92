import copy

import pytest
import torch
from torch import nn

from stopgrad.diagnostics.preflight import preflight
from stopgrad.parts.distances import cosine
from stopgrad.parts.target import EmaTarget


class Byol(nn.Module):
    """A BYOL whose faults are switched on one by one."""

    def __init__(self, leaks=False, width=8):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 4)
        )
        self.predictor = nn.Linear(4, 4)
        self.target = copy.deepcopy(self.encoder) if leaks else EmaTarget(self.encoder, tau=0.9)

    def forward(self, batch):
        p1, p2 = (self.predictor(self.encoder(x)) for x in batch)
        t1, t2 = (self.target(x) for x in batch)
        return (cosine(p1, t2) + cosine(p2, t1)) / 2


def views(count=16, noise=0.3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=generator)
    return tuple(x + noise * torch.randn(x.shape, generator=generator) for _ in range(2))


def sgd(net, lr=0.02, **settings):
    return torch.optim.SGD([w for w in net.parameters() if w.requires_grad], lr=lr, **settings)


def checks(net, batch=None, optimizer=None, **settings):
    return [finding.check for finding in preflight(net, batch or views(), optimizer or sgd(net), **settings)]


def follow(net):
    net.target.update(net.encoder)


def test_nothing_is_wrong_with_a_good_model_and_nothing_of_it_changes():
    net = Byol()
    before = copy.deepcopy(net.state_dict())
    assert checks(net, update=follow) == []
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(w.grad is None for w in net.parameters())


def test_one_view_twice():
    x, _ = views()
    assert checks(Byol(), (x, x)) == ["identical-views"]


def test_a_gradient_into_the_target():
    net = Byol(leaks=True)
    assert set(checks(net)) == {"target-gradient", "target-optimised"}


def test_a_target_that_nobody_updates():
    assert checks(Byol(), update=lambda net: None) == ["frozen-target"]


def test_weights_that_are_not_optimised():
    net = Byol()
    (finding,) = preflight(net, views(), torch.optim.SGD(net.encoder.parameters(), lr=0.02))
    assert (finding.check, finding.level) == ("not-optimised", "fault")
    assert "the predictor" in finding.says


def test_a_part_without_gradient():
    net = Byol()
    net.predictor.requires_grad_(False)
    (finding,) = preflight(net, views(), sgd(net))
    assert (finding.check, finding.level) == ("frozen", "warning")
    assert "predictor" in finding.says


def test_a_batch_of_one():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)

        def forward(self, batch):
            return self.encoder(batch[0]).square().mean() + self.encoder(batch[1]).sum()

    assert "batch-of-one" in checks(Plain(), views(1))


@pytest.mark.parametrize(
    ("optimizer", "lr", "wrong"),
    [
        (torch.optim.SGD, 0.02, False),
        (torch.optim.SGD, 5.0, True),
        (torch.optim.SGD, 1e-7, True),
        (torch.optim.AdamW, 1e-3, False),
        (torch.optim.AdamW, 0.02, True),
    ],
)
def test_learning_rates_out_of_the_ordinary(optimizer, lr, wrong):
    net = Byol()
    own = optimizer([w for w in net.parameters() if w.requires_grad], lr=lr)
    assert ("learning-rate" in checks(net, optimizer=own)) is wrong


def test_weight_decay_at_the_theorys_bound():
    net, noise = Byol(), 0.5
    batch = views(20_000, noise)
    bound = 1 / (4 * (1 + noise**2))
    for factor, wrong in ((0.95, False), (1.05, True)):
        found = checks(net, batch, sgd(net, lr=20.0, weight_decay=factor * bound))
        assert ("weight-decay" in found) is wrong


def test_numbers_that_overflow_half_precision():
    net = Byol()
    with torch.no_grad():
        net.encoder[0].weight.mul_(1e3)
    assert checks(net) == ["half-precision"]


def test_losses_that_are_none():
    class Broken(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.encoder, self.factor = nn.Linear(6, 4), factor

        def forward(self, batch):
            out = self.encoder(batch[0]).mean()
            return {"loss": out * self.factor if self.factor else out.detach()}

    assert checks(Broken(float("nan"))) == ["loss"]
    assert checks(Broken(0.0)) == ["loss"]
    with pytest.raises(ValueError, match="must be a scalar loss"):
        preflight(nn.Linear(6, 4), views()[0])
