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
from stopgrad.parts.gradient import Decomposed
from stopgrad.parts.target import Ema, Expectation
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.folder import RunFolder
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.pretrain import run
from stopgrad.training.settings import RunSettings, resolve

FACTS = DataFacts(1, (0.3,), (0.25,), tuple("abcd"), 128)

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


def count_of(own: RunSettings) -> int:
    """Views of an image."""
    return own.sentence.views if isinstance(own.sentence, Method) else 2


def batch(count: int = 24, seed: int = 0, views: int = 2) -> tuple[tuple[Tensor, ...], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 16, 16, generator=generator)
    seen = tuple(x + 0.5 * torch.randn(x.shape, generator=generator) for _ in range(views))
    return seen, torch.arange(count) % len(FACTS.classes or ())


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
    assert any(note.startswith("Collapse") for note in notes) == entry.title.endswith(": collapses")


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


def supervised_loss(learner: Learner, views, labels: Tensor) -> float:
    total = 0.0
    for view in views:
        rows = learner.classifier(learner.encoder(view)).tolist()
        for scores, label in zip(rows, labels.tolist(), strict=True):
            total += math.log(sum(math.exp(s) for s in scores)) - scores[label]
    return total / (len(views) * len(labels))


def targets(method: Method, learner: Learner, views, z: list[Tensor]) -> list[Tensor]:
    """t_v at the first step."""
    if isinstance(method.target, Ema):
        return [learner.target.network(view) for view in views]
    if isinstance(method.target, Expectation):
        return [torch.stack(z[1:]).mean(dim=0)] * len(z)
    return z  # the same network; what is remembered of an image is at first what is seen


def slow_term(method: Method, query: Tensor, key: Tensor, basic: Tensor) -> float:
    """One pair's term, where it is a mean over images by loops."""
    distance, gradient = method.distance, method.gradient
    if isinstance(gradient, Decomposed):
        pull = distance.pull(query, key, basic)
        center = pull.extra.mean(dim=0)
        target = pull.basic + gradient.center * center + gradient.residual * (pull.extra - center)
        return -(query / query.norm(dim=1, keepdim=True) * target).sum().item() / len(query)
    if distance.kind in ("cosine", "squared-l2", "euclidean"):
        return slow_distance(query, key, distance.kind)
    return distance(query, key).item()  # tests/parts/distances has loops for these


def slow_loss(method: Method | Supervised, learner: Learner, views, labels: Tensor) -> float:
    """The equation of the method, pair by pair, nodes read from their text."""
    with torch.no_grad():
        if isinstance(method, Supervised):
            return supervised_loss(learner, views, labels)
        z = [learner.projector(learner.encoder(view)) for view in views]
        letters = {"z": z, "p": [learner.predictor(x) for x in z], "t": targets(method, learner, views, z)}
        functions = {"sg": lambda x: x, "p": learner.predictor, "inv": learner.inverse}

        def value(node: str, view: str | None = None) -> Tensor:
            name, bracket, inside = node.partition("(")
            if bracket:
                return functions[name](value(inside[:-1], view))
            return letters[name[0]][int(view or name[1]) - 1]

        return sum(
            p.weight * slow_term(method, value(p.query), value(p.key), value(p.query, p.key.strip(")")[-1]))
            for p in method.pairing
        )


@every_method
def test_the_loss_is_the_equation(name):
    own = settings(name)
    learner = build_learner(own, FACTS).double()
    views, labels = batch(count=24, views=count_of(own))
    views = tuple(view.double() for view in views)
    if (target := getattr(learner, "target", None)) is not None:
        for weight in target.parameters():  # apart from the online network, as after some steps
            weight.data.mul_(1.1).add_(0.01)
    expected = slow_loss(own.sentence, learner, views, labels)
    loss = learner(views, labels, torch.arange(len(labels))).loss.item()
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-9)


def take_step(learner: Learner, own: RunSettings, seed: int = 0, progress: float = 0.5) -> float:
    optimizer = build_optimizer(own.optimizer, learner)
    views, labels = batch(seed=seed, views=count_of(own))
    nodes = learner(views, labels, torch.arange(len(labels)))
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
def test_it_trains_and_resumes_exactly(name, tmp_path, quick, dying_at):
    """Two epochs of two steps, cut in the middle of the second, against the same without a cut."""
    own = settings(name, epochs=2, checkpoint_minutes=1e-9)
    result = run(own, tmp_path / "whole", show_progress=False)
    assert math.isfinite(result["loss"])
    assert result["diverged_at"] is None

    with dying_at(3):
        run(own, tmp_path / "cut", show_progress=False)
    again = run(own, tmp_path / "cut", resume=True, show_progress=False)
    assert again["loss"] == result["loss"]
    whole, cut = (contents(RunFolder(tmp_path / which).checkpoint) for which in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert len(whole) > 50
    assert [key for key in whole if not torch.equal(whole[key], cut[key])] == []
    assert list(RunFolder(tmp_path / "whole").rows())[-1]["step"] == 4
