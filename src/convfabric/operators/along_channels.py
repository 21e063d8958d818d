"""Convolution along the channels of each pixel."""

from dataclasses import dataclass

from convfabric.operators.norms import Channelwise
from convfabric.operators.operator import Axes, Ends, Size, area


@dataclass(frozen=True, kw_only=True)
class AlongChannels(Channelwise):
    """One kernel that slides along the channels of a pixel, zeros beyond both ends (ECA: Wang et al. 2020).

    Each channel's neighbours count, so all of them stay.

    >>> AlongChannels(kernel=5).parameters(64, 64), AlongChannels(kernel=5).macs(64, 64, (1, 1), (1, 1))
    (5, 320)
    """

    across_channels = keeps_zero = True

    kernel: int = 3
    """Channels read for each one made, an odd number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}: an odd number of channels is read.")

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return self.kernel

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.kernel * channels_out * area(size_out)

    @property
    def axes(self) -> Axes:
        return {"weight": (None, None, None)}

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return channels_in, channels_out
