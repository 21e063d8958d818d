"""Modules that double a map."""

from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers.dispatch import cropped, layer
from convfabric.operators import (
    Bilinear,
    Nearest,
    Pad,
    Resize,
    Size,
    ZeroInsertion,
)


class _NearestLayer(nn.Module):
    """Each pixel repeated, cropped to the size."""

    def __init__(self, operator: Nearest) -> None:
        super().__init__()
        self.times = 2.0**operator.doublings

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return cropped(F.interpolate(x_BCHW, scale_factor=self.times, mode="nearest"), size)


class _BilinearLayer(nn.Module):
    """Linear interpolation between pixel centres, cropped to the size."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return cropped(F.interpolate(x_BCHW, scale_factor=2.0, mode="bilinear", align_corners=False), size)


class _ZeroInsertionLayer(nn.Module):
    """Each pixel at the top left of a 2×2 cell of zeros, cropped to the size."""

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        cells_BCH2W2 = F.pad(x_BCHW[..., :, None, :, None], (0, 1, 0, 0, 0, 1))
        return cropped(cells_BCH2W2.flatten(4, 5).flatten(2, 3), size)


class _ResizeLayer(nn.Module):
    """Interpolation to a fixed size."""

    def __init__(self, operator: Resize) -> None:
        super().__init__()
        self.size, self.mode = operator.size, operator.mode
        self.corners = operator.corners if operator.mode == "bilinear" else None

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.interpolate(x_BCHW, size=self.size, mode=self.mode, align_corners=self.corners)


class _PadLayer(nn.Module):
    """Rows and columns around a map."""

    def __init__(self, operator: Pad) -> None:
        super().__init__()
        above, below, left, right = operator.padding
        self.sides, self.mode = (left, right, above, below), operator.mode
        self.value = operator.value if operator.mode == "constant" else None

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        return F.pad(x_BCHW, self.sides, self.mode, self.value)


@layer.register
def _(operator: Nearest, channels_in: int, channels_out: int) -> nn.Module:
    return _NearestLayer(operator)


@layer.register
def _(operator: Bilinear, channels_in: int, channels_out: int) -> nn.Module:
    return _BilinearLayer()


@layer.register
def _(operator: ZeroInsertion, channels_in: int, channels_out: int) -> nn.Module:
    return _ZeroInsertionLayer()


@layer.register
def _(operator: Resize, channels_in: int, channels_out: int) -> nn.Module:
    return _ResizeLayer(operator)


@layer.register
def _(operator: Pad, channels_in: int, channels_out: int) -> nn.Module:
    return _PadLayer(operator)
