"""Ways to compose operators: one after another, side by side and summed, side by side and concatenated."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import gcd, isinf, lcm, prod
from typing import Literal, NamedTuple

from convfabric.operators.channels import Channels, first
from convfabric.operators.operator import Ends, Halo, Operator, Size


class Part(NamedTuple):
    """An operator inside another, with the channels it reads and writes."""

    operator: Operator
    channels_in: int
    channels_out: int


class Composite(Operator):
    """An operator made of others: its costs are the sums of theirs."""

    field: str
    """The name of the field, and of the layer's list of modules, that holds the operators inside."""

    @property
    @abstractmethod
    def inside(self) -> tuple[Operator, ...]:
        """The operators it is made of."""

    @abstractmethod
    def parts(self, channels_in: int, channels_out: int) -> list[Part]:
        """The operators inside with their channels. Raises ValueError for channels that they cannot join."""

    @abstractmethod
    def sizes(self, size_in: Size, size_out: Size) -> list[tuple[Size, Size]]:
        """The size of the map before and after each operator inside."""

    @abstractmethod
    def staying(self, before: Channels, after: Channels) -> list[tuple[Channels, Channels]]:
        """The channels that stay before and after each operator inside, from those at the ends.

        Raises ValueError where channels that belong together would be torn apart.
        """

    def rebuilt(self, inside: Sequence[Operator]) -> Operator:
        """The same composition of other operators."""
        return replace(self, **{self.field: tuple(inside)})  # type: ignore[type-var]

    def weighted(self, channels_in: int, channels_out: int) -> tuple[Ends, ...]:
        parts = self.parts(channels_in, channels_out)
        return tuple(ends for part in parts for ends in part.operator.weighted(*part[1:]))

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return sum(part.operator.parameters(*part[1:]) for part in self.parts(channels_in, channels_out))

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        inside = zip(self.parts(channels_in, channels_out), self.sizes(size_in, size_out), strict=True)
        return sum(part.operator.macs(*part[1:], *sizes) for part, sizes in inside)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        inside = zip(self.parts(channels_in, channels_out), self.sizes(size_in, size_out), strict=True)
        return sum(part.operator.values(*part[1:], *sizes) for part, sizes in inside)

    def narrowed(self, whole: Ends, smaller: Ends) -> Operator:
        """The same of narrower operators; ValueError where one of them cannot do with what is left."""
        pairs = zip(self.parts(*whole), self.parts(*smaller), strict=True)
        inside = [before.operator.narrowed(before[1:], after[1:]) for before, after in pairs]
        return self if tuple(inside) == self.inside else self.rebuilt(inside)

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        return all(operator.keeps_zero for operator in self.inside)

    @property
    def across_channels(self) -> bool:  # type: ignore[override]
        return any(operator.across_channels for operator in self.inside)


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
    >>> down_and_refine.scales_moved, down_and_refine.parameters(8, 16)
    (1, 3488)
    >>> Chain((Conv(kernel=1, bias=False), Conv(bias=False)), inner=Width(over=2)).parameters(8, 16)
    1216
    """

    field = "steps"

    steps: tuple[Operator, ...]
    """At least one."""
    inner: Width | None = None
    """Channels between the first and the last step that may change them; None for the output's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps:
            raise ValueError("a chain of no operators: give at least one, or use Identity.")
        rises = [i for i, operator in enumerate(self.steps) if operator.stride < 1]
        if rises and (len(rises) > 1 or any(operator.stride != 1 for operator in self.steps[rises[0] + 1 :])):
            raise ValueError("a chain goes up one scale at most, and changes no scale after that.")

    @property
    def inside(self) -> tuple[Operator, ...]:
        return self.steps

    @property
    def stride(self) -> float:
        return prod(operator.stride for operator in self.steps)

    @property
    def keeps_channels(self) -> bool:
        return all(operator.keeps_channels for operator in self.steps)

    @property
    def ties(self) -> bool:
        return all(operator.ties for operator in self.steps)

    @property
    def free(self) -> bool:  # type: ignore[override]
        return all(operator.free for operator in self.steps)

    @property
    def transparent(self) -> bool:  # type: ignore[override]
        return all(operator.transparent for operator in self.steps)

    @property
    def linear(self) -> bool:  # type: ignore[override]
        last = [operator for operator in self.steps if not operator.transparent]
        return bool(last) and last[-1].linear

    @property
    def halo(self) -> Halo:
        strides = [*accumulate((operator.stride for operator in self.steps), lambda a, b: a * b, initial=1.0)]
        finest = min(1.0, strides[-1])
        units = [0.0 if isinf(min(ends)) else min(ends) / finest for ends in pairwise(strides)]
        halos = [operator.halo for operator in self.steps]
        above, below, left, right = (
            sum(unit * halo[i] for unit, halo in zip(units, halos, strict=True) if unit) for i in range(4)
        )
        return above, below, left, right

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        for operator in self.steps:
            size = operator.size_after(size, fitting)
        return size

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
            sizes.append(operator.size_after(sizes[-1], size_out))
        return list(pairwise(sizes))

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        """Steps set the unit of the end that the channels around them follow.

        Where a step ties channels of one end to those of the other, both are cut together or not at all.
        """
        parts, counts = self.parts(channels_in, channels_out), {"in": [channels_in], "out": [channels_out]}
        changing = [i for i, part in enumerate(parts) if not part.operator.keeps_channels]
        end: Literal["in", "out"] = "in"
        for i, part in enumerate(parts):
            units, before = part.operator.granularity(*part[1:]), end
            if i in changing:
                end = "out" if i == changing[-1] or not self.inner else self.inner.of
            counts[before] += [part.channels_in // units[0]] * (units[0] > 1)
            counts[end] += [part.channels_out // units[1]] * (units[1] > 1)
            if part.operator.ties and before != end and not self.ties:
                counts["in"].append(1)
                counts["out"].append(1)
        if self.ties:
            counts = {key: [*counts["in"], *counts["out"]] for key in counts}
        return channels_in // gcd(*counts["in"]), channels_out // gcd(*counts["out"])

    def staying(self, before: Channels, after: Channels) -> list[tuple[Channels, Channels]]:
        whole = self.parts(before.of, after.of)
        smaller = self.parts(len(before.positions), len(after.positions))
        changing = [i for i, part in enumerate(self.steps) if not part.keeps_channels]
        found = []
        for i, (part, less) in enumerate(zip(whole, smaller, strict=True)):
            following = before
            if i in changing:
                last = i == changing[-1] or self.inner is None
                following = after if last else first(less.channels_out, part.channels_out)
            found.append((before, following))
            before = following
        return found


def _check_alike(branches: tuple[Operator, ...]) -> None:
    if len(branches) < 2 or len({branch.stride for branch in branches}) > 1:
        raise ValueError("at least two branches stand side by side, and all move the same number of scales.")


def _size_after(branches: tuple[Operator, ...], size: Size, fitting: Size | None) -> Size:
    sizes = {branch.size_after(size, fitting) for branch in branches}
    if len(sizes) > 1:
        raise ValueError(f"branches side by side make maps of {' and '.join(f'{h}×{w}' for h, w in sorted(sizes))}")
    return sizes.pop()


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

    field = "branches"

    branches: tuple[Operator, ...]
    """At least two, all of the same stride; where one keeps the channels, so do all of them together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_alike(self.branches)

    @property
    def inside(self) -> tuple[Operator, ...]:
        return self.branches

    @property
    def stride(self) -> float:
        return self.branches[0].stride

    @property
    def keeps_channels(self) -> bool:
        return any(branch.keeps_channels for branch in self.branches)

    @property
    def ties(self) -> bool:
        return any(branch.ties for branch in self.branches)

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return all(branch.linear for branch in self.branches)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return _size_after(self.branches, size, fitting)

    @property
    def halo(self) -> Halo:
        return _widest(self.branches)

    def parts(self, channels_in: int, channels_out: int) -> list[Part]:
        return [Part(branch, channels_in, channels_out) for branch in self.branches]

    def sizes(self, size_in: Size, size_out: Size) -> list[tuple[Size, Size]]:
        return [(size_in, size_out)] * len(self.branches)

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        units = [branch.granularity(channels_in, channels_out) for branch in self.branches]
        return lcm(*(before for before, _ in units)), lcm(*(after for _, after in units))

    def staying(self, before: Channels, after: Channels) -> list[tuple[Channels, Channels]]:
        return [(before, after)] * len(self.branches)


@dataclass(frozen=True)
class Concat(Composite):
    """Operators side by side on the same response, each making a share of the channels.

    >>> from convfabric.operators import Conv
    >>> halves = Concat((Conv(kernel=(3, 1), bias=False), Conv(kernel=(1, 3), bias=False)), shares=(1, 1))
    >>> halves.parameters(8, 8)
    192
    """

    field = "branches"

    branches: tuple[Operator, ...]
    """At least two, all of the same stride, none of which keeps the channels."""
    shares: tuple[int, ...]
    """Of the channels, one for each branch: (2, 3, 3) gives eight channels as 2, 3 and 3."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_alike(self.branches)
        if len(self.shares) != len(self.branches) or min(self.shares) < 1:
            raise ValueError(f"shares={self.shares}: give a positive whole number for each branch.")
        if any(branch.keeps_channels for branch in self.branches):
            raise ValueError("a branch that keeps its channels cannot make a share of them.")

    @property
    def inside(self) -> tuple[Operator, ...]:
        return self.branches

    @property
    def stride(self) -> float:
        return self.branches[0].stride

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return all(branch.linear for branch in self.branches)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return _size_after(self.branches, size, fitting)

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

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        units = [part.operator.granularity(*part[1:])[0] for part in self.parts(channels_in, channels_out)]
        return lcm(*units), channels_out

    def narrowed(self, whole: Ends, smaller: Ends) -> Operator:
        """As a composite's; of the channels that are shared out none can go, as each would come from one branch."""
        if whole[1] != smaller[1]:
            raise ValueError(
                f"channels of Concat, shared out as {self.shares}, belong together: {smaller[1]} of {whole[1]} "
                "would stay"
            )
        return super().narrowed(whole, smaller)

    def staying(self, before: Channels, after: Channels) -> list[tuple[Channels, Channels]]:
        if not after.complete:
            raise ValueError(f"channels of Concat, shared out as {self.shares}, belong together")
        return [(before, first(part[2], part[2])) for part in self.parts(before.of, after.of)]
