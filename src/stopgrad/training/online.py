"""A linear classifier that reads the encoder's features while it trains, without touching it."""

import torch
from torch import Tensor, nn


class OnlineProbe(nn.Module):
    """Batch-normalised features and a linear layer, trained by AdamW on detached features.

    Its accuracy on validation images is a running estimate of the linear probe's; it lags behind the
    encoder, so the probe at the end is the figure to report.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, classes))

    def forward(self, h: Tensor) -> Tensor:
        """Class scores (B, K) of features (B, Dh)."""
        return self.layers(h)

    @torch.no_grad()
    def accuracy(self, h: Tensor, labels: Tensor) -> float:
        """Share of features (N, Dh) whose highest score is their label (N,)."""
        device = next(self.parameters()).device
        was, _ = self.training, self.eval()
        right = self(h.to(device)).argmax(dim=1).cpu() == labels.cpu()
        self.train(was)
        return float(right.double().mean())
