"""The sparse fabric's convolutions: an output channel reads the few input channels next to it, and no others.

Kernels that do not exist are not stored, counted or exported. Which exist follows from the channels at
the two ends (Saxena & Verbeek 2016, section 3; the border rules are those of the authors' code).
"""

from dataclasses import dataclass
from typing import Literal

from convfabric.operators.operator import Axes, Ends, Halo, Operator, Size, area, around, doubled, halved

Pair = tuple[int, int]
"""An output channel and an input channel."""


def taps(channels_in: int, channels_out: int, distances: tuple[int, ...] = ()) -> tuple[tuple[Pair, ...], ...]:
    """The pairs of channels that have a kernel, grouped so that no output stands twice in a group.

    Equal counts: each output reads its own channel and one on either side. From twice as many: its own two and
    one on either side. To twice as many: two. All clipped to what exists; equal counts of at most three are dense.
    Where counts are equal each output reads those at the distances, on either side, as well. Raises ValueError for
    counts of any other ratio.

    >>> taps(4, 4)
    (((1, 0), (2, 1), (3, 2)), ((0, 0), (1, 1), (2, 2), (3, 3)), ((0, 1), (1, 2), (2, 3)))
    >>> taps(5, 5, distances=(4,))[-2:]
    (((4, 0),), ((0, 4),))
    """
    far: list[int] = []
    if channels_in == channels_out:
        reach = 1 if channels_in > 3 else channels_in
        starts, width = [i - reach for i in range(channels_out)], 2 * reach + 1
        far = [side * distance for distance in distances if distance > reach for side in (-1, 1)]
    elif channels_in == 2 * channels_out:
        starts, width = [2 * i - 1 for i in range(channels_out)], 4
    elif channels_out == 2 * channels_in:
        starts, width = [(i - 1) // 2 for i in range(channels_out)], 2
    else:
        raise ValueError(f"a band joins equal counts or one and its double, not {channels_in} and {channels_out}")
    groups = [
        tuple((i, start + tap) for i, start in enumerate(starts) if 0 <= start + tap < channels_in)
        for tap in range(width)
    ]
    groups += [tuple((i, i + step) for i in range(channels_out) if 0 <= i + step < channels_in) for step in far]
    return tuple(group for group in groups if group)


def band(channels_in: int, channels_out: int, distances: tuple[int, ...] = ()) -> list[list[int]]:
    """For each output channel the input channels it reads.

    >>> band(4, 4), band(6, 3), band(2, 4)
    ([[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]], [[0, 1, 2], [1, 2, 3, 4], [3, 4, 5]], [[0], [0, 1], [0, 1], [1]])
    """
    found = sorted(pair for group in taps(channels_in, channels_out, distances) for pair in group)
    return [[before for after, before in found if after == i] for i in range(channels_out)]


def pairs(channels_in: int, channels_out: int, distances: tuple[int, ...] = ()) -> int:
    """How many pairs of an output and an input channel have a kernel.

    >>> pairs(64, 64), pairs(32, 16), pairs(16, 32)
    (190, 62, 62)
    """
    return sum(map(len, taps(channels_in, channels_out, distances)))


@dataclass(frozen=True, kw_only=True)
class BandedConv(Operator):
    """A convolution over neighbouring channels; of stride 2, or behind zeros inserted at odd positions, too.

    >>> BandedConv().parameters(64, 64), BandedConv(scales=-1, bias=False).macs(64, 32, (4, 4), (8, 8))
    (1774, 18144)
    """

    linear = True

    kernel: int = 3
    """Pixels on a side, odd."""
    scales: Literal[-1, 0, 1] = 0
    """Scales moved: 1 is a stride of 2, padded so that it gives ⌈n/2⌉; -1 is one scale finer."""
    bias: bool = True
    distances: tuple[int, ...] = ()
    """How far away further channels are that are read, on either side, from 2 on, where outputs are as many."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(distance < 2 for distance in self.distances) or len(set(self.distances)) < len(self.distances):
            raise ValueError(f"distances={self.distances}: numbers from 2 on, none twice; neighbours are read anyway.")
        if self.kernel < 1 or self.kernel % 2 == 0 or self.scales not in (-1, 0, 1):
            raise ValueError(f"kernel={self.kernel}, scales={self.scales}: an odd kernel, and -1, 0 or 1.")

    @property
    def stride(self) -> float:
        return 2.0**self.scales

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return around(self.kernel // 2, self.kernel // 2)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return doubled(size, fitting) if self.scales < 0 else halved(size) if self.scales else size

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return self.kernel**2 * pairs(channels_in, channels_out, self.distances) + self.bias * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel**2 * pairs(channels_in, channels_out, self.distances) * min(area(size_in), area(size_out))

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)

    @property
    def axes(self) -> Axes:
        return {"weight": ("pair", None, None), **({"bias": ("out",)} if self.bias else {})}

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return channels_in, channels_out

    def outputs(self, channels_in: int, channels_out: int) -> list[int]:
        groups = taps(channels_in, channels_out, self.distances)
        return [after for after, _ in sorted(pair for group in groups for pair in group)]

    def matrix_width(self, channels_in: int, channels_out: int) -> int:
        return min(channels_in, channels_out)
