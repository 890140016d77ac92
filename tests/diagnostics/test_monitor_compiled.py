"""The monitor on models that are compiled, wholly or in part."""

import shutil

import pytest
import torch
from monitor_readings import assert_same
from monitored_net import NAMES, distance, fresh, step_on, train, views

from stopgrad.diagnostics.monitor import Monitor


def whole(net, backend):
    return torch.compile(net, backend=backend)


def called_before(net, backend):
    call = torch.compile(net, backend=backend)
    call(*views(9)).backward()
    net.zero_grad()
    return call


def in_place(net, backend):
    net.compile(backend=backend)
    return net


def a_part(net, backend):
    net.projector = torch.compile(net.projector, backend=backend)
    return net


def a_part_in_place(net, backend):
    net.encoder.compile(backend=backend)
    return net


@pytest.fixture(scope="module")
def uncompiled():
    net = fresh()
    monitor = Monitor(every=2).attach(net, **NAMES)
    train(net, net)
    assert [reading.step for reading in monitor.readings] == [0, 2]
    return monitor.readings


def compiled_readings(how, backend, first="compile"):
    torch.compiler.reset()
    net, monitor = fresh(), Monitor(every=2)
    if first == "attach":
        monitor.attach(net, **NAMES)
        call = how(net, backend)
    else:
        call = how(net, backend)
        monitor.attach(call, **NAMES)
    train(net, call)
    return monitor.readings


@pytest.mark.parametrize("how", [called_before, in_place, a_part, a_part_in_place])
def test_a_compiled_model_reads_as_it_does_uncompiled(how, uncompiled):
    assert_same(compiled_readings(how, "eager"), uncompiled, rel=1e-6)


def test_compiled_after_the_monitor_is_attached(uncompiled):
    assert_same(compiled_readings(whole, "eager", first="attach"), uncompiled, rel=1e-6)


def test_a_whole_compiled_model_and_its_backward_pass(uncompiled):
    assert_same(compiled_readings(whole, "aot_eager"), uncompiled, rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a compiler")
def test_generated_code(uncompiled):
    assert_same(compiled_readings(whole, "inductor"), uncompiled, rel=1e-4)


def test_a_compiled_part_in_evaluation_mode_is_not_read():
    net = a_part(fresh(), "eager")
    monitor = Monitor(every=1).attach(net, **NAMES)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(*views(0)).backward()
    net.eval()
    net(*views(1))
    net.train()
    optimizer.step()
    alone = fresh()
    assert monitor.readings[0].scalars["view_distance"] == pytest.approx(distance(alone, *views(0)), rel=1e-5)


def test_looking_in_evaluation_mode_compiles_nothing():
    net, graphs = fresh(), []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    net.encoder.compile(backend=backend)
    monitor = Monitor(every=1).attach(net, **NAMES)
    loss = net(*views(0))
    made = len(graphs)
    assert made
    step_on(net, loss)
    assert "z_eval" in monitor.readings[0].nodes
    assert len(graphs) == made
