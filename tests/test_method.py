import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stopgrad.method import Method, Supervised
from stopgrad.networks.encoders import EncoderSettings, build_encoder
from stopgrad.networks.heads import ProjectorSettings
from stopgrad.parts.pairing import Pair
from stopgrad.parts.predictors import Identity, Linear, Mlp, Spectral
from stopgrad.parts.target import Ema, Same


def nodes(seed, count=6):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(5, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(count)
    ]


def learner(method, **projector):
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(), channels=1, image_size=16)
    return method.build(encoder, ProjectorSettings(hidden=(16,), out=8, **projector))


def views(batch=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(batch, 1, 16, 16, generator=generator) for _ in range(2)]


def test_loss_is_the_weighted_sum_of_its_pairs():
    z1, z2, p1, p2, t1, t2 = nodes(0)
    pairs = (Pair(query="p1", key="t2", weight=0.3), Pair(query="z2", key="z1", weight=-0.5))
    loss = Method(pairing=pairs, distance="euclidean").loss((z1, z2), (p1, p2), (t1, t2))
    expected = 0.3 * 0.5 * (p1 - t2).square().sum(1).mean() - 0.5 * 0.5 * (z2 - z1).square().sum(1).mean()
    torch.testing.assert_close(loss, expected)


@given(st.integers(0, 2**31))
def test_stop_gradient_stops_the_keys_and_nothing_else(seed):
    z1, z2, p1, p2, t1, t2 = nodes(seed)
    for target, stopped in ((Same(), True), (Ema(), True), (Same(stop_gradient=False), False)):
        loss = Method(target=target).loss((z1, z2), (p1, p2), (t1, t2))
        found = torch.autograd.grad(loss, (p1, p2, t1, t2), allow_unused=True)
        assert all(g is not None and g.abs().max() > 0 for g in found[:2])
        assert all((g is None) == stopped for g in found[2:])


@pytest.mark.parametrize("predictor", [Identity(), Linear(), Mlp(hidden=8), Spectral()])
def test_same_network_without_stop_gradient_differs_from_with(predictor):
    gradients = []
    for stop in (True, False):
        net = learner(Method(target=Same(stop_gradient=stop), predictor=predictor))
        net(views()).loss.backward()
        gradients.append(net.encoder.body[0].weight.grad.clone())
    assert not torch.allclose(*gradients)


def test_ema_target_follows_after_the_step_and_gets_no_gradient():
    net = learner(Method(target=Ema(tau=0.5)))
    net(views()).loss.backward()
    assert all(w.grad is None for w in net.target.parameters())
    with torch.no_grad():
        for w in net.encoder.parameters():
            w.add_(1)
    before = [w.clone() for w in net.target.parameters()]
    net.after_step(net(views()), progress=0.0)
    online = list(net.online.parameters())
    for old, now, source in zip(before, net.target.parameters(), online, strict=True):
        torch.testing.assert_close(now, 0.5 * old + 0.5 * source.detach())


def test_spectral_predictor_moves_in_after_step_only():
    net = learner(Method(predictor=Spectral()))
    before = net.predictor.correlation.clone()
    out = net(views())
    net.eval()(views())
    assert torch.equal(net.predictor.correlation, before)
    net.after_step(out, 0.0)
    joint = torch.cat(out.z).detach()
    torch.testing.assert_close(net.predictor.correlation, joint.T @ joint / len(joint))


class LinearEncoder(nn.Linear):
    width = 4

    def __init__(self):
        super().__init__(6, 4, bias=False)


@pytest.mark.parametrize("target", [Same(stop_gradient=False), Same(stop_gradient=True)])
def test_linear_network_without_predictor_shrinks_at_the_rate_of_the_noise(target):
    """W' = -W X' with stop-gradient, twice that without: X' = sigma^2 I (Tian et al. 2021, section 2)."""
    torch.manual_seed(0)
    sigma2, lr, steps, n = 0.5, 0.01, 200, 4096
    method = Method(
        target=target,
        predictor=Identity(),
        distance="euclidean",
        pairing=(Pair(query="p1", key="t2", weight=1),),
    )
    net = method.build(LinearEncoder(), ProjectorSettings(hidden=(), out=4, bias=False))
    with torch.no_grad():
        net.projector[0].weight.copy_(torch.eye(4))
    net.projector.requires_grad_(False)
    start = net.encoder.weight.norm().item()
    optimizer = torch.optim.SGD(net.encoder.parameters(), lr=lr)
    for _ in range(steps):
        x = torch.randn(n, 6)
        noisy = [x + sigma2**0.5 * torch.randn(n, 6) for _ in range(2)]
        optimizer.zero_grad()
        net(noisy).loss.backward()
        optimizer.step()
    rate = sigma2 if target.stop_gradient else 2 * sigma2
    expected = start * (1 - lr * rate) ** steps
    assert net.encoder.weight.norm().item() == pytest.approx(expected, rel=0.03)


def test_supervised_is_the_mean_cross_entropy_of_both_views():
    torch.manual_seed(0)
    net = Supervised().build(build_encoder(EncoderSettings(), 1, 16), classes=3).eval()
    x, labels = views(), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    scores = [net.classifier(net.encoder(v)).log_softmax(1) for v in x]
    expected = -sum(s[torch.arange(8), labels].mean() for s in scores) / 2
    torch.testing.assert_close(net(x, labels).loss, expected)


def test_explanations_name_the_parts():
    method = Method(
        target=Ema(tau=0.9, schedule="cosine"), predictor=Spectral(eps=0.2), gradient="straight-through"
    )
    text = method.explain()
    for words in ("0.5 d(p1, t2)", "tau = 0.9 rising to 1", "+ 0.2", "sg(p_v - z_v)"):
        assert words in text
    assert any("W -> 0" in note for note in Method(predictor=Identity()).notes())
    assert any("Theorem 2" in note for note in Method(target=Same(stop_gradient=False)).notes())


@pytest.mark.parametrize(
    "changes", [{"distance": "manhattan"}, {"predictor": {"kind": "mlp", "hidden": 0}}, {"nope": 1}]
)
def test_wrong_parts_are_refused(changes):
    with pytest.raises(ValueError, match="validation error"):
        Method().but(**changes)
