"""Bilinear resampling of a batch, every image by a geometry of its own.

Legend: B images, C channels, H W source, S target size.
"""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def centres(start: Tensor, length: Tensor, target: int, mirror: Tensor) -> Tensor:
    """(B, S): where S pixels of the target lie in a crop of ``length`` pixels from ``start`` on.

    In pixels of the source, as torch's ``interpolate(align_corners=False)`` places them: the outermost may
    lie up to half a pixel outside the crop. Reversed where ``mirror`` (bool (B,)) is set.
    """
    place = torch.arange(target, device=start.device, dtype=torch.float32) + 0.5
    place = torch.where(mirror.unsqueeze(1), target - place, place)
    return place * (length / target).unsqueeze(1) + (start - 0.5).unsqueeze(1)


def bilinear(images: Tensor, y: Tensor, x: Tensor, crop: Tensor) -> Tensor:
    """Images (B, C, H, W) at the rows ``y`` (B, T) and columns ``x`` (B, U) -> (B, C, T, U), within ``crop``.

    ``crop``: (B, 4), top, left, height, width; what lies outside it has the value of its edge.
    """
    top, left, tall, wide = crop.unsqueeze(2).unbind(1)
    height, width = images.shape[-2:]
    grid = torch.empty(len(images), y.shape[1], x.shape[1], 2, device=images.device)
    grid[..., 0] = _unit(x.clamp(left, left + wide - 1), width).unsqueeze(1)
    grid[..., 1] = _unit(y.clamp(top, top + tall - 1), height).unsqueeze(2)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _unit(place: Tensor, size: int) -> Tensor:
    # pixels 0 .. size - 1 to -1 .. 1, as grid_sample wants them
    return place.mul_(2 / max(size - 1, 1)).sub_(1.0)


def triangles(centre: Tensor, start: Tensor, length: Tensor, source: int) -> Tensor:
    """(B, S, source): rows that average the source around ``centre`` (B, S), to reduce without aliasing.

    A triangle as wide as the reduction, cut off at the crop's edges: torch's ``interpolate(antialias=True)``.
    """
    spread = (length / centre.shape[1]).clamp(min=1.0).unsqueeze(1)
    pixel = torch.arange(source, device=start.device, dtype=torch.float32).expand(len(start), -1)
    first = start.unsqueeze(1)
    outside = (pixel < first) | (pixel >= first + length.unsqueeze(1))
    # a pixel outside the crop is infinitely far from every centre
    pixel = (pixel / spread).masked_fill_(outside, torch.inf)
    rows = torch.sub((centre / spread).unsqueeze(2), pixel.unsqueeze(1)).abs_()
    rows = torch.sub(torch.ones((), device=rows.device), rows, out=rows).clamp_(min=0.0)
    return rows.div_(rows.sum(2, keepdim=True))


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ image @ columns^T: images (B, C, H, W), rows (B, T, H), columns (B, U, W) -> (B, C, T, U)."""
    batch, channels, height, width = images.shape
    wide = torch.bmm(images.reshape(batch, channels * height, width), columns.transpose(1, 2))
    return torch.matmul(rows.unsqueeze(1), wide.view(batch, channels, height, -1))


def affine(images: Tensor, matrix: Tensor, *, padding: str) -> Tensor:
    """Sample images (B, C, H, W) at ``matrix`` (B, 2, 3) times the target's pixels, from the centre.

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
