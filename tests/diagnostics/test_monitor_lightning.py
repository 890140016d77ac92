"""The monitor as a callback of Lightning."""

from types import SimpleNamespace

import pytest
import torch
from monitor_readings import assert_same, assert_same_in_half
from monitored_net import NAMES, fresh, step_on, views
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from stopgrad.diagnostics.monitor import Monitor
from stopgrad.lightning import MonitorCallback


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
