"""Ways to compose operators: one after another, side by side and summed, side by side and concatenated."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from convfabric.operators.operator import Halo, Operator, Size, halved


class Part(NamedTuple):
    """An operator inside another, with the channels it reads and writes."""

    operator: Operator
    channels_in: int
    channels_out: int


class Composite(Operator):
    """An operator made of others: its costs are the sums of theirs."""

    @abstractmethod
    def parts(self, channels_in: int, channels_out: int) -> list[Part]:
        """The operators inside. Raises ValueError for channels that they cannot join."""

    @abstractmethod
    def sizes(self, size_in: Size, size_out: Size) -> list[tuple[Size, Size]]:
        """The size of the map before and after each operator inside."""

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return sum(part.operator.parameters(*part[1:]) for part in self.parts(channels_in, channels_out))

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        inside = zip(self.parts(channels_in, channels_out), self.sizes(size_in, size_out), strict=True)
        return sum(part.operator.macs(*part[1:], *sizes) for part, sizes in inside)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        inside = zip(self.parts(channels_in, channels_out), self.sizes(size_in, size_out), strict=True)
        return sum(part.operator.values(*part[1:], *sizes) for part, sizes in inside)


class Work(NamedTuple):
    """A primitive operator at work: the channels it reads and writes, and the sizes of the two maps."""

    operator: Operator
    channels_in: int
    channels_out: int
    size_in: Size
    size_out: Size


def primitives(work: Work) -> Iterator[Work]:
    """What an operator comes down to, in the order of its parts.

    >>> from convfabric.operators import Conv, Norm, Relu
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


@dataclass(frozen=True, kw_only=True)
class Width:
    """A number of channels inside a chain: a multiple of those at one of its ends, rounded down, at least one.

    >>> Width(of="out", over=4).channels(64, 256), Width(of="out", times=4, at_most_in=True).channels(16, 12)
    (64, 16)
    """

    of: Literal["in", "out"] = "out"
    times: int = 1
    over: int = 1
    at_most_in: bool = False
    """Whether there are never more than the chain reads."""

    def channels(self, channels_in: int, channels_out: int) -> int:
        """The number, between ends of so many channels."""
        wide = max(1, (channels_in if self.of == "in" else channels_out) * self.times // self.over)
        return min(wide, channels_in) if self.at_most_in else wide


@dataclass(frozen=True)
class Chain(Composite):
    """Operators one after another; the first that may change the channels takes them to the output's count.

    With an inner width the first takes them to that, and the last that may change them to the output's
    count. After a step to a finer scale only steps that keep the scale may follow, so that every size in
    between is known.

    >>> from convfabric.operators import Conv, Relu
    >>> down_and_refine = Chain((Conv(stride=2), Relu(), Conv()))
    >>> down_and_refine.step, down_and_refine.parameters(8, 16)
    (1, 3488)
    >>> Chain((Conv(kernel=1, bias=False), Conv(bias=False)), inner=Width(over=2)).parameters(8, 16)
    1216
    """

    steps: tuple[Operator, ...]
    """At least one."""
    inner: Width | None = None
    """Channels between the first and the last step that may change them; None for the output's."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("a chain of no operators: give at least one, or use Identity.")
        rises = [i for i, operator in enumerate(self.steps) if operator.step < 0]
        if rises and (len(rises) > 1 or any(operator.step for operator in self.steps[rises[0] + 1 :])):
            raise ValueError("a chain goes up one scale at most, and changes no scale after that.")

    @property
    def step(self) -> int:
        return sum(operator.step for operator in self.steps)

    @property
    def keeps_channels(self) -> bool:
        return all(operator.keeps_channels for operator in self.steps)

    @property
    def halo(self) -> Halo:
        scales = [0, *accumulate(operator.step for operator in self.steps)]
        units = [2.0 ** (min(ends) - min(0, self.step)) for ends in pairwise(scales)]
        halos = [operator.halo for operator in self.steps]
        above, below, left, right = (sum(u * halo[i] for u, halo in zip(units, halos, strict=True)) for i in range(4))
        return above, below, left, right

    def parts(self, channels_in: int, channels_out: int) -> list[Part]:
        changing = [i for i, operator in enumerate(self.steps) if not operator.keeps_channels]
        inner = self.inner.channels(channels_in, channels_out) if self.inner else channels_out
        channels, found = channels_in, []
        for i, operator in enumerate(self.steps):
            after = channels if i not in changing else channels_out if i == changing[-1] else inner
            found.append(Part(operator, channels, after))
            channels = after
        return found

    def sizes(self, size_in: Size, size_out: Size) -> list[tuple[Size, Size]]:
        sizes = [size_in]
        for operator in self.steps:
            size = size_out if operator.step < 0 else sizes[-1]
            for _ in range(operator.step):
                size = halved(size)
            sizes.append(size)
        return list(pairwise(sizes))


def _check_alike(branches: tuple[Operator, ...]) -> None:
    if len(branches) < 2 or len({branch.step for branch in branches}) > 1:
        raise ValueError("at least two branches stand side by side, and all move the same number of scales.")


def _widest(branches: tuple[Operator, ...]) -> Halo:
    above, below, left, right = (max(branch.halo[i] for branch in branches) for i in range(4))
    return above, below, left, right


@dataclass(frozen=True)
class Sum(Composite):
    """Operators side by side on the same response, their results added.

    >>> from convfabric.operators import Conv, Identity
    >>> Sum((Identity(), Conv(bias=False))).parameters(8, 8)
    576
    """

    branches: tuple[Operator, ...]
    """At least two, all of the same step."""

    def __post_init__(self) -> None:
        _check_alike(self.branches)

    @property
    def step(self) -> int:
        return self.branches[0].step

    @property
    def keeps_channels(self) -> bool:
        return any(branch.keeps_channels for branch in self.branches)

    @property
    def halo(self) -> Halo:
        return _widest(self.branches)

    def parts(self, channels_in: int, channels_out: int) -> list[Part]:
        return [Part(branch, channels_in, channels_out) for branch in self.branches]

    def sizes(self, size_in: Size, size_out: Size) -> list[tuple[Size, Size]]:
        return [(size_in, size_out)] * len(self.branches)


@dataclass(frozen=True)
class Concat(Composite):
    """Operators side by side on the same response, each making a share of the channels.

    >>> from convfabric.operators import Conv
    >>> halves = Concat((Conv(kernel=(3, 1), bias=False), Conv(kernel=(1, 3), bias=False)), shares=(1, 1))
    >>> halves.parameters(8, 8)
    192
    """

    branches: tuple[Operator, ...]
    """At least two, all of the same step, none of which keeps the channels."""
    shares: tuple[int, ...]
    """Of the channels, one for each branch: (2, 3, 3) gives eight channels as 2, 3 and 3."""

    def __post_init__(self) -> None:
        _check_alike(self.branches)
        if len(self.shares) != len(self.branches) or min(self.shares) < 1:
            raise ValueError(f"shares={self.shares}: give a positive whole number for each branch.")
        if any(branch.keeps_channels for branch in self.branches):
            raise ValueError("a branch that keeps its channels cannot make a share of them.")

    @property
    def step(self) -> int:
        return self.branches[0].step

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return _widest(self.branches)

    def parts(self, channels_in: int, channels_out: int) -> list[Part]:
        ends = [channels_out * upto // sum(self.shares) for upto in accumulate(self.shares)]
        widths = [after - before for before, after in pairwise([0, *ends])]
        if min(widths) < 1:
            raise ValueError(f"{channels_out} channels cannot be shared out as {self.shares}")
        return [Part(branch, channels_in, width) for branch, width in zip(self.branches, widths, strict=True)]

    def sizes(self, size_in: Size, size_out: Size) -> list[tuple[Size, Size]]:
        return [(size_in, size_out)] * len(self.branches)
