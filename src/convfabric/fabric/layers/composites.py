"""Modules of the operators made of others."""

import math

import torch
from torch import Tensor, nn

from convfabric.fabric.layers.dispatch import added, layer
from convfabric.operators import Chain, Concat, Conv, Size, Sum


class _ChainLayer(nn.Module):
    """Modules one after another, named by their position."""

    def __init__(self, operator: Chain, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(layer(*part) for part in operator.parts(channels_in, channels_out))
        self.rises = [part.stride < 1 for part in operator.steps]

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        for module, rises in zip(self.steps, self.rises, strict=True):
            here: Size = (x_BCHW.shape[-2], x_BCHW.shape[-1])
            x_BCHW = module(x_BCHW, size if rises else here)
        return x_BCHW


class _SumLayer(nn.Module):
    """Modules side by side, their results added."""

    def __init__(self, operator: Sum, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(layer(*part) for part in operator.parts(channels_in, channels_out))

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return added([branch(x_BCHW, size) for branch in self.branches])


class _ConcatLayer(nn.Module):
    """Modules side by side, each making a share of the channels.

    Kernels that read the same response are drawn alike, with the standard deviation √(2 / Σ taps · channels) over
    all branches, so that gradients keep their variance on the way back (Ioannou et al. 2016, section 4).
    """

    def __init__(self, operator: Concat, channels_in: int, channels_out: int) -> None:
        super().__init__()
        parts = operator.parts(channels_in, channels_out)
        self.branches = nn.ModuleList(layer(*part) for part in parts)
        fans = {i: part.operator.taps * part[2] for i, part in enumerate(parts) if isinstance(part.operator, Conv)}
        for i in fans:
            nn.init.normal_(self.branches[i].get_parameter("weight"), std=math.sqrt(2 / sum(fans.values())))

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return torch.cat([branch(x_BCHW, size) for branch in self.branches], 1)


@layer.register
def _(operator: Chain, channels_in: int, channels_out: int) -> nn.Module:
    return _ChainLayer(operator, channels_in, channels_out)


@layer.register
def _(operator: Sum, channels_in: int, channels_out: int) -> nn.Module:
    return _SumLayer(operator, channels_in, channels_out)


@layer.register
def _(operator: Concat, channels_in: int, channels_out: int) -> nn.Module:
    return _ConcatLayer(operator, channels_in, channels_out)
