"""Operators with kernels in which every output channel reads every input channel of its group."""

import math
from dataclasses import dataclass, replace

from convfabric.operators.operator import Axes, Ends, Halo, Operator, Size, area, around, doubled

Kernel = int | tuple[int, int]
"""Pixels on a side, or height and width."""


def sides(kernel: Kernel) -> tuple[int, int]:
    """Height and width of a kernel.

    >>> sides(3), sides((1, 3))
    ((3, 3), (1, 3))
    """
    return (kernel, kernel) if isinstance(kernel, int) else kernel


Padding = tuple[int, int, int, int]
"""Rows and columns of zeros added above, below, to the left and to the right."""


def padding_of(kernel: Kernel, dilation: int = 1, padding: Padding | None = None) -> Padding:
    """The padding that is given, or half of the kernel on either side: what makes ⌈n/s⌉ of n with a stride of s.

    >>> padding_of(3), padding_of(4), padding_of((1, 3), padding=(0, 0, 2, 2))
    ((1, 1, 1, 1), (1, 2, 1, 2), (0, 0, 2, 2))
    """
    if padding is not None:
        return padding
    high, wide = (dilation * (side - 1) for side in sides(kernel))
    return high // 2, high - high // 2, wide // 2, wide - wide // 2


def windows(size: Size, kernel: Kernel, stride: int, dilation: int, padding: Padding, ceil: bool = False) -> Size:
    """How many positions a window has on a padded map, down and across.

    With ``ceil`` one more where pixels are left over, if it begins on the map or the padding before it (torch's rule).
    Raises ValueError where the window is larger than the padded map.

    >>> windows((224, 224), 11, 4, 1, (2, 2, 2, 2)), windows((112, 112), 3, 2, 1, (0, 0, 0, 0), ceil=True)
    ((55, 55), (56, 56))
    """
    found = []
    for i, (side, pixels) in enumerate(zip(size, sides(kernel), strict=True)):
        before, after = padding[2 * i], padding[2 * i + 1]
        left = side + before + after - dilation * (pixels - 1) - 1
        count = (left + ceil * (stride - 1)) // stride + 1
        if ceil and (count - 1) * stride >= side + before:
            count -= 1
        if count < 1:
            raise ValueError(f"a window of {pixels} pixels on a map of {size[0]}×{size[1]} padded by {padding}")
        found.append(count)
    return found[0], found[1]


def _check(kernel: Kernel, stride: int, dilation: int, padding: Padding | None) -> None:
    if min(sides(kernel)) < 1:
        raise ValueError(f"kernel={kernel}: a kernel has at least one pixel on a side.")
    if stride < 1 or dilation < 1:
        raise ValueError(f"stride={stride}, dilation={dilation}: both are at least 1.")
    if padding is not None and (len(padding) != 4 or min(padding) < 0):
        raise ValueError(f"padding={padding}: four numbers from 0, above, below, left and right.")


def _halo(kernel: Kernel, dilation: int = 1, padding: Padding | None = None) -> Halo:
    above, _, left, _ = padding_of(kernel, dilation, padding)
    high, wide = (dilation * (side - 1) for side in sides(kernel))
    return above, high - above, left, wide - left


@dataclass(frozen=True, kw_only=True)
class Conv(Operator):
    """A convolution, padded so that stride s gives ⌈n/s⌉ unless told otherwise.

    >>> Conv(kernel=3).parameters(16, 32), Conv(kernel=3).macs(16, 32, (8, 8), (8, 8))
    (4640, 294912)
    >>> Conv(kernel=(1, 3), groups=4, bias=False).parameters(16, 32)
    384
    >>> Conv(stride=2).size_after((5, 8)), Conv(kernel=5, padding=(0, 0, 0, 0)).size_after((32, 32))
    ((3, 4), (28, 28))
    """

    linear = True

    kernel: Kernel = 3
    """Pixels on a side, or height and width. Of an even number the odd one lies below and to the right."""
    stride: int = 1
    """Pixels between neighbouring windows."""
    dilation: int = 1
    """Distance between neighbouring taps in pixels."""
    groups: int = 1
    """Parts that the channels at both ends are divided into; each reads its own part alone."""
    bias: bool = True
    """Whether each output channel adds a trained constant."""
    padding: Padding | None = None
    """Rows and columns of zeros above, below, left and right; None for what gives ⌈n/s⌉."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.kernel, self.stride, self.dilation, self.padding)
        if self.groups < 1:
            raise ValueError(f"groups={self.groups}: at least 1.")

    @property
    def taps(self) -> int:
        """Weights of one kernel for one pair of channels."""
        return math.prod(sides(self.kernel))

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        return not self.bias

    @property
    def halo(self) -> Halo:
        return _halo(self.kernel, self.dilation, self.padding)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        padding = padding_of(self.kernel, self.dilation, self.padding)
        return windows(size, self.kernel, self.stride, self.dilation, padding)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if channels_in % self.groups or channels_out % self.groups:
            raise ValueError(f"groups={self.groups} does not divide {channels_in} and {channels_out} channels")
        return self.taps * channels_in // self.groups * channels_out + self.bias * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.taps * channels_in // self.groups * channels_out * area(size_out)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)

    @property
    def axes(self) -> Axes:
        return {"weight": ("out", "in" if self.groups == 1 else None, None, None), **_bias(self.bias)}

    @property
    def ties(self) -> bool:
        return self.groups > 1

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        if self.groups == 1:
            return 1, 1
        return max(1, channels_in // self.groups), max(1, channels_out // self.groups)

    def narrowed(self, whole: Ends, smaller: Ends) -> Operator:
        """Of several groups whole ones stay, as many as there are units left at both ends."""
        if self.groups == 1 or whole == smaller:
            return super().narrowed(whole, smaller)
        parts = [left * self.groups / before for before, left in zip(whole, smaller, strict=True)]
        if any(before % self.groups for before in whole) or parts[0] != parts[1] or parts[0] != int(parts[0]):
            raise ValueError(
                f"channels of Conv in {self.groups} groups belong together: of {whole[0]} it reads and {whole[1]} it "
                f"makes, {smaller[0]} and {smaller[1]} would stay"
            )
        return replace(self, groups=int(parts[0]))

    def matrix_width(self, channels_in: int, channels_out: int) -> int:
        return min(channels_in, channels_out) // self.groups


def _bias(wanted: bool) -> Axes:
    return {"bias": ("out",)} if wanted else {}


@dataclass(frozen=True, kw_only=True)
class UpConv(Operator):
    """Zeros inserted at odd positions, then a convolution: one step to the finer scale, a transposed convolution.

    Only taps that meet a value are counted: kernel² per input pixel.

    >>> UpConv(kernel=3).macs(16, 16, (4, 4), (8, 8)) == Conv(kernel=3).macs(16, 16, (8, 8), (8, 8)) // 4
    True
    """

    linear = True

    kernel: int = 3
    """Pixels on a side, at least 1."""
    bias: bool = True
    """Whether each output channel adds a trained constant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1:
            raise ValueError(f"kernel={self.kernel}: a kernel has at least one pixel on a side.")

    @property
    def stride(self) -> float:
        return 0.5

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return around(self.kernel // 2, (self.kernel - 1) // 2)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return doubled(size, fitting)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return self.kernel**2 * channels_in * channels_out + self.bias * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel**2 * channels_in * channels_out * area(size_in)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)

    @property
    def axes(self) -> Axes:
        return {"weight": ("out", "in", None, None), **_bias(self.bias)}

    def matrix_width(self, channels_in: int, channels_out: int) -> int:
        return min(channels_in, channels_out)


@dataclass(frozen=True, kw_only=True)
class Depthwise(Operator):
    """One kernel for each channel, which reads that channel alone.

    >>> Depthwise().parameters(16, 16), Depthwise(stride=2).macs(16, 16, (8, 8), (4, 4))
    (160, 2304)
    """

    linear = True

    kernel: Kernel = 3
    stride: int = 1
    dilation: int = 1
    bias: bool = True
    padding: Padding | None = None
    """As a convolution's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.kernel, self.stride, self.dilation, self.padding)

    @property
    def keeps_channels(self) -> bool:
        return True

    @property
    def halo(self) -> Halo:
        return _halo(self.kernel, self.dilation, self.padding)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        padding = padding_of(self.kernel, self.dilation, self.padding)
        return windows(size, self.kernel, self.stride, self.dilation, padding)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return (math.prod(sides(self.kernel)) + self.bias) * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return math.prod(sides(self.kernel)) * channels_out * area(size_out)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)

    @property
    def axes(self) -> Axes:
        return {"weight": ("out", None, None, None), **_bias(self.bias)}


@dataclass(frozen=True, kw_only=True)
class LocallyConnected(Operator):
    """A convolution whose weights are not tied: every pixel of a map of a fixed size has kernels of its own.

    >>> LocallyConnected(size=(4, 4)).parameters(2, 3)
    912
    """

    linear = True

    size: Size
    """Height and width of the map, in pixels; no other can be run."""
    kernel: int = 3
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}: untied kernels have an odd number of pixels on a side.")

    @property
    def stride(self) -> float:
        return 1

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return _halo(self.kernel)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return read_whole(size, self.size)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return (self.kernel**2 * channels_in + self.bias) * channels_out * area(self.size)

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel**2 * channels_in * channels_out * area(self.size)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(self.size)

    @property
    def axes(self) -> Axes:
        rest = (None, None)
        return {"weight": ("out", "in", None, None, *rest), **({"bias": ("out", *rest)} if self.bias else {})}


def read_whole(found: Size, wanted: Size) -> Size:
    """The size of a map for operators that run at one alone; ValueError for another.

    >>> read_whole((7, 7), (7, 7))
    (7, 7)
    """
    if found != wanted:
        raise ValueError(
            f"an operator for maps of {wanted[0]}×{wanted[1]} pixels met one of {found[0]}×{found[1]}: networks with "
            "fully or locally connected layers run at the size they were woven for"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class FullyConnected(Operator):
    """Every value of a map of a fixed size to one pixel: a convolution as large as the map.

    >>> FullyConnected(size=(7, 7)).parameters(512, 4096), FullyConnected(size=(7, 7)).size_after((7, 7))
    (102764544, (1, 1))
    """

    linear = True

    size: Size
    """Height and width of the map that is read, in pixels; no other can be run."""
    bias: bool = True
    drop: float = 0.0
    """Probability that a weight is zero in a step of training, the others enlarged (DropConnect, Wan et al. 2013)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size) < 1:
            raise ValueError(f"size={self.size}: a map has at least one pixel on a side.")
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop={self.drop}: a probability from 0 to below 1.")

    @property
    def stride(self) -> float:
        return math.inf

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        read_whole(size, self.size)
        return 1, 1

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return (area(self.size) * channels_in + self.bias) * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return area(self.size) * channels_in * channels_out

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out

    @property
    def axes(self) -> Axes:
        return {"weight": ("out", "in", None, None), **_bias(self.bias)}
