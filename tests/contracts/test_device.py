"""A training step on an accelerator: nothing lies on two devices, and nothing waits for what is computed.

The meta device stands in for the accelerator. It refuses to give a value back to Python, as `item`, `nonzero`
and a mask as an index do, which is where an accelerator's queue would run empty. A dispatch mode refuses what
the meta device lets pass: operations on tensors of two devices, and copies that wait.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stopgrad.catalog import CATALOG
from stopgrad.data import batches
from stopgrad.data.batches import Batches
from stopgrad.data.sources import ArrayPart
from stopgrad.data.views import preset
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.online import OnlineProbe
from stopgrad.training.optimizer import build_optimizer
from stopgrad.training.settings import resolve
from stopgrad.training.state import TrainState
from stopgrad.training.trainer import Trainer

META = torch.device("meta")
SIZE, IMAGES, BATCH = 8, 48, 24


class NeverWaits(TorchDispatchMode):
    """Raises where tensors of two devices meet, but for a copy that does not wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)}
        if len(devices) > 1 and not (kwargs or {}).get("non_blocking"):
            raise RuntimeError(f"{func}: between {sorted(devices)}")
        return out


def images(channels, size):
    pixels = torch.zeros(IMAGES, channels, size, size, dtype=torch.uint8)
    return ArrayPart(pixels, torch.arange(IMAGES) % 4, [str(i) for i in range(IMAGES)])


def trainer(settings):
    """As `Session` makes one, but on the meta device, and of a step alone."""
    facts = DataFacts(1, (0.3,), (0.25,), tuple("abcd"), images=IMAGES)
    fabric = Fabric(accelerator="cpu")
    bare = build_learner(settings, facts).to(META).train()
    probe = OnlineProbe(bare.encoder.width, 4).to(META)
    state = TrainState(
        *fabric.setup(bare, build_optimizer(settings.optimizer, bare), move_to_device=False),
        *fabric.setup(probe, torch.optim.AdamW(probe.parameters()), move_to_device=False),
        META,
    )
    own = Batches(
        images(1, SIZE), settings.make_views(), BATCH, seed=0, device=META,
        count=getattr(settings.sentence, "views", 2),
    )  # fmt: skip
    without = dict.fromkeys(("folder", "evaluate", "metrics", "monitor"))
    return Trainer(
        settings=settings, facts=facts, fabric=fabric, state=state, batches=own, normalise=lambda x: x - 0.3,
        progress=SimpleNamespace(advance=lambda images: None), **without,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [*({"method": name} for name in CATALOG), {"accumulate": 2}, {"optimizer": {"clip": 1.0}}],
    ids=lambda changes: " ".join(str(value) for value in changes.values()),
)
def test_a_step_never_waits(changes, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: nullcontext())  # which the meta device has not
    tiny = {
        "recipe": "digits-smoke", "view_size": SIZE, "projector": {"hidden": (16,), "out": 8},
        "batch_size": BATCH, "precision": "fp32",
    }  # fmt: skip
    own = trainer(resolve({"method": "byol", **tiny, **changes}))
    for batch in own.batches.epoch(0):
        with NeverWaits():
            nodes, _ = own._step(batch)
        assert nodes.loss.device == META
    assert own.state.step == 2


@pytest.mark.parametrize("resident", [True, False], ids=["on the device", "in memory"])
@pytest.mark.parametrize("name", ["digits", "simclr-32", "simclr-96", "byol-224"])
def test_views_are_never_waited_for(name, resident, monkeypatch):
    monkeypatch.setattr(batches, "ON_DEVICE", 2**30 if resident else 0)
    views, channels = preset(name), 1 if name == "digits" else 3
    own = Batches(images(channels, views.size), views, BATCH, seed=0, device=META)
    crops = torch.zeros(BATCH, 2, channels, views.size, views.size, dtype=torch.uint8, device=META)
    for epoch in range(2):
        with NeverWaits() if epoch else nullcontext():  # the first one fills the caches
            for batch in own.epoch(epoch):
                assert {view.device for view in (*batch.views, batch.labels)} == {META}
                views.finish(crops, batch.index, seed=0, epoch=epoch)
