"""Modules of the operators with kernels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers.dispatch import constants, cropped, kernels, layer
from convfabric.operators import Conv, Depthwise, FullyConnected, LocallyConnected, Size, UpConv, padding_of, sides
from convfabric.operators.convolutions import read_whole

SAFE_CHANNELS = 16
"""Input channels from which on torch's 1×1 convolutions with a stride write their gradients where they should."""


class _ConvLayer(nn.Module):
    """A convolution; weight (C_out, C_in / groups, height, width)."""

    def __init__(self, operator: Conv, channels_in: int, channels_out: int) -> None:
        super().__init__()
        operator.parameters(channels_in, channels_out)
        self.stride, self.dilation, self.groups = operator.stride, operator.dilation, operator.groups
        above, below, left, right = padding_of(operator.kernel, operator.dilation, operator.padding)
        self.padding = [min(above, below), min(left, right)]
        more = left - self.padding[1], right - self.padding[1], above - self.padding[0], below - self.padding[0]
        self.more = more if any(more) else None
        fan_out = max(1, operator.taps * channels_out // operator.groups)
        self.weight = kernels(channels_out, channels_in // operator.groups, *sides(operator.kernel), fan_out=fan_out)
        self.bias = constants(channels_out, operator.bias)
        pixelwise = operator.taps == 1 and not any(padding_of(operator.kernel, operator.dilation, operator.padding))
        self.skips = pixelwise and operator.stride > 1 and channels_in // operator.groups < SAFE_CHANNELS

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if self.skips and self.training and x_BCHW.device.type == "cpu":
            # Of channels-last maps oneDNN's gradients run past their workspace where the channels do not fill a block
            # (oneDNN#6035; 8 with AVX2, 16 with AVX-512): memory is overwritten, or weights learn nonsense.
            return F.conv2d(x_BCHW[..., :: self.stride, :: self.stride], self.weight, self.bias, groups=self.groups)
        if self.more:
            x_BCHW = F.pad(x_BCHW, self.more)
        narrow = self.dilation > 1 or self.groups == len(self.weight)
        if narrow and self.training and x_BCHW.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # In bfloat16 gradients of dilated kernels come out wrong or not finite, and those of kernels for single
            # channels take four times as long: torch 2.14, AVX-512, channels-last.
            with torch.autocast("cpu", enabled=False):
                return self._convolved(x_BCHW.float()).to(torch.get_autocast_dtype("cpu"))
        return self._convolved(x_BCHW)

    def _convolved(self, x_BCHW: Tensor) -> Tensor:
        return F.conv2d(
            x_BCHW, self.weight, self.bias, self.stride, self.padding, dilation=self.dilation, groups=self.groups
        )


class _UpConvLayer(nn.Module):
    """Zeros at odd positions, then a convolution, as one transposed convolution.

    The weight stands as the convolution would have it, so it is transposed and flipped on the way.
    """

    def __init__(self, operator: UpConv, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.padding, self.odd = (operator.kernel - 1) // 2, operator.kernel % 2
        shape = channels_out, channels_in, operator.kernel, operator.kernel
        self.weight = kernels(*shape, fan_out=operator.kernel**2 * channels_out)
        self.bias = constants(channels_out, operator.bias)

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        weight = self.weight.transpose(0, 1).flip(2, 3)
        doubled = F.conv_transpose2d(x_BCHW, weight, self.bias, stride=2, padding=self.padding, output_padding=self.odd)
        return cropped(doubled, size)


class _LocallyConnectedLayer(nn.Module):
    """Kernels of each pixel's own; weight (C_out, C_in, kernel, kernel, height, width)."""

    def __init__(self, operator: LocallyConnected, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.kernel, self.size = operator.kernel, operator.size
        shape = channels_out, channels_in, operator.kernel, operator.kernel, *operator.size
        self.weight = kernels(*shape, fan_out=operator.kernel**2 * channels_out)
        self.bias = nn.Parameter(torch.zeros(channels_out, *operator.size)) if operator.bias else None

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        read_whole((x_BCHW.shape[-2], x_BCHW.shape[-1]), self.size)
        patches_BKP = F.unfold(x_BCHW, self.kernel, padding=self.kernel // 2)
        weight_OKP = self.weight.flatten(4).flatten(1, 3)
        out = torch.einsum("bkp,okp->bop", patches_BKP, weight_OKP).reshape(-1, len(weight_OKP), *self.size)
        return out if self.bias is None else out + self.bias


class _FullyConnectedLayer(nn.Module):
    """A convolution as large as the map; weight (C_out, C_in, height, width)."""

    def __init__(self, operator: FullyConnected, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.size, self.drop = operator.size, operator.drop
        self.weight = kernels(channels_out, channels_in, *operator.size, fan_out=channels_out)
        self.bias = constants(channels_out, operator.bias)

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        read_whole((x_BCHW.shape[-2], x_BCHW.shape[-1]), self.size)
        weight = F.dropout(self.weight, self.drop, self.training) if self.drop else self.weight
        return F.linear(x_BCHW.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]


@layer.register
def _(operator: Conv, channels_in: int, channels_out: int) -> nn.Module:
    return _ConvLayer(operator, channels_in, channels_out)


@layer.register
def _(operator: Depthwise, channels_in: int, channels_out: int) -> nn.Module:
    conv = Conv(
        kernel=operator.kernel,
        stride=operator.stride,
        dilation=operator.dilation,
        groups=channels_in,
        bias=operator.bias,
        padding=operator.padding,
    )
    return _ConvLayer(conv, channels_in, channels_out)


@layer.register
def _(operator: UpConv, channels_in: int, channels_out: int) -> nn.Module:
    return _UpConvLayer(operator, channels_in, channels_out)


@layer.register
def _(operator: LocallyConnected, channels_in: int, channels_out: int) -> nn.Module:
    return _LocallyConnectedLayer(operator, channels_in, channels_out)


@layer.register
def _(operator: FullyConnected, channels_in: int, channels_out: int) -> nn.Module:
    return _FullyConnectedLayer(operator, channels_in, channels_out)
