"""Compiled steps are the eager ones, and a compiler that fails costs a line."""

import copy
import functools
import logging

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from stopgrad.errors import UsageError
from stopgrad.training.build import DataFacts, build_learner, load_run
from stopgrad.training.checkpoint import load_checkpoint
from stopgrad.training.compiled import Compiled, check_compile
from stopgrad.training.distributed import make_fabric
from stopgrad.training.folder import RunFolder
from stopgrad.training.pretrain import complete, run
from stopgrad.training.progress import Progress
from stopgrad.training.settings import resolve
from stopgrad.training.trainer import Trainer

IMAGES = 24
compile_with_inductor = torch.compile


def refuse(graph, inputs):
    raise RuntimeError("no such\noperation")


def as_it_is(graph, inputs):
    return make_boxed_func(graph.forward)


class Counting:
    """A backend that changes nothing, and how often it was called."""

    calls = 0

    def __call__(self, graph, inputs):
        self.calls += 1
        return graph.forward


@pytest.fixture
def compiler(monkeypatch):
    """Have another backend than Inductor, which takes seconds."""

    def use(backend):
        monkeypatch.setattr(torch, "compile", functools.partial(compile_with_inductor, backend=backend))

    return use


def learner(method):
    settings = resolve({"data": {"name": "digits"}, "method": method})
    return build_learner(settings, DataFacts(1, (0,), (1,), tuple("abc"), 64)).double()


def views(step=0):
    generator = torch.Generator().manual_seed(step)
    return tuple(torch.rand(IMAGES, 1, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))


def compiled(net):
    return Compiled(net, "default", make_fabric("cpu", "fp32"), Progress(1, visible=False))


@pytest.mark.parametrize("method", ["byol", "simsiam"])
def test_a_compiled_step_is_the_eager_one(method):
    net = learner(method)
    twin = copy.deepcopy(net)
    names = [*net.state_dict()]
    code = compiled(net)
    for step in range(2):
        with code.in_place(views(step), None, None):
            nodes = net(views(step))
            nodes.loss.backward()
        expected = twin(views(step))
        expected.loss.backward()
        torch.testing.assert_close(nodes.loss, expected.loss, rtol=1e-9, atol=1e-9)
    assert code.mode == "default"
    for (name, w), other in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert (w.grad is None) == (other.grad is None), name
        if w.grad is not None:
            torch.testing.assert_close(w.grad, other.grad, rtol=1e-9, atol=1e-9, msg=name)
    assert [*net.state_dict()] == names
    torch.testing.assert_close(net.state_dict(), twin.state_dict(), rtol=1e-9, atol=1e-9)


def test_a_compiled_run_goes_on_with_the_same_bits(tiny, tmp_path, quick, same_state, dying_at):
    settings = tiny(method="byol", compile="default", checkpoint_minutes=1e-9, threads=1)
    whole = run(settings, tmp_path / "whole", show_progress=False)
    assert whole["compiled"] == "default"
    with dying_at(11):
        run(settings, tmp_path / "cut", show_progress=False)
    run(settings, tmp_path / "cut", resume=True, show_progress=False)
    same_state(*(RunFolder(tmp_path / name).checkpoint for name in ("whole", "cut")))
    with pytest.raises(UsageError, match=r"compile \('default' then, 'none' now\)"):
        run(settings.but(compile="none"), tmp_path / "cut", resume=True, show_progress=False)


@pytest.mark.parametrize("method", ["directpred", "supervised"])
def test_only_the_passes_of_training_are_compiled_and_once(
    method, tiny, tmp_path, compiler, quick, monkeypatch
):
    backend, seen = Counting(), []
    compiler(backend)
    write = Trainer._write_step_row

    def watching(self, *given):
        seen.append((self.side_by_side, copy.deepcopy(self.state.bare_learner)))
        write(self, *given)

    monkeypatch.setattr(Trainer, "_write_step_row", watching)
    settings = tiny(method=method, compile="default", threads=1, accumulate=2)
    run(settings, tmp_path / "compiled", show_progress=False)
    assert backend.calls == 1
    assert all(side_by_side is None and "branch" not in vars(net) for side_by_side, net in seen)
    run(settings.but(compile="none", threads=2), tmp_path / "plain", show_progress=False)
    own, plain = (
        load_checkpoint(RunFolder(tmp_path / name).checkpoint)["learner"] for name in ("compiled", "plain")
    )
    assert own.keys() == plain.keys()
    assert load_run(tmp_path / "compiled").step == 16


def test_views_without_a_gradient(tiny, tmp_path, compiler, quick):
    backend = Counting()
    compiler(backend)
    settings = tiny(method="simsiam", target={"kind": "expectation", "views": 3}, compile="default", epochs=1)
    assert run(settings, tmp_path, show_progress=False)["compiled"] == "default"
    assert backend.calls == 2


@pytest.mark.parametrize("direction", ["forth", "back"])
def test_where_compiling_fails_the_run_is_the_eager_one(direction, tiny, tmp_path, compiler, quick, capsys):
    compiler(refuse if direction == "forth" else aot_autograd(fw_compiler=as_it_is, bw_compiler=refuse))
    settings = tiny(method="byol", epochs=1, threads=2)
    run(settings, tmp_path / "eager", show_progress=False)
    before = capsys.readouterr().err
    summary = run(settings.but(compile="default"), tmp_path / "failed", show_progress=False)
    assert summary["compiled"] is None
    said = [line for line in capsys.readouterr().err.splitlines() if "compile" in line]
    logged = [x for x in (tmp_path / "failed" / "train.log").read_text().splitlines() if "compile" in x]
    assert "compile" not in before
    for lines in (said, logged):
        assert len(lines) == 1
        assert "compile: default failed, the run goes on eagerly: " in lines[0]
        assert "RuntimeError: no such operation" in lines[0]
        assert "TORCHDYNAMO" not in lines[0]
    eager, failed = (
        load_checkpoint(RunFolder(tmp_path / name).checkpoint)["learner"] for name in ("eager", "failed")
    )
    assert all(torch.equal(value, failed[name]) for name, value in eager.items())


def test_without_a_compiler_of_c(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    net = learner("simsiam")
    code = compiled(net)
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "false")}),
        caplog.at_level(logging.WARNING, logger="stopgrad"),
        code.in_place(views(), None, None),
    ):
        assert "branch" not in vars(net)
    assert code.mode is None
    assert "No working C++ compiler found" in caplog.text


def test_a_fault_of_the_caller_is_no_fault_of_the_compiler(compiler):
    compiler("eager")
    net = learner("byol")
    wrong = tuple(torch.rand(IMAGES, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    code = compiled(net)
    with pytest.raises(RuntimeError, match="channels"), code.in_place(wrong, None, None):
        net(wrong)


@pytest.mark.parametrize("mode", ["none", "default", "max-autotune"])
def test_modes_of_the_cpu(mode):
    check_compile(mode, "cpu", accumulate=2)


@pytest.mark.parametrize("mode", ["none", "default", "reduce-overhead", "max-autotune"])
def test_modes_of_cuda(mode):
    check_compile(mode, "cuda", accumulate=1)


@pytest.mark.parametrize(
    ("mode", "device", "accumulate", "message"),
    [
        ("reduce-overhead", "cpu", 1, "compile: reduce-overhead records CUDA graphs, the device is cpu"),
        ("reduce-overhead", "cuda", 2, "with accumulate 2 use default"),
        ("max-autotune", "cuda", 2, "with accumulate 2 use default"),
    ],
)
def test_modes_that_cannot_do_what_they_are_for(mode, device, accumulate, message):
    with pytest.raises(UsageError, match=message):
        check_compile(mode, device, accumulate)


def test_a_run_is_refused_before_anything_is_written(tiny, tmp_path):
    with pytest.raises(UsageError, match="reduce-overhead"):
        complete(tiny(compile="reduce-overhead", device="cpu"))
    with pytest.raises(UsageError, match="compile: input should be 'none', 'default'"):
        tiny(compile="fast")
