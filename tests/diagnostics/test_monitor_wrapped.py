"""The monitor on models that are compiled, run in half precision, spread over ranks, or stepped unusually."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from stopgrad.diagnostics import alignment
from stopgrad.diagnostics.diagnosis import Reading
from stopgrad.diagnostics.monitor import Monitor
from stopgrad.diagnostics.statistics import VectorStatistics
from stopgrad.lightning import MonitorCallback

SCRIPT = Path(__file__).with_name("monitor_ranks.py")
SPEC = importlib.util.spec_from_file_location("monitor_ranks", SCRIPT)
ranks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ranks)
NAMES, fresh, views, loss_of = ranks.NAMES, ranks.fresh, ranks.views, ranks.loss_of


def numbers(reading):
    """All that was read, by name."""
    nodes = {f"{node}.{name}": value for node, own in reading.nodes.items() for name, value in own.items()}
    return nodes | reading.scalars | ({} if reading.loss is None else {"loss": reading.loss})


def assert_same(found, expected, **near):
    assert [reading.step for reading in found] == [reading.step for reading in expected]
    for one, other in zip(found, expected, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), **near)


def assert_same_in_half(found, expected):
    """Up to a few roundings by 2^-8; the decay of a spectrum's smallest values is made of roundings alone."""
    for reading in (*found, *expected):
        for node in reading.nodes.values():
            del node["alpha_req"]
    assert_same(found, expected, rel=0.04, abs=2e-3)


# torch.compile


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
    ranks.train(net, net)
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
    ranks.train(net, call)
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


def distance(net, x1, x2):
    with torch.no_grad():
        z1, z2 = (net.projector(net.encoder(x)) for x in (x1, x2))
        return float(alignment(z1, z2))


# half precision


@pytest.mark.parametrize("stops", [True, False])
def test_autocast_reads_what_single_precision_does(stops):
    monitors = []
    for half in (False, True):
        net, attached, stepped = fresh(stops), Monitor(every=1), Monitor(every=1)
        attached.attach(net, **NAMES)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            nodes = net.nodes(*views(0))
            loss = loss_of(*(x.float() for x in nodes[2:]))
        assert nodes[0].dtype == (torch.bfloat16 if half else torch.float32)
        loss.backward()
        stepped.step(*nodes, loss=loss, model=net)
        optimizer.step()
        monitors.append((attached, stepped))
    for single, half in zip(*monitors, strict=True):
        assert_same_in_half(half.readings, single.readings)
        assert half.readings[0].scalars["target_gradient"] == float(not stops)
    assert {"z", "p", "z_eval"} == monitors[1][0].readings[0].nodes.keys()


def test_images_in_half_precision_are_evaluated_under_autocast():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    with torch.autocast("cpu", torch.bfloat16):
        net(*views(0, torch.bfloat16)).backward()  # the weights are float32
    torch.optim.SGD(net.parameters(), lr=0.0).step()
    own = numbers(monitor.readings[0])
    assert own["z_eval.std"] == pytest.approx(own["z.std"], rel=0.2)


def test_a_predictor_that_runs_more_than_once_is_no_leak_in_half_precision():
    net = fresh()
    monitor = Monitor(every=1).attach(net, projector="projector", predictor="predictor")
    with torch.autocast("cpu", torch.bfloat16):
        z = [net.projector(net.encoder(x)) for x in views(0)]
        p = [net.predictor(z[i % 2]) * (i + 1) for i in range(10)]
    torch.stack(p).float().square().mean().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert monitor.readings[0].scalars["target_gradient"] == 0


def test_float16_with_large_norms():
    z = 500 * torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
    z = z.half()
    assert z.norm(dim=-1).min() > 256
    assert z.square().isinf().any()
    found, expected = (Monitor(every=1).step(*x, *x) for x in (z, z.float()))
    assert numbers(found) == pytest.approx(numbers(expected), rel=1e-6)
    assert all(map(math.isfinite, numbers(found).values()))
    assert numbers(found)["z.norm"] > 256


@pytest.mark.parametrize("stops", [True, False])
def test_float16_gradients_whose_norm_overflows(stops):
    net = fresh(stops, torch.float16)
    monitor = Monitor(every=1).attach(net, **NAMES)
    _, _, p1, p2, t1, t2 = net.nodes(*views(0, torch.float16))
    (2e4 * ((p1 - t2).sum() + (p2 - t1).sum())).backward()
    torch.optim.SGD(net.parameters(), lr=0.0).step()
    assert monitor.readings[0].scalars["target_gradient"] == float(not stops)


def scaled_steps(device):
    """Three steps of which the second overflows, and what was read."""
    net, scaler = fresh().to(device), torch.amp.GradScaler(device, init_scale=2.0**10)
    monitor = Monitor(every=1).attach(net, **NAMES)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step, size in enumerate((1.0, torch.inf, 1.0)):
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16 if device == "cuda" else torch.bfloat16):
            loss = net(*(x.to(device) for x in views(step)))
        scaler.scale(loss * size).backward()
        scaler.step(optimizer)
        scaler.update()
    return monitor.readings


@pytest.mark.parametrize("device", [
    "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")),
])  # fmt: skip
def test_a_step_that_the_scaler_leaves_out(device):
    readings = scaled_steps(device)
    other = fresh()
    expected = Monitor(every=1).attach(other, **NAMES)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for step in (0, 2):
        optimizer.zero_grad()
        other(*views(step)).backward()
        optimizer.step()
    assert_same_in_half(readings, expected.readings)  # gradients too: they are unscaled by then


# views, parts of a batch, optimisers


def seen(monitor):
    return monitor.readings[-1].scalars.get("view_distance")


def test_accumulation_reads_the_last_part():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    ranks.train(net, net, steps=1, parts=3)
    assert len(monitor.readings) == 1
    assert seen(monitor) == pytest.approx(distance(fresh(), *views(2)), rel=1e-5)


def test_parts_do_not_pile_up():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    for part in range(4):
        net(*views(part)).backward()
        assert len(monitor._attached._views) == 2


def step_on(net, loss):
    loss.backward()
    torch.optim.SGD(net.parameters(), lr=0.0).step()


def test_of_several_views_two_of_one_size_are_read():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    large, small = views(0), views(1, count=20)
    z = [net.projector(net.encoder(x)) for x in (large[0], small[0], large[1], *small, *large)]
    step_on(net, sum(net.predictor(x).square().mean() for x in z))
    assert seen(monitor) == pytest.approx(distance(net, *large), rel=1e-5)
    assert monitor.readings[0].scalars["batch"] == 48


def test_predictions_belong_to_their_views():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    z1, z2 = (net.projector(net.encoder(x)) for x in views(0))
    p2, p1 = net.predictor(z2), net.predictor(z1)
    step_on(net, loss_of(p1, p2, z1.detach(), z2.detach()))
    found = monitor.readings[0].scalars["prediction_distance"]
    assert found == pytest.approx(float(alignment(z1, p1).detach()), rel=1e-5)


def test_predictions_of_something_else_than_z():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    z = [net.projector(net.encoder(x)) for x in views(0)]
    p = [net.predictor(functional.normalize(x, dim=-1)) for x in z]
    step_on(net, loss_of(*p, *(x.detach() for x in z)))
    statistics = VectorStatistics(ranks.DIM)
    statistics.update(p[0])
    assert monitor.readings[0].nodes["p"]["std"] == pytest.approx(statistics.compute()["std"], rel=1e-5)


def test_a_target_by_the_same_projector_is_no_view():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    nodes = []
    for x in views(0):
        with torch.no_grad():
            t = net.projector(net.encoder(x))
            net.predictor(t)
        z = net.projector(net.encoder(x))
        with torch.no_grad():
            net.predictor(z)
        nodes.append((net.predictor(z), t))
    (p1, t1), (p2, t2) = nodes
    step_on(net, loss_of(p1, p2, t1, t2))
    assert seen(monitor) == pytest.approx(distance(net, *views(0)), rel=1e-5)
    assert monitor.readings[0].scalars["target_gradient"] == 0


def test_views_that_pass_as_one_batch():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    for part in range(2):  # accumulated: two batches are not two views
        z = net.projector(net.encoder(torch.cat(views(part))))
        net.predictor(z).square().mean().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert seen(monitor) is None
    assert monitor.readings[0].nodes["z"]["count"] == 96
    assert monitor.readings[0].nodes["p"]["count"] == 96


def test_two_optimisers_make_one_step():
    net = fresh()
    monitor = Monitor(every=2).attach(net, **NAMES)
    parts = [
        torch.optim.SGD(part.parameters(), lr=0.1) for part in (net.encoder, net.projector, net.predictor)
    ]
    for step in range(5):
        net(*views(step)).backward()
        for optimizer in parts:
            optimizer.step()
    assert [reading.step for reading in monitor.readings] == [0, 2, 4]


def test_a_graph_that_is_walked_twice_is_no_leak():
    net = fresh()
    monitor = Monitor(every=1).attach(net, **NAMES)
    _, _, p1, p2, t1, t2 = net.nodes(*views(0))
    functional.mse_loss(p1, t2).backward(retain_graph=True)
    step_on(net, functional.mse_loss(p1, t2) + functional.mse_loss(p2, t1))
    assert monitor.readings[0].scalars["target_gradient"] == 0


def test_an_encoder_that_does_not_feed_the_projector_directly():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.projector = nn.Conv1d(1, 4, 3), nn.Linear(4, 4)

        def forward(self, x):
            return self.projector(self.encoder(x[:, None]).mean(2))

    net = Pooled()
    monitor = Monitor(every=1).attach(net, encoder="encoder")
    step_on(net, sum(net(x).square().mean() for x in views(0)))
    assert "z_eval" not in monitor.readings[0].nodes


def test_a_network_in_double_precision():
    net = fresh(dtype=torch.float64)
    monitor = Monitor(every=1).attach(net, **NAMES)
    step_on(net, net(*views(0, torch.float64)))
    assert monitor.readings[0].scalars["gradient_norm_encoder"] > 0


# names


def test_names_through_wrappers():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    net = fresh()
    inner = torch.compile(net, backend="eager")
    for model in (net, inner, Wrapper(net), Wrapper(inner), torch.compile(Wrapper(net), backend="eager")):
        for prefix in ("", "module.", "_orig_mod.", "module._orig_mod."):
            monitor = Monitor().attach(model, projector=f"{prefix}projector", encoder=f"{prefix}encoder.0")
            assert monitor._attached.projector is net.projector
            assert monitor._attached.encoder is net.encoder[0]
            monitor.detach()
    part = a_part(fresh(), "eager")
    assert Monitor().attach(part)._attached.projector is part.projector._orig_mod
    with pytest.raises(ValueError, match="no submodule 'head'; its children are encoder, projector, pred"):
        Monitor().attach(inner, projector="head")


def test_an_exact_name_comes_first():
    net = fresh()
    net.module = nn.ModuleDict({"projector": nn.Linear(2, 2)})
    for name in ("projector", "module.projector"):
        monitor = Monitor().attach(net, projector=name)
        assert monitor._attached.projector is net.get_submodule(name)
        monitor.detach()


# the loss


Out = namedtuple("Out", "z loss")


@pytest.mark.parametrize(("form", "known"), [
    (lambda loss, z: loss, True),
    (lambda loss, z: {"z": z, "loss": loss}, True),
    (lambda loss, z: Out(z, loss), True),
    (lambda loss, z: SimpleNamespace(z=z, loss=loss), True),
    (lambda loss, z: (loss, z), True),
    (lambda loss, z: (z, loss), False),
    (lambda loss, z: {"z": loss}, False),
    (lambda loss, z: z * loss, False),
    (lambda loss, z: {"loss": loss.expand(3)}, False),
])  # fmt: skip
def test_a_loss_that_the_model_returns(form, known):
    class Own(ranks.Net):
        def forward(self, x1, x2):
            z1, _, p1, p2, t1, t2 = self.nodes(x1, x2)
            self.loss = loss_of(p1, p2, t1, t2)
            return form(self.loss, z1)

    net = Own()
    monitor = Monitor(every=1).attach(net, **NAMES)
    net(*views(0))
    loss = net.loss
    net.eval()
    net(*views(1))
    net.train()
    step_on(net, loss)
    assert monitor.readings[0].loss == (float(loss.detach()) if known else None)


# Lightning


class Lit(LightningModule):
    def __init__(self, manual=False, fails=False):
        super().__init__()
        self.net, self.fails = fresh(), fails
        self.automatic_optimization = not manual

    def forward(self, x1, x2):
        return self.net(x1, x2)

    def training_step(self, batch, index):
        if self.fails:
            raise ArithmeticError("on purpose")
        loss = self(*batch)
        if self.automatic_optimization:
            return loss
        self.manual_backward(loss)
        self.optimizers().step()
        self.optimizers().zero_grad()
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def fit(module, callback=None, **changes):
    names = {role: f"net.{name}" for role, name in NAMES.items()}
    callback = callback or MonitorCallback(**names, monitor=Monitor(every=1))
    trainer = Trainer(
        max_epochs=1, callbacks=[callback], logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, **changes,
    )  # fmt: skip
    trainer.fit(module, DataLoader([views(step) for step in range(4)], batch_size=None))
    return callback


def test_lightning_in_half_precision_with_accumulation():
    whole, half = (
        fit(Lit(), accumulate_grad_batches=2, precision=p).monitor for p in ("32-true", "bf16-mixed")
    )
    assert len(whole.readings) == 2
    assert_same_in_half(half.readings, whole.readings)
    assert all(-1 <= reading.loss <= 1 for reading in whole.readings)


def test_a_compiled_lightning_module():
    plain, compiled = (fit(f(Lit())) for f in (lambda x: x, lambda x: torch.compile(x, backend="eager")))
    assert len(plain.monitor.readings) == 4
    assert_same(compiled.monitor.readings, plain.monitor.readings, rel=1e-6)


def test_a_lightning_module_that_steps_by_itself_keeps_the_loss_it_returned():
    by_itself, plain = fit(Lit(manual=True)).monitor, fit(Lit()).monitor
    assert_same(by_itself.readings, plain.readings, rel=1e-6)
    assert all(reading.loss is not None for reading in by_itself.readings)


def test_a_fit_that_fails_leaves_the_callback_ready_for_the_next():
    names = {role: f"net.{name}" for role, name in NAMES.items()}
    callback = MonitorCallback(**names, monitor=Monitor(every=1))
    with pytest.raises(ArithmeticError):
        fit(Lit(fails=True), callback)
    fit(Lit(), callback)
    assert len(callback.monitor.readings) == 4


def test_the_loss_in_lightning_is_that_of_all_ranks():
    net, callback = fresh(), MonitorCallback(**NAMES, monitor=Monitor(every=1))
    net.log_dict = lambda row: None
    own = torch.tensor(0.5)

    def reduce(tensor, reduce_op):  # in place, as Lightning's
        assert reduce_op == "mean"
        return tensor.add_(1).div_(2)

    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=reduce))
    callback.on_fit_start(trainer, net)
    step_on(net, net(*views(0)))
    callback.on_train_batch_end(trainer, net, {"loss": own}, None, 0)
    assert callback.monitor.readings[0].loss == 0.75
    assert own == 0.5


# ranks


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two gloo processes read, by scenario, and the folder that they wrote to."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, folder, str(rank)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    return *(json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)), folder


@pytest.mark.parametrize("name", [*ranks.JOINT, *ranks.RANKS])
def test_both_ranks_read_the_same(name, two_ranks):
    first, second, _ = two_ranks
    assert first[name] == second[name]
    assert len(first[name]) >= 2


@pytest.mark.parametrize("name", ranks.JOINT)
def test_two_ranks_read_what_one_process_reads_of_the_joint_batch(name, two_ranks):
    alone = ranks.JOINT[name](None)
    assert len(alone) == ranks.STEPS
    for found, expected in zip(two_ranks[0][name], alone, strict=True):
        whole, joint = flattened(found), flattened(expected)
        # the mean of what each rank sees around its own centre
        assert whole.pop("sigma2", 0) == pytest.approx(joint.pop("sigma2", 0), rel=0.2)
        assert whole == pytest.approx(joint, rel=1e-4, abs=1e-6)
    assert all(reading[3]["batch"] == reading[1]["z"]["count"] for reading in two_ranks[0][name])
    assert all((reading[2] is None) == (name == "unequal") for reading in alone)


def flattened(reading):
    step, nodes, loss, scalars = reading
    return numbers(Reading(step, nodes, loss, scalars)) | {"step": step}


def test_a_leak_on_one_rank_is_seen_on_all(two_ranks):
    for results in two_ranks[:2]:
        assert all(reading[3]["target_gradient"] == 1 for reading in results["leak_on_one_rank"])
        assert all(reading[3]["target_gradient"] == 0 for reading in results["attached_first"])


def test_only_the_first_rank_writes(two_ranks):
    written = sorted(path.name for path in two_ranks[2].glob("*.jsonl"))
    assert written == ["attached_first-0.jsonl", "by_step-0.jsonl"]
    assert all(len((two_ranks[2] / name).read_text().splitlines()) == ranks.STEPS for name in written)
