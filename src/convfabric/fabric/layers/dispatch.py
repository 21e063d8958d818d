"""From an operator to its torch module, and what the modules share.

Every module is called with a response (batch, channels, height, width) and the height and width its
result must have. Legend of the suffixes: B images, C channels, H height, W width.
"""

import math
from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.operators import Halo, Operator, Size


@singledispatch
def layer(operator: Operator, channels_in: int, channels_out: int) -> nn.Module:
    """A fresh module that does what an operator says, from so many channels to so many.

    >>> from convfabric.operators import UpConv
    >>> layer(UpConv(), 4, 6)(torch.zeros(1, 4, 3, 3), (5, 6)).shape
    torch.Size([1, 6, 5, 6])
    """
    raise TypeError(f"{type(operator).__name__} has no layer: register one with @layer.register.")


def kernels(*shape: int, fan_out: int) -> nn.Parameter:
    """Kernel weights drawn after He et al. 2015: standard deviation √(2 / values that one input value reaches).

    >>> kernels(4, 3, 3, 3, fan_out=36).shape
    torch.Size([4, 3, 3, 3])
    """
    weight = nn.Parameter(torch.empty(shape))
    nn.init.normal_(weight, std=math.sqrt(2 / fan_out))
    return weight


def constants(channels: int, wanted: bool) -> nn.Parameter | None:
    """One trained constant for each channel, zero at first.

    >>> constants(3, wanted=True), constants(3, wanted=False)
    (Parameter containing:
    tensor([0., 0., 0.], requires_grad=True), None)
    """
    return nn.Parameter(torch.zeros(channels)) if wanted else None


def cropped(x_BCHW: Tensor, size: Size) -> Tensor:
    """The top left part of a map; the map itself where it has the size.

    >>> cropped(torch.zeros(1, 1, 4, 4), (3, 4)).shape
    torch.Size([1, 1, 3, 4])
    """
    return x_BCHW if x_BCHW.shape[-2:] == size else x_BCHW[..., : size[0], : size[1]]


def added(parts: Sequence[Tensor]) -> Tensor:
    """The sum of one or more tensors of one shape, from the first to the last.

    >>> added([torch.ones(2), torch.ones(2)])
    tensor([2., 2.])
    """
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def multiplied(parts: Sequence[Tensor]) -> Tensor:
    """The product of one or more tensors that can be broadcast to one shape, from the first to the last.

    >>> multiplied([torch.full((1, 2, 3, 3), 2.0), torch.full((1, 2, 1, 1), 3.0)])[0, 0, 0, 0]
    tensor(6.)
    """
    product = parts[0]
    for part in parts[1:]:
        product = product * part
    return product


def framed(x_BCHW: Tensor, halo: Halo, value: float = 0.0) -> Tensor:
    """The map with a frame of a value, as wide as an operator reads before and after each pixel.

    >>> framed(torch.zeros(1, 1, 2, 2), (1, 0, 0, 2)).shape
    torch.Size([1, 1, 3, 4])
    """
    above, below, left, right = map(int, halo)
    return F.pad(x_BCHW, (left, right, above, below), value=value)
