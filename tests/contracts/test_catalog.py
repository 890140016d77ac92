"""What every method of the catalogue keeps. A row of the catalogue is enrolled by its name."""

import json
import math

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from stopgrad.catalog import CATALOG
from stopgrad.citations import BIBTEX
from stopgrad.cli import app
from stopgrad.method import Learner, Method, Supervised
from stopgrad.parts.target import Ema
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.folder import RunFolder
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.pretrain import run
from stopgrad.training.settings import RunSettings, resolve
from stopgrad.training.state import TrainState

FACTS = DataFacts(1, (0.3,), (0.25,), tuple("abcd"))

every_method = pytest.mark.parametrize("name", CATALOG)


def settings(name: str, **changes) -> RunSettings:
    return resolve(
        {
            "method": name,
            "recipe": "digits-smoke",
            "data": {"limit": 128},
            "epochs": 1,
            "evaluation": {"every": 9, "images": 64, "control": False},
            **changes,
        }
    )


def batch(count: int = 24, seed: int = 0) -> tuple[tuple[Tensor, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 16, 16, generator=generator)
    first, second = (x + 0.5 * torch.randn(x.shape, generator=generator) for _ in range(2))
    return (first, second), torch.arange(count) % len(FACTS.classes or ())


@every_method
def test_it_says_what_it_is(name):
    entry = CATALOG[name]
    assert entry.name == name
    assert entry.title
    assert entry.paper
    assert "\n" not in entry.title
    assert BIBTEX[entry.cite].lstrip().startswith("@")
    assert f"{{{entry.cite}," in BIBTEX[entry.cite]
    assert entry.method.explain().startswith("L = ")
    notes = entry.method.notes()
    assert notes
    assert all(notes)
    # a title and the theory's notes agree on which rows collapse
    warned = any("Theorem 2" in note or "Without a predictor" in note for note in notes)
    assert warned == ("collapses" in entry.title)


def test_the_list_for_programs():
    result = CliRunner().invoke(app, ["methods", "--json"])
    listed = json.loads(result.stdout)
    assert listed.keys() == {"methods"}
    assert [row["name"] for row in listed["methods"]] == list(CATALOG)
    for row in listed["methods"]:
        entry = CATALOG[row["name"]]
        assert row["paper"] == entry.paper
        assert row["notes"] == entry.method.notes()
        assert row["equation"] == entry.method.explain()
        # the parts are the whole method: it can be built from them
        assert type(entry.method).model_validate(row["parts"]) == entry.method


def slow_distance(query: Tensor, key: Tensor, name: str) -> float:
    total = 0.0
    for q, k in zip(query.tolist(), key.tolist(), strict=True):
        dot = sum(a * b for a, b in zip(q, k, strict=True))
        lengths = [math.sqrt(sum(a * a for a in x)) for x in (q, k)]
        if name == "cosine":
            total += -dot / (lengths[0] * lengths[1])
        elif name == "squared-l2":
            total += sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(q, k, strict=True))
        else:
            total += sum((a - b) ** 2 for a, b in zip(q, k, strict=True)) / 2
    return total / len(query)


def slow_loss(method: Method | Supervised, learner: Learner, views, labels: Tensor) -> float:
    """The equation of the method, image by image and pair by pair."""
    with torch.no_grad():
        if isinstance(method, Supervised):
            total = 0.0
            for view in views:
                for scores, label in zip(
                    learner.classifier(learner.encoder(view)).tolist(), labels.tolist(), strict=True
                ):
                    total += math.log(sum(math.exp(s) for s in scores)) - scores[label]
            return total / (2 * len(labels))
        nodes = {}
        for v, view in enumerate(views, start=1):
            z = learner.projector(learner.encoder(view))
            nodes[f"z{v}"], nodes[f"p{v}"] = z, learner.predictor(z)
            nodes[f"t{v}"] = learner.target.network(view) if isinstance(method.target, Ema) else z
    return sum(
        p.weight * slow_distance(nodes[p.query], nodes[p.key], method.distance.kind) for p in method.pairing
    )


@every_method
def test_the_loss_is_the_equation(name):
    own = settings(name)
    learner = build_learner(own, FACTS).double()
    views, labels = batch(count=8)
    views = tuple(view.double() for view in views)
    if (target := getattr(learner, "target", None)) is not None:
        for weight in target.parameters():  # apart from the online network, as after some steps
            weight.data.mul_(1.1).add_(0.01)
    expected = slow_loss(own.sentence, learner, views, labels)
    assert learner(views, labels).loss.item() == pytest.approx(expected, rel=1e-9)


def take_step(learner: Learner, own: RunSettings, seed: int = 0, progress: float = 0.5) -> float:
    optimizer = build_optimizer(own.optimizer, learner)
    views, labels = batch(seed=seed)
    nodes = learner(views, labels)
    nodes.loss.backward()
    optimizer.step()
    learner.after_step(nodes, progress)
    return nodes.loss.item()


@every_method
def test_every_weight_learns_or_follows(name):
    learner = build_learner(settings(name), FACTS)
    before = {key: weight.clone() for key, weight in learner.named_parameters()}
    take_step(learner, settings(name))
    for key, weight in learner.named_parameters():
        assert not torch.equal(weight, before[key]), f"{key} stood still"
        follows = key.startswith("target.") or (key.startswith("predictor.") and not weight.requires_grad)
        if follows:
            assert weight.grad is None, f"{key} is no weight of the optimiser"
        else:
            assert weight.grad is not None, f"{key} has no gradient"
            assert torch.isfinite(weight.grad).all()
            assert weight.grad.abs().max() > 0, f"the gradient of {key} is zero"


@pytest.fixture
def quick(monkeypatch):
    """Leave out the evaluation at the end."""
    monkeypatch.setattr("stopgrad.training.pretrain.evaluate_run", lambda *a, **k: dict(k))


def contents(path) -> dict[str, Tensor]:
    """A checkpoint's tensors and numbers by their dotted path."""
    found = {}

    def walk(value, name):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}")
        elif isinstance(value, list | tuple):
            for i, inner in enumerate(value):
                walk(inner, f"{name}.{i}")
        else:
            found[name] = value if isinstance(value, Tensor) else torch.tensor(hash(value))

    walk(torch.load(path, weights_only=True), "")
    return found


@every_method
def test_it_trains_and_resumes_exactly(name, tmp_path, monkeypatch, quick):
    """Two epochs of two steps, cut in the middle of the second, against the same without a cut."""
    own = settings(name, epochs=2, checkpoint_minutes=1e-9)
    result = run(own, tmp_path / "whole", show_progress=False)
    assert math.isfinite(result["loss"])
    assert result["diverged_at"] is None

    class Died(BaseException):
        pass

    record = TrainState.record

    def recording(state, loss):
        if state.step == 3:
            raise Died
        record(state, loss)

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "record", recording)
        with pytest.raises(Died):
            run(own, tmp_path / "cut", show_progress=False)
    again = run(own, tmp_path / "cut", resume=True, show_progress=False)
    assert again["loss"] == result["loss"]
    whole, cut = (contents(RunFolder(tmp_path / which).checkpoint) for which in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert len(whole) > 50
    assert [key for key in whole if not torch.equal(whole[key], cut[key])] == []
    assert list(RunFolder(tmp_path / "whole").rows())[-1]["step"] == 4
