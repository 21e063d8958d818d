"""Time of each distinct operation on a target, measured once and kept from run to run."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf, log
from pathlib import Path

from convfabric.errors import ArchiveError
from convfabric.execution.compiler import kept_in
from convfabric.fabric.archive import write_atomically
from convfabric.latency.asked import HOW, key_of
from convfabric.latency.devices import device_of
from convfabric.latency.target import Target
from convfabric.operators import Operator, Size, Work, area

SAVED_TOGETHER, TURNS = 50, 3
Kind = tuple[Operator, Size, Size]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Milliseconds by operation on one target.

    An operation is what an edge, a stem or a node does after norms were folded, its channels and sizes included.
    """

    target: Target
    file: Path | None = None
    known: dict[str, float] = field(default_factory=dict)
    near: dict[Kind, list[Work]] = field(default_factory=dict)
    """Operations that were asked for, by all but their channels."""

    @classmethod
    def opened(cls, target: Target, folder: Path | None = None) -> "Table":
        """The table of a target, as far as it was measured before; kept in a folder of the user's.

        Where times come later than they are asked for, they are kept by the device.
        """
        if device_of(target).waits:
            return cls(target=target)
        said = f"{device_of(target).identity(target)}, {HOW}"
        file = (folder or kept_in()) / f"latency-{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
        try:
            found = json.loads(file.read_text())
            times = {str(key): float(value) for key, value in found["milliseconds"].items()}
            known = {key: value for key, value in times.items() if 0 <= value < inf}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            known = {}
        return cls(target=target, file=file, known=known)

    def milliseconds(self, work: Work) -> float:
        """Time of an operation; where it was not measured with these channels, by the nearest that was.

        KeyError where none of the kind was measured.
        """
        found = self.known.get(key_of(work))
        if found is not None:
            return found
        nearest = min(self.near[_kind(work)], key=lambda other: _apart(work, other))
        return self.known[key_of(nearest)] * _size(work) / _size(nearest)

    def missing(self, works: Iterable[Work]) -> list[Work]:
        """Those that are not known yet, each once."""
        return [work for work in dict.fromkeys(works) if key_of(work) not in self.known]

    def measure(self, works: Iterable[Work], watch: Callable[[int, int], None] = lambda done, of: None) -> int:
        """Measures those that are not known yet; how many there were. ``watch`` is told how far it has come.

        Fifty at a time, in turns, and the least of each counts: a neighbour's work makes an operation slower for a
        second, never quicker.
        """
        wanted = list(dict.fromkeys(works))
        for work in wanted:
            self.near.setdefault(_kind(work), []).append(work)
        missing = self.missing(wanted)
        for first in range(0, len(missing), SAVED_TOGETHER):
            some = missing[first : first + SAVED_TOGETHER]
            turns = [device_of(self.target).time_operations(some, self.target) for _ in range(TURNS)]
            self.known.update({key_of(work): min(times) for work, *times in zip(some, *turns, strict=True)})
            self._keep()
            watch(first + len(some), len(missing))
        return len(missing)

    @property
    def is_kept(self) -> bool:
        """Whether its file is there."""
        return self.file is not None and self.file.is_file()

    def _keep(self) -> None:
        if self.file:
            facts = {"conditions": device_of(self.target).identity(self.target), "milliseconds": self.known}
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.file, json.dumps(facts, indent=0))
            except (OSError, ArchiveError):
                return


def _kind(work: Work) -> Kind:
    return work.operator, work.size_in, work.size_out


def _apart(one: Work, other: Work) -> float:
    """How much the channels of two operations differ, by ratio; none are left where a concatenation lost its edges."""
    pairs = ((one.channels_in, other.channels_in), (one.channels_out, other.channels_out))
    return sum(abs(log(max(a, 1) / max(b, 1))) for a, b in pairs)


def _size(work: Work) -> float:
    """Multiply-accumulates, and values written, at least those of the map that is made."""
    written = max(work.operator.values(*work[1:]), work.channels_out * area(work.size_out), 1)
    return float(work.operator.macs(*work[1:]) + written)
