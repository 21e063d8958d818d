"""The primitive operators inside those that are made of others."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from convfabric.operators.composites import Composite
from convfabric.operators.operator import Operator, Size


class Work(NamedTuple):
    """A primitive operator at work: the channels it reads and writes, and the sizes of the two maps."""

    operator: Operator
    channels_in: int
    channels_out: int
    size_in: Size
    size_out: Size


def primitives(work: Work) -> Iterator[Work]:
    """The primitive operators of an operator, in the order of its parts.

    >>> from convfabric.operators import Chain, Conv, Norm, Relu
    >>> block = Chain((Conv(stride=2), Norm(), Relu(), Conv()))
    >>> [type(part.operator).__name__ for part in primitives(Work(block, 8, 16, (4, 4), (2, 2)))]
    ['Conv', 'Norm', 'Relu', 'Conv']
    """
    operator, channels_in, channels_out, size_in, size_out = work
    if not isinstance(operator, Composite):
        yield work
        return
    inside = zip(operator.parts(channels_in, channels_out), operator.sizes(size_in, size_out), strict=True)
    for part, sizes in inside:
        yield from primitives(Work(*part, *sizes))


def mapped(operator: Operator, change: Callable[[Operator], Operator]) -> Operator:
    """The operator with each primitive in it, or itself where it is one, changed.

    >>> from convfabric.operators import Chain, Conv, Relu
    >>> mapped(Chain((Conv(), Relu())), lambda one: Conv(kernel=1) if isinstance(one, Conv) else one).inside[0].kernel
    1
    """
    if not isinstance(operator, Composite):
        return change(operator)
    return operator.rebuilt([mapped(part, change) for part in operator.inside])
