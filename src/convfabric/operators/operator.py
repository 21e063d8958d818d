"""What every operator can say about itself, without tensors and without channel counts."""

from abc import ABC, abstractmethod

Size = tuple[int, int]
"""Height and width in pixels."""
Halo = tuple[float, float, float, float]
"""Pixels read above, below, to the left and to the right of each pixel written."""


class Operator(ABC):
    """What an edge does to a response; channels and sizes are those of the nodes at its ends.

    A new operator is a frozen dataclass with these six answers and, where it is not composed of
    others, one row in :mod:`convfabric.fabric.layers`.
    """

    @property
    @abstractmethod
    def step(self) -> int:
        """Scales moved: +1 halves the map, -1 doubles it, 0 keeps it."""

    @property
    @abstractmethod
    def keeps_channels(self) -> bool:
        """Whether there are as many channels after as before, each made of one alone."""

    @property
    @abstractmethod
    def halo(self) -> Halo:
        """Pixels read around each one written, counted on the finer of the two maps; infinite for a whole map."""

    @abstractmethod
    def parameters(self, channels_in: int, channels_out: int) -> int:
        """Number of trained values. Raises ValueError for channels that the operator cannot join."""

    @abstractmethod
    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        """Multiply-accumulates with trained weights for one image.

        Additions, norms, activations, pooling and resampling count zero.
        """

    @abstractmethod
    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        """Numbers written for one image, intermediate responses included."""


def area(size: Size) -> int:
    """Pixels of a map.

    >>> area((3, 4))
    12
    """
    return size[0] * size[1]


def around(before: float, after: float) -> Halo:
    """The same halo along rows and columns.

    >>> around(2, 1)
    (2, 1, 2, 1)
    """
    return before, after, before, after


def halved(size: Size) -> Size:
    """The next coarser size: half of each side, rounded up.

    >>> halved((5, 8))
    (3, 4)
    """
    return (size[0] + 1) // 2, (size[1] + 1) // 2
