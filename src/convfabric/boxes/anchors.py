"""Anchors: boxes of a few shapes around every pixel of a map, which answers move and stretch (SSD, Liu et al. 2016)."""

from math import sqrt

import torch
from torch import Tensor

from convfabric.graph.parts import SHAPES
from convfabric.operators import Size

PIXELS, MOST_SHARE = 4, 0.9
"""Sides of the square anchor: so many pixels of the map, and at most this share of the image."""
RATIOS = (1.0, 1.0, 2.0, 1 / 2, 3.0, 1 / 3)
"""Width by height of each shape, see section 2.2 there; the second square is larger by the root of 2."""
assert len(RATIOS) == SHAPES


def anchors(maps: Size, image: Size, like: Tensor) -> Tensor:
    """Centre x, centre y, width and height in pixels, (4, shapes · height · width), of a map of an image.

    >>> anchors((1, 2), (8, 16), torch.zeros(1))[:, [0, 1, 4, 5]]
    tensor([[ 4.0000, 12.0000,  4.0000, 12.0000],
            [ 4.0000,  4.0000,  4.0000,  4.0000],
            [ 7.2000,  7.2000, 10.1823, 10.1823],
            [ 7.2000,  7.2000,  5.0912,  5.0912]])
    """
    (rows, columns), (height, width) = maps, image
    side = min(PIXELS * sqrt(height / rows * width / columns), MOST_SHARE * min(height, width))
    shapes = [(side * sqrt(ratio), side / sqrt(ratio)) for ratio in RATIOS]
    shapes[1] = sqrt(2) * side, sqrt(2) * side
    sizes_S2 = torch.tensor(shapes, dtype=torch.float32, device=like.device)
    down_H = (torch.arange(rows, dtype=torch.float32, device=like.device) + 0.5) * (height / rows)
    across_W = (torch.arange(columns, dtype=torch.float32, device=like.device) + 0.5) * (width / columns)
    shape = len(RATIOS), rows, columns
    parts = [across_W.expand(shape), down_H[:, None].expand(shape)]
    parts += [sizes_S2[:, at, None, None].expand(shape) for at in (0, 1)]
    return torch.stack(parts).flatten(1)
