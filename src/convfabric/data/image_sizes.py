"""Smaller sizes of the same images, as shares of their sides."""

from torch import Tensor
from torch.nn import functional as F

from convfabric.boxes.moving import scaled
from convfabric.operators import Size

SHARES = (5 / 7, 4 / 7, 3 / 7)
"""Of the sides: 160, 128 and 96 pixels of 224."""
MULTIPLE = 8
"""Pixels that smaller sides are a multiple of, where they are that many times it."""


def smaller(size: Size, share: float) -> Size:
    """Height and width at a share of the sides.

    >>> smaller((224, 224), 5 / 7), smaller((32, 48), 0.5), smaller((180, 240), 1.0)
    ((160, 160), (16, 24), (180, 240))
    """
    height, width = (side if share == 1 else _rounded(share * side) for side in size)
    return height, width


def _rounded(side: float) -> int:
    return round(side / MULTIPLE) * MULTIPLE if side > MULTIPLE**2 else max(1, round(side))


def shrunk(images_BCHW: Tensor, targets: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Images of floats at a smaller size, with their masks or boxes; classes of images stay as they are.

    >>> import torch
    >>> shrunk(torch.zeros(1, 1, 4, 4), torch.tensor([[[2.0, 0, 0, 4, 2]]]), (2, 2))[1].tolist()
    [[[2.0, 0.0, 0.0, 2.0, 1.0]]]
    """
    before: Size = (images_BCHW.shape[2], images_BCHW.shape[3])
    if before == size:
        return images_BCHW, targets
    if targets.is_floating_point():
        targets = scaled(targets, before, size)
    elif targets.ndim == 3:
        nearest = F.interpolate(targets[:, None].float(), size, mode="nearest-exact")[:, 0]
        targets = nearest.to(targets.dtype)
    return resized(images_BCHW, size), targets


def resized(images_BCHW: Tensor, size: Size) -> Tensor:
    """Images of floats at a size, each pixel of a smaller one the mean of what it covers.

    >>> import torch
    >>> resized(torch.arange(4.0).view(1, 1, 2, 2), (1, 1)).item()
    1.5
    """
    if images_BCHW.shape[2:] == size:
        return images_BCHW
    return F.interpolate(images_BCHW, size, mode="bilinear", antialias=True)
