"""Both views at once are both views one after the other."""

import copy
import threading
from types import SimpleNamespace

import pytest
import torch

from stopgrad.catalog import CATALOG
from stopgrad.data.batches import Batches
from stopgrad.data.sources import DataSettings, load_dataset
from stopgrad.data.views import preset
from stopgrad.method import Method
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.distributed import make_fabric
from stopgrad.training.folder import RunFolder
from stopgrad.training.precision import resolve_threads
from stopgrad.training.pretrain import run
from stopgrad.training.settings import read_yaml, resolve
from stopgrad.training.side_by_side import SideBySide, TwoThreads, runs_side_by_side
from stopgrad.training.trainer import Trainer

IMAGES = 24
LABELS, INDICES = torch.arange(IMAGES) % 3, torch.arange(IMAGES)
# a loss that runs the predictor again, or needs more views, goes another way (`runs_side_by_side`)
TAKEN = [
    name
    for name, entry in CATALOG.items()
    if not (isinstance(entry.method, Method) and (entry.method.calls_predictor or entry.method.views > 2))
]


class FirstThenSecond:
    """In the caller's thread alone."""

    def map(self, function, *pairs):
        first, second = zip(*pairs, strict=True)
        return function(*first), function(*second)


class SecondThenFirst:
    def map(self, function, *pairs):
        first, second = zip(*pairs, strict=True)
        own = function(*second)
        return function(*first), own


def learner(**settings):
    return build_learner(
        resolve({"data": {"name": "digits"}, **settings}), DataFacts(1, (0,), (1,), tuple("abc"), 64)
    )


def views(step=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(step)
    return tuple(torch.rand(IMAGES, 1, 16, 16, generator=generator, dtype=dtype) for _ in range(2))


def beside(net, threads=None, precision="fp32"):
    return SideBySide(net, make_fabric("cpu", precision, devices=1), threads or TwoThreads())


def optimizer(net):
    return torch.optim.SGD([w for w in net.parameters() if w.requires_grad], lr=0.1, momentum=0.9)


def train(net, computing, steps=3, dtype=torch.float64):
    """Steps with a way of computing the gradients; returns the gradients of the last one and the nodes."""
    own = optimizer(net)
    for step in range(steps):
        own.zero_grad()
        nodes = computing(views(step, dtype))
        gradients = {name: None if w.grad is None else w.grad.clone() for name, w in net.named_parameters()}
        own.step()
        net.after_step(nodes, step / steps)
    return gradients, nodes


def one_after_the_other(net):
    def computing(pair):
        nodes = net(pair, LABELS, INDICES)
        nodes.loss.backward()
        return nodes

    return computing


def assert_close(found, expected, tolerance=1e-9):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] is None) == (value is None), name
        if value is not None:
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("method", TAKEN)
def test_steps_are_those_of_one_view_after_the_other(method):
    net = learner(method=method).double()
    twin = copy.deepcopy(net)
    both = beside(net)
    gradients, nodes = train(net, lambda pair: both(pair, LABELS, parts=1, indices=INDICES))
    expected, plain = train(twin, one_after_the_other(twin))
    assert_close(gradients, expected)
    assert_close(net.state_dict(), twin.state_dict())
    torch.testing.assert_close(nodes.loss, plain.loss)
    for row, of_plain in zip(nodes[1:5], plain[1:5], strict=True):
        for x, y in zip(row, of_plain, strict=True):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient": "straight-through"},
        {"method": "simsiam", "pairing": [{"query": "p2", "key": "t1", "weight": 1}]},
        {"method": "simsiam-nosg", "pairing": [{"query": "z1", "key": "z2", "weight": 1}]},
        {"predictor": {"kind": "spectral", "freq": 2}},
        {"target": {"kind": "same", "stop_gradient": False}, "predictor": {"kind": "identity"}},
    ],
)
def test_other_sentences(changes):
    net = learner(**changes).double()
    twin = copy.deepcopy(net)
    both = beside(net)
    gradients, _ = train(net, lambda pair: both(pair, None, parts=1))
    expected, _ = train(twin, one_after_the_other(twin))
    assert_close(gradients, expected)
    assert_close(net.state_dict(), twin.state_dict())


def test_accumulated_parts_add_up():
    net = learner(method="byol").double()
    twin = copy.deepcopy(net)
    both = beside(net)
    for step in range(3):
        both(views(step), None, parts=3)
        (twin(views(step)).loss / 3).backward()
    assert_close(
        {name: w.grad for name, w in net.named_parameters()},
        {name: w.grad for name, w in twin.named_parameters()},
    )


@pytest.mark.parametrize("method", ["byol", "simsiam-nosg", "directpred", "supervised"])
def test_no_bit_depends_on_the_order_of_the_threads(method):
    states = []
    for threads in (TwoThreads(), FirstThenSecond(), SecondThenFirst()):
        net = learner(method=method)
        both = beside(net, threads)

        def computing(pair, both=both):
            both(tuple(x.flip(0) for x in pair), LABELS, parts=2)
            return both(pair, LABELS, parts=2)

        gradients, _ = train(net, computing, steps=4, dtype=torch.float32)
        states.append(
            net.state_dict() | {f"{name}.grad": g for name, g in gradients.items() if g is not None}
        )
    for other in states[1:]:
        assert all(torch.equal(value, other[name]) for name, value in states[0].items())


def test_the_learner_alone_holds_the_state():
    net = learner(method="byol")
    names = [*net.state_dict()]
    both = beside(net)
    both(views(dtype=torch.float32), None, parts=1)
    assert [*net.state_dict()] == names
    assert all(own is other for own, other in zip(net.parameters(), both.twin.parameters(), strict=True))


def test_the_twin_reads_the_buffers_that_closed_forms_move():
    net = learner(method="directpred")
    twins = dict(beside(net).twin.named_buffers())
    shared = {name for name, buffer in net.named_buffers() if twins.get(name) is buffer}
    assert shared == {f"predictor.{name}" for name, _ in net.predictor.named_buffers()}
    assert shared


def test_a_thread_for_each_view():
    seen = []
    TwoThreads().map(lambda x: seen.append((x, threading.current_thread())), (1, 2))
    where = dict(seen)
    assert where[2] is threading.main_thread()
    assert where[1] is not where[2]


def test_a_thread_has_one_thread_for_an_operation():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = TwoThreads().map(lambda _: torch.get_num_threads(), (1, 2))
    finally:
        torch.set_num_threads(before)
    assert found[0] == 1


def test_a_fault_in_either_view_is_raised():
    both = beside(learner(method="byol"))
    good, bad = views(dtype=torch.float32)[0], torch.rand(16, 3, 16, 16)
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(RuntimeError, match="channels"):
            both(pair, None, parts=1)


def test_precision_holds_in_both_threads():
    seen = []
    net = learner(method="byol")
    net.encoder.body[0].register_forward_hook(lambda *given: seen.append(given[2].dtype))
    both = beside(net, precision="bf16")
    nodes = both(views(dtype=torch.float32), None, parts=1)
    assert seen == 2 * [torch.bfloat16]
    assert nodes.loss.dtype == torch.float32
    assert all(w.grad.dtype == torch.float32 for w in net.encoder.parameters())


def test_views_are_made_at_once_with_the_same_bits():
    part = load_dataset(DataSettings(name="digits", limit=256)).train
    plain, both = (
        Batches(part, preset("digits"), 64, seed=3, **given) for given in ({}, {"each": TwoThreads().map})
    )
    for one, other in zip(plain.epoch(1, start=1), both.epoch(1, start=1), strict=True):
        assert torch.equal(one.index, other.index)
        assert all(torch.equal(x, y) for x, y in zip(one.views, other.views, strict=True))


def test_threads_that_auto_stands_for():
    assert resolve_threads("auto", "cpu", "convnet-s") == 1
    assert resolve_threads("auto", "cpu", "resnet18") == torch.get_num_threads()
    assert resolve_threads("auto", "cuda", "convnet-s") == torch.get_num_threads()
    assert resolve_threads(5, "cpu", "convnet-s") == 5


@pytest.mark.parametrize(
    ("changes", "device", "processes", "expected"),
    [
        ({"threads": 1}, "cpu", 1, True),
        ({"threads": 2}, "cpu", 1, False),
        ({"threads": 1}, "cpu", 2, False),
        ({"threads": 1}, "cuda", 1, False),
        ({"threads": 1, "encoder": {"name": "resnet18"}}, "cpu", 1, False),
        ({"threads": 1, "compile": "default"}, "cpu", 1, False),
    ],
)
def test_which_runs_go_side_by_side(changes, device, processes, expected, tiny):
    fabric = SimpleNamespace(device=torch.device(device), world_size=processes)
    assert runs_side_by_side(tiny(**changes), fabric) == expected


@pytest.mark.parametrize(("threads", "at_once"), [("auto", True), (1, True), (2, False)])
def test_a_run_takes_its_threads_and_gives_them_back(threads, at_once, tiny, tmp_path, monkeypatch):
    seen = []
    step = Trainer._step

    def watching(self, batch):
        seen.append((torch.get_num_threads(), self.side_by_side is not None))
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", watching)
    monkeypatch.setattr("stopgrad.training.pretrain.evaluate_run", lambda *a, **k: dict(k))
    before = torch.get_num_threads()
    run(tiny(method="byol", threads=threads, epochs=1), tmp_path, show_progress=False)
    count = 1 if threads == "auto" else threads
    assert set(seen) == {(count, at_once)}
    assert torch.get_num_threads() == before
    assert read_yaml(RunFolder(tmp_path).config)["threads"] == count


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_step_leaves_to_read_is_float32(threads, tiny, tmp_path, monkeypatch):
    seen = set()
    monkeypatch.setattr("stopgrad.training.pretrain.evaluate_run", lambda *a, **k: dict(k))
    monkeypatch.setattr(
        Trainer,
        "_train_probe",
        lambda self, nodes, _: seen.update(x.dtype for row in nodes[1:5] for x in row),
    )
    run(tiny(method="byol", precision="bf16", threads=threads, epochs=1), tmp_path, show_progress=False)
    assert seen == {torch.float32}


def test_a_run_at_once_is_the_run_one_after_the_other(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("stopgrad.training.pretrain.evaluate_run", lambda *a, **k: dict(k))
    rows = []
    for threads in (1, 2):
        folder = RunFolder(tmp_path / str(threads))
        settings = tiny(method="byol", threads=threads, optimizer={"lr": 0.01})
        run(settings, folder.path, show_progress=False)
        rows.append([row["loss"] for row in folder.rows() if row["kind"] == "step"])
    assert rows[0] == pytest.approx(rows[1], abs=2e-3)  # rounding grows from step to step
