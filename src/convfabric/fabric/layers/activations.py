"""Modules of activations, dropout, shuffling and maxout."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers.dispatch import layer
from convfabric.operators import (
    Clamp,
    Dropout,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Maxout,
    Mish,
    Operator,
    PixelSoftmax,
    PRelu,
    Relu,
    Relu6,
    Shuffle,
    Sigmoid,
    Silu,
    Size,
    Slice,
    Softplus,
    Tanh,
    Times,
    TotalDropout,
)


class _IdentityLayer(nn.Module):
    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return x_BCHW


class _ReluLayer(nn.Module):
    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.relu(x_BCHW)


class _LeakyReluLayer(nn.Module):
    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.leaky_relu(x_BCHW, self.slope)


class _FunctionLayer(nn.Module):
    """A function of each value."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return self.function(x_BCHW)


class _PixelSoftmaxLayer(nn.Module):
    """Each channel as shares of its pixels."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return x_BCHW.flatten(2).softmax(2).view_as(x_BCHW)


class _TimesLayer(nn.Module):
    """A number times x, plus another."""

    def __init__(self, operator: Times) -> None:
        super().__init__()
        self.factor, self.plus = operator.factor, operator.plus

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        scaled = x_BCHW * self.factor
        return scaled + self.plus if self.plus else scaled


class _PReluLayer(nn.Module):
    """A trained slope below zero, a quarter at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.prelu(x_BCHW, self.weight)


class _DropoutLayer(nn.Module):
    """Single values set to zero in training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.dropout(x_BCHW, self.p, self.training)


class _TotalDropoutLayer(nn.Module):
    """The whole response set to zero in training, by one draw."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if not self.training:
            return x_BCHW
        return x_BCHW * (torch.rand((), device=x_BCHW.device) >= self.p).to(x_BCHW.dtype)


class _ShuffleLayer(nn.Module):
    """Channel i of group g to place g of the i-th run."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        return x_BCHW.reshape(batch, self.groups, channels // self.groups, height, width).transpose(1, 2).flatten(1, 2)


class _SliceLayer(nn.Module):
    """Some of the channels."""

    def __init__(self, operator: Slice) -> None:
        super().__init__()
        self.start, self.stop = operator.start, operator.stop

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return x_BCHW[:, self.start : self.stop]


class _MaxoutLayer(nn.Module):
    """The largest of each run of channels."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        return x_BCHW.reshape(batch, channels // self.pieces, self.pieces, height, width).amax(2)


FUNCTIONS: Mapping[type[Operator], Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        Relu6: F.relu6,
        Sigmoid: torch.sigmoid,
        HardSigmoid: F.hardsigmoid,
        Silu: F.silu,
        HardSwish: F.hardswish,
        Tanh: torch.tanh,
        Mish: F.mish,
        Softplus: F.softplus,
    }
)
"""Activations without numbers, by operator."""


@layer.register(Relu6)
@layer.register(Sigmoid)
@layer.register(HardSigmoid)
@layer.register(Silu)
@layer.register(HardSwish)
@layer.register(Tanh)
@layer.register(Mish)
@layer.register(Softplus)
def _(operator: Operator, channels_in: int, channels_out: int) -> nn.Module:
    return _FunctionLayer(FUNCTIONS[type(operator)])


@layer.register
def _(operator: Identity, channels_in: int, channels_out: int) -> nn.Module:
    return _IdentityLayer()


@layer.register
def _(operator: Relu, channels_in: int, channels_out: int) -> nn.Module:
    return _ReluLayer()


@layer.register
def _(operator: LeakyRelu, channels_in: int, channels_out: int) -> nn.Module:
    return _LeakyReluLayer(operator.slope)


@layer.register
def _(operator: PRelu, channels_in: int, channels_out: int) -> nn.Module:
    return _PReluLayer(1 if operator.single else channels_out)


@layer.register
def _(operator: Dropout, channels_in: int, channels_out: int) -> nn.Module:
    return _DropoutLayer(operator.p)


@layer.register
def _(operator: TotalDropout, channels_in: int, channels_out: int) -> nn.Module:
    return _TotalDropoutLayer(operator.p)


@layer.register
def _(operator: Shuffle, channels_in: int, channels_out: int) -> nn.Module:
    return _ShuffleLayer(operator.groups)


@layer.register
def _(operator: Maxout, channels_in: int, channels_out: int) -> nn.Module:
    return _MaxoutLayer(operator.pieces)


@layer.register
def _(operator: Gelu, channels_in: int, channels_out: int) -> nn.Module:
    return _FunctionLayer(partial(F.gelu, approximate="tanh") if operator.tanh else _gelu)


def _gelu(x: Tensor) -> Tensor:
    """By one kernel; in a program that is exported in the steps that runtimes know for it and make one again."""
    return x * (1.0 + torch.erf(x / math.sqrt(2.0))) * 0.5 if torch.compiler.is_exporting() else F.gelu(x)


@layer.register
def _(operator: Elu, channels_in: int, channels_out: int) -> nn.Module:
    return _FunctionLayer(lambda x: operator.scale * F.elu(x, operator.alpha))


@layer.register
def _(operator: Clamp, channels_in: int, channels_out: int) -> nn.Module:
    return _FunctionLayer(partial(torch.clamp, min=operator.least, max=operator.most))


@layer.register
def _(operator: Slice, channels_in: int, channels_out: int) -> nn.Module:
    return _SliceLayer(operator)


@layer.register
def _(operator: Times, channels_in: int, channels_out: int) -> nn.Module:
    return _TimesLayer(operator)


@layer.register
def _(operator: PixelSoftmax, channels_in: int, channels_out: int) -> nn.Module:
    return _PixelSoftmaxLayer()
