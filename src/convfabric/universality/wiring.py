"""Signals that 3×3 edges carry through a trellis, each a few channels of one node and not below zero anywhere.

Legend of the suffixes: O output channels, I input channels, H height, W width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from convfabric.errors import EmbeddingError
from convfabric.universality.kernels import Kernel, Offset, centred

MOST_KERNELS = 300_000_000
"""Weights above which a fabric is not made: in float64 they take 2.4 GB."""


@dataclass(frozen=True, eq=False)
class Signal:
    """Channels that a node writes after its ReLU."""

    layer: int
    """-1 is the image, which alone has values below zero."""
    scale: int
    arrivals: tuple["Arrival", ...]
    constant_O: Tensor

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.constant_O)

    @property
    def is_image(self) -> bool:
        """Whether it is what enters, not what a node writes."""
        return self.layer < 0


@dataclass(frozen=True, eq=False)
class Arrival:
    """What an edge adds to a signal: a 3×3 kernel over an earlier one."""

    source: Signal
    weight_OIHW: Tensor
    move: int
    """-1, 0 or 1 scales."""


@dataclass(frozen=True, eq=False)
class Value:
    """A response of the network that is embedded, as sums of signals with factors, all at one scale."""

    scale: int
    parts: tuple[tuple[Signal, Tensor], ...]
    """Signals, each with its factors (channels of the value, channels of the signal)."""

    @property
    def channels(self) -> int:
        """Of the response."""
        return len(self.parts[0][1])

    @property
    def is_positive(self) -> bool:
        """Whether it can be seen never to be below zero."""
        return all(not signal.is_image and bool((matrix >= 0).all()) for signal, matrix in self.parts)

    def mixed(self, weight_OI: Tensor) -> "Value":
        """The response with its channels multiplied by a matrix."""
        return replace(self, parts=tuple((signal, weight_OI @ matrix) for signal, matrix in self.parts))

    @property
    def reads_image(self) -> bool:
        """Whether the image is one of its signals."""
        return any(signal.is_image for signal, _ in self.parts)


@dataclass(frozen=True, eq=False)
class Pending:
    """A linear map of signals that no node has written yet."""

    scale: int
    arrivals: tuple[Arrival, ...]
    constant_O: Tensor

    def mixed(self, weight_OI: Tensor, constant_O: Tensor) -> "Pending":
        """The map followed by a matrix and a constant for each channel."""
        arrivals = tuple(
            replace(one, weight_OIHW=torch.einsum("oi,ijhw->ojhw", weight_OI, one.weight_OIHW)) for one in self.arrivals
        )
        return replace(self, arrivals=arrivals, constant_O=weight_OI @ self.constant_O + constant_O)


Response = Value | Pending


def channels_of(response: Response) -> int:
    """How many channels a response has.

    >>> channels_of(Pending(0, (), torch.zeros(3)))
    3
    """
    return response.channels if isinstance(response, Value) else len(response.constant_O)


def pending(response: Response) -> Pending:
    """A response as a map that a node may still add to.

    >>> one = Value(0, ((Signal(0, 0, (), torch.zeros(2)), torch.ones(1, 2)),))
    >>> pending(one).arrivals[0].weight_OIHW.shape
    torch.Size([1, 2, 3, 3])
    """
    if isinstance(response, Pending):
        return response
    arrivals = tuple(Arrival(signal, centred(matrix).weight_OIHW, 0) for signal, matrix in response.parts)
    return Pending(response.scale, arrivals, torch.zeros(response.channels, dtype=torch.float64))


def added(responses: Sequence[Response]) -> Response:
    """The sum of responses of one shape."""
    if all(isinstance(one, Value) for one in responses):
        values = [one for one in responses if isinstance(one, Value)]
        return Value(values[0].scale, tuple(part for value in values for part in value.parts))
    maps = [pending(one) for one in responses]
    arrivals = tuple(arrival for one in maps for arrival in one.arrivals)
    return Pending(maps[0].scale, arrivals, torch.stack([one.constant_O for one in maps]).sum(0))


def concatenated(values: Sequence[Value]) -> Value:
    """Responses one after another.

    >>> one = Value(0, ((Signal(0, 0, (), torch.zeros(2)), torch.eye(2)),))
    >>> concatenated([one, one]).channels
    4
    """
    total, at, parts = sum(value.channels for value in values), 0, list[tuple[Signal, Tensor]]()
    for value in values:
        for signal, matrix in value.parts:
            placed = torch.zeros(total, matrix.shape[1], dtype=matrix.dtype)
            placed[at : at + value.channels] = matrix
            parts.append((signal, placed))
        at += value.channels
    return Value(values[0].scale, tuple(parts))


@dataclass
class Wiring:
    """All signals of a fabric that is being wired."""

    image: Signal
    signals: list[Signal] = field(default_factory=list)
    kernels: int = 0
    """Weights of all of them."""

    def settled(self, response: Response, rectified: bool = False) -> Value:
        """A response as nodes write it: after a ReLU, or both of its signs by channels of their own.

        What is written already stays as it is, unless it is the image.
        """
        if isinstance(response, Value) and not response.reads_image and (not rectified or response.is_positive):
            return response
        found = pending(response)
        if not rectified:
            eye = torch.eye(len(found.constant_O), dtype=torch.float64)
            both = torch.cat([eye, -eye])
            return Value(found.scale, ((self._written(found.mixed(both, 0 * both[:, 0])), both.T),))
        signal = self._written(found)
        return Value(found.scale, ((signal, torch.eye(signal.channels, dtype=torch.float64)),))

    def _written(self, found: Pending) -> Signal:
        self.kernels += sum(arrival.weight_OIHW.numel() for arrival in found.arrivals)
        if self.kernels > MOST_KERNELS:
            raise EmbeddingError(
                f"its fabric would have more than {MOST_KERNELS / 1e6:.0f} M weights: embed a narrower network, or one "
                "for smaller images."
            )
        layer = 1 + max(arrival.source.layer for arrival in found.arrivals)
        signal = Signal(layer, found.scale, found.arrivals, found.constant_O)
        self.signals.append(signal)
        return signal

    def convolved(self, value: Value, kernel: Kernel) -> Pending:
        """A kernel over a response, by as many layers of 3×3 kernels as its reach asks for.

        Wider kernels read shifted copies, nine for 5×5; strides of 4 and more go on by every second pixel.
        """
        constant, kernel = kernel.constant_O, replace(kernel, constant_O=0 * kernel.constant_O)
        if kernel.move < 0 and kernel.reach > 1:
            value = self.picked(value, -1)
            kernel = replace(kernel, move=0)
        for _ in range(kernel.move - 1):
            value = self.settled(self.convolved(value, replace(kernel, move=1)))
            kernel = centred(torch.eye(value.channels), move=kernel.move - 1)
        if kernel.reach > 1:
            value, kernel = self._nearer(value, kernel)
        arrivals = tuple(
            Arrival(signal, torch.einsum("oihw,ij->ojhw", _three(kernel), matrix), kernel.move)
            for signal, matrix in value.parts
        )
        return Pending(value.scale + kernel.move, arrivals, constant)

    def picked(self, value: Value, move: int) -> Value:
        """Every second pixel of a response, or zeros between its pixels."""
        found = self.convolved(value, centred(torch.eye(value.channels), move=move))
        return self.settled(found, rectified=value.is_positive)

    def _nearer(self, value: Value, kernel: Kernel) -> tuple[Value, Kernel]:
        """Shifted copies of a response, and the kernel over them that reaches one pixel."""
        near = {offset: _within(offset) for offset in kernel.offsets}
        copies = self.shifted(value, {_less(offset, step) for offset, step in near.items()})
        order = list(copies)
        outputs, inputs = kernel.weight_OIHW.shape[:2]
        weight = torch.zeros(outputs, len(order) * inputs, 3, 3, dtype=torch.float64)
        for offset, (y, x) in near.items():
            at = order.index(_less(offset, (y, x))) * inputs
            weight[:, at : at + inputs, 1 + y, 1 + x] += kernel.tap(offset)
        return concatenated(list(copies.values())), replace(kernel, weight_OIHW=weight)

    def shifted(self, value: Value, offsets: Iterable[Offset]) -> dict[Offset, Value]:
        """Copies of a response whose pixels are those at an offset, by one-hot kernels; all are written together."""
        wanted = sorted(set(offsets))
        steps = {offset: _within(offset) for offset in wanted}
        rests = {_less(offset, step) for offset, step in steps.items()}
        sources = {(0, 0): value} if rests == {(0, 0)} else self.shifted(value, rests)
        eye = torch.eye(value.channels, dtype=torch.float64)
        maps = [
            self.convolved(sources[_less(offset, step)], centred(eye, offset=step)) for offset, step in steps.items()
        ]
        together = self.settled(side_by_side(maps), rectified=value.is_positive)
        selects = torch.split(torch.eye(len(wanted) * value.channels, dtype=torch.float64), value.channels)
        return {offset: together.mixed(select) for offset, select in zip(wanted, selects, strict=True)}


def side_by_side(maps: Sequence[Pending]) -> Pending:
    """Maps at one scale whose channels stand one after another.

    >>> channels_of(side_by_side([Pending(0, (), torch.zeros(3)), Pending(0, (), torch.zeros(2))]))
    5
    """
    total, at, arrivals = sum(len(one.constant_O) for one in maps), 0, list[Arrival]()
    for one in maps:
        for arrival in one.arrivals:
            weight = torch.zeros(total, *arrival.weight_OIHW.shape[1:], dtype=torch.float64)
            weight[at : at + len(one.constant_O)] = arrival.weight_OIHW
            arrivals.append(replace(arrival, weight_OIHW=weight))
        at += len(one.constant_O)
    return Pending(maps[0].scale, tuple(arrivals), torch.cat([one.constant_O for one in maps]))


def _within(offset: Offset) -> Offset:
    """The part of an offset that one 3×3 kernel covers."""
    return max(-1, min(1, offset[0])), max(-1, min(1, offset[1]))


def _less(offset: Offset, step: Offset) -> Offset:
    return offset[0] - step[0], offset[1] - step[1]


def _three(kernel: Kernel) -> Tensor:
    """The middle 3×3 taps of a kernel that reaches no further."""
    weight, side = kernel.weight_OIHW, kernel.weight_OIHW.shape[-1]
    if side == 1:
        return centred(weight[:, :, 0, 0]).weight_OIHW
    return weight[:, :, side // 2 - 1 : side // 2 + 2, side // 2 - 1 : side // 2 + 2]
