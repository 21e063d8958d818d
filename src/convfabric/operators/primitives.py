"""Operators that are not made of others."""

from dataclasses import dataclass

from convfabric.operators.operator import Operator, Size, area


def _check_odd(kernel: int) -> None:
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel={kernel}: a kernel has an odd number of pixels on a side.")


def _weights(kernel: int, bias: bool, channels_in: int, channels_out: int) -> int:
    return kernel**2 * channels_in * channels_out + bias * channels_out


@dataclass(frozen=True, kw_only=True)
class Conv(Operator):
    """A square convolution, padded so that stride 1 keeps the size and stride 2 gives ⌈n/2⌉.

    >>> Conv(kernel=3).parameters(16, 32), Conv(kernel=3).macs(16, 32, (8, 8), (8, 8))
    (4640, 294912)
    """

    kernel: int = 3
    """Pixels on a side, odd."""
    stride: int = 1
    """1 or 2."""
    bias: bool = True
    """Whether each output channel adds a trained constant."""

    def __post_init__(self) -> None:
        _check_odd(self.kernel)
        if self.stride not in (1, 2):
            raise ValueError(f"stride={self.stride}: an edge keeps the scale (1) or halves it (2).")

    @property
    def step(self) -> int:
        return self.stride - 1

    @property
    def keeps_channels(self) -> bool:
        return False

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return _weights(self.kernel, self.bias, channels_in, channels_out)

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel**2 * channels_in * channels_out * area(size_out)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class UpConv(Operator):
    """Zeros inserted at odd positions, then a convolution: one step to the finer scale.

    Only taps that meet a value are counted: kernel² per input pixel, as a transposed convolution does it.

    >>> UpConv(kernel=3).macs(16, 16, (4, 4), (8, 8)) == Conv(kernel=3).macs(16, 16, (8, 8), (8, 8)) // 4
    True
    """

    kernel: int = 3
    """Pixels on a side, odd."""
    bias: bool = True
    """Whether each output channel adds a trained constant."""

    def __post_init__(self) -> None:
        _check_odd(self.kernel)

    @property
    def step(self) -> int:
        return -1

    @property
    def keeps_channels(self) -> bool:
        return False

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return _weights(self.kernel, self.bias, channels_in, channels_out)

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel**2 * channels_in * channels_out * area(size_in)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


class _Parameterless(Operator):
    """What the operators without weights answer alike."""

    @property
    def keeps_channels(self) -> bool:
        return True

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 0

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Identity(_Parameterless):
    """The response as it is.

    >>> Identity().values(8, 8, (4, 4), (4, 4))
    0
    """

    @property
    def step(self) -> int:
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Nearest(_Parameterless):
    """Each pixel repeated 2×2, cropped to the finer size: one step to the finer scale.

    >>> Nearest().step
    -1
    """

    @property
    def step(self) -> int:
        return -1

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class Relu(_Parameterless):
    """max(0, x), in place.

    >>> Relu().values(8, 8, (4, 4), (4, 4))
    0
    """

    @property
    def step(self) -> int:
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Norm(Operator):
    """Batch normalisation with trained scale and shift (Ioffe & Szegedy 2015).

    >>> Norm().parameters(8, 8)
    16
    """

    @property
    def step(self) -> int:
        return 0

    @property
    def keeps_channels(self) -> bool:
        return True

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 2 * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)
