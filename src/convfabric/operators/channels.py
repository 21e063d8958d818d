"""Which channels stay where some are cut."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Channels:
    """Channels that stay: their positions, in their new order, and of how many.

    >>> Channels((0, 1), 4).leading, Channels((1, 0), 2).complete
    (True, False)
    """

    positions: tuple[int, ...]
    of: int

    @cached_property
    def leading(self) -> bool:
        """Whether they are the first ones, in order."""
        return self.positions == tuple(range(len(self.positions)))

    @cached_property
    def complete(self) -> bool:
        """Whether all of them stay where they are."""
        return self.leading and len(self.positions) == self.of

    def units(self, unit: int) -> tuple[int, ...]:
        """The positions of whole units of so many neighbours; ValueError where one is torn.

        >>> Channels((2, 3, 0, 1), 6).units(2)
        (1, 0)
        """
        firsts = self.positions[::unit]
        whole = tuple(first + i for first in firsts for i in range(unit))
        if whole != self.positions or any(first % unit for first in firsts):
            raise ValueError(f"channels {list(self.positions)} of {self.of} belong together by {unit}")
        return tuple(first // unit for first in firsts)


def first(count: int, of: int) -> Channels:
    """The first channels of so many.

    >>> first(2, 4).positions
    (0, 1)
    """
    return Channels(tuple(range(count)), of)


def every(count: int) -> Channels:
    """All of so many channels.

    >>> every(3).complete
    True
    """
    return first(count, count)
