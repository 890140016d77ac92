"""Bilinear resampling of a batch, every image by a geometry of its own.

Legend: B images, C channels, H W source, S target size.
"""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def weights(start: Tensor, length: Tensor, source: int, target: int, *, antialias: bool, mirror: Tensor) -> Tensor:
    """(B, S, source): rows that take ``length`` pixels from ``start`` on to S pixels, bilinearly.

    Pixel centres as in torch's ``interpolate(align_corners=False)``. With ``antialias`` the triangle is widened by
    the factor of reduction. The result is reversed where ``mirror`` (bool (B,)) is set.
    """
    scale = length / target
    # nothing to average where the source is no larger than the target
    antialias = antialias and source > target
    spread = scale.clamp(min=1.0).unsqueeze(1) if antialias else torch.ones_like(scale).unsqueeze(1)
    place = torch.arange(target, device=start.device, dtype=torch.float32) + 0.5
    place = torch.where(mirror.unsqueeze(1), target - place, place)
    # centre of each target pixel in the source, in pixels from the crop's own start: (B, S)
    centre = place * scale.unsqueeze(1) - 0.5
    if not antialias:
        centre = torch.minimum(centre.clamp_(min=0.0), (length - 1).unsqueeze(1))
    pixel = torch.arange(source, device=start.device, dtype=torch.float32) - start.unsqueeze(1)
    outside = (pixel < 0) | (pixel >= length.unsqueeze(1))
    # a pixel outside the crop is infinitely far from every centre
    pixel = (pixel / spread).masked_fill_(outside, torch.inf)
    rows = torch.sub((centre / spread).unsqueeze(2), pixel.unsqueeze(1)).abs_()
    rows = torch.sub(torch.ones((), device=rows.device), rows, out=rows).clamp_(min=0.0)
    return rows.div_(rows.sum(2, keepdim=True)) if antialias else rows


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ image @ columns^T: images (B, C, H, W), rows (B, T, H), columns (B, U, W) -> (B, C, T, U)."""
    batch, channels, height, width = images.shape
    wide = torch.bmm(images.reshape(batch, channels * height, width), columns.transpose(1, 2))
    return torch.matmul(rows.unsqueeze(1), wide.view(batch, channels, height, -1))


def affine(images: Tensor, matrix: Tensor, *, padding: str) -> Tensor:
    """Sample images (B, C, H, W) at ``matrix`` (B, 2, 3) applied to the target's pixels, measured from the centre.

    The first row of ``matrix`` gives x, the second y, in pixels. ``padding``: "zeros" or "border".
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2
    y = torch.arange(height, device=images.device, dtype=images.dtype) - (height - 1) / 2
    ones = torch.ones(height, width, device=images.device, dtype=images.dtype)
    points = torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width), ones]).view(3, -1)
    half = torch.tensor([[width / 2], [height / 2]], device=images.device, dtype=images.dtype)
    grid = ((matrix / half) @ points).transpose(1, 2).reshape(-1, height, width, 2)
    return grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
