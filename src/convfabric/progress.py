"""How long work tells what it does and how long it will take."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

FEW = 5
"""Of what is done many times, after how many the rest is estimated."""
Say = Callable[[str], None]
Row = dict[str, Any]
"""One line of metrics.csv."""
FIGURES = {"val_ap50": "AP50", "val_miou": "mIoU", "val_accuracy": "accuracy"}
"""Columns of metrics.csv that a network is judged by: the first that is not empty."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Progress of a training, after every step."""

    stage: str
    epoch: int
    """The present one, from 1."""
    epochs: int
    step: int
    """Steps taken."""
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float
    row: Row | None
    """The line of metrics.csv, after the last step of an epoch."""


Watch = Callable[[Moment], None]


def unwatched(moment: Moment) -> None:
    """Nobody watches.

    >>> unwatched(None)
    """


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Who is told what happens."""

    say: Say = print
    watch: Watch = unwatched


UNHEARD = Listener(say=lambda text: None)
"""Nobody is told."""


def figure_in(row: Mapping[str, Any]) -> str:
    """The column of a line of metrics.csv that a network is judged by; lines of earlier versions may lack some.

    >>> figure_in({"val_accuracy": 0.5, "val_miou": ""})
    'val_accuracy'
    """
    return next(name for name in FIGURES if row.get(name, "") != "")


def said_time(seconds: float) -> str:
    """Seconds for people.

    >>> said_time(41.2), said_time(150), said_time(1)
    ('41 seconds', '2.5 minutes', '1 second')
    """
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} second{'s' * (round(seconds) != 1)}"


def time_left(what: str, say: Say) -> Callable[[int, int], None]:
    """Says early, and at the half, how long the rest will take.

    >>> watch = time_left("networks", print)
    >>> for done in range(1, 4): watch(done, 4)
    2 of 4 networks, about 0 seconds left
    """
    began = time.monotonic()

    def watch(done: int, of: int) -> None:
        if done in (FEW, of // 2) and 1 < done < of:
            seconds = (time.monotonic() - began) * (of - done) / done
            say(f"{done} of {of} {what}, about {said_time(seconds)} left")

    return watch
