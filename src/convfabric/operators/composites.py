"""Ways to compose operators: one after another, and side by side with their results summed."""

from collections.abc import Iterator
from dataclasses import dataclass

from convfabric.operators.operator import Operator, Size, halved
from convfabric.operators.primitives import Conv, Identity, Nearest, Norm, Relu


@dataclass(frozen=True)
class Chain(Operator):
    """Operators one after another; the first that may change the channels takes them to the output's count.

    After a step to a finer scale only steps that keep the scale may follow, so that every size in
    between is known.

    >>> down_and_refine = Chain((Conv(stride=2), Relu(), Conv()))
    >>> down_and_refine.step, down_and_refine.parameters(8, 16)
    (1, 3488)
    """

    steps: tuple[Operator, ...]
    """At least one."""

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

    def stages(self, channels_in: int, channels_out: int) -> Iterator[tuple[Operator, int, int]]:
        """Each operator with the channels it reads and writes."""
        channels = channels_in
        for operator in self.steps:
            after = channels if operator.keeps_channels else channels_out
            yield operator, channels, after
            channels = after

    def sizes(self, size_in: Size, size_out: Size) -> list[Size]:
        """The map's size before each operator, and after the last."""
        sizes = [size_in]
        for operator in self.steps:
            size = size_out if operator.step < 0 else sizes[-1]
            for _ in range(operator.step):
                size = halved(size)
            sizes.append(size)
        return sizes

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return sum(operator.parameters(a, b) for operator, a, b in self.stages(channels_in, channels_out))

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        sizes = self.sizes(size_in, size_out)
        stages = zip(self.stages(channels_in, channels_out), sizes, sizes[1:], strict=False)
        return sum(operator.macs(a, b, before, after) for (operator, a, b), before, after in stages)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        sizes = self.sizes(size_in, size_out)
        stages = zip(self.stages(channels_in, channels_out), sizes, sizes[1:], strict=False)
        return sum(operator.values(a, b, before, after) for (operator, a, b), before, after in stages)


@dataclass(frozen=True)
class Sum(Operator):
    """Operators side by side on the same response, their results added.

    >>> Sum((Identity(), Conv(bias=False))).parameters(8, 8)
    576
    """

    branches: tuple[Operator, ...]
    """At least two, all of the same step."""

    def __post_init__(self) -> None:
        if len(self.branches) < 2 or len({branch.step for branch in self.branches}) > 1:
            raise ValueError("a sum has at least two branches, and all move the same number of scales.")

    @property
    def step(self) -> int:
        return self.branches[0].step

    @property
    def keeps_channels(self) -> bool:
        return any(branch.keeps_channels for branch in self.branches)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return sum(branch.parameters(channels_in, channels_out) for branch in self.branches)

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return sum(branch.macs(channels_in, channels_out, size_in, size_out) for branch in self.branches)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return sum(branch.values(channels_in, channels_out, size_in, size_out) for branch in self.branches)


def residual(kernel: int = 3) -> Sum:
    """Identity beside two convolutions with a norm and a ReLU between them (He et al. 2016, without the last ReLU).

    >>> residual().keeps_channels, residual().parameters(16, 16)
    (True, 4640)
    """
    conv = Conv(kernel=kernel, bias=False)
    return Sum((Identity(), Chain((conv, Norm(), Relu(), conv))))


def pointwise_up() -> Chain:
    """A 1×1 convolution at the coarse scale, then nearest-neighbour doubling.

    >>> pointwise_up().macs(16, 8, (4, 4), (8, 8))
    2048
    """
    return Chain((Conv(kernel=1, bias=False), Nearest()))


def strided_stem(halvings: int) -> Chain:
    """3×3 convolutions that take images to the scale where a fabric starts, one stride 2 for each halving.

    >>> strided_stem(2).step
    2
    """
    if halvings == 0:
        return Chain((Conv(bias=False),))
    conv, steps = Conv(stride=2, bias=False), (Norm(), Relu(), Conv(stride=2, bias=False))
    return Chain((conv, *(step for _ in range(halvings - 1) for step in steps)))
