"""How long a batch of images takes, all conditions stated."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from convfabric.latency import timing
from convfabric.latency.target import Target
from convfabric.latency.timing import BLOCKS, WARM_UP_RUNS

LEAST_SECONDS = 0.4
MEASUREMENTS = 3
"""Of what was above a ceiling."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long a batch of images takes, all conditions stated."""

    median_ms: float
    """Of the block whose median is the middle one of three."""
    fastest_block_ms: float
    """The median of the fastest block: what the network takes while nothing else is at work."""
    interquartile_range_ms: float
    """Between the first and the third quartile."""
    runs: int
    """In that block."""
    warm_up_runs: int
    """Before each block."""
    threads: int
    """Of the runtime."""
    batch: int
    """Images at once."""
    size: tuple[int, int]
    """Height and width in pixels."""
    runtime: str
    """Its name and version, the kind of device, and the board where it is one."""
    condition: str = ""
    """Clock, temperature and load of the machine when it was measured, as far as it says."""

    def __str__(self) -> str:
        blocks = f"{self.runs} runs after {self.warm_up_runs} (middle one of {BLOCKS} blocks)"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        disturbed = " (other work disturbed it)" if self.interquartile_range_ms > self.median_ms else ""
        return (
            f"{self.median_ms:.3f} ms median, interquartile range {self.interquartile_range_ms:.3f} ms{disturbed}, "
            f"{blocks}, batch {self.batch}, {threads}, {self.runtime}{', ' * bool(self.condition)}{self.condition}"
        )


def timed(
    run: Callable[[], object], target: Target, size: tuple[int, int], runtime: str, seconds: float = LEAST_SECONDS
) -> Latency:
    """The latency of a call that answers one batch of images of a height and width in pixels.

    Three blocks of at least 25 runs and so many seconds, each after 10 runs that warm up; the block whose median
    is the middle one is reported.

    >>> found = timed(lambda: None, Target(), (8, 8), "nothing", seconds=0.0)
    >>> found.batch, found.median_ms < 1.0
    (1, True)
    """
    return latency_from(timing.blocks(run, seconds), target, size, runtime)


def latency_from(
    found: Mapping[str, Any], target: Target, size: tuple[int, int], runtime: str, condition: str = ""
) -> Latency:
    """What the timing program found, with the conditions it was asked for."""
    return Latency(
        median_ms=found["median_ms"],
        fastest_block_ms=found["fastest_block_ms"],
        interquartile_range_ms=found["interquartile_range_ms"],
        runs=int(found["runs"]),
        warm_up_runs=WARM_UP_RUNS,
        threads=target.threads,
        batch=target.batch,
        size=size,
        runtime=runtime,
        condition=condition,
    )


def calmest(
    measure: Callable[[], Latency], most: float | None, first: Latency | None = None, pause: float = 0.0
) -> Latency:
    """One measurement; where its median is above ``most``, the one of three with the least, seconds of pause between.

    What else runs on a machine makes a network slower, never quicker.

    >>> from dataclasses import replace
    >>> medians = iter([3.0, 1.5, 2.0])
    >>> calmest(lambda: replace(timed(lambda: None, Target(), (8, 8), "", 0.0), median_ms=next(medians)), 1.0).median_ms
    1.5
    """
    found = [first or measure()]
    while most is not None and found[-1].median_ms > most and len(found) < MEASUREMENTS:
        time.sleep(pause)
        found.append(measure())
    return min(found, key=lambda one: one.median_ms)
