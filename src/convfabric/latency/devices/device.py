"""What a device is asked: how long operations, networks and files take there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from convfabric.fabric.archive import Passport
from convfabric.graph import Graph
from convfabric.latency.measurement import Latency
from convfabric.latency.target import Target
from convfabric.operators import Work

TimeOf = Callable[[Graph], Latency]


class Device(Protocol):
    """A device that runs networks and says how long they take."""

    waits: bool
    """Whether times come later than they are asked for, so that networks are predicted meanwhile."""

    def identity(self, target: Target) -> str:
        """A line that identifies the target, different wherever times could be."""

    def time_operations(self, works: Sequence[Work], target: Target) -> list[float]:
        """Milliseconds of each operation on a batch, as it runs within a network."""

    def times_networks(self, papers: Passport, target: Target, seconds: float) -> TimeOf:
        """A function that times graphs with fresh weights, anew each time, in blocks of so many seconds."""

    def time_file(self, model: Path | bytes, image: tuple[int, int, int], target: Target, seconds: float) -> Latency:
        """The latency of an ONNX model for float32 images of (channels, height, width)."""

    def expect(
        self, works: Sequence[Work], graphs: Sequence[Graph], papers: Passport, target: Target, seconds: float
    ) -> None:
        """Is told all that will be asked next; UntimedError where that has to be waited for."""

    def doubts(self) -> list[str]:
        """Why what was timed lately is not to be trusted: a falling clock, other work."""
