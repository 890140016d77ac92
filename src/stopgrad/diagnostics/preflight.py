"""Before the first step: what would make a run fail that one batch can show already.

Legend: B batch of one process; views (B, ...) each.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad.diagnostics.spread import view_noise

# Learning rates an image of the batch that published recipes keep within, by kind of optimiser: for SGD and
# LARS at batch 256 (their rates grow with the batch), for Adam as they are
SGD_RATES, ADAM_RATES = (1e-3, 2.0), (1e-6, 5e-3)
# Largest number whose square is finite in half precision
HALF = 255.0
Level = Literal["fault", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or looks so.

    Attributes:
        check: its name, such as "target-gradient".
        level: "fault" makes the run fail or learn nothing; "warning" is unusual.
        says: what was found, with numbers.
        fix: what to change.
    """

    check: str
    level: Level
    says: str
    fix: str


def preflight(
    model: nn.Module,
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    predictor: str | None = "predictor",
    target: str | Sequence[str] | None = "target",
    update: Callable[[nn.Module], None] | None = None,
) -> list[Finding]:
    """Try one batch on a copy of the model and look for what goes wrong; nothing of the model changes.

    Args:
        model: ``model(batch)`` is the loss, or has it as ``.loss`` or ``["loss"]``.
        batch: its argument; where it is a sequence of two or more tensors of one shape, these are the views.
        optimizer: of the model's own parameters; its groups are looked at.
        predictor, target: names of the submodules; a name that the model does not have is not looked for.
        update: called with the copy after a step of gradient descent on it, as the loop calls it after the
            optimiser: it has to move the target.

    Returns:
        The findings, faults first; an empty list when nothing is wrong.

    Examples:
        >>> net = nn.Linear(4, 4)
        >>> [finding.check for finding in preflight(_Agree(net), (torch.ones(8, 4), torch.ones(8, 4)))]
        ['identical-views']
    """
    own = dict(model.named_modules())
    twin = copy.deepcopy(model).train()
    slow = [f"{name}." for name in _names(target) if name in own]
    findings = [
        *_views(batch),
        *_normalisation(model, batch),
        *_groups(model, batch, optimizer, predictor, slow),
    ]
    findings += _decay(batch, optimizer)
    loss = _loss(twin(batch))
    if not bool(torch.isfinite(loss)):
        findings.append(
            Finding("loss", "fault", f"the loss is {float(loss.detach())}", "look at the inputs for NaN")
        )
        return _sorted(findings)
    if not loss.requires_grad:
        findings.append(Finding("loss", "fault", "the loss has no gradient", "do not detach the online side"))
        return _sorted(findings)
    with _widest(twin) as widest:
        loss = _loss(twin(batch))
    loss.backward()
    findings += [*_gradients(twin, slow), *_overflow(widest)]
    if update is not None and slow:
        findings += _moves(twin, slow, update)
    return _sorted(findings)


class _Agree(nn.Module):
    """For the example above: two views through one network, mean squared difference and variance."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Sequence[Tensor]) -> Tensor:
        first, second = (self.network(x) for x in batch)
        return (first - second).square().mean() + first.square().mean()


def _names(target: str | Sequence[str] | None) -> tuple[str, ...]:
    return (target,) if isinstance(target, str) else tuple(target or ())


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.level)


def _loss(output: Any) -> Tensor:
    loss = output if isinstance(output, Tensor) else None
    if loss is None:
        loss = output["loss"] if isinstance(output, dict) else getattr(output, "loss", None)
    if not isinstance(loss, Tensor) or loss.ndim:
        raise ValueError("model: model(batch) must be a scalar loss, or have one as .loss or ['loss']")
    return loss


def _pair(batch: Any) -> tuple[Tensor, Tensor] | None:
    """The first two views."""
    if not isinstance(batch, list | tuple):
        return None
    tensors = [x for x in batch if isinstance(x, Tensor) and x.is_floating_point()]
    if len(tensors) < 2 or tensors[0].shape != tensors[1].shape:
        return None
    return tensors[0], tensors[1]


def _views(batch: Any) -> list[Finding]:
    pair = _pair(batch)
    if pair is None or not torch.equal(*pair):
        return []
    return [Finding("identical-views", "fault", "both views are the same numbers", "augment each view anew")]


def _normalisation(model: nn.Module, batch: Any) -> list[Finding]:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    pair, findings = _pair(batch), []
    images = len(pair[0]) if pair is not None else len(batch) if isinstance(batch, Tensor) else None
    if norms and images == 1:
        says = "one image a process: batch normalisation has nothing to average over"
        findings.append(
            Finding("batch-of-one", "fault", says, "raise the batch, or use another normalisation")
        )
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    plain = [norm for norm in norms if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)]
    if several and plain:
        says = f"{len(plain)} batch normalisations see their own process's share of the batch alone"
        fix = "torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)"
        findings.append(Finding("sync-batch-norm", "warning", says, fix))
    return findings


def _groups(
    model: nn.Module,
    batch: Any,
    optimizer: torch.optim.Optimizer | None,
    predictor: str | None,
    slow: list[str],
) -> list[Finding]:
    """What the optimiser holds, and at which rate."""
    if optimizer is None:
        return []
    held = {id(w): group for group in optimizer.param_groups for w in group["params"]}
    findings = []
    missing = [
        n for n, w in model.named_parameters() if w.requires_grad and id(w) not in held and not _of(n, slow)
    ]
    if missing:
        part = (
            "the predictor"
            if predictor and all(n.startswith(f"{predictor}.") for n in missing)
            else missing[0]
        )
        says = f"{len(missing)} parameters are not in the optimiser: {part}"
        findings.append(Finding("not-optimised", "fault", says, "pass model.parameters() to the optimiser"))
    stray = [n for n, w in model.named_parameters() if id(w) in held and _of(n, slow)]
    if stray:
        says = f"{len(stray)} parameters of the target are in the optimiser: {stray[0]}"
        findings.append(Finding("target-optimised", "fault", says, "the target follows by its average alone"))
    pair = _pair(batch)
    return findings + _rates(optimizer, len(pair[0]) if pair is not None else 256)


def _rates(optimizer: torch.optim.Optimizer, images: int) -> list[Finding]:
    adam = "adam" in type(optimizer).__name__.lower()
    low, high = ADAM_RATES if adam else (rate * images / 256 for rate in SGD_RATES)
    findings = []
    for place, group in enumerate(optimizer.param_groups):
        if group["params"] and not low <= group["lr"] <= high:
            says = (
                f"group {place} has lr {group['lr']:g}; {type(optimizer).__name__} at {images} images a "
                f"batch is run at {low:.1g} to {high:.1g}"
            )
            findings.append(
                Finding("learning-rate", "warning", says, "scale the published rate by batch / 256")
            )
    return findings


def _decay(batch: Any, optimizer: torch.optim.Optimizer | None) -> list[Finding]:
    """Weight decay against tau^2 / (4 (1 + sigma^2)), tau 1, in units of what both views share."""
    pair = _pair(batch)
    if pair is None or optimizer is None or len(pair[0]) < 2:
        return []
    sigma2 = view_noise(*pair)
    if math.isinf(sigma2):
        says = "two views of an image are no more alike than two images"
        return [Finding("views", "warning", says, "augment less")]
    bound = 1 / (4 * (1 + sigma2))
    decay = max(float(group.get("weight_decay") or 0.0) for group in optimizer.param_groups)
    if decay <= bound:
        return []
    says = f"weight decay {decay:g} is above {bound:.3g} = 1 / (4 (1 + sigma^2)), sigma^2 = {sigma2:.3g}"
    return [
        Finding("weight-decay", "fault", says, "lower it: every mode of the linear model collapses above")
    ]


def _of(name: str, prefixes: list[str]) -> bool:
    return any(name.startswith(prefix) for prefix in prefixes)


def _gradients(twin: nn.Module, slow: list[str]) -> list[Finding]:
    findings = []
    leaks = [
        n
        for n, w in twin.named_parameters()
        if _of(n, slow) and w.grad is not None and w.grad.abs().max() > 0
    ]
    if leaks:
        says = f"a gradient reaches {len(leaks)} parameters of the target: {leaks[0]}"
        findings.append(Finding("target-gradient", "fault", says, "compute the target under torch.no_grad()"))
    still = [
        name
        for name, child in twin.named_children()
        if not _of(f"{name}.", slow)
        and (weights := list(child.parameters()))
        and all(_idle(w) for w in weights)
    ]
    for name in still:
        says = f"no gradient reaches '{name}'"
        findings.append(Finding("frozen", "warning", says, "unfreeze it, unless a closed form sets it"))
    return findings


def _idle(weight: nn.Parameter) -> bool:
    return not weight.requires_grad or weight.grad is None or not bool(weight.grad.abs().max() > 0)


@contextmanager
def _widest(model: nn.Module) -> Iterator[dict[str, float]]:
    """While open, the largest absolute output of each leaf module of a model, by its name."""
    found: dict[str, float] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.numel() and output.is_floating_point():
                found[name] = max(found.get(name, 0.0), float(output.detach().abs().max()))

        return hook

    leaves = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    hooks = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _overflow(widest: dict[str, float]) -> list[Finding]:
    name = max(widest, key=lambda key: widest[key], default=None)
    if name is None or widest[name] <= HALF:
        return []
    says = f"'{name}' gives {widest[name]:.3g}: its square overflows float16 above {HALF:g}"
    return [Finding("half-precision", "warning", says, "train in bfloat16 or float32, or normalise before")]


@torch.no_grad()
def _moves(twin: nn.Module, slow: list[str], update: Callable[[nn.Module], None]) -> list[Finding]:
    before = {n: w.clone() for n, w in twin.named_parameters() if _of(n, slow)}
    for _, w in twin.named_parameters():
        if w.grad is not None:
            w.sub_(w.grad / w.grad.norm().clamp(min=1e-12) * max(float(w.norm()), 1.0) * 0.1)
    update(twin)
    now = dict(twin.named_parameters())
    moved = max((float((now[n] - w).abs().max()) for n, w in before.items()), default=math.nan)
    if moved > 0:
        return []
    says = "the target stands still after an update"
    return [
        Finding("frozen-target", "fault", says, "call its update after the optimiser's step, tau below 1")
    ]
