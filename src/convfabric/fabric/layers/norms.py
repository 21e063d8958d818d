"""Modules that rescale channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers.dispatch import kernels, layer
from convfabric.operators import (
    AlongChannels,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    Norm,
    OverChannels,
    Scale,
    Size,
)


class _NormLayer(nn.BatchNorm2d):
    """Batch normalisation."""

    def forward(self, x_BCHW: Tensor, size: Size | None = None) -> Tensor:
        normalised: Tensor = super().forward(x_BCHW)
        return normalised


class _LayerNormLayer(nn.Module):
    """Each pixel's channels brought to mean 0 and variance 1."""

    def __init__(self, operator: LayerNorm, channels: int) -> None:
        super().__init__()
        self.eps = operator.eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        last_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return F.layer_norm(last_BHWC, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class _GroupNormLayer(nn.GroupNorm):
    """Groups of channels brought to mean 0 and variance 1 over all pixels."""

    def forward(self, x_BCHW: Tensor, size: Size | None = None) -> Tensor:
        normalised: Tensor = super().forward(x_BCHW)
        return normalised


class _LocalResponseNormLayer(nn.Module):
    """Each value divided by what its neighbours among the channels amount to."""

    def __init__(self, operator: LocalResponseNorm) -> None:
        super().__init__()
        self.numbers = operator.size, operator.alpha, operator.beta, operator.k

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.local_response_norm(x_BCHW, *self.numbers)


class _AlongChannelsLayer(nn.Module):
    """A kernel that slides along the channels of each pixel."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.weight = kernels(1, 1, kernel, fan_out=kernel)

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        each = x_BCHW.permute(0, 2, 3, 1).reshape(-1, 1, channels)
        made = F.conv1d(each, self.weight, padding=self.weight.shape[-1] // 2)
        return made.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class _OverChannelsLayer(nn.Module):
    """Each value over what all channels of its pixel come to."""

    def __init__(self, operator: OverChannels) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if self.operator.kind == "average":
            return x_BCHW / (x_BCHW.mean(1, keepdim=True) + self.operator.eps)
        return x_BCHW * torch.rsqrt(x_BCHW.square().mean(1, keepdim=True) + self.operator.eps)


class _ScaleLayer(nn.Module):
    """A factor for each channel, and a constant."""

    def __init__(self, operator: Scale, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if operator.bias else None

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        scaled = x_BCHW * self.weight[:, None, None]
        return scaled if self.bias is None else scaled + self.bias[:, None, None]


@layer.register
def _(operator: Norm, channels_in: int, channels_out: int) -> nn.Module:
    return _NormLayer(channels_out, eps=operator.eps)


@layer.register
def _(operator: LayerNorm, channels_in: int, channels_out: int) -> nn.Module:
    return _LayerNormLayer(operator, channels_out)


@layer.register
def _(operator: GroupNorm, channels_in: int, channels_out: int) -> nn.Module:
    return _GroupNormLayer(operator.groups, channels_out, eps=operator.eps)


@layer.register
def _(operator: LocalResponseNorm, channels_in: int, channels_out: int) -> nn.Module:
    return _LocalResponseNormLayer(operator)


@layer.register
def _(operator: AlongChannels, channels_in: int, channels_out: int) -> nn.Module:
    return _AlongChannelsLayer(operator.kernel)


@layer.register
def _(operator: OverChannels, channels_in: int, channels_out: int) -> nn.Module:
    return _OverChannelsLayer(operator)


@layer.register
def _(operator: Scale, channels_in: int, channels_out: int) -> nn.Module:
    return _ScaleLayer(operator, channels_out)
