"""A part of somebody else's network that no other operator describes, kept as the calls that it was traced as."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from convfabric.operators.operator import Axes, Ends, Halo, Operator, Size, around

TRAINED = "trained"
WEIGHT_KINDS = (TRAINED, "float32", "int64", "int32", "bool")
"""Of values that a program holds: float32 that is trained, and what stays as it is, by the kind of its numbers."""


class Call(NamedTuple):
    """One call of a program."""

    gives: str
    """Name of the result."""
    called: str
    """An operator of ATen with its overload, or one of Python's on whole numbers."""
    args: tuple[Any, ...]
    """Plain values; a value of the program is ``{"value": its name}``, a kind of number ``{"dtype": its name}``."""
    named: Mapping[str, Any]


class Program(NamedTuple):
    """The calls between a map that is read and the one that is answered."""

    reads: str
    answers: str
    weights: Mapping[str, tuple[tuple[int, ...], str]]
    """Of each weight its shape, and one of WEIGHT_KINDS."""
    calls: tuple[Call, ...]


@dataclass(frozen=True, kw_only=True)
class Opaque(Operator):
    """Calls of torch's operators that read a map of one size and answer with another; no channel of either can be cut.

    They were traced in evaluation mode, so statistics and dropout in them stay as they were; weights are trained.

    >>> double = '{"reads": "x", "answers": "y", "weights": {}, "calls": [["y", "aten.add.Tensor", [%s, %s], {}]]}'
    >>> operator = Opaque(program=double % (2 * ('{"value": "x"}',)), channels=(8, 8), sizes=((4, 4), (4, 4)))
    >>> operator.granularity(8, 8), operator.stride, operator.halo
    ((8, 8), 1.0, (inf, inf, inf, inf))
    """

    across_channels = True

    program: str
    """JSON: what it reads and answers, its weights, and its calls in their order, see :func:`program_of`."""
    channels: Ends
    """Channels read and written; no others can be run."""
    sizes: tuple[Size, Size]
    """Height and width of the map read and of the one written, in pixels; no others can be run."""
    multiplied: int = 0
    """Multiply-accumulates for one image."""
    written: int = 0
    """Numbers written for one image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(*self.channels, *self.sizes[0], *self.sizes[1]) < 1 or min(self.multiplied, self.written) < 0:
            raise ValueError(
                f"channels={self.channels}, sizes={self.sizes}, multiplied={self.multiplied}, written={self.written}: "
                "channels and pixels from 1, the others from 0."
            )
        program_of(self.program)

    @property
    def stride(self) -> float:
        before, after = self.sizes
        return math.inf if after == (1, 1) != before else before[0] / after[0]

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        if size != self.sizes[0]:
            (high, wide), (top, left) = self.sizes[0], size
            raise ValueError(f"a module that is kept as it is reads maps of {high}×{wide} pixels, not of {top}×{left}")
        return self.sizes[1]

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if (channels_in, channels_out) != self.channels:
            known = f"reads {self.channels[0]} channels and makes {self.channels[1]}"
            raise ValueError(f"a part kept as it is {known}, not {channels_in} and {channels_out}")
        shapes = (shape for shape, kind in program_of(self.program).weights.values() if kind == TRAINED)
        return sum(map(math.prod, shapes))

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.multiplied

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return self.written

    @property
    def axes(self) -> Axes:
        return {name: (None,) * len(shape) for name, (shape, _) in program_of(self.program).weights.items()}

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return channels_in, channels_out


@lru_cache(maxsize=1024)
def program_of(text: str) -> Program:
    """The program that a text is; ValueError, naming the field ``program``, for one that is none.

    >>> program_of('{"reads": "x", "answers": "x", "weights": {"w": [[3], "trained"]}, "calls": []}').weights["w"]
    ((3,), 'trained')
    """
    try:
        found = json.loads(text)
        weights = {str(name): (tuple(map(int, shape)), str(kind)) for name, (shape, kind) in found["weights"].items()}
        calls = tuple(
            Call(str(gives), str(called), tuple(args), MappingProxyType(dict(named)))
            for gives, called, args, named in found["calls"]
        )
        program = Program(str(found["reads"]), str(found["answers"]), MappingProxyType(weights), calls)
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        said = f"{type(fault).__name__}: {fault}"
        raise ValueError(f"program={text[:60]!r}: not the calls of a network's part ({said})") from None
    if odd := [kind for _, kind in weights.values() if kind not in WEIGHT_KINDS]:
        raise ValueError(f"program: weights are {', '.join(WEIGHT_KINDS)}, not {odd[0]}")
    known = {program.reads, *weights}
    for call in calls:
        _check_known((*call.args, *call.named.values()), known)
        known.add(call.gives)
    _check_known(({"value": program.answers},), known)
    return program


def _check_known(parts: Iterable[Any], known: set[str]) -> None:
    """ValueError for a value that nothing has made yet."""
    for part in parts:
        if isinstance(part, list):
            _check_known(part, known)
        elif isinstance(part, dict) and "value" in part and part["value"] not in known:
            raise ValueError(f"program: {part['value']} is read, which nothing has made by then")
