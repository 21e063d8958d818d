"""Operators that take the largest, the mean or the sum of pixels, each channel by itself."""

import math
from dataclasses import dataclass
from typing import Literal

from convfabric.operators.convolutions import Padding, padding_of, windows
from convfabric.operators.operator import Halo, Operator, Size, area, around

Kind = Literal["max", "average", "sum"]


class Pooling(Operator):
    """Common answers of pools."""

    kind: str
    keeps_zero = True

    @property
    def keeps_channels(self) -> bool:
        return True

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 0

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class Pool(Pooling):
    """The largest, the mean or the sum of the pixels around, padded so that stride s gives ⌈n/s⌉ unless told otherwise.

    What lies outside the map does not count.

    >>> Pool(kernel=2).size_after((5, 8)), Pool(kernel=3, stride=1).size_after((5, 8))
    ((3, 4), (5, 8))
    >>> Pool(kernel=3, padding=(0, 0, 0, 0), ceil=True).size_after((112, 111))
    (56, 55)
    """

    kind: Kind = "max"
    kernel: int = 2
    """Pixels on a side. Of an even number the odd one lies below and to the right."""
    stride: int = 2
    """Pixels between neighbouring windows."""
    padding: Padding | None = None
    """Rows and columns above, below, left and right; None for what gives ⌈n/s⌉."""
    ceil: bool = False
    """Whether pixels that are left over at the far ends have a window of their own."""
    counts_padding: bool = False
    """Whether the padding's zeros count in a mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.stride < 1:
            raise ValueError(f"kernel={self.kernel}, stride={self.stride}: both are at least 1.")
        if self.padding is not None and not 0 <= min(self.padding) <= max(self.padding) < self.kernel:
            raise ValueError(f"padding={self.padding}: four numbers from 0 to below the kernel's {self.kernel} pixels.")

    @property
    def transparent(self) -> bool:  # type: ignore[override]
        return self.kind == "average" and not self.counts_padding

    @property
    def halo(self) -> Halo:
        if self.padding is None:
            return around((self.kernel - 1) // 2, self.kernel // 2)
        above, _, left, _ = self.padding
        return above, self.kernel - 1 - above, left, self.kernel - 1 - left

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return windows(size, self.kernel, self.stride, 1, padding_of(self.kernel, 1, self.padding), self.ceil)


@dataclass(frozen=True, kw_only=True)
class GlobalPool(Pooling):
    """The largest, the mean, the sum or the length (the root of the sum of squares) of all pixels of any map.

    >>> GlobalPool(kind="max").values(8, 8, (7, 7), (1, 1)), GlobalPool().size_after((7, 7))
    (8, (1, 1))
    """

    kind: Literal["max", "average", "sum", "length"] = "average"

    @property
    def transparent(self) -> bool:  # type: ignore[override]
        return self.kind == "average"

    @property
    def stride(self) -> float:
        return math.inf

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return 1, 1


@dataclass(frozen=True, kw_only=True)
class AdaptivePool(Pooling):
    """The largest or the mean of the pixels in each cell of a grid laid over a map of any size, as torch lays it.

    >>> AdaptivePool(size=(6, 6)).size_after((13, 9))
    (6, 6)
    """

    kind: Literal["max", "average"] = "average"
    size: Size
    """Rows and columns of the grid."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size) < 1:
            raise ValueError(f"size={self.size}: a grid has at least one cell on a side.")

    @property
    def transparent(self) -> bool:  # type: ignore[override]
        return self.kind == "average"

    @property
    def stride(self) -> float:
        return math.inf

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return self.size


@dataclass(frozen=True, kw_only=True)
class Switches(Pooling):
    """1 where a pixel is the largest of its 2×2 cell, the first of equal ones, else 0 (Zeiler & Fergus 2014).

    These are the indices of a 2×2 max pool: a map of half the size, repeated and multiplied by them, is unpooled.

    >>> Switches().size_after((5, 8)), Switches().keeps_zero
    ((5, 8), False)
    """

    keeps_zero = False
    piecewise_constant = True
    cell = 2

    @property
    def stride(self) -> float:
        return 1

    @property
    def halo(self) -> Halo:
        return around(1, 1)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return size
