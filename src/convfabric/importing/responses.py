"""A traced network while it is read: responses, how they are made, and how tensors of the trace stand for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from torch import Tensor

from convfabric.errors import ImportingError
from convfabric.graph import Join
from convfabric.operators import Identity, Operator, Size


@dataclass(frozen=True)
class Constant:
    """A tensor that depends on no image, and the name of the parameter or statistic that it holds the values of."""

    tensor: Tensor
    origin: str = ""
    made_of: frozenset[str] = frozenset()
    """Names of all parameters and statistics that it was worked out from."""


Tensors = Mapping[str, Constant]
"""Weights and statistics of an operator, by the name that its layer has for them."""


@dataclass(frozen=True)
class Arrival:
    """An operator from a response, or from the images, to another."""

    source: "Response | None"
    """None for the images."""
    operator: Operator
    tensors: Tensors = field(default_factory=dict)


@dataclass(eq=False)
class Response:
    """What becomes a node: what arrives, how it is joined, and what is done to it."""

    channels: int
    size: Size
    arriving: list[Arrival]
    join: Join = "sum"
    then: list[tuple[Operator, Tensors]] = field(default_factory=list)
    point: bool = False
    """Whether it is one pixel whatever the size of the images."""


def made_by(source: Response | None, operator: Operator, channels: int, size: Size, tensors: Tensors) -> Response:
    """A response that one operator makes."""
    point = size == (1, 1) and (operator.stride == float("inf") or (source is not None and source.point))
    return Response(channels, size, [Arrival(source, operator, tensors)], point=point)


def changed_by(source: Response, operator: Operator, tensors: Tensors) -> Response:
    """A response that is another one with every value, or every channel, changed."""
    then = [(operator, tensors)]
    return Response(source.channels, source.size, [Arrival(source, Identity())], then=then, point=source.point)


Axis = tuple[str, int]
"""A part of an axis of a response, B images, C channels, H height or W width, and how long it is."""
Dimension = tuple[Axis, ...]
"""The parts that lie one within the other along a dimension of a tensor; none for a dimension of length 1."""


@dataclass(frozen=True)
class Seen:
    """A tensor of the trace that holds a response, its axes in any order, parted or laid together."""

    response: Response
    dims: tuple[Dimension, ...]

    @property
    def channel_axes(self) -> tuple[Axis, ...]:
        """The parts of the channels as they follow on one another in the tensor."""
        return tuple(axis for dim in self.dims for axis in dim if axis[0][0] == "C")

    def is_map(self) -> bool:
        """Whether it is (batch, channels, height, width), the channels perhaps dealt out anew."""
        return len(self.dims) == 4 and [_letters(dim) for dim in self.dims[:1] + self.dims[2:]] == [
            "B" * (len(self.dims[0]) > 0),
            "H" * (self.response.size[0] > 1),
            "W" * (self.response.size[1] > 1),
        ]

    def is_last(self) -> bool:
        """Whether channels are the last dimension, in their order, and all else is laid out before them."""
        before = "".join(_letters(dim) for dim in self.dims[:-1])
        return before == "BHW"[: 1 + 2 * (self.response.size != (1, 1))] and self.in_order(self.dims[-1])

    def in_order(self, dim: Dimension) -> bool:
        """Whether a dimension is the channels, as they follow on one another in the response."""
        names = [name for name, _ in dim]
        return (
            names == sorted(names)
            and all(name[0] == "C" for name in names)
            and prod(length for _, length in dim) == self.response.channels
        )


def _letters(dim: Dimension) -> str:
    return "".join(name[0] for name, _ in dim)


def as_map(response: Response) -> Seen:
    """A response as (batch, channels, height, width)."""
    axes = ("B", 2), ("C", response.channels), ("H", response.size[0]), ("W", response.size[1])
    return Seen(response, tuple((axis,) if axis[1] > 1 else () for axis in axes))


def reshaped(seen: Seen, shape: tuple[int, ...]) -> Seen:
    """The tensor with its axes laid together or channels parted, as a view of a shape has them.

    Raises ImportingError where a dimension would hold a part of another axis.

    >>> seen = as_map(Response(6, (4, 4), []))
    >>> reshaped(seen, (2, 96)).dims, reshaped(seen, (2, 2, 3, 4, 4)).dims[1:3]
    (((('B', 2),), (('C', 6), ('H', 4), ('W', 4))), ((('C0', 2),), (('C1', 3),)))
    """
    left = [axis for dim in seen.dims for axis in dim]
    dims: list[Dimension] = []
    for wanted in shape:
        dim: list[Axis] = []
        while (have := prod(length for _, length in dim)) < wanted:
            name, length = left.pop(0)
            if have * length > wanted:
                part = wanted // have
                if name[0] != "C" or length % part:
                    raise ImportingError(f"a view as {shape} tears an axis apart")
                left.insert(0, (name + "1", length // part))
                name, length = name + "0", part
            dim.append((name, length))
        if have != wanted:
            raise ImportingError(f"a view as {shape} tears an axis apart")
        dims.append(tuple(dim))
    return Seen(seen.response, tuple(dims))
