"""The example and the catalogue are the same method."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stopgrad as sg
from stopgrad.method import Method, SiameseLearner
from stopgrad.networks.heads import ProjectorSettings
from stopgrad.parts.gradient import StraightThrough
from stopgrad.parts.predictors import Spectral
from stopgrad.parts.target import Ema
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.optimizer import build_optimizer, set_learning_rate
from stopgrad.training.settings import RunSettings, resolve

EXAMPLES = Path(__file__).parents[1] / "examples"
STEPS, PER_EPOCH = 12, 4  # an epoch of warm-up, two of the cosine


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load("byol_in_one_file")


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
    built = build_learner(settings, DataFacts(1, (0.0,), (1.0,), None, 64)).double()
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
    pairs = (
        (model.encoder, learner.encoder.body),
        (model.projector, learner.projector),
        (model.predictor, learner.predictor.layers),
    )
    for own, of_catalogue in pairs:
        assert repr(own) == repr(of_catalogue).replace("inplace=True", "")


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


class Body(nn.Module):
    """The plain example's encoder as a learner takes it."""

    width = 128

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_the_plain_loop_is_the_catalogues_method_with_straight_through():
    plain = load("plain_torch")
    torch.manual_seed(0)
    online = plain.network().double()
    predictor, target = sg.DirectPred(plain.DIM).double(), sg.EmaTarget(online, plain.TAU)
    method = Method(target=Ema(tau=plain.TAU), predictor=Spectral(), gradient=StraightThrough())
    body = plain.network()[0].double()
    projector = ProjectorSettings(hidden=(256,), out=plain.DIM)
    learner = method.build(Body(body), projector).double()
    body.load_state_dict(online[0].state_dict())
    learner.projector.load_state_dict(online[1].state_dict())
    learner.predictor.load_state_dict(predictor.state_dict())
    for slow, fast in zip(learner.target.parameters(), online.parameters(), strict=True):
        slow.data.copy_(fast.data)
    optimizer = torch.optim.AdamW(learner.online.parameters(), lr=plain.LR, weight_decay=plain.WEIGHT_DECAY)
    expected = []
    for step, pair in enumerate(views()[:10]):
        nodes = learner(pair)
        optimizer.zero_grad()
        nodes.loss.backward()
        optimizer.step()
        learner.after_step(nodes, step / 10)
        expected.append(nodes.loss.item())
    losses = plain.train(online, predictor, target, views()[:10])
    assert losses == pytest.approx(expected, rel=1e-9)
    assert min(losses) < losses[0] - 0.05  # it did move
    torch.testing.assert_close(predictor.linear.weight, learner.predictor.linear.weight)
    for own, of_method in zip(target.parameters(), learner.target.parameters(), strict=True):
        torch.testing.assert_close(own, of_method)


# one process for all three, since most of the time goes into imports
RUN = f"""
import contextlib, importlib, io, json, sys
sys.path.insert(0, {str(EXAMPLES)!r})
printed = {{}}
for name, options in json.loads(sys.argv[1]).items():
    module = importlib.import_module(name)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        module.main(**options)
    printed[name] = out.getvalue()
module = sys.modules["lightning_module"]
learner = module.DirectPredModule(module.network(), module.DIM)
module.DirectPredModule = lambda *_: learner
with contextlib.redirect_stdout(io.StringIO()):
    module.main(epochs=1, accumulate=3)
printed["steps"] = [learner.predictor.moments.steps, learner.trainer.global_step, len(learner.seen)]
print(json.dumps(printed))
"""
LOOPS = {
    "plain_torch": {"epochs": 1},
    "lightning_module": {"epochs": 1},
    "lightly_module": {"epochs": 1, "images": 512},
}


@pytest.fixture(scope="module")
def printed() -> dict[str, Any]:
    """What the loops print when they run for some steps, and what the accumulating one counted."""
    return run_loops(LOOPS)


def run_loops(loops: dict[str, dict[str, int]]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(loops)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def numbers(line: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(loss|std|kNN) +([-+.0-9]+)", line)}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_trains_without_collapse(name, printed):
    before, after = printed[name].splitlines()[-2:]
    assert "untrained" in before
    assert -1 < numbers(after)["loss"] < -0.3
    assert numbers(after)["std"] > 0.2 > 3 * numbers(before)["std"]  # 16 steps bring lightly so far
    assert numbers(after)["kNN"] > 0.2  # ten classes


def test_lightning_does_what_the_plain_loop_does(printed):
    assert printed["lightning_module"].splitlines()[-1] == printed["plain_torch"].splitlines()[-1]


def test_accumulated_batches_move_the_predictor_once(printed):
    """64 batches by threes: 21 steps, and one for the last batch."""
    assert printed["steps"] == [22, 22, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_learns(name):
    before, after = run_loops({"lightning_module": {"epochs": 1}, name: {}})[name].splitlines()[-2:]
    assert numbers(after)["kNN"] > numbers(before)["kNN"] + 0.02
    assert numbers(after)["std"] > 0.5


QUOTES = re.findall(
    r"^```python (examples/\S+)\n(.*?)^```$",
    (EXAMPLES.parent / "docs" / "your_loop.md").read_text(),
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.parametrize(("file", "quote"), QUOTES, ids=[file for file, _ in QUOTES])
def test_the_documentation_quotes_an_example_word_for_word(file, quote):
    assert quote in (EXAMPLES.parent / file).read_text()


def test_the_documentation_quotes_both_libraries():
    assert {file for file, _ in QUOTES} == {"examples/lightning_module.py", "examples/lightly_module.py"}
