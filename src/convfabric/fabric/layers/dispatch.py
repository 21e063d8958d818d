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

from convfabric.errors import GraphError
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
    """Kernel weights drawn after He et al. 2015: standard deviation √(2 / values that one input value reaches)."""
    weight = nn.Parameter(torch.empty(shape))
    nn.init.normal_(weight, std=math.sqrt(2 / fan_out))
    return weight


def constants(channels: int, wanted: bool) -> nn.Parameter | None:
    """One trained constant for each channel, zero at first."""
    return nn.Parameter(torch.zeros(channels)) if wanted else None


def cropped(x_BCHW: Tensor, size: Size) -> Tensor:
    """The top left part of a map; the map itself where it has the size."""
    return x_BCHW if x_BCHW.shape[-2:] == size else x_BCHW[..., : size[0], : size[1]]


def added(parts: Sequence[Tensor]) -> Tensor:
    """The sum of one or more tensors of one shape, from the first to the last."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def check_size(x_BCHW: Tensor, size: Size) -> None:
    """Raises GraphError where a map has another size than the only one an operator runs at."""
    found = (x_BCHW.shape[-2], x_BCHW.shape[-1])
    if found != size:
        raise GraphError(
            f"an operator for maps of {size[0]}×{size[1]} pixels met one of {found[0]}×{found[1]}: networks with fully "
            "or locally connected layers run at the size they were woven for."
        )


def framed(x_BCHW: Tensor, halo: Halo, value: float = 0.0) -> Tensor:
    """The map with a frame of a value, as wide as an operator reads before and after each pixel."""
    above, below, left, right = map(int, halo)
    return F.pad(x_BCHW, (left, right, above, below), value=value)
