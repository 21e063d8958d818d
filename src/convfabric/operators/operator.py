"""What every operator can say about itself, without tensors and without channel counts."""

from abc import ABC, abstractmethod

Size = tuple[int, int]
"""Height and width in pixels."""


class Operator(ABC):
    """What an edge does to a response; channels and sizes are those of the nodes at its ends.

    A new operator is a frozen dataclass with these five answers and, where it is not composed of
    others, one row in :mod:`convfabric.layers`.
    """

    @property
    @abstractmethod
    def step(self) -> int:
        """Scales moved: +1 halves the map, -1 doubles it, 0 keeps it."""

    @property
    @abstractmethod
    def keeps_channels(self) -> bool:
        """Whether output channel i is made of input channel i alone, so both counts are equal."""

    @abstractmethod
    def parameters(self, channels_in: int, channels_out: int) -> int:
        """Number of trained values."""

    @abstractmethod
    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        """Multiply-accumulates for one image; additions alone, norms and activations count zero."""

    @abstractmethod
    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        """Numbers written for one image, intermediate responses included."""


def area(size: Size) -> int:
    """Pixels of a map.

    >>> area((3, 4))
    12
    """
    return size[0] * size[1]


def halved(size: Size) -> Size:
    """The next coarser size: half of each side, rounded up.

    >>> halved((5, 8))
    (3, 4)
    """
    return (size[0] + 1) // 2, (size[1] + 1) // 2
