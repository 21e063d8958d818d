"""Modules of the operators without kernels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers.dispatch import cropped, framed, layer
from convfabric.operators import (
    Bilinear,
    Dropout,
    GlobalPool,
    Identity,
    LeakyRelu,
    Maxout,
    Nearest,
    Norm,
    Pool,
    PRelu,
    Relu,
    Shuffle,
    Size,
    TotalDropout,
    ZeroInsertion,
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


class _PReluLayer(nn.Module):
    """A trained slope below zero, a quarter at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.prelu(x_BCHW, self.weight)


class _NormLayer(nn.BatchNorm2d):
    """Batch normalisation."""

    def forward(self, x_BCHW: Tensor, size: Size | None = None) -> Tensor:
        normalised: Tensor = super().forward(x_BCHW)
        return normalised


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


class _MaxoutLayer(nn.Module):
    """The largest of each run of channels."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        return x_BCHW.reshape(batch, channels // self.pieces, self.pieces, height, width).amax(2)


class _PoolLayer(nn.Module):
    """The largest, the mean or the sum of the pixels around that lie on the map."""

    def __init__(self, operator: Pool) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        kernel, stride, halo = self.operator.kernel, self.operator.stride, self.operator.halo
        if self.operator.kind == "max":
            if kernel % 2:
                return F.max_pool2d(x_BCHW, kernel, stride, padding=kernel // 2)
            return F.max_pool2d(framed(x_BCHW, halo, float("-inf")), kernel, stride)
        if self.operator.kind == "average" and kernel % 2:
            return F.avg_pool2d(x_BCHW, kernel, stride, padding=kernel // 2, count_include_pad=False)
        summed = F.avg_pool2d(framed(x_BCHW, halo), kernel, stride) * kernel**2
        if self.operator.kind == "sum":
            return summed
        inside = F.avg_pool2d(framed(torch.ones_like(x_BCHW[:1, :1]), halo), kernel, stride) * kernel**2
        return summed / inside


class _GlobalPoolLayer(nn.Module):
    """The largest, the mean or the sum of all pixels."""

    def __init__(self, operator: GlobalPool) -> None:
        super().__init__()
        self.kind = operator.kind

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if self.kind == "max":
            return x_BCHW.amax((2, 3), keepdim=True)
        return x_BCHW.mean((2, 3), keepdim=True) if self.kind == "average" else x_BCHW.sum((2, 3), keepdim=True)


class _NearestLayer(nn.Module):
    """Each pixel repeated 2×2, cropped to the size."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return cropped(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"), size)


class _BilinearLayer(nn.Module):
    """Linear interpolation between pixel centres, cropped to the size."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return cropped(F.interpolate(x_BCHW, scale_factor=2.0, mode="bilinear", align_corners=False), size)


class _ZeroInsertionLayer(nn.Module):
    """Each pixel at the top left of a 2×2 cell of zeros, cropped to the size."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        cells_BCH2W2 = F.pad(x_BCHW[..., :, None, :, None], (0, 1, 0, 0, 0, 1))
        return cropped(cells_BCH2W2.flatten(4, 5).flatten(2, 3), size)


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
    return _PReluLayer(channels_out)


@layer.register
def _(operator: Norm, channels_in: int, channels_out: int) -> nn.Module:
    return _NormLayer(channels_out)


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
def _(operator: Pool, channels_in: int, channels_out: int) -> nn.Module:
    return _PoolLayer(operator)


@layer.register
def _(operator: GlobalPool, channels_in: int, channels_out: int) -> nn.Module:
    return _GlobalPoolLayer(operator)


@layer.register
def _(operator: Nearest, channels_in: int, channels_out: int) -> nn.Module:
    return _NearestLayer()


@layer.register
def _(operator: Bilinear, channels_in: int, channels_out: int) -> nn.Module:
    return _BilinearLayer()


@layer.register
def _(operator: ZeroInsertion, channels_in: int, channels_out: int) -> nn.Module:
    return _ZeroInsertionLayer()
