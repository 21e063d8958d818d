"""Boxes of images that are moved, turned, mirrored, or brought to another size."""

import torch
from torch import Tensor

from convfabric.operators import Size

LEAST_SEEN = 0.3
"""Share of a box that is still in the image, below which nothing is looked for there."""


def moved(targets_BM5: Tensor, ways_B23: Tensor, size: Size) -> Tensor:
    """The boxes of images that an affine map (B, 2, 3) from new to old coordinates moves, as torch's grids have it.

    A box that turns becomes the upright one around it; one that is hardly seen any more is no longer there.

    >>> mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    >>> moved(torch.tensor([[[2.0, 0, 1, 4, 3]]]), mirror, (8, 8)).tolist()
    [[[2.0, 4.0, 1.0, 8.0, 3.0]]]
    """
    height, width = size
    middle = torch.tensor([width / 2, height / 2], device=targets_BM5.device)
    back_B22 = torch.linalg.inv(ways_B23[:, :, :2].double()).float().to(targets_BM5.device)
    shift_B2 = ways_B23[:, :, 2].to(targets_BM5.device)
    left, top, right, bottom = targets_BM5[..., 1:].unbind(-1)
    corners_BM42 = torch.stack([torch.stack([x, y], -1) for x in (left, right) for y in (top, bottom)], 2)
    there = (corners_BM42 / middle - 1) - shift_B2[:, None, None]
    new_BM42 = (torch.einsum("bij,bmcj->bmci", back_B22, there) + 1) * middle
    return clipped(torch.cat([targets_BM5[..., :1], new_BM42.amin(2), new_BM42.amax(2)], -1), size)


def scaled(targets_BM5: Tensor, before: Size, after: Size) -> Tensor:
    """The boxes of images of a height and width, in pixels of another.

    >>> scaled(torch.tensor([[2.0, 0, 0, 4, 2]]), (4, 4), (2, 2)).tolist()
    [[2.0, 0.0, 0.0, 2.0, 1.0]]
    """
    along, across = (one / other for one, other in zip(after, before, strict=True))
    return targets_BM5 * targets_BM5.new_tensor([1, across, along, across, along])


def clipped(targets_BM5: Tensor, size: Size) -> Tensor:
    """The boxes as far as they are in an image; one that is hardly in it gets class -1, and no sides.

    >>> clipped(torch.tensor([[0.0, -2, 0, 6, 4], [1, 7, 0, 30, 4]]), (8, 8)).tolist()
    [[0.0, 0.0, 0.0, 6.0, 4.0], [-1.0, 0.0, 0.0, 0.0, 0.0]]
    """
    height, width = size
    most = torch.tensor([width, height, width, height], dtype=targets_BM5.dtype, device=targets_BM5.device)
    boxes = targets_BM5[..., 1:]
    inside = torch.minimum(boxes.clamp(min=0), most)
    whole, seen = (
        (some[..., 2] - some[..., 0]).clamp(min=0) * (some[..., 3] - some[..., 1]).clamp(min=0)
        for some in (boxes, inside)
    )
    gone = (targets_BM5[..., 0] < 0) | (seen < LEAST_SEEN * whole) | (seen <= 0)
    kept = torch.cat([targets_BM5[..., :1], inside], -1)
    return torch.where(gone[..., None], kept.new_tensor([-1.0, 0, 0, 0, 0]), kept)
