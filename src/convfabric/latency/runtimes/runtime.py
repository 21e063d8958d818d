"""The interface of a runtime."""

from collections.abc import Callable
from typing import Protocol

from convfabric.fabric.archive import Passport
from convfabric.graph import Graph
from convfabric.latency.measurement import Latency
from convfabric.latency.target import Target
from convfabric.operators import Work

RUNS, WARM_UP_RUNS = 40, 10
"""Of one operation."""
TimeOf = Callable[[Graph], Latency]


class Runtime(Protocol):
    """A runtime on the processor."""

    @property
    def version(self) -> str:
        """Its version, as stated beside every time."""

    def time_operation(self, work: Work, target: Target) -> float:
        """Milliseconds of one operation on a batch, as it runs within a network."""

    def times_networks(self, papers: Passport, target: Target, seconds: float) -> TimeOf:
        """A function that times graphs with fresh weights, anew each time, in blocks of so many seconds."""
