"""Modules of pools."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers.dispatch import cropped, framed, layer
from convfabric.operators import (
    AdaptivePool,
    GlobalPool,
    Halo,
    Pool,
    Size,
    Switches,
)


class _PoolLayer(nn.Module):
    """The largest, the mean or the sum of the pixels around that lie on the map."""

    def __init__(self, operator: Pool) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if self.operator.padding is not None:
            return self._padded(x_BCHW)
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

    def _padded(self, x_BCHW: Tensor) -> Tensor:
        """With padding of its own: a frame up to where the last window ends."""
        operator, (height, width) = self.operator, (x_BCHW.shape[-2], x_BCHW.shape[-1])
        rows, columns = operator.size_after((height, width))
        assert operator.padding is not None
        above, _, left, _ = operator.padding
        below = max(0, (rows - 1) * operator.stride + operator.kernel - height - above)
        right = max(0, (columns - 1) * operator.stride + operator.kernel - width - left)
        frame: Halo = (above, below, left, right)
        if operator.kind == "max":
            return F.max_pool2d(framed(x_BCHW, frame, float("-inf")), operator.kernel, operator.stride)
        summed = F.avg_pool2d(framed(x_BCHW, frame), operator.kernel, operator.stride) * operator.kernel**2
        if operator.kind == "sum":
            return summed
        ones = framed(torch.ones_like(x_BCHW[:1, :1]), frame, float(operator.counts_padding))
        if operator.counts_padding:  # Torch counts the padding asked for, and not what ceil mode adds behind it.
            far = height + above + operator.padding[1], width + left + operator.padding[3]
            ones[..., far[0] :, :], ones[..., far[1] :] = 0.0, 0.0
        return summed / (F.avg_pool2d(ones, operator.kernel, operator.stride) * operator.kernel**2)


class _GlobalPoolLayer(nn.Module):
    """The largest, the mean, the sum or the length of all pixels."""

    def __init__(self, operator: GlobalPool) -> None:
        super().__init__()
        self.kind = operator.kind

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if self.kind == "max":
            return x_BCHW.amax((2, 3), keepdim=True)
        if self.kind == "length":
            length: Tensor = torch.linalg.vector_norm(x_BCHW, dim=(2, 3), keepdim=True)
            return length
        return x_BCHW.mean((2, 3), keepdim=True) if self.kind == "average" else x_BCHW.sum((2, 3), keepdim=True)


class _AdaptivePoolLayer(nn.Module):
    """The largest or the mean of the pixels in each cell of a grid."""

    def __init__(self, operator: AdaptivePool) -> None:
        super().__init__()
        self.size = operator.size
        self.largest = operator.kind == "max"

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if not self.largest:
            return F.adaptive_avg_pool2d(x_BCHW, self.size)
        # Cell by cell: torch's operator for the largest cannot be written as ONNX.
        rows, columns = (_cells(side, count) for side, count in zip(x_BCHW.shape[-2:], self.size, strict=True))
        lines = [[x_BCHW[..., row, column].amax((-2, -1)) for column in columns] for row in rows]
        return torch.stack([torch.stack(line, -1) for line in lines], -2)


def _cells(side: int, count: int) -> list[slice]:
    """So many parts of a side, from ⌊i · side / count⌋ to ⌈(i + 1) · side / count⌉, as torch divides it.

    >>> _cells(7, 2)
    [slice(0, 4, None), slice(3, 7, None)]
    """
    return [slice(i * side // count, -(-(i + 1) * side // count)) for i in range(count)]


class _SwitchesLayer(nn.Module):
    """1 where a pixel is the first of the largest of its cell."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        below, right = x_BCHW.shape[-2] % 2, x_BCHW.shape[-1] % 2
        even_BCHW = framed(x_BCHW, (0, below, 0, right), float("-inf")) if below or right else x_BCHW
        cells = [even_BCHW[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
        largest = F.max_pool2d(even_BCHW, 2)
        first, second, third = (cell >= largest for cell in cells[:3])
        second, third = second & ~first, third & ~(first | second)
        rows = [torch.stack(pair, -1).flatten(-2) for pair in ((first, second), (third, ~(first | second | third)))]
        return cropped(torch.stack(rows, -2).flatten(-3, -2).to(x_BCHW.dtype), size)


@layer.register
def _(operator: Pool, channels_in: int, channels_out: int) -> nn.Module:
    return _PoolLayer(operator)


@layer.register
def _(operator: GlobalPool, channels_in: int, channels_out: int) -> nn.Module:
    return _GlobalPoolLayer(operator)


@layer.register
def _(operator: AdaptivePool, channels_in: int, channels_out: int) -> nn.Module:
    return _AdaptivePoolLayer(operator)


@layer.register
def _(operator: Switches, channels_in: int, channels_out: int) -> nn.Module:
    return _SwitchesLayer()
