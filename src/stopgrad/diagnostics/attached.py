"""The monitor's hooks on a model: what it reads of forward and backward passes that it does not make itself.

Legend: B batch of one process, N images in evaluation mode, D width of a node.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from stopgrad.diagnostics.ranks import of_ranks
from stopgrad.diagnostics.submodules import evaluating, inside, submodule

# Images that are looked at in evaluation mode
EVALUATED = 64
# Share of the gradient at z that may come around the predictor before it counts as a leak
AROUND = 1e-3


class _View:
    """One pass through the projector.

    Attributes:
        z, p: what came out, and what the predictor made of it, (B, D).
        gradients: at z, (B, D), float32: the "whole" one, and what of it came "through" the predictor.
    """

    def __init__(self, z: Tensor) -> None:
        self.z = z
        self.p: Tensor | None = None
        self.gradients: dict[str, Tensor] = {}

    def around(self) -> float | None:
        """Share of the gradient that did not come through the predictor; None where it is not known."""
        whole, through = (self.gradients.get(name) for name in ("whole", "through"))
        if whole is None or through is None or not (size := whole.norm()).isfinite():
            return None
        return float((whole - through).norm() / size.clamp(min=1e-30))


class Attached:
    """The hooks on one model, and what they have seen since its optimiser last stepped.

    Args:
        model: whose submodules have the names that follow, see `Monitor.attach`.
        projector, predictor, encoder, targets: these names.
        due: whether the coming step is read.
        stepped: called with this object after each step of an optimiser of the model.

    Attributes:
        online: weights that are not the targets'.
        slow: the targets' weights.
        parts: modules by their role; None for one that was not named.
        loss: of a model that computes it, else None.
        images: that the encoder was given, at most `EVALUATED` of each view.
    """

    def __init__(
        self,
        model: nn.Module,
        projector: str,
        predictor: str | None,
        encoder: str | None,
        targets: tuple[str, ...],
        due: Callable[[], bool],
        stepped: Callable[["Attached"], None],
    ) -> None:
        self._due, self._tell = due, stepped
        self.projector = submodule(model, projector)
        self.predictor = None if predictor is None else submodule(model, predictor)
        self.encoder = None if encoder is None else submodule(model, encoder)
        self.parts = {"projector": self.projector, "predictor": self.predictor, "encoder": self.encoder}
        self.slow = [w for name in targets for w in submodule(model, name).parameters()]
        slow = {id(w) for w in self.slow}
        self.online = [w for w in model.parameters() if id(w) not in slow]
        self._weights = {id(w) for w in self.online}
        self._clear()
        unseen = torch.compiler.disable  # a graph would keep what `due` was when it was made
        self._hooks = [
            self.projector.register_forward_hook(unseen(self._projected)),
            inside(model).register_forward_hook(unseen(self._returned)),
            register_optimizer_step_post_hook(unseen(self._stepped)),
        ]
        if self.predictor is not None:
            self._hooks += [
                self.predictor.register_forward_pre_hook(unseen(self._entered)),
                self.predictor.register_forward_hook(unseen(self._predicted)),
            ]
        if self.encoder is not None:
            self._hooks.append(self.encoder.register_forward_pre_hook(unseen(self._seen)))
        torch.compiler.reset()  # what was compiled before knows of no hook

    @property
    def saw_views(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._views)

    def remove(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._clear()

    def _clear(self) -> None:
        self._passed = False
        self.loss: Tensor | None = None
        self._features: torch.Size | None = None  # of what the projector is given, without the batch
        self._autocast: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        """A new batch, or with accumulation a new part of it."""
        self._views: list[_View] = []
        self._loose: list[Tensor] = []  # predictions of what is no z itself, such as a normalised one
        self._into: _View | None = None
        self.images: list[Tensor] = []
        self._backward = False

    def _reads(self, module: nn.Module) -> bool:
        return bool(self._hooks) and module.training and self._due()

    def _projected(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (module.training and isinstance(output, Tensor)):
            return
        self._passed = True
        if not self._reads(module):
            return
        if self._backward:
            self._begin()
        view = _View(output)
        if output.requires_grad:
            output.register_hook(partial(self._arrives, view.gradients, "whole"))
        self._views.append(view)
        self._features = inputs[0].shape[1:] if inputs and isinstance(inputs[0], Tensor) else None

    def _entered(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Give the predictor an alias of z, whose gradient is what comes through the predictor."""
        self._into = None
        if not (self._reads(module) and inputs):
            return None
        self._into = next((view for view in self._views if view.z is inputs[0]), None)
        if self._into is None or not inputs[0].requires_grad:
            return None
        alias = inputs[0].view_as(inputs[0])
        alias.register_hook(partial(self._arrives, self._into.gradients, "through"))
        return (alias, *inputs[1:])

    def _arrives(self, gradients: dict[str, Tensor], name: str, gradient: Tensor) -> None:
        """Sum up: a predictor may be run on one z more than once, and a graph be walked more than once."""
        self._backward = True
        own = gradient.detach().float()
        gradients[name] = gradients[name] + own if name in gradients else own

    def _predicted(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (self._reads(module) and isinstance(output, Tensor)):
            return
        if self._into is None:
            self._loose.append(output)
        else:
            self._into.p = output

    def _seen(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._reads(module) and len(inputs) == 1 and isinstance(inputs[0], Tensor):
            if self._backward:
                self._begin()
            self.images.append(inputs[0].detach()[:EVALUATED])
            kind = inputs[0].device.type
            self._autocast = {
                "device_type": kind,
                "enabled": torch.is_autocast_enabled(kind),
                "dtype": torch.get_autocast_dtype(kind),
            }

    def _returned(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A model that computes its own loss."""
        if self._reads(module) and (loss := _loss_of(output)) is not None:
            self.loss = loss.detach()

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """After an optimiser of this model has moved it: a closure has run by then.

        Nothing has passed since the last step where a model has two optimisers, or one inside another; a
        step that a GradScaler leaves out does not come here.
        """
        if not self._passed:
            return
        if not any(id(w) in self._weights for group in optimizer.param_groups for w in group["params"]):
            return
        self._tell(self)
        self._clear()

    def nodes(self) -> dict[str, tuple[Tensor | None, Tensor | None]]:
        """z and p of the first two online views of a batch; with accumulation, of its last part."""
        first, second = self._pair()
        p = [view.p for view in (first, second) if view is not None and view.p is not None]
        p = (p or self._loose)[:2]
        if len(p) == 2 and p[0].shape != p[1].shape:
            p = p[:1]
        return {
            "z": (first.z, None if second is None else second.z),
            "p": (p[0] if p else None, p[1] if len(p) == 2 else None),
            "t": (None, None),
        }

    def _pair(self) -> tuple[_View, _View | None]:
        """The first two that a gradient can reach, as one without may be a target; of one shape."""
        views = [view for view in self._views if view.z.requires_grad] or self._views
        first, *others = views
        return first, next((view for view in others if view.z.shape == first.z.shape), None)

    def leak(self) -> dict[str, float]:
        """Whether z has a gradient that did not come through the predictor, on any rank."""
        shares = [share for view in self._views if (share := view.around()) is not None]
        # sums of few terms, made in another order
        rounding = 4 * max(torch.finfo(view.z.dtype).eps for view in self._views)
        found = of_ranks(float(max(shares) > max(AROUND, rounding)) if shares else None)
        return {"target_gradient": max(found)} if found else {}

    @torch.no_grad()
    def evaluated(self) -> Tensor | None:
        """z of the last images in evaluation mode; None without an encoder or its images.

        None too where what reaches the projector is not the encoder's output, flattened.
        """
        if self.encoder is None or not self.images:
            return None
        with (
            torch.autocast(**self._autocast, cache_enabled=False),
            torch.compiler.set_stance("force_eager"),
            evaluating(self.encoder),
            evaluating(self.projector),
        ):
            h = self.encoder(self.images[-1])
            if not isinstance(h, Tensor) or h.flatten(1).shape[1:] != self._features:
                return None
            z = self.projector(h.flatten(1))
        return z if isinstance(z, Tensor) else None


def _loss_of(output: Any) -> Tensor | None:
    """A scalar, or one that is called ``loss``, or the first of a tuple."""
    if isinstance(output, Mapping):
        output = output.get("loss")
    elif hasattr(output, "loss"):
        output = output.loss
    elif isinstance(output, tuple) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.ndim == 0 else None
