"""How large the gradients of a network's parts are, and how noisy.

Legend: B samples of a batch, P parameters, K parts of a batch.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stopgrad.diagnostics.spread import double


def gradient_norms(parts: Mapping[str, Iterable[Tensor]]) -> dict[str, float]:
    """The l2 norm of ``.grad`` over all parameters of each part, by the part's name, >= 0.

    0 where no parameter has a gradient, as it must be for a target network behind a stop-gradient; NaN or inf
    where a gradient is not finite. Nothing is changed.

    Args:
        parts: parameters by name, such as ``{"projector": projector.parameters()}``.

    >>> weight = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> (weight * weight.detach()).sum().backward()
    >>> gradient_norms({"predictor": [weight], "target": [torch.ones(2)]})
    {'predictor': 5.0, 'target': 0.0}
    """
    return {name: _norm(w.grad for w in parameters) for name, parameters in parts.items()}


def norms_of_parts(parts: Mapping[str, nn.Module | None]) -> dict[str, float]:
    """`gradient_norms` of the modules that have a gradient, as ``gradient_norm_NAME``."""
    weights = {name: list(part.parameters()) for name, part in parts.items() if part is not None}
    known = {name: own for name, own in weights.items() if any(w.grad is not None for w in own)}
    return {f"gradient_norm_{name}": norm for name, norm in gradient_norms(known).items()}


class GradientNoise(NamedTuple):
    """Estimates of McCandlish et al. 2018, section 2.2 and appendix A.1.

    Both are unbiased, so that ``signal`` may come out negative where noise prevails: average ``noise`` and
    ``signal`` over steps, each for itself, before dividing.

    Attributes:
        noise: tr(Sigma), the summed variance of one sample's gradient.
        signal: |G|^2 of the true gradient.
    """

    noise: float
    signal: float

    @property
    def scale(self) -> float:
        """The simple noise scale tr(Sigma) / |G|^2 in samples, about the batch size from which on more helps
        little; inf where the signal is not above zero."""
        return self.noise / self.signal if self.signal > 0 else math.inf


def gradient_noise_scale(small: float, big: float, small_batch: int, big_batch: int) -> GradientNoise:
    """From the squared norms of the mean gradients of a small and of a big batch.

    Args:
        small, big: |G|^2 of the batch's gradient.
        small_batch, big_batch: samples in it.

    Raises:
        ValueError: unless 1 <= small_batch < big_batch.
    """
    if not 1 <= small_batch < big_batch:
        raise ValueError(f"batches: need 1 <= small_batch < big_batch, got {small_batch} and {big_batch}")
    return GradientNoise(
        noise=(small - big) / (1 / small_batch - 1 / big_batch),
        signal=(big_batch * big - small_batch * small) / (big_batch - small_batch),
    )


def gradient_noise_of_parts(gradients: Tensor, batch: int) -> GradientNoise:
    """From the gradients of K equal parts of a batch, such as the ranks' or the accumulated ones.

    Args:
        gradients: the mean gradient of each part, (K, P).
        batch: samples in one part.

    Raises:
        ValueError: for fewer than two parts.
    """
    if gradients.ndim != 2 or len(gradients) < 2:
        shape = tuple(gradients.shape)
        raise ValueError(f"gradients: must be of two parts or more, (K, P), their shape is {shape}")
    gradients = double(gradients.detach())
    small = float(gradients.square().sum(dim=1).mean())
    big = float(gradients.mean(dim=0).square().sum())
    return gradient_noise_scale(small, big, batch, batch * len(gradients))


def _norm(gradients: Iterable[Tensor | None]) -> float:
    norms = [
        gradient.detach().norm(dtype=torch.promote_types(gradient.dtype, torch.float32))
        for gradient in gradients
        if gradient is not None
    ]
    return float(torch.stack([norm.to(norms[0].device) for norm in norms]).norm()) if norms else 0.0
