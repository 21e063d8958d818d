"""Operators without trained values: pools, resampling, activations, dropout, shuffling."""

import math
from dataclasses import dataclass
from typing import Literal

from convfabric.operators.operator import Halo, Operator, Size, area, around


class Parameterless(Operator):
    """What operators without weights answer alike."""

    @property
    def keeps_channels(self) -> bool:
        return True

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 0

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0


class Pixelwise(Parameterless):
    """What operators answer alike that change each pixel by itself, without a copy."""

    @property
    def step(self) -> int:
        return 0

    @property
    def halo(self) -> Halo:
        return around(0, 0)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0


class Doubling(Parameterless):
    """What operators answer alike that go one step to the finer scale."""

    @property
    def step(self) -> int:
        return -1

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class Identity(Pixelwise):
    """The response as it is.

    >>> Identity().values(8, 8, (4, 4), (4, 4))
    0
    """


@dataclass(frozen=True, kw_only=True)
class Relu(Pixelwise):
    """max(0, x)."""


@dataclass(frozen=True, kw_only=True)
class LeakyRelu(Pixelwise):
    """max(0, x) + slope · min(0, x) (Maas et al. 2013)."""

    slope: float = 0.1
    """From 0, a ReLU, to below 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.slope < 1:
            raise ValueError(f"slope={self.slope}: from 0 to below 1.")


@dataclass(frozen=True, kw_only=True)
class Dropout(Pixelwise):
    """In training each value is set to zero with a probability, the others enlarged (Srivastava et al. 2014)."""

    p: float = 0.5
    """Probability of zero, below 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise ValueError(f"p={self.p}: a probability from 0 to below 1.")


@dataclass(frozen=True, kw_only=True)
class TotalDropout(Pixelwise):
    """In training the whole response of a batch is set to zero with a probability, never enlarged.

    One draw for each pass (GridNet, Fourure et al. 2017).
    """

    p: float = 0.1
    """Probability of zero, below 1."""

    def __post_init__(self) -> None:
        Dropout(p=self.p)


@dataclass(frozen=True, kw_only=True)
class Shuffle(Pixelwise):
    """Channels dealt out anew, so that each of the next groups has some of every group (ShuffleNet, 2018).

    >>> Shuffle(groups=3).parameters(6, 6)
    0
    """

    groups: int
    """Divides the channels."""

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if self.groups < 1 or channels_in % self.groups:
            raise ValueError(f"groups={self.groups} does not divide {channels_in} channels")
        return 0


@dataclass(frozen=True, kw_only=True)
class Maxout(Parameterless):
    """The largest of so many neighbouring channels (Goodfellow et al. 2013): the only one here that makes fewer.

    >>> Maxout(pieces=2).values(8, 4, (2, 2), (2, 2))
    16
    """

    pieces: int = 2

    @property
    def step(self) -> int:
        return 0

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return around(0, 0)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if channels_in != self.pieces * channels_out:
            raise ValueError(f"maxout of {self.pieces} makes {channels_in} channels {channels_in / self.pieces:g}")
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class Pool(Parameterless):
    """The largest, the mean or the sum of the pixels around, padded so that stride s gives ⌈n/s⌉.

    What lies outside the map does not count.

    >>> Pool(kernel=2).step, Pool(kernel=3, stride=1).step
    (1, 0)
    """

    kind: Literal["max", "average", "sum"] = "max"
    kernel: int = 2
    """Pixels on a side. Of an even number the odd one lies below and to the right."""
    stride: int = 2
    """1 or 2."""

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.stride not in (1, 2):
            raise ValueError(f"kernel={self.kernel}, stride={self.stride}: at least 1, and a stride of 1 or 2.")

    @property
    def step(self) -> int:
        return self.stride - 1

    @property
    def halo(self) -> Halo:
        return around((self.kernel - 1) // 2, self.kernel // 2)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class GlobalPool(Parameterless):
    """The largest, the mean or the sum of all pixels of a map of any size.

    >>> GlobalPool(kind="max", scales=3).values(8, 8, (7, 7), (1, 1))
    8
    """

    kind: Literal["max", "average", "sum"] = "average"
    scales: int
    """From the scale of the map to one where maps have one pixel; see ``graph.POINT``."""

    @property
    def step(self) -> int:
        return self.scales

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out


@dataclass(frozen=True, kw_only=True)
class Nearest(Doubling):
    """Each pixel repeated 2×2, cropped to the finer size.

    >>> Nearest().step
    -1
    """

    @property
    def halo(self) -> Halo:
        return around(1, 0)


@dataclass(frozen=True, kw_only=True)
class Bilinear(Doubling):
    """Twice the size by linear interpolation between pixel centres, cropped to the finer size."""

    @property
    def halo(self) -> Halo:
        return around(2, 1)


@dataclass(frozen=True, kw_only=True)
class ZeroInsertion(Doubling):
    """Each pixel at the top left of a 2×2 cell of zeros, cropped to the finer size."""

    @property
    def halo(self) -> Halo:
        return around(0, 0)
