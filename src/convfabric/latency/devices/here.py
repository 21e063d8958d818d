"""The machine that this program runs on."""

from collections.abc import Callable, Mapping, Sequence

from convfabric.environment import machine
from convfabric.latency import timing
from convfabric.latency.asked import Asked
from convfabric.latency.devices.board import Answer


class Here:
    """The timing program in this very process."""

    name, waits = "", False

    def facts(self) -> Mapping[str, str]:
        """As this machine calls itself elsewhere."""
        return {**timing.facts(), "processor": machine()["processor"]}

    def answers(self, asked: Sequence[Asked]) -> list[Answer]:
        """One after another."""
        return [self._answer(one) for one in asked]

    def expect(self, asked: Callable[[], Sequence[Asked]]) -> None:
        """Nothing is to be prepared."""

    def _answer(self, asked: Asked) -> Answer:
        return timing.answer(asked.wanted, asked.model())
