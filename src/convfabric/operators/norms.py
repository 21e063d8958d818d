"""Operators that rescale each channel by itself."""

from dataclasses import dataclass

from convfabric.operators.operator import Halo, Operator, Size, area, around


class Channelwise(Operator):
    """What operators answer alike that have a few values for each channel, and nothing to multiply by."""

    @property
    def step(self) -> int:
        return 0

    @property
    def keeps_channels(self) -> bool:
        return True

    @property
    def halo(self) -> Halo:
        return around(0, 0)

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class Norm(Channelwise):
    """Batch normalisation with trained scale and shift (Ioffe & Szegedy 2015).

    >>> Norm().parameters(8, 8)
    16
    """

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 2 * channels_out


@dataclass(frozen=True, kw_only=True)
class PRelu(Channelwise):
    """max(0, x) + slope · min(0, x) with a trained slope for each channel (He et al. 2015).

    >>> PRelu().parameters(8, 8)
    8
    """

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return channels_out
