"""Where networks are timed: one row each. A board elsewhere is another row."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from convfabric.environment import machine
from convfabric.errors import SettingError
from convfabric.fabric.archive import Passport
from convfabric.latency.runtimes import RUNTIMES
from convfabric.latency.runtimes.runtime import TimeOf
from convfabric.latency.target import Target
from convfabric.operators import Work


class Device(Protocol):
    """A device that runs networks and says how long they take."""

    def identity(self, target: Target) -> str:
        """A line that identifies the target, different wherever times could be."""

    def time_operation(self, work: Work, target: Target) -> float:
        """Milliseconds of one operation."""

    def times_networks(self, papers: Passport, target: Target, seconds: float) -> TimeOf:
        """A function that times graphs, each for some seconds."""


class Local:
    """The machine that this program runs on."""

    def identity(self, target: Target) -> str:
        """Processor, runtime with its version, threads and batch.

        >>> Local().identity(Target(threads=2)).rpartition(", ")[0].rpartition(", ")[2]
        '2 threads'
        """
        threads = f"{target.threads} thread{'s' * (target.threads > 1)}"
        version = RUNTIMES[target.runtime].version
        return f"{machine()['processor']}, {target.runtime} {version}, {threads}, batch {target.batch}"

    def time_operation(self, work: Work, target: Target) -> float:
        """By the target's runtime."""
        return RUNTIMES[target.runtime].time_operation(work, target)

    def times_networks(self, papers: Passport, target: Target, seconds: float) -> TimeOf:
        """By the target's runtime."""
        return RUNTIMES[target.runtime].times_networks(papers, target, seconds)


DEVICES: Mapping[str, Device] = MappingProxyType({"local": Local()})
"""By the name that targets have."""


def device_of(target: Target) -> Device:
    """The device of a target; SettingError for a device or a runtime that is not known.

    >>> device_of(Target(runtime="abacus"))
    Traceback (most recent call last):
        ...
    convfabric.errors.SettingError: runtime=abacus: onnxruntime and torch are known.
    """
    for name, found, known in (("runtime", target.runtime, RUNTIMES), ("device", target.device, DEVICES)):
        if found not in known:
            raise SettingError(f"{name}={found}: {' and '.join(known)} {'are' if len(known) > 1 else 'is'} known.")
    return DEVICES[target.device]
