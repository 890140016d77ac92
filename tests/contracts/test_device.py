"""On an accelerator: a training step waits for nothing, and all comes out as on the CPU.

For the first the meta device stands in. It refuses to give a value back to Python, as `item`, `nonzero` and a
mask as an index do, which is where an accelerator's queue would run empty; a dispatch mode refuses what the
meta device lets pass, operations on tensors of two devices and copies that wait. For the second
`accelerator.py` does.
"""

import json
import math
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
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
SCRIPT = Path(__file__).with_name("accelerator.py")
ALIKE = ["byol-lp", "directpred", "simsiam-moving-average", "watched"]
"""A moving target, a predictor without gradients, a memory of images, and a monitor in somebody's loop."""
IMAGE = 1 / 1024
"""Share of a test image: one on the border between two classes falls on either side of a float32 probe's."""
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


def compared(folder, names):
    """What the script writes: results on the CPU and on the accelerator, by name."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *names], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return compared(tmp_path_factory.mktemp("accelerator"), ALIKE)


def differences(found, expected, place=""):
    """Where two nested results differ by more than rounding, but for times and places."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key in expected.keys() - {"seconds", "images_per_second", "run"}:
            yield from differences(found[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            yield from differences(a, b, f"{place}.{i}")
    elif isinstance(expected, float):
        probed = place.rpartition(".")[2].startswith("linear_probe")
        if not math.isclose(found, expected, rel_tol=1e-3, abs_tol=IMAGE if probed else 1e-5):
            yield f"{place}: {found} and {expected}"
    elif found != expected:
        yield f"{place}: {found} and {expected}"


@pytest.mark.parametrize("name", ALIKE)
def test_all_is_as_on_the_cpu(name, results):
    assert not list(differences(results["accelerator"][name], results["cpu"][name]))


@pytest.mark.slow
def test_every_method_and_the_theory_are_as_on_the_cpu(tmp_path):
    found = compared(tmp_path, [*CATALOG, "solved"])
    assert not list(differences(found["accelerator"], found["cpu"]))
