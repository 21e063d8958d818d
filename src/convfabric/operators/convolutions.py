"""Operators with kernels in which every output channel reads every input channel of its group."""

import math
from dataclasses import dataclass

from convfabric.operators.operator import Halo, Operator, Size, area, around

Kernel = int | tuple[int, int]
"""Pixels on a side, or height and width."""


def sides(kernel: Kernel) -> tuple[int, int]:
    """Height and width of a kernel.

    >>> sides(3), sides((1, 3))
    ((3, 3), (1, 3))
    """
    return (kernel, kernel) if isinstance(kernel, int) else kernel


def _check_kernel(kernel: Kernel) -> None:
    if min(sides(kernel)) < 1:
        raise ValueError(f"kernel={kernel}: a kernel has at least one pixel on a side.")


def _halo(kernel: Kernel, dilation: int = 1) -> Halo:
    """Half of the kernel on either side; of an even number of pixels the odd one lies after."""
    high, wide = (dilation * (side - 1) for side in sides(kernel))
    return high // 2, high - high // 2, wide // 2, wide - wide // 2


@dataclass(frozen=True, kw_only=True)
class Conv(Operator):
    """A convolution, padded so that stride s gives ⌈n/s⌉.

    >>> Conv(kernel=3).parameters(16, 32), Conv(kernel=3).macs(16, 32, (8, 8), (8, 8))
    (4640, 294912)
    >>> Conv(kernel=(1, 3), groups=4, bias=False).parameters(16, 32)
    384
    """

    kernel: Kernel = 3
    """Pixels on a side, or height and width. Of an even number the odd one lies below and to the right."""
    stride: int = 1
    """A power of two: each factor of two is one scale."""
    dilation: int = 1
    """Distance between neighbouring taps in pixels."""
    groups: int = 1
    """Parts that the channels at both ends are divided into; each reads its own part alone."""
    bias: bool = True
    """Whether each output channel adds a trained constant."""

    def __post_init__(self) -> None:
        _check_kernel(self.kernel)
        if self.stride < 1 or self.stride & (self.stride - 1):
            raise ValueError(f"stride={self.stride}: a stride is a power of two, one scale for each factor.")
        if self.dilation < 1 or self.groups < 1:
            raise ValueError(f"dilation={self.dilation}, groups={self.groups}: both are at least 1.")

    @property
    def taps(self) -> int:
        """Weights of one kernel for one pair of channels."""
        return math.prod(sides(self.kernel))

    @property
    def step(self) -> int:
        return self.stride.bit_length() - 1

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return _halo(self.kernel, self.dilation)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if channels_in % self.groups or channels_out % self.groups:
            raise ValueError(f"groups={self.groups} does not divide {channels_in} and {channels_out} channels")
        return self.taps * channels_in // self.groups * channels_out + self.bias * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.taps * channels_in // self.groups * channels_out * area(size_out)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class UpConv(Operator):
    """Zeros inserted at odd positions, then a convolution: one step to the finer scale, a transposed convolution.

    Only taps that meet a value are counted: kernel² per input pixel.

    >>> UpConv(kernel=3).macs(16, 16, (4, 4), (8, 8)) == Conv(kernel=3).macs(16, 16, (8, 8), (8, 8)) // 4
    True
    """

    kernel: int = 3
    """Pixels on a side, at least 2."""
    bias: bool = True
    """Whether each output channel adds a trained constant."""

    def __post_init__(self) -> None:
        if self.kernel < 1:
            raise ValueError(f"kernel={self.kernel}: a kernel has at least one pixel on a side.")

    @property
    def step(self) -> int:
        return -1

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return around(self.kernel // 2, (self.kernel - 1) // 2)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return self.kernel**2 * channels_in * channels_out + self.bias * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel**2 * channels_in * channels_out * area(size_in)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class Depthwise(Operator):
    """One kernel for each channel, which reads that channel alone.

    >>> Depthwise().parameters(16, 16), Depthwise(stride=2).macs(16, 16, (8, 8), (4, 4))
    (160, 2304)
    """

    kernel: Kernel = 3
    stride: int = 1
    dilation: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        Conv(kernel=self.kernel, stride=self.stride, dilation=self.dilation)

    @property
    def step(self) -> int:
        return self.stride.bit_length() - 1

    @property
    def keeps_channels(self) -> bool:
        return True

    @property
    def halo(self) -> Halo:
        return _halo(self.kernel, self.dilation)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return (math.prod(sides(self.kernel)) + self.bias) * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return math.prod(sides(self.kernel)) * channels_out * area(size_out)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class LocallyConnected(Operator):
    """A convolution whose weights are not tied: every pixel of a map of a fixed size has kernels of its own.

    >>> LocallyConnected(size=(4, 4)).parameters(2, 3)
    912
    """

    size: Size
    """Height and width of the map, in pixels; no other can be run."""
    kernel: int = 3
    bias: bool = True

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}: untied kernels have an odd number of pixels on a side.")

    @property
    def step(self) -> int:
        return 0

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return _halo(self.kernel)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return (self.kernel**2 * channels_in + self.bias) * channels_out * area(self.size)

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel**2 * channels_in * channels_out * area(self.size)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(self.size)


@dataclass(frozen=True, kw_only=True)
class FullyConnected(Operator):
    """Every value of a map of a fixed size to one pixel: a convolution as large as the map.

    >>> FullyConnected(size=(7, 7), scales=3).parameters(512, 4096)
    102764544
    """

    size: Size
    """Height and width of the map that is read, in pixels; no other can be run."""
    scales: int
    """From the scale of the map to one where maps have one pixel; see ``graph.POINT``."""
    bias: bool = True

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size={self.size}: a map has at least one pixel on a side.")

    @property
    def step(self) -> int:
        return self.scales

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return (area(self.size) * channels_in + self.bias) * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return area(self.size) * channels_in * channels_out

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out
