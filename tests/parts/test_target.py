import copy

import pytest
import torch
from torch import nn

from stopgrad.parts.target import EmaTarget


def test_ema_after_k_updates_is_the_geometric_sum():
    torch.manual_seed(0)
    net, tau = nn.Linear(3, 2).double(), 0.8
    target = EmaTarget(net, tau)
    states = [net.weight.detach().clone()]
    for _ in range(5):
        with torch.no_grad():
            net.weight.add_(torch.randn_like(net.weight))
        target.update(net)
        states.append(net.weight.detach().clone())
    expected = tau**5 * states[0] + sum((1 - tau) * tau ** (5 - k) * states[k] for k in range(1, 6))
    torch.testing.assert_close(target.network.weight.detach(), expected, rtol=1e-12, atol=1e-12)


def test_buffers_are_the_copys_own():
    net = nn.BatchNorm1d(2)
    target = EmaTarget(net, 0.0)
    net.train()(torch.randn(8, 2) + 5)
    before = target.network.running_mean.clone()
    target.update(net)
    assert torch.equal(target.network.running_mean, before)
    assert not torch.allclose(net.running_mean, before)


def test_no_gradient_reaches_the_copy():
    target = EmaTarget(nn.Linear(2, 2))
    assert not any(w.requires_grad for w in target.parameters())
    assert not target(torch.randn(3, 2, requires_grad=True)).requires_grad


def test_the_network_itself_is_not_shared():
    net = nn.Linear(2, 2)
    before = copy.deepcopy(net.state_dict())
    EmaTarget(net, 0.5).update(nn.Linear(2, 2))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 1.0])
def test_schedules(progress):
    assert EmaTarget(nn.Linear(1, 1), tau=0.9).tau_at(progress) == 0.9
    rising = EmaTarget(nn.Linear(1, 1), tau=0.9, schedule="cosine")
    assert rising.tau_at(0) == pytest.approx(0.9)
    assert rising.tau_at(0.5) == pytest.approx(0.95)
    assert rising.tau_at(1) == 1
    assert 0.9 <= rising.tau_at(progress) <= 1
