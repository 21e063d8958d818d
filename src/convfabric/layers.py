"""The torch module for each operator.

Every module is called with a response (batch, channels, height, width) and the height and width its
result must have. Legend of the suffixes: B images, C channels, H height, W width.
"""

from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.operators import Chain, Conv, Identity, Nearest, Norm, Operator, Relu, Size, Sum, UpConv


@singledispatch
def layer(operator: Operator, channels_in: int, channels_out: int) -> nn.Module:
    """A fresh module that does what an operator says, from so many channels to so many.

    >>> layer(UpConv(), 4, 6)(torch.zeros(1, 4, 3, 3), (5, 6)).shape
    torch.Size([1, 6, 5, 6])
    """
    raise TypeError(f"{type(operator).__name__} has no layer: register one with @layer.register.")


def kernel_weight(channels_in: int, channels_out: int, kernel: int) -> nn.Parameter:
    """A convolution's weight (C_out, C_in, kernel, kernel), drawn after He et al. 2015 with the fan-out."""
    weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel, kernel))
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    return weight


def cropped(x_BCHW: Tensor, size: Size) -> Tensor:
    """The top left part of a map; the map itself where it has the size."""
    return x_BCHW if x_BCHW.shape[-2:] == size else x_BCHW[..., : size[0], : size[1]]


class _ConvLayer(nn.Module):
    """A convolution; weight (C_out, C_in, kernel, kernel)."""

    def __init__(self, operator: Conv, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride, self.padding = operator.stride, operator.kernel // 2
        self.weight = kernel_weight(channels_in, channels_out, operator.kernel)
        self.bias = nn.Parameter(torch.zeros(channels_out)) if operator.bias else None

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.conv2d(x_BCHW, self.weight, self.bias, stride=self.stride, padding=self.padding)


class _UpConvLayer(nn.Module):
    """Zeros at odd positions, then a convolution, as one transposed convolution.

    The weight stands as the convolution would have it, so it is transposed and flipped on the way.
    """

    def __init__(self, operator: UpConv, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.padding = operator.kernel // 2
        self.weight = kernel_weight(channels_in, channels_out, operator.kernel)
        self.bias = nn.Parameter(torch.zeros(channels_out)) if operator.bias else None

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        weight = self.weight.transpose(0, 1).flip(2, 3)
        doubled = F.conv_transpose2d(x_BCHW, weight, self.bias, stride=2, padding=self.padding, output_padding=1)
        return cropped(doubled, size)


class _NearestLayer(nn.Module):
    """Each pixel repeated 2×2, cropped to the size."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return cropped(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"), size)


class _IdentityLayer(nn.Module):
    """The response as it is."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return x_BCHW


class _ReluLayer(nn.Module):
    """max(0, x)."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.relu(x_BCHW)


class _NormLayer(nn.BatchNorm2d):
    """Batch normalisation."""

    def forward(self, x_BCHW: Tensor, size: Size | None = None) -> Tensor:
        normalised: Tensor = super().forward(x_BCHW)
        return normalised


class _ChainLayer(nn.Module):
    """Modules one after another, named by their position."""

    def __init__(self, operator: Chain, channels_in: int, channels_out: int) -> None:
        super().__init__()
        stages = operator.stages(channels_in, channels_out)
        self.steps = nn.ModuleList(layer(part, before, after) for part, before, after in stages)
        self.moves = [part.step for part in operator.steps]

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        for module, step in zip(self.steps, self.moves, strict=True):
            here: Size = (x_BCHW.shape[-2], x_BCHW.shape[-1])
            x_BCHW = module(x_BCHW, size if step < 0 else here)
        return x_BCHW


class _SumLayer(nn.Module):
    """Modules side by side, their results added."""

    def __init__(self, operator: Sum, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(layer(part, channels_in, channels_out) for part in operator.branches)

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        first, *others = (branch(x_BCHW, size) for branch in self.branches)
        total: Tensor = first
        for other in others:
            total = total + other
        return total


@layer.register
def _(operator: Conv, channels_in: int, channels_out: int) -> nn.Module:
    return _ConvLayer(operator, channels_in, channels_out)


@layer.register
def _(operator: UpConv, channels_in: int, channels_out: int) -> nn.Module:
    return _UpConvLayer(operator, channels_in, channels_out)


@layer.register
def _(operator: Nearest, channels_in: int, channels_out: int) -> nn.Module:
    return _NearestLayer()


@layer.register
def _(operator: Identity, channels_in: int, channels_out: int) -> nn.Module:
    return _IdentityLayer()


@layer.register
def _(operator: Relu, channels_in: int, channels_out: int) -> nn.Module:
    return _ReluLayer()


@layer.register
def _(operator: Norm, channels_in: int, channels_out: int) -> nn.Module:
    return _NormLayer(channels_out)


@layer.register
def _(operator: Chain, channels_in: int, channels_out: int) -> nn.Module:
    return _ChainLayer(operator, channels_in, channels_out)


@layer.register
def _(operator: Sum, channels_in: int, channels_out: int) -> nn.Module:
    return _SumLayer(operator, channels_in, channels_out)
