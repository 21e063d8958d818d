"""The questions that every operator answers, without tensors and without channel counts of its own.

Whoever runs, cuts, folds, weighs or times a graph asks these questions, and lists no operators.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from convfabric.operators.field_kinds import misfits

Size = tuple[int, int]
"""Height and width in pixels."""
Halo = tuple[float, float, float, float]
"""Pixels read above, below, to the left and to the right of each pixel written."""
Ends = tuple[int, int]
"""Channels read and written."""
Axis = Literal["out", "in", "pair"] | None
"""A dimension of a weight by what it runs over: output channels, input channels, pairs of both, or neither."""
Axes = Mapping[str, tuple[Axis, ...]]
"""The dimensions of each weight and statistic of a layer, by name."""
WHOLE_MAP = 16
"""Scales moved by operators that leave one pixel of a map of any size."""


class Operator(ABC):
    """The work of an edge on a response; channels and sizes are those of the nodes at its ends.

    A new operator is a frozen dataclass that answers the abstract questions, and those of the others whose usual
    answer is not its own; where it is not composed of others, it has a row in :mod:`convfabric.fabric.layers`.
    """

    def __init_subclass__(cls) -> None:
        """Operators are keys of many tables: each is hashed once, as its fields never change."""
        cls.__hash__ = Operator.__hash__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Raises ValueError for a field of another kind than its annotation."""
        if wrong := list(misfits(self)):
            raise ValueError(f"{type(self).__name__}: {'; '.join(wrong)}")

    def __hash__(self) -> int:
        known = self.__dict__
        if "_hash" not in known:
            known["_hash"] = hash((type(self), *(known[part.name] for part in fields(self))))  # type: ignore[arg-type]
        found: int = known["_hash"]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: not the hash, which another process would not find the same."""
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    free: bool = False
    """Whether it takes no multiply-accumulates, no weights and no time."""
    linear: bool = False
    """Whether a factor and a constant for each output channel can be taken into its ``weight`` and ``bias``."""
    transparent: bool = False
    """Whether, in evaluation, a factor and a constant for each channel may as well come before it."""
    normalises: bool = False
    """Whether, in evaluation, it is the factor and the constant for each channel that :meth:`affine` gives."""
    keeps_zero: bool = False
    """Whether a map of zeros stays one."""
    rectifies: bool = False
    """Whether what is not above zero becomes zero."""
    negative_slope: float | None = None
    """Of x for x > 0 and slope · x below, the slope; None for any other function."""
    absorbed: bool = False
    """Whether runtimes do it within the convolution before it, so that it takes no time of its own."""
    across_channels: bool = False
    """Whether a channel's value depends on how many others there are, silent ones included."""
    piecewise_constant: bool = False
    """Whether small changes of what it reads change nothing, so that no gradient passes it."""

    cell: int = 1
    """Where an exported file leaves the size of images free, the sides of maps that it reads are multiples of this."""

    @property
    @abstractmethod
    def stride(self) -> float:
        """Pixels read for each pixel written, along a side: 2 halves a map, 0.5 doubles it, ∞ leaves one pixel."""

    @property
    @abstractmethod
    def keeps_channels(self) -> bool:
        """Whether the channels after are those before: as many, in the same order, and cut together."""

    @property
    @abstractmethod
    def halo(self) -> Halo:
        """Pixels read around each one written, counted on the finer of the two maps; infinite for a whole map."""

    @abstractmethod
    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        """Height and width that a map of a size becomes.

        What doubles a map is cropped to ``fitting``, the size wanted, where that is a row or a column less.
        Raises ValueError for a map that it cannot read.
        """

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

    @property
    def scales_moved(self) -> int:
        """Scales that an edge with it is drawn across: the stride's logarithm to the base 2, rounded."""
        return WHOLE_MAP if math.isinf(self.stride) else round(math.log2(self.stride))

    @property
    def axes(self) -> Axes:
        """The dimensions of each of its weights and statistics."""
        return {}

    def weighted(self, channels_in: int, channels_out: int) -> tuple[Ends, ...]:
        """The channels that weights in it read and write; edges share weights where these are the same."""
        return ((channels_in, channels_out),) if self.axes else ()

    def outputs(self, channels_in: int, channels_out: int) -> list[int]:
        """The output channel of each pair that a weight runs over."""
        raise NotImplementedError(f"{self} has no weights that run over pairs of channels")

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        """How many neighbouring channels are cut together at the two ends: 1, a group, or all."""
        return 1, 1

    @property
    def ties(self) -> bool:
        """Whether units of :meth:`granularity` at the two ends are the same ones, so that they are cut together."""
        return self.keeps_channels

    def narrowed(self, whole: Ends, smaller: Ends) -> "Operator":
        """The operator between fewer channels; ValueError where it cannot do with those."""
        units = self.granularity(*whole)
        if any(left % unit for unit, left in zip(units, smaller, strict=True)):
            raise ValueError(
                f"channels of {type(self).__name__} belong together by {units[0]} and {units[1]}: of {whole[0]} it "
                f"reads and {whole[1]} it makes, {smaller[0]} and {smaller[1]} would stay"
            )
        self.parameters(*smaller)
        return self

    def matrix_width(self, channels_in: int, channels_out: int) -> int:
        """The narrower side, in channels, of the matrices it multiplies; 0 where there are none."""
        return 0

    def affine(self, weights: Mapping[str, Any]) -> tuple[Any, Any]:
        """Factor and constant of each channel in evaluation, from tensors by name, where it :attr:`normalises`."""
        raise NotImplementedError(f"{self} is no factor and constant for each channel")


def area(size: Size) -> int:
    """Pixels of a map.

    >>> area((3, 4))
    12
    """
    return size[0] * size[1]


def around(before: float, after: float) -> Halo:
    """A halo that is the same in both directions.

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


def doubled(size: Size, fitting: Size | None = None, doublings: int = 1) -> Size:
    """Twice each side, so many times, or the size wanted where halving that as often gives the map back.

    >>> doubled((4, 3)), doubled((4, 3), (7, 6)), doubled((4, 3), (5, 6)), doubled((4, 3), (13, 9), doublings=2)
    ((8, 6), (7, 6), (8, 6), (13, 9))
    """
    times = 2**doublings
    grown = times * size[0], times * size[1]
    near = fitting is not None and all(0 <= most - one < times for most, one in zip(grown, fitting, strict=True))
    return fitting if near and fitting is not None else grown
