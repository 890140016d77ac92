"""The monitor as a callback of Lightning, for any LightningModule.

Needs ``pytorch_lightning`` or ``lightning``; the one that is loaded already is taken.
"""

import logging
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from stopgrad.diagnostics.monitor import Monitor
from stopgrad.errors import MissingExtra

log = logging.getLogger(__name__)


def _callback() -> Any:
    names = ["pytorch_lightning", "lightning.pytorch"]
    for name in [name for name in names if name in sys.modules] or names:
        if name in sys.modules or find_spec(name.partition(".")[0]):
            return import_module(name).Callback
    raise MissingExtra("stopgrad.lightning needs Lightning: pip install pytorch-lightning")


class MonitorCallback(_callback()):  # type: ignore[misc]
    """Attaches a monitor for the time of a fit and logs its measures and its verdict.

    Args:
        projector, predictor, encoder, target: names of submodules, see `Monitor.attach`.
        monitor: the monitor; a fresh one by default.

    Attributes:
        monitor: ask it for its ``verdict()`` during the fit or after.

    Example::

        callback = MonitorCallback(projector="projection_head", predictor="prediction_head")
        trainer = Trainer(callbacks=[callback])
    """

    def __init__(
        self,
        projector: str = "projector",
        predictor: str | None = None,
        encoder: str | None = None,
        target: str | tuple[str, ...] | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        super().__init__()
        self.monitor = Monitor() if monitor is None else monitor
        self._names: dict[str, Any] = {
            "projector": projector,
            "predictor": predictor,
            "encoder": encoder,
            "target": target,
        }
        self._seen = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach."""
        self.monitor.attach(pl_module, **self._names)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what was read since the last batch."""
        if len(self.monitor.readings) > self._seen:
            self._seen = len(self.monitor.readings)
            reading = self.monitor.readings[-1]
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            if loss is not None:  # there is none where the module steps by itself
                own = torch.as_tensor(loss).detach().clone()  # it is reduced in place
                reading = self.monitor.remember_loss(float(trainer.strategy.reduce(own, reduce_op="mean")))
            row = {f"monitor/z_{name}": reading.nodes["z"].get(name) for name in ("std", "effective_rank")}
            pl_module.log_dict({name: value for name, value in row.items() if value is not None})

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Warn when the run is not healthy."""
        if self.monitor.readings and (found := self.monitor.verdict()).verdict != "healthy":
            fix = f"; first to change: {found.fixes[0].change}" if found.fixes else ""
            log.warning("%s since step %s%s", found.verdict, found.first_bad_step, fix)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach: the end of the fit does not come."""
        self.monitor.detach()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        self.monitor.detach()
