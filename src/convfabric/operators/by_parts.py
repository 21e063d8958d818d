"""One operator done for each part of the channels, with the same weights."""

from dataclasses import dataclass

from convfabric.operators.composites import Composite
from convfabric.operators.operator import Axes, Ends, Halo, Operator, Size


@dataclass(frozen=True, kw_only=True)
class ByParts(Operator):
    """The channels in parts of so many, each read by one operator whose weights are those of all parts.

    Where coarser scales have more channels they have more parts, so that all scales can share the weights.

    >>> from convfabric.operators import Conv
    >>> down = ByParts(each=Conv(stride=2, bias=False), width=8)
    >>> down.parameters(8, 16) == down.parameters(32, 64) == 9 * 8 * 16
    True
    """

    each: Operator
    """What each part is read by; its channels out are as large a share of all as the part."""
    width: int
    """Channels of a part that is read, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1 or isinstance(self.each, Composite):
            raise ValueError(f"each={self.each}, width={self.width}: one operator for parts of at least one channel.")

    @property
    def stride(self) -> float:
        return self.each.stride

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        return self.each.keeps_zero

    @property
    def across_channels(self) -> bool:  # type: ignore[override]
        return self.each.across_channels

    @property
    def halo(self) -> Halo:
        return self.each.halo

    @property
    def axes(self) -> Axes:
        """All weights are those of every channel, so that none has an axis of its own."""
        return {f"each.{name}": (None,) * len(axes) for name, axes in self.each.axes.items()}

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return self.each.size_after(size, fitting)

    def part(self, channels_in: int, channels_out: int) -> Ends:
        """The channels read and made of one part. Raises ValueError where they can't be shared out."""
        parts = channels_in // self.width
        if not parts or channels_in % self.width or channels_out % parts:
            raise ValueError(f"parts of {self.width} channels share out no {channels_in} read and {channels_out} made")
        return self.width, channels_out // parts

    def weighted(self, channels_in: int, channels_out: int) -> tuple[Ends, ...]:
        return self.each.weighted(*self.part(channels_in, channels_out))

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return self.each.parameters(*self.part(channels_in, channels_out))

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        part = self.part(channels_in, channels_out)
        return channels_in // self.width * self.each.macs(*part, size_in, size_out)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        part = self.part(channels_in, channels_out)
        return channels_in // self.width * self.each.values(*part, size_in, size_out)

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return channels_in, channels_out

    def matrix_width(self, channels_in: int, channels_out: int) -> int:
        return self.each.matrix_width(*self.part(channels_in, channels_out))
