"""The names of the submodules that the monitor attaches to, through wrappers."""

import pytest
import torch
from monitored_net import fresh
from torch import nn

from stopgrad.diagnostics.monitor import Monitor


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
    part = fresh()
    part.projector = torch.compile(part.projector, backend="eager")
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
