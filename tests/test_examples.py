"""The example and the catalogue are the same method."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from stopgrad.method import SiameseLearner
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.optimizer import build_optimizer, set_learning_rate
from stopgrad.training.settings import RunSettings, resolve

EXAMPLES = Path(__file__).parents[1] / "examples"
STEPS, PER_EPOCH = 12, 4  # an epoch of warm-up, two of the cosine


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("byol_in_one_file", EXAMPLES / "byol_in_one_file.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def settings(example) -> RunSettings:
    """The catalogue's BYOL with the example's constants."""
    return resolve(
        {
            "method": "byol",
            "target": {"tau": example.TAU},
            "optimizer": {
                "lr": example.LR, "momentum": example.MOMENTUM, "weight_decay": example.WEIGHT_DECAY
            },
            "schedule": {"warmup_epochs": 1},
            "epochs": STEPS // PER_EPOCH,
        }
    )  # fmt: skip


@pytest.fixture
def learner(settings) -> SiameseLearner:
    built = build_learner(settings, DataFacts(1, (0.0,), (1.0,), None)).double()
    assert isinstance(built, SiameseLearner)
    return built


@pytest.fixture
def model(example, learner) -> nn.Module:
    """The example's network with the weights of the catalogue's."""
    own = example.Byol().double()
    own.encoder.load_state_dict(learner.encoder.body.state_dict())
    own.projector.load_state_dict(learner.projector.state_dict())
    own.predictor.load_state_dict(learner.predictor.layers.state_dict())
    own.target[0].load_state_dict(learner.target.network[0].body.state_dict())
    own.target[1].load_state_dict(learner.target.network[1].state_dict())
    return own


def views() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)

    def noisy(images: Tensor) -> Tensor:
        return images + 0.3 * torch.randn(images.shape, generator=generator, dtype=torch.float64)

    plain = [
        torch.rand(32, 1, 16, 16, generator=generator, dtype=torch.float64).round() for _ in range(STEPS)
    ]
    return [(noisy(images), noisy(images)) for images in plain]


def test_same_networks(model, learner):
    assert repr(model.encoder) == repr(learner.encoder.body)
    assert repr(model.projector) == repr(learner.projector)
    assert repr(model.predictor) == repr(learner.predictor.layers).replace("inplace=True", "")


def test_same_losses_as_the_catalogue(example, model, learner, settings):
    optimizer = build_optimizer(settings.optimizer, learner)
    expected = []
    for step, pair in enumerate(views()):
        set_learning_rate(optimizer, settings.schedule.factor(step, STEPS, PER_EPOCH))
        nodes = learner(pair)
        nodes.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        learner.after_step(nodes, (step + 1) / STEPS)
        expected.append(nodes.loss.item())
    losses = example.train(model, views(), STEPS, warmup=PER_EPOCH)
    assert losses == pytest.approx(expected, rel=1e-9)
    assert min(losses) < losses[0] - 0.05  # it did move
    for own, of_catalogue in zip(model.target.parameters(), learner.target.parameters(), strict=True):
        torch.testing.assert_close(own, of_catalogue, rtol=1e-7, atol=1e-10)


def test_it_runs_and_imports_nothing_of_ours(example, capsys):
    assert "import stopgrad" not in (EXAMPLES / "byol_in_one_file.py").read_text()
    assert "from stopgrad" not in (EXAMPLES / "byol_in_one_file.py").read_text()
    example.main(epochs=3, batch_size=512)
    printed = capsys.readouterr().out.split()
    assert {"untrained", "loss", "std", "kNN"} <= set(printed)
    assert 0.3 < float(printed[-1]) <= 1
