import copy
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from stopgrad.errors import UsageError
from stopgrad.method import Method
from stopgrad.networks.encoders import EncoderSettings, build_encoder
from stopgrad.networks.heads import ProjectorSettings, build_projector
from stopgrad.parts.distances import Euclidean
from stopgrad.parts.pairing import Pair
from stopgrad.parts.predictors import Identity
from stopgrad.parts.target import Centre, Ema, EmaTarget, Expectation, Memory, MemoryTarget, Same
from stopgrad.training.build import DataFacts, build_learner, load_run
from stopgrad.training.distributed import make_fabric
from stopgrad.training.folder import RunFolder
from stopgrad.training.pretrain import run
from stopgrad.training.settings import assignment, read_yaml, resolve, validate
from stopgrad.training.side_by_side import SideBySide, TwoThreads, runs_side_by_side

FACTS = DataFacts(1, (0.3,), (0.25,), tuple("abcd"), 40)
TARGETS = {
    "ema": Ema(tau=0.9, init="independent", buffers="average", centring=0.9),
    "memory": Memory(),
    "expectation": Expectation(views=4),
}
every_target = pytest.mark.parametrize("name", TARGETS)


def settings(name, **changes):
    pairing = [{"query": "p1", "key": "t1", "weight": 1}] if name == "expectation" else None
    own = {"pairing": pairing} if pairing else {}
    return resolve(
        {
            "method": "byol",
            "recipe": "digits-smoke",
            "data": {"limit": 128},
            "evaluation": {"every": 9, "images": 64, "control": False},
            "target": TARGETS[name].model_dump(),
            **own,
            **changes,
        }
    )


def views(count, batch=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 1, 16, 16, generator=generator, dtype=torch.float64) for _ in range(count)]


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


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


def test_no_gradient_reaches_the_copy():
    target = EmaTarget(nn.Linear(2, 2))
    assert not any(w.requires_grad for w in target.parameters())
    assert not target(torch.randn(3, 2, requires_grad=True)).requires_grad


def test_the_network_itself_is_not_shared():
    net = nn.Linear(2, 2)
    before = copy.deepcopy(net.state_dict())
    EmaTarget(net, 0.5).update(nn.Linear(2, 2))
    EmaTarget(net, init="zero")
    EmaTarget(net, init="independent")
    assert same(before, net.state_dict())


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 1.0])
def test_schedules(progress):
    assert EmaTarget(nn.Linear(1, 1), tau=0.9).tau_at(progress) == 0.9
    rising = EmaTarget(nn.Linear(1, 1), tau=0.9, schedule="cosine")
    assert rising.tau_at(0) == pytest.approx(0.9)
    assert rising.tau_at(0.5) == pytest.approx(0.95)
    assert rising.tau_at(1) == 1
    assert 0.9 <= rising.tau_at(progress) <= 1


# How the copy starts


def test_a_copy_of_zeros_is_the_rate_times_the_network_after_one_step():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    target = EmaTarget(net, 0.9, init="zero")
    assert all((w == 0).all() for w in target.network.parameters())
    target.update(net)
    for own, w in zip(target.network.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(own.detach(), 0.1 * w.detach())


@pytest.mark.parametrize("encoder", ["convnet-s", "resnet18", "timm/vit_tiny_patch16_224"])
def test_an_independent_copy_is_another_draw_of_the_same_distribution(encoder):
    torch.manual_seed(0)
    body = build_encoder(EncoderSettings(name=encoder), 3, 32)
    net = nn.Sequential(body, build_projector(ProjectorSettings(), body.width))
    for buffer in net.buffers():
        buffer.add_(1)  # running statistics are those of a fresh network as well
    copies = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        copies.append(EmaTarget(net, init="independent").network)
    torch.manual_seed(1)
    assert same(EmaTarget(net, init="independent").network.state_dict(), copies[0].state_dict())
    drawn = 0
    for (name, w), own, other in zip(net.named_parameters(), copies[0].parameters(), copies[1].parameters(),
                                     strict=True):  # fmt: skip
        if w.min() == w.max():
            assert torch.equal(w, own), name
            continue
        drawn += 1
        assert not torch.equal(w, own), name
        assert not torch.equal(own, other), name
        if w.numel() >= 1000:
            assert w.std().item() == pytest.approx(own.std().item(), rel=0.15), name
            assert torch.corrcoef(torch.stack([w.flatten(), own.flatten()]))[0, 1].abs() < 0.15, name
    assert drawn >= 6
    for module in copies[0].modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert (module.running_mean == 0).all()
            assert (module.running_var == 1).all()


def test_what_cannot_be_drawn_anew_is_refused():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3))

    with pytest.raises(UsageError, match=r"cannot draw 1\.weight of Sequential anew"):
        EmaTarget(nn.Sequential(nn.Linear(2, 3), Scale()), init="independent")


@pytest.mark.parametrize("init", ["independent", "zero"])
def test_the_online_network_is_the_same_however_the_copy_starts(init):
    plain, other = (build_learner(settings("ema", target={"kind": "ema", "init": i}), FACTS)
                    for i in ("copy", init))  # fmt: skip
    online = [name for name in plain.state_dict() if not name.startswith("target.")]
    assert len(online) > 10
    assert all(torch.equal(plain.state_dict()[name], other.state_dict()[name]) for name in online)
    assert same(plain.target.network.state_dict(), plain.online.state_dict())
    assert not same(other.target.network.state_dict(), plain.target.network.state_dict())


# What its buffers hold


@pytest.mark.parametrize("buffers", ["own", "copy", "average"])
def test_buffers_follow_their_policy(buffers):
    torch.manual_seed(0)
    net, tau = nn.BatchNorm1d(2).double(), 0.75
    target = EmaTarget(net, tau, buffers=buffers)
    for _ in range(3):
        net(torch.randn(8, 2, dtype=torch.float64) + 5)
        net(torch.randn(8, 2, dtype=torch.float64) + 5)
        x = torch.randn(8, 2, dtype=torch.float64) - 3
        torch.testing.assert_close(target(x), (x - x.mean(0)) / (x.var(0, correction=0) + net.eps).sqrt())
        before = {name: b.clone() for name, b in target.network.named_buffers()}
        target.update(net)
        after = dict(target.network.named_buffers())
        for name, online in net.named_buffers():
            if buffers == "own":
                expected = before[name]
            elif buffers == "copy" or not online.is_floating_point():
                expected = online
            else:
                expected = tau * before[name] + (1 - tau) * online
            torch.testing.assert_close(after[name], expected, rtol=1e-12, atol=1e-12, msg=name)
    assert int(target.network.num_batches_tracked) == (3 if buffers == "own" else 6)


# Centring


@given(st.floats(0, 0.99), st.integers(1, 3), st.integers(1, 5))
@tries(max_examples=30)
def test_centring_is_the_loop_by_hand(momentum, count, batch):
    torch.manual_seed(batch)
    net = nn.Linear(4, 3).double()
    target = Ema(tau=0.8, centring=momentum).build(net, 3).double()
    W, b = net.weight.detach().clone(), net.bias.detach().clone()
    c = torch.zeros(3, dtype=torch.float64)
    for _ in range(4):
        x = torch.randn(count, batch, 4, dtype=torch.float64) + 2
        raw = x @ W.T + b
        for _ in range(2):  # the centre moves in after_step alone
            t = target.join([target.branch(view, net(view)) for view in x], None)
            torch.testing.assert_close(torch.stack(t), raw - c, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            net.weight.add_(0.1 * torch.randn_like(net.weight))
        target.after_step(net, t, None, 0.3)
        W, b = 0.8 * W + 0.2 * net.weight.detach(), 0.8 * b + 0.2 * net.bias.detach()
        c = momentum * c + (1 - momentum) * sum(sum(rows) for rows in raw) / (count * batch)
        torch.testing.assert_close(target.centre.mean, c, rtol=1e-9, atol=1e-9)


def test_the_centre_stays_float32():
    centre = Centre(2)
    t = centre(torch.ones(3, 2, dtype=torch.bfloat16))
    centre.update([t])
    assert t.dtype == centre.mean.dtype == torch.float32


# Memory


@given(st.floats(0, 0.99), st.integers(1, 3), st.integers(0, 9))
def test_memory_is_the_loop_over_a_dictionary(momentum, count, seed):
    generator = torch.Generator().manual_seed(seed)
    target = MemoryTarget(7, 2, momentum).double()
    held = {}
    for _ in range(4):
        order = torch.randperm(7, generator=generator)
        for indices in (order[:3], order[3:6]):  # one image an epoch is left out
            z = torch.randn(count, 3, 2, generator=generator, dtype=torch.float64)
            for _ in range(2):  # the memory changes in after_step alone
                t = target.join(list(z), indices)
            for row, image in enumerate(indices.tolist()):
                expected = z[:, row].tolist()
                if image in held:
                    expected = [
                        [momentum * eta + (1 - momentum) * value
                         for eta, value in zip(held[image], own, strict=True)]
                        for own in expected
                    ]  # fmt: skip
                assert [tv[row].tolist() for tv in t] == [pytest.approx(own) for own in expected]
                held[image] = [sum(column) / count for column in zip(*expected, strict=True)]
            target.after_step(nn.Identity(), t, indices, 0.0)
    assert target.seen.nonzero().flatten().tolist() == sorted(held)
    for image, row in held.items():
        assert target.rows[image].tolist() == pytest.approx(row)


def test_memory_gives_constants_and_stays_float32():
    target = MemoryTarget(4, 2)
    z, indices = torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True), torch.tensor([0, 3])
    (t,) = target.join([z], indices)
    target.after_step(nn.Identity(), [t], indices, 0.0)
    assert not t.requires_grad
    assert t.dtype == target.rows.dtype == torch.float32


def test_memory_says_what_it_lacks():
    encoder = build_encoder(EncoderSettings(), 1, 16)
    with pytest.raises(UsageError, match="'memory' needs the number of training images"):
        Method(target=Memory()).build(encoder, ProjectorSettings())
    learner = Method(target=Memory()).build(encoder, ProjectorSettings(), images=9)
    assert learner.target.rows.shape == (9, 64)
    with pytest.raises(ValueError, match="needs the images' numbers"):
        learner([x.float() for x in views(2)])


# Expectation


def test_expectation_is_the_mean_of_all_views_but_the_first():
    method = Method(target=Expectation(views=4), predictor=Identity(), distance=Euclidean(),
                    pairing=(Pair(query="p1", key="t1", weight=1),))  # fmt: skip
    learner = method.build(build_encoder(EncoderSettings(), 1, 16), ProjectorSettings(out=5)).double()
    twin = copy.deepcopy(learner)
    x = [view.requires_grad_() for view in views(4)]
    nodes = learner(x)
    z = [twin.projector(twin.encoder(view)) for view in x]
    mean = (z[1] + z[2] + z[3]) / 3
    assert len(nodes.h) == len(nodes.z) == len(nodes.p) == len(nodes.t) == 4
    assert [own.requires_grad for own in nodes.z] == [True, False, False, False]
    for t, own, expected in zip(nodes.t, nodes.z, z, strict=True):
        torch.testing.assert_close(t, mean)
        torch.testing.assert_close(own, expected)
        assert not t.requires_grad
    loss = (z[0] - mean.detach()).square().sum(1).mean() / 2
    torch.testing.assert_close(nodes.loss, loss)
    nodes.loss.backward()
    loss.backward(inputs=list(twin.parameters()))
    for w, expected in zip(learner.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(w.grad, expected.grad)
    assert x[0].grad.abs().max() > 0
    assert [view.grad for view in x[1:]] == [None] * 3
    assert same(dict(learner.named_buffers()), dict(twin.named_buffers()))  # of four batches
    assert int(learner.encoder.body[1].num_batches_tracked) == 4
    with pytest.raises(ValueError, match="of 4 views, got 2"):
        learner(x[:2])


def test_no_graph_is_made_where_none_is_wanted():
    learner = build_learner(settings("expectation"), FACTS)
    with torch.no_grad():
        assert not any(z.requires_grad for z in learner([x.float() for x in views(4)]).z)


# As parts of a method


def test_a_pairing_names_no_view_that_a_step_does_not_have():
    third = (Pair(query="p1", key="sg(p(t3))"),)
    assert Method(target=Expectation(views=3), pairing=third).views == 3
    for target in (Same(), Ema(), Memory()):
        assert Method(target=target).views == 2
        with pytest.raises(ValidationError, match=r"pairing: sg\(p\(t3\)\) is of a view beyond the 2"):
            Method(target=target, pairing=third)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "ema", "centring": 1.0},
        {"kind": "ema", "init": "random"},
        {"kind": "ema", "buffers": "none"},
        {"kind": "memory", "momentum": 1.0},
        {"kind": "expectation", "views": 2},
    ],
)
def test_wrong_settings_are_named(wrong):
    field = next(name for name in wrong if name != "kind")
    with pytest.raises(UsageError, match=rf"^target\.{field}: ") as caught:
        resolve({"target": wrong})
    assert "\n" not in str(caught.value)


def test_kinds_by_assignment():
    for kind, part in (("memory", Memory()), ("expectation", Expectation())):
        own = resolve({"method": "simsiam", **assignment(f"target.kind={kind}")})
        assert own.sentence.target == part
    assert resolve({"method": "byol", **assignment("target.centring=0.9")}).sentence.target.centring == 0.9
    assert resolve({"method": "byol"}).sentence.target == Ema(tau=0.99)


def test_equations_tell_targets_apart():
    parts = [Same(), Same(stop_gradient=False), Ema(), Ema(init="zero"), Ema(init="independent"),
             Ema(centring=0.9), Memory(), Memory(momentum=0.5), Expectation(),
             Expectation(views=3)]  # fmt: skip
    lines = [part.equation() for part in parts]
    assert len(set(lines)) == len(parts)
    for part, line in zip(parts, lines, strict=True):
        assert line in Method(target=part).explain()
        assert "\n" not in line


@every_target
def test_it_goes_on_where_it_was_saved(name):
    """The rest of the steps after a restart are those without one, bit for bit."""
    own = settings(name)
    whole, rest = build_learner(own, FACTS), build_learner(own.but(seed=5), FACTS)

    def step(learner, number):
        optimizer = torch.optim.SGD([w for w in learner.parameters() if w.requires_grad], lr=0.1)
        indices = torch.randperm(40, generator=torch.Generator().manual_seed(number))[:8]
        nodes = learner([x.float() for x in views(own.sentence.views, seed=number)], None, indices)
        optimizer.zero_grad()
        nodes.loss.backward()
        optimizer.step()
        learner.after_step(nodes, number / 10)

    for number in range(6):
        step(whole, number)
    rest.load_state_dict(whole.state_dict())
    for number in range(6, 9):
        step(whole, number)
        step(rest, number)
    assert same(whole.state_dict(), rest.state_dict())


@every_target
def test_evaluation_leaves_it_alone_and_does_without(name, monkeypatch):
    learner = build_learner(settings(name), FACTS)
    before = {key: value.clone() for key, value in learner.target.state_dict().items()}
    for step in ("branch", "join", "after_step", "forward"):
        monkeypatch.setattr(learner.target, step, None)
    learner.train().embed(views(1)[0].float())
    learner.eval().embed(views(1)[0].float())
    assert same(before, learner.target.state_dict())


@pytest.mark.parametrize("name", ["ema", "memory"])
def test_both_views_at_once_are_one_after_the_other(name):
    plain = build_learner(settings(name), FACTS).double()
    net = copy.deepcopy(plain)
    both = SideBySide(net, make_fabric("cpu", "fp32", devices=1), TwoThreads())
    for number in range(3):
        x, indices = views(2, seed=number), torch.arange(number, number + 8)
        nodes = plain(x, None, indices)
        nodes.loss.backward()
        other = both(x, None, 1, indices)
        for one, two in zip(plain.parameters(), net.parameters(), strict=True):
            if one.requires_grad:
                torch.testing.assert_close(one.grad, two.grad)
        plain.after_step(nodes, 0.1)
        net.after_step(other, 0.1)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[key], value, msg=key)


@every_target
def test_only_pairs_of_views_run_side_by_side(name):
    fabric = SimpleNamespace(device=torch.device("cpu"), world_size=1)
    assert runs_side_by_side(settings(name, threads=1), fabric) == (name != "expectation")


@every_target
def test_it_trains_and_resumes_exactly(name, tmp_path, monkeypatch, dying_at):
    """Two epochs of two steps, cut in the middle of the second, against the same without a cut."""
    monkeypatch.setattr("stopgrad.training.pretrain.evaluate_run", lambda *a, **k: dict(k))
    own = settings(name, epochs=2, checkpoint_minutes=1e-9)
    result = run(own, tmp_path / "whole", show_progress=False)
    assert math.isfinite(result["loss"])
    assert validate(read_yaml(RunFolder(tmp_path / "whole").config)).sentence == own.sentence

    with dying_at(3):
        run(own, tmp_path / "cut", show_progress=False)
    again = run(own, tmp_path / "cut", resume=True, show_progress=False)
    assert again["loss"] == result["loss"]
    whole, cut = (load_run(tmp_path / which, "cpu") for which in ("whole", "cut"))
    assert whole.step == cut.step == 4
    assert same(whole.learner.state_dict(), cut.learner.state_dict())
    assert whole.facts.images == 128
    if name == "memory":
        assert whole.learner.target.seen.all()
    if name == "ema":
        assert whole.learner.target.centre.mean.abs().min() > 0


# Several processes


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    script, folder = Path(__file__).with_name("target_ranks.py"), tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, script, str(rank), folder], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    spec = importlib.util.spec_from_file_location("target_ranks", script)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return lambda name: (alone.state(name, alone.JOINT), *(states[name] for states in ranks))


@pytest.mark.parametrize("name", ["centring", "memory"])
def test_two_ranks_hold_what_one_holds_on_the_joint_batch(name, two_ranks):
    alone, first, second = two_ranks(name)
    assert same(first, second)
    assert alone.keys() == first.keys()
    for key, value in alone.items():
        torch.testing.assert_close(first[key], value, rtol=1e-12, atol=1e-12, msg=key)
