"""Operators without weights that double a map, or leave it as it is."""

import math
from dataclasses import dataclass
from typing import Literal

from convfabric.operators.operator import Halo, Operator, Size, area, around, doubled


class Doubling(Operator):
    """Common answers of operators that double a map, cropped to the size wanted."""

    keeps_zero = True

    @property
    def stride(self) -> float:
        return 0.5

    @property
    def keeps_channels(self) -> bool:
        return True

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return doubled(size, fitting)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 0

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class Nearest(Doubling):
    """Each pixel repeated 2×2, cropped to the finer size.

    >>> Nearest().scales_moved, Nearest().size_after((4, 3), (7, 6))
    (-1, (7, 6))
    """

    transparent = True

    @property
    def halo(self) -> Halo:
        return around(1, 0)


@dataclass(frozen=True, kw_only=True)
class Bilinear(Doubling):
    """Twice the size by linear interpolation between pixel centres, cropped to the finer size.

    >>> Bilinear().size_after((4, 3))
    (8, 6)
    """

    transparent = True

    @property
    def halo(self) -> Halo:
        return around(2, 1)


@dataclass(frozen=True, kw_only=True)
class ZeroInsertion(Doubling):
    """Each pixel at the top left of a 2×2 cell of zeros, cropped to the finer size.

    >>> ZeroInsertion().transparent
    False
    """

    @property
    def halo(self) -> Halo:
        return around(0, 0)


@dataclass(frozen=True, kw_only=True)
class Resize(Doubling):
    """A map brought to a fixed number of rows and columns, as torch's interpolation does it.

    >>> Resize(size=(7, 9)).size_after((1, 1))
    (7, 9)
    """

    transparent = True

    size: Size
    """Rows and columns that are written."""
    mode: Literal["nearest", "bilinear"] = "bilinear"
    corners: bool = False
    """Whether the corners of both maps are laid on one another, not their edges."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size) < 1:
            raise ValueError(f"size={self.size}: a map has at least one pixel on a side.")

    @property
    def stride(self) -> float:
        return math.inf

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return self.size
