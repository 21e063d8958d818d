"""A convolution in which each output channel reads the input channels that a table names (LeCun et al. 1998)."""

from dataclasses import dataclass

from convfabric.operators.convolutions import Padding, padding_of, windows
from convfabric.operators.operator import Axes, Ends, Halo, Operator, Size, area


@dataclass(frozen=True, kw_only=True)
class TabledConv(Operator):
    """A convolution of the pairs of channels in a table, and no others.

    >>> TabledConv(table=((0, 1), (1, 2), (0, 1, 2))).parameters(3, 3)
    66
    """

    linear = True

    table: tuple[tuple[int, ...], ...]
    """Of each output channel the input channels that it reads, in order."""
    kernel: int = 3
    """Pixels on a side."""
    bias: bool = True
    padding: Padding | None = None
    """As a convolution's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or any(
            not reads or list(reads) != sorted(set(reads)) or reads[0] < 0 for reads in self.table
        ):
            raise ValueError(f"{self}: a kernel of at least one pixel, and of each output inputs from 0, in order.")

    @property
    def stride(self) -> float:
        return 1

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        return not self.bias

    @property
    def halo(self) -> Halo:
        above, _, left, _ = padding_of(self.kernel, 1, self.padding)
        return above, self.kernel - 1 - above, left, self.kernel - 1 - left

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return windows(size, self.kernel, 1, 1, padding_of(self.kernel, 1, self.padding))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Each output channel with an input channel that it reads."""
        return [(after, before) for after, reads in enumerate(self.table) for before in reads]

    def parameters(self, channels_in: int, channels_out: int) -> int:
        read = max(before for _, before in self.pairs)
        if channels_out != len(self.table) or channels_in <= read:
            said = f"{len(self.table)} channels that read channel {read}"
            raise ValueError(f"a table for {said}, not for {channels_out} of {channels_in}")
        return self.kernel**2 * len(self.pairs) + self.bias * channels_out

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel**2 * len(self.pairs) * area(size_out)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)

    @property
    def axes(self) -> Axes:
        return {"weight": ("pair", None, None), **({"bias": ("out",)} if self.bias else {})}

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return channels_in, channels_out

    def outputs(self, channels_in: int, channels_out: int) -> list[int]:
        return [after for after, _ in self.pairs]
