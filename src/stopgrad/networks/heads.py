"""Projectors: the head between encoder features h (B, D) and projections z (B, d)."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from stopgrad.frozen import Frozen

Width = Annotated[int, Field(gt=0)]


class ProjectorSettings(Frozen):
    """Settings of a projector.

    The published recipes as values:

    - BYOL and DirectPred on small images: one hidden layer, no final norm (the defaults). DirectPred's
      own code (Tian et al. 2021): ``hidden=(512,), out=128, hidden_affine=False``. BYOL's own code
      (Grill et al. 2020) has ``hidden=(4096,), out=256, bias=False``.
    - SimSiam (Chen & He 2021; Zhang et al. 2022, appendix): ``hidden=(2048, 2048), out=2048,
      final_bn="plain"``.
    - RAFT (Shi et al. 2021) with a norm at the end, against collapse: ``final_bn="affine"``.

    Attributes:
        kind: ``mlp``, Linear-BN-ReLU per hidden layer and a Linear.
        hidden: widths of the hidden layers; empty for one Linear.
        out: d, width of z.
        final_bn: batch norm after the last Linear: ``none``, ``plain`` (no learned scale and shift) or
            ``affine``.
        hidden_affine: whether the hidden batch norms learn a scale and a shift.
        bias: whether the last Linear has a bias, where no batch norm follows it.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Width, ...] = (256,)
    out: Width = 64
    final_bn: Literal["none", "plain", "affine"] = "none"
    hidden_affine: bool = True
    bias: bool = True


def build_projector(settings: ProjectorSettings, width: int) -> nn.Module:
    """A projector (B, ``width``) -> (B, ``settings.out``) with random weights.

    A Linear directly before a batch norm has no bias, as in SimSiam's code. The code of DirectPred,
    IsoLoss and RAFT keeps it, where it does nothing: the norm subtracts it and its gradient is zero.
    """
    layers: list[nn.Module] = []
    for outputs in settings.hidden:
        layers += [
            nn.Linear(width, outputs, bias=False),
            nn.BatchNorm1d(outputs, affine=settings.hidden_affine),
            nn.ReLU(inplace=True),
        ]
        width = outputs
    if settings.final_bn == "none":
        layers.append(nn.Linear(width, settings.out, bias=settings.bias))
    else:
        layers += [
            nn.Linear(width, settings.out, bias=False),
            nn.BatchNorm1d(settings.out, affine=settings.final_bn == "affine"),
        ]
    return nn.Sequential(*layers)
