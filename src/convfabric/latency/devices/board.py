"""A board that runs the timing program, wherever that is: what it is asked, and its answers, which are checked."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from convfabric.errors import DeviceError
from convfabric.fabric.archive import Passport
from convfabric.graph import Graph
from convfabric.latency.asked import Asked, Kind, of_file, of_network, of_operation
from convfabric.latency.devices.device import TimeOf
from convfabric.latency.measurement import Latency, latency_from
from convfabric.latency.target import Target
from convfabric.operators import Work

FACTS = ("processor", "cores", "host", "system", "python", "onnxruntime")
NUMBERS: Mapping[Kind, tuple[str, ...]] = {
    "operation": ("ms",),
    "network": ("median_ms", "fastest_block_ms", "interquartile_range_ms", "runs"),
}
RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""Of boards, with their names in print; a board may lack all but the first."""
MOST_TEXT = 200
FALLEN, BUSY = 0.85, 1.5
"""Share of the highest clock that was seen, and processes that want to run, which make times doubtful."""
Answer = Mapping[str, Any]


class Board(Protocol):
    """A machine with the timing program."""

    name: str
    """As errors and pages call it; nothing for the machine that this program runs on."""
    waits: bool

    def facts(self) -> Mapping[str, str]:
        """What identifies it, see :func:`convfabric.latency.timing.facts`."""

    def answers(self, asked: Sequence[Asked]) -> list[Answer]:
        """What it says of each model, checked by :func:`checked_answer`."""

    def expect(self, asked: Callable[[], Sequence[Asked]]) -> None:
        """Is told all that will be asked next."""


class OnBoard:
    """Networks under a runtime of a board."""

    def __init__(self, board: Board) -> None:
        self.board, self.waits = board, board.waits
        self.conditions: list[Mapping[str, float]] = []

    def identity(self, target: Target) -> str:
        """Board, processor, runtime with its version, threads and batch."""
        facts = self.board.facts()
        where = f"{self.board.name} ({facts['host']}, {facts['cores']} cores), " if self.board.name else ""
        threads = f"{target.threads} thread{'s' * (target.threads > 1)}"
        numbers = f", {target.precision}" * (target.precision != "float32")
        runtime = f"{target.runtime} {self._version(facts, target)}"
        return f"{where}{facts['processor']}, {runtime}, {threads}, batch {target.batch}{numbers}"

    def time_operations(self, works: Sequence[Work], target: Target) -> list[float]:
        """The kernels between two convolutions, changes of layout included."""
        return [float(found["ms"]) for found in self._answers([of_operation(work, target) for work in works])]

    def times_networks(self, papers: Passport, target: Target, seconds: float) -> TimeOf:
        """Graphs as ONNX models."""
        return lambda graph: self._latency(of_network(graph, papers, target, seconds), target)

    def time_file(self, model: Path | bytes, image: tuple[int, int, int], target: Target, seconds: float) -> Latency:
        """A model as it is."""
        return self._latency(of_file(model, image, target, seconds), target)

    def expect(
        self, works: Sequence[Work], graphs: Sequence[Graph], papers: Passport, target: Target, seconds: float
    ) -> None:
        """Tells the board."""
        operations = (of_operation(work, target) for work in works)
        self.board.expect(lambda: [*operations, *(of_network(graph, papers, target, seconds) for graph in graphs)])

    def doubts(self) -> list[str]:
        """A clock that fell and work of others, seen since this was asked last; of boards elsewhere."""
        seen, self.conditions = self.conditions, []
        if not self.board.name:
            return []
        clocks = [one["clock_mhz"] for one in seen if "clock_mhz" in one]
        load = min((one["load"] for one in seen if "load" in one), default=0.0)
        said = []
        if clocks and clocks[-1] < FALLEN * max(clocks):
            fell = f"its clock fell from {max(clocks):.0f} to {clocks[-1]:.0f} MHz while it was timed"
            said.append(f"{self.board.name}: {fell}; it is too warm, or its power supply too weak")
        if load > BUSY:
            said.append(f"{self.board.name}: other work runs there, {load:.1f} processes at once; times are too long")
        return said

    def _version(self, facts: Mapping[str, str], target: Target) -> str:
        if version := facts[target.runtime]:
            return version
        where = self.board.name or "this machine"
        raise DeviceError(f"{where}: has no {target.runtime}; there, pip install {target.runtime}.")

    def _answers(self, asked: Sequence[Asked]) -> list[Answer]:
        found = self.board.answers(asked)
        self.conditions += [one["condition"] for one in found if "condition" in one]
        return found

    def _latency(self, asked: Asked, target: Target) -> Latency:
        [found] = self._answers([asked])
        facts = self.board.facts()
        version = self._version(facts, target)
        where = f" on {self.board.name} ({facts['processor']})" if self.board.name else ""
        size = (asked.shape[2], asked.shape[3])
        numbers = f", {target.precision}" * (target.precision != "float32")
        runtime = f"{RUNTIMES[target.runtime]} {version}, CPU{where}{numbers}"
        return latency_from(found, target, size, runtime, said_condition(found.get("condition", {})))


def said_condition(condition: Mapping[str, float]) -> str:
    """The condition of a board in words.

    >>> said_condition({"clock_mhz": 1500.0, "celsius": 61.2, "load": 0.1})
    '1500 MHz, 61 °C, load 0.1'
    """
    units = {"clock_mhz": "{:.0f} MHz", "celsius": "{:.0f} °C", "load": "load {:.1f}"}
    return ", ".join(text.format(condition[name]) for name, text in units.items() if name in condition)


def checked_facts(found: object, where: str) -> Mapping[str, str]:
    """What a board says of itself; DeviceError for anything but short lines of text.

    >>> checked_facts({"processor": 7}, "board")
    Traceback (most recent call last):
        ...
    convfabric.errors.DeviceError: board: says {'processor': 7} of itself; processor, cores, host, system, ...
    """
    said = found if isinstance(found, dict) else {}
    if not all(isinstance(said.get(name), str) and 0 < len(said[name]) <= MOST_TEXT for name in FACTS):
        raise DeviceError(f"{where}: says {str(found)[:MOST_TEXT]} of itself; {', '.join(FACTS)} were expected.")
    known = {name: said[name] for name in FACTS} | {name: str(said.get(name, ""))[:MOST_TEXT] for name in RUNTIMES}
    return {name: "".join(letter for letter in text if letter.isprintable()) for name, text in known.items()}


def checked_answer(found: object, asked: Asked, where: str) -> Answer:
    """What a board says of a model; DeviceError where it could not run it, or for anything but finite numbers."""
    said = found if isinstance(found, dict) else {}
    if isinstance(fault := said.get("fault"), str):
        shape = "×".join(map(str, asked.shape))
        raise DeviceError(f"{where}: cannot run {asked.key[:MOST_TEXT]} for {shape} (B×C×H×W): {fault[:MOST_TEXT]}")
    if not all(_is_time(said.get(name)) for name in NUMBERS[asked.kind]):
        expected = ", ".join(NUMBERS[asked.kind])
        raise DeviceError(f"{where}: says {str(found)[:MOST_TEXT]} of a model; {expected} were expected.")
    condition = said.get("condition")
    known = condition.items() if isinstance(condition, dict) else ()
    return {
        **{name: said[name] for name in NUMBERS[asked.kind]},
        "condition": {name: float(value) for name, value in known if isinstance(name, str) and _is_time(value)},
    }


def _is_time(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and isfinite(found) and found >= 0
