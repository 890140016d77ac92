"""An accelerator that no machine has: tensors on a device of their own, whose values the CPU computes.

What a run, a monitor or the theory does on another device can be seen here without one: an operation on
tensors of two devices raises, as CUDA has it, and numbers can be compared with the CPU's. PyTorch lends a
device to a backend written in Python once a process, before anything is differentiated in it: so
`test_device.py` runs this file in a process of its own.

python tests/contracts/accelerator.py OUT (METHOD | watched | solved)...
"""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from stopgrad import jobs
from stopgrad.diagnostics.monitor import Monitor
from stopgrad.losses import byol_loss
from stopgrad.networks.encoders import Encoder
from stopgrad.postmortem.diagnose import diagnose
from stopgrad.theory.sweep import sweep
from stopgrad.training.build import build_learner
from stopgrad.training.pretrain import run
from stopgrad.training.settings import resolve

DEVICE = torch.device("cpu")  # until it is there
aten = torch.ops.aten
BETWEEN = {
    aten._to_copy.default, aten.copy_.default,
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
}  # fmt: skip
"""Operations that take tensors of two devices: a copy, and indices on the CPU."""
FROM_PYTHON = (torch.tensor, torch.as_tensor, torch.asarray)


class Module(backend_registration._DummyBackendModule):
    """What PyTorch asks a backend for."""

    @staticmethod
    def get_amp_supported_dtype():
        return [torch.bfloat16]


class Elsewhere(Tensor):
    """A tensor of the accelerator; ``here`` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here):
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            layout=here.layout, device=DEVICE, requires_grad=here.requires_grad,
        )  # fmt: skip
        wrapper.here = here
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    def tolist(self):
        return self.here.tolist()

    def numpy(self, **_):
        raise TypeError("a tensor of the accelerator: copy it to the CPU first")

    def __reduce_ex__(self, protocol):  # into a file, from which it is read on the CPU
        return self.here.detach().__reduce_ex__(protocol)


class Computing(TorchDispatchMode):
    """Makes tensors where they are asked for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class FromPython(TorchFunctionMode):
    """Numbers of Python become tensors of the CPU first: PyTorch fills these below the level of dispatch."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in FROM_PYTHON and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return args[0].here.new_tensor(*args[1:], **kwargs).to(DEVICE)
        return func(*args, **kwargs)


def compute(func, args, kwargs):
    """One operation on the CPU, and its results on the device where they belong."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    stray = [x for x in tensors if not isinstance(x, Elsewhere) and x.ndim]
    if there and func not in BETWEEN and stray:
        raise RuntimeError(f"{func}: tensors of two devices")
    if func is aten.index.Tensor and there and not isinstance(args[0], Elsewhere):
        raise RuntimeError(f"{func}: a tensor of the CPU, indexed by one of the accelerator")
    stays = bool(there) and not (func is aten.copy_.default and not isinstance(args[0], Elsewhere))
    if (device := kwargs.get("device")) is not None:
        stays = torch.device(device).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*tree_map_only(Elsewhere, lambda x: x.here, args),
               **tree_map_only(Elsewhere, lambda x: x.here, kwargs))  # fmt: skip
    wrapped = tree_map_only(Tensor, Elsewhere, out) if stays else out
    if there and device is None and any(a.alias_info for a in func._schema.arguments):
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    return wrapped


@contextmanager
def accelerator():
    """While open, what Fabric trains on is the accelerator."""
    with (
        mock.patch.object(SingleDeviceStrategy, "root_device", DEVICE),
        mock.patch.object(CPUAccelerator, "setup_device"),
        Computing(),
        FromPython(),
    ):
        yield


def as_precise(encoder, images):
    return images[0].to(next(encoder.parameters()).dtype)


def precise(settings, facts):
    """A learner in float64: the rounding of one step in float32 can flip a ReLU of the next."""
    learner = build_learner(settings, facts).double()
    for encoder in learner.modules():
        if isinstance(encoder, Encoder):
            encoder.register_forward_pre_hook(as_precise)
    return learner


@mock.patch("stopgrad.training.pretrain.build_learner", precise)
@mock.patch.multiple("stopgrad.evaluation.linear", DOUBLE_UP_TO=0, GRID=(1.0,), MAX_ITERATIONS=5)
def results(out, name):
    """What a run of two steps says of itself, gone on with, diagnosed and embedded; probes on the device."""
    settings = resolve({
        "method": name, "recipe": "digits-smoke", "data": {"limit": 128}, "batch_size": 64, "epochs": 1,
        "evaluation": {"images": 64, "control": False}, "device": "cpu", "precision": "fp32",
    })  # fmt: skip
    first = run(settings, out, show_progress=False)
    again = run(settings, out, resume=True, show_progress=False)
    jobs.embed(out, out / "embedding.npz", device="cpu")
    document = diagnose(out, device="cpu")
    return {"first": first, "again": again, "verdict": document["verdict"], "measures": document["measures"]}


def watched(device):
    """What a monitor reads in a loop of one's own."""
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16))
    net = torch.nn.ModuleDict({"encoder": encoder, "predictor": torch.nn.Linear(16, 16)}).to(device)
    optimizer, monitor = torch.optim.SGD(net.parameters(), 0.05), Monitor(every=1)
    for _ in range(4):
        x = torch.randn(32, 1, 8, 8)
        views = [(x + 0.1 * torch.randn_like(x)).to(device) for _ in range(2)]
        z = [net["encoder"](view) for view in views]
        p, t = [net["predictor"](zv) for zv in z], [zv.detach() for zv in z]
        loss = byol_loss(*p, *t)
        optimizer.zero_grad()
        loss.backward()
        reading = monitor.step(*z, *p, *t, loss=loss, model=net, views=views)
        optimizer.step()
    return {"nodes": reading.nodes, "scalars": reading.scalars, "verdict": monitor.verdict().verdict}


def solved(device):
    """Ends of modes over a grid."""
    ends = sweep({"eta": [0.0, 0.2], "alpha_p": [1, 10]}, {"t_end": 1.0}, rtol=1e-4, device=device)
    return {name: getattr(ends, name).tolist() for name in ("p", "s", "tau", "min_k", "collapsed")}


OTHERS = {"watched": watched, "solved": solved}


def found(out, name, device):
    return OTHERS[name](device) if name in OTHERS else results(out / name, name)


def main(out, *names):
    global DEVICE
    torch.backends.mkldnn.set_flags(False)  # its convolutions round in several ways
    backend_registration._setup_privateuseone_for_python_backend("elsewhere", Module())
    DEVICE = torch.device("elsewhere", 0)
    expected = {name: found(out / "cpu", name, "cpu") for name in names}
    with accelerator():
        own = {name: found(out / "accelerator", name, DEVICE) for name in names}
    (out / "results.json").write_text(json.dumps({"cpu": expected, "accelerator": own}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
