"""Operators without weights that make a map of another size, or put something around it."""

import math
from dataclasses import dataclass
from typing import Literal

from convfabric.operators.convolutions import Padding
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
    """Each pixel repeated 2×2, or 2×2 again as often as told, cropped to the finer size.

    >>> Nearest().scales_moved, Nearest().size_after((4, 3), (7, 6)), Nearest(doublings=2).size_after((4, 3))
    (-1, (7, 6), (16, 12))
    """

    transparent = True

    doublings: int = 1
    """Scales by which the map becomes finer, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.doublings < 1:
            raise ValueError(f"doublings={self.doublings}: a map is doubled at least once.")

    @property
    def stride(self) -> float:
        return 0.5**self.doublings

    @property
    def halo(self) -> Halo:
        return around(2**self.doublings - 1, 0)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return doubled(size, fitting, self.doublings)


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


@dataclass(frozen=True, kw_only=True)
class Pad(Doubling):
    """Rows and columns put around a map, or taken from it where their number is below zero.

    >>> Pad(padding=(1, 1, 0, -1)).size_after((4, 4))
    (6, 3)
    """

    padding: Padding
    """Rows above and below, columns on the left and on the right."""
    mode: Literal["constant", "reflect", "replicate"] = "constant"
    """What stands there: the value, the map turned over at its outermost pixels, or those repeated."""
    value: float = 0.0

    @property
    def transparent(self) -> bool:  # type: ignore[override]
        return self.mode != "constant"

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        return self.mode != "constant" or self.value == 0

    @property
    def stride(self) -> float:
        return 1

    @property
    def halo(self) -> Halo:
        above, below, left, right = self.padding
        if self.mode != "constant":
            return max(above, below), max(above, below), max(left, right), max(left, right)
        return max(0, above), max(0, -above), max(0, left), max(0, -left)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        above, below, left, right = self.padding
        if self.mode == "reflect" and (max(above, below) >= size[0] or max(left, right) >= size[1]):
            raise ValueError(f"padding={self.padding}: a map of {size[0]}×{size[1]} has not as much to reflect.")
        after = size[0] + above + below, size[1] + left + right
        if min(after) < 1:
            raise ValueError(f"padding={self.padding}: nothing is left of a map of {size[0]}×{size[1]}.")
        return after
