"""Parts of somebody's model, by name and inside whatever wraps them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that name, inside its own wrappers; those on the way may be named or not."""
    known = dict(model.named_modules(remove_duplicate=False))
    plain: dict[str, nn.Module] = {}
    for path, module in known.items():
        plain.setdefault(_without_wrappers(path), module)
    found = known.get(name, plain.get(_without_wrappers(name)))
    if found is None:
        children = ", ".join(child for child, _ in inside(model).named_children())
        raise ValueError(f"attach: the model has no submodule '{name}'; its children are {children}")
    return inside(found)


def inside(module: nn.Module) -> nn.Module:
    """What DistributedDataParallel and torch.compile wrap, as often as they do."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; every submodule is afterwards as it was."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def _without_wrappers(path: str) -> str:
    """Without the links of DistributedDataParallel, torch.compile and Fabric."""
    return ".".join(
        link for link in path.split(".") if link not in {"module", "_orig_mod", "_forward_module"}
    )
