"""The monitor in loops of others: plain torch, lightly on Lightning, accelerate."""

import copy
import json

import pytest
import torch
from accelerate import Accelerator
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stopgrad import diagnostics
from stopgrad.diagnostics.monitor import Monitor
from stopgrad.lightning import MonitorCallback
from stopgrad.parts.target import EmaTarget

COSINE = NegativeCosineSimilarity()


class SimSiam(nn.Module):
    """lightly's heads on a small backbone."""

    def __init__(self, stops=True):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.projection_head = SimSiamProjectionHead(64, 32, 32)
        self.prediction_head = SimSiamPredictionHead(32, 16, 32)
        self.stops = stops

    def forward(self, x):
        z = self.projection_head(self.backbone(x))
        return (z.detach() if self.stops else z), self.prediction_head(z)

    def loss(self, x1, x2):
        (z1, p1), (z2, p2) = self(x1), self(x2)
        return (COSINE(p1, z2) + COSINE(p2, z1)) / 2


NAMES = {"projector": "projection_head", "predictor": "prediction_head", "encoder": "backbone"}


def images(count=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 8, 8, generator=generator)
    return tuple(x + 0.1 * torch.randn(x.shape, generator=generator) for _ in range(2))


def train(net, steps=8, lr=0.05):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        loss = net.loss(*images(seed=step))
        loss.backward()
        optimizer.step()
    return loss


@pytest.mark.parametrize("stops", [True, False])
def test_a_plain_loop(stops):
    torch.manual_seed(0)
    net, monitor = SimSiam(stops), Monitor(every=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(6):
        (t1, p1), (t2, p2) = (net(x) for x in images(seed=step))
        loss = (COSINE(p1, t2) + COSINE(p2, t1)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(t1.detach(), t2.detach(), p1, p2, t1, t2, loss=loss, model=net)
    assert [reading.step for reading in monitor.readings] == [0, 2, 4]
    assert (monitor.verdict().verdict == "target-leak") is not stops
    assert monitor.readings[0].scalars["gradient_norm_prediction_head"] > 0


@pytest.mark.parametrize("stops", [True, False])
def test_hooks_on_a_model_see_the_leak(stops):
    torch.manual_seed(0)
    net = SimSiam(stops)
    monitor = Monitor(every=1).attach(net, **NAMES)
    train(net)
    assert len(monitor.readings) == 8
    assert (monitor.verdict().verdict == "target-leak") is not stops


class Lit(LightningModule):
    def __init__(self, stops):
        super().__init__()
        self.net = SimSiam(stops)

    def training_step(self, batch, _):
        return self.net.loss(*batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


@pytest.mark.parametrize("stops", [True, False])
def test_a_lightning_module_of_lightly(stops, tmp_path, caplog):
    torch.manual_seed(0)
    callback = MonitorCallback(
        **{role: f"net.{name}" for role, name in NAMES.items()},
        monitor=Monitor(every=1, out=tmp_path / "readings.jsonl"),
    )
    trainer = Trainer(
        max_epochs=1, callbacks=[callback], logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Lit(stops), DataLoader(TensorDataset(*images(256)), batch_size=64))
    monitor = callback.monitor
    assert len(monitor.readings) == 4
    assert all(-1 <= reading.loss <= 1 for reading in monitor.readings)
    assert "monitor/z_std" in trainer.callback_metrics
    found = monitor.verdict()
    assert (found.verdict == "target-leak") is not stops
    assert ("target-leak since step 0; first to change: detach" in caplog.text) is not stops
    assert len((tmp_path / "readings.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("stops", [True, False])
def test_an_accelerate_loop(stops):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    net = SimSiam(stops)
    loader = DataLoader(TensorDataset(*images(256)), batch_size=64)
    model, optimizer, loader = accelerator.prepare(net, torch.optim.AdamW(net.parameters()), loader)
    monitor = Monitor(every=1).attach(accelerator.unwrap_model(model), **NAMES)
    for x1, x2 in loader:
        optimizer.zero_grad()
        accelerator.backward(net.loss(x1, x2))
        optimizer.step()
    assert len(monitor.readings) == 4
    assert (monitor.verdict().verdict == "target-leak") is not stops


def test_watching_changes_no_bit_of_the_training():
    torch.manual_seed(0)
    alone = SimSiam()
    watched = copy.deepcopy(alone)
    monitor = Monitor(every=2).attach(watched, **NAMES)
    assert torch.equal(train(alone), train(watched))
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), watched.state_dict().values(),
                                                 strict=True))  # fmt: skip
    monitor.detach()
    train(watched, steps=4)
    assert len(monitor.readings) == 4


def test_evaluation_and_other_optimisers_are_not_read():
    net, other = SimSiam(), nn.Linear(2, 2)
    monitor = Monitor(every=1).attach(net, **NAMES)
    net.eval()
    net(images()[0])
    other(torch.ones(3, 2)).sum().backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert not monitor.readings


@pytest.mark.parametrize("moves", [True, False])
def test_a_target_that_stands_still(moves):
    torch.manual_seed(0)
    net = SimSiam()
    net.slow = EmaTarget(nn.Sequential(net.backbone, net.projection_head), tau=0.9)
    monitor = Monitor(every=1).attach(net, target="slow", **NAMES)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(4):
        optimizer.zero_grad()
        net.loss(*images(seed=step)).backward()
        optimizer.step()
        if moves:
            net.slow.update(nn.Sequential(net.backbone, net.projection_head))
    assert (monitor.verdict().verdict == "frozen-target") is not moves


def test_batch_normalisation_that_tells_another_story_in_evaluation():
    torch.manual_seed(0)
    net = SimSiam()
    monitor = Monitor(every=10).attach(net, **NAMES)
    last = net.projection_head.layers[-1]
    assert isinstance(last, nn.BatchNorm1d)
    train(net, steps=50)
    assert monitor.verdict().verdict == "healthy"
    with torch.no_grad():  # statistics of other images, as of a network that moved on
        last.running_mean.fill_(100.0)
        last.momentum = 0.0
    train(net, steps=20)
    assert monitor.verdict().verdict == "normalisation-leak"


def test_measures_are_those_of_the_functions():
    z1, z2 = torch.randn(2, 100, 16, generator=torch.Generator().manual_seed(0))
    reading = Monitor(every=1).step(z1, z2)
    own = reading.nodes["z"]
    assert own["std"] == pytest.approx(float(diagnostics.embedding_std(z1)))
    assert own["effective_rank"] == pytest.approx(float(diagnostics.effective_rank(z1)))
    assert own["uniformity"] == pytest.approx(float(diagnostics.uniformity(z1)))
    assert reading.scalars["view_distance"] == pytest.approx(float(diagnostics.alignment(z1, z2)))


def test_the_budget_holds(monkeypatch):
    monitor, z, now = Monitor(budget=0.05), torch.randn(8, 4), [0.0]
    read = monitor._read

    def reading(*given):
        now[0] += 0.01
        return read(*given)

    monkeypatch.setattr(monitor, "_read", reading)
    monkeypatch.setattr("stopgrad.diagnostics.monitor.time.perf_counter", lambda: now[0])
    for _ in range(2000):
        now[0] += 0.002
        monitor.step(z, z + 1)
    assert 0.5 * 0.05 < 0.01 * len(monitor.readings) / now[0] < 0.05


def test_half_precision_and_broken_rows():
    z = torch.randn(64, 8).half()
    z[3, 2] = torch.inf
    reading = Monitor(every=1).step(z, z.clone())
    assert reading.nodes["z"]["finite"] == pytest.approx(63 / 64)
    assert reading.nodes["z"]["count"] == 64
    monitor = Monitor(every=1)
    monitor.step(z, z.clone(), loss=float("nan"))
    assert monitor.verdict().verdict == "diverged"


def test_the_file_and_the_writer(tmp_path):
    seen = {}

    class Writer:
        def add_scalar(self, name, value, step):
            seen[name, step] = value

    monitor = Monitor(every=3, out=tmp_path / "new" / "m.jsonl", writer=Writer())
    for _ in range(4):
        monitor.step(torch.randn(8, 4), torch.randn(8, 4), loss=torch.tensor(0.5))
    rows = [json.loads(line) for line in (tmp_path / "new" / "m.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 3]
    assert rows[0]["z"]["std"] == seen["monitor/z/std", 0]
    assert rows[0]["loss"] == 0.5


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match=r"no submodule 'projecter'; its children are backbone"):
        Monitor().attach(SimSiam(), projector="projecter")
    with pytest.raises(ValueError, match="budget"):
        Monitor(budget=0)
    with pytest.raises(ValueError, match="every"):
        Monitor(every=0)
    monitor = Monitor().attach(SimSiam(), **NAMES)
    with pytest.raises(ValueError, match="attached already"):
        monitor.attach(SimSiam(), **NAMES)
    with pytest.raises(ValueError, match="at least one"):
        monitor.verdict()


def test_the_noise_of_the_views_is_sigma_squared():
    clean = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 4000, 3, generator=torch.Generator().manual_seed(1))
    views = [clean + 0.5 * own for own in noise]
    reading = Monitor(every=1).step(*views, views=views)
    assert reading.scalars["sigma2"] == pytest.approx(0.25, rel=0.05)


def test_a_monitor_that_is_saved_goes_on_where_it_was():
    torch.manual_seed(0)
    online, slow = nn.Linear(3, 3), nn.Linear(3, 3)

    def steps(monitor, count):
        for _ in range(count):
            with torch.no_grad():
                online.weight.add_(1)
            z = torch.randn(8, 4)
            monitor.step(z, z + 0.1, loss=0.5, online=online, target=slow)

    first = Monitor(every=2)
    steps(first, 3)
    again = Monitor(every=2)
    again.load_state_dict(first.state_dict())
    steps(again, 2)
    assert [reading.step for reading in again.readings] == [0, 2, 4]
    assert again.readings[-1].scalars["target_moved"] == 0 < again.readings[-1].scalars["online_moved"]
    assert again.verdict().verdict == "frozen-target"
