"""When a network with several exits may stop: thresholds of confidence, and what they cost and give.

Confidence is the largest class probability. Legend: K exits, N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
NEVER, ALWAYS = 2.0, -1.0
"""Thresholds that no confidence reaches, and that every one does."""
GRID = tuple(i / 20 for i in range(1, 40))
"""Values of p that MSDNet's budgeted batches are drawn for."""


def exit_shares(p: float, exits: int) -> tuple[float, ...]:
    """Shares of the images that leave at each exit, p^k / Σ p^j (MSDNet, Huang et al. 2018, section 4).

    >>> exit_shares(1.0, 4)
    (0.25, 0.25, 0.25, 0.25)
    """
    powers = [p**k for k in range(1, exits + 1)]
    return tuple(power / sum(powers) for power in powers)


def thresholds(confidences_KN: Floats, shares: Sequence[float]) -> tuple[float, ...]:
    """The confidence from which on an image leaves at each exit, so that the given shares of these images do.

    An exit that is to take less than one image is never taken; the last one takes whatever is left.

    >>> thresholds(np.array([[0.9, 0.5, 0.7, 0.6], [0.9, 0.9, 0.9, 0.9]]), (0.5, 0.5))
    (0.7, -1.0)
    """
    left = np.ones(confidences_KN.shape[1], dtype=bool)
    found: list[float] = []
    for confidences_N, share in zip(confidences_KN[:-1], shares, strict=False):
        count = min(int(len(left) * share), int(left.sum()))
        limit = float(np.sort(confidences_N[left])[-count]) if count else NEVER
        found.append(limit)
        left &= confidences_N < limit
    return (*found, ALWAYS)


def taken_exits(confidences_KN: Floats, limits: Sequence[float]) -> NDArray[np.int64]:
    """For each image the first exit whose confidence reaches its threshold, counted from 0.

    >>> taken_exits(np.array([[0.9, 0.5], [0.9, 0.9]]), (0.7, ALWAYS)).tolist()
    [0, 1]
    """
    taken_N: NDArray[np.int64] = np.argmax(confidences_KN >= np.asarray(limits)[:, None], axis=0)
    return taken_N


@dataclass(frozen=True, eq=False, kw_only=True)
class Confidences:
    """Confidence and correctness of every exit on every image of a split."""

    largest_KN: Floats
    """Largest class probability."""
    right_KN: NDArray[np.bool_]
    """Whether the answer is the target."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One way to stop, and what it takes and gives on average."""

    limits: tuple[float, ...]
    """A threshold of confidence for each exit."""
    shares: tuple[float, ...]
    """Of the images, that left at each exit."""
    accuracy: float
    """Of all images together."""
    macs: float
    """Mean multiply-accumulates per image."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """One exit of a network."""

    name: str
    """Of its head."""
    score: float
    """Accuracy, or mean intersection over union."""
    macs: int
    """Of an image that leaves there, all work before it included."""


@dataclass(frozen=True, kw_only=True)
class Exits:
    """Score and cost of each exit of a network on a split, and where images should leave."""

    split: str
    """That scores are of."""
    each: tuple[Exit, ...]
    """The earliest first."""
    budgeted: tuple[Stop, ...] = ()
    """For classification: what stopping gives and costs for thresholds from one end to the other."""
    recommended: Stop | None = None
    """The cheapest of them that is no worse than the last exit on validation images."""


def stop_at(seen: Confidences, limits: Sequence[float], macs: Sequence[int]) -> Stop:
    """Accuracy and mean cost of thresholds on images whose answers at each exit are known.

    ``macs`` are those of an image that leaves at each exit, all work before it included.

    >>> sure, right = np.array([[0.9, 0.5], [0.9, 0.9]]), np.array([[True, False], [True, True]])
    >>> seen = Confidences(largest_KN=sure, right_KN=right)
    >>> stop_at(seen, (0.7, ALWAYS), [10, 30])
    Stop(limits=(0.7, -1.0), shares=(0.5, 0.5), accuracy=1.0, macs=20.0)
    """
    taken_N = taken_exits(seen.largest_KN, limits)
    shares = tuple(float((taken_N == k).mean()) for k in range(len(limits)))
    return Stop(
        limits=tuple(limits),
        shares=shares,
        accuracy=float(np.take_along_axis(seen.right_KN, taken_N[None], axis=0).mean()),
        macs=float(sum(share * cost for share, cost in zip(shares, macs, strict=True))),
    )


def budgeted(chosen: Confidences, judged: Confidences, macs: Sequence[int]) -> list[tuple[Stop, Stop]]:
    """Budgeted batches: for each p of the grid what thresholds chosen on one split give there, and on another.

    >>> sure, right = np.array([[0.9, 0.5], [0.9, 0.9]]), np.array([[True, False], [True, True]])
    >>> seen = Confidences(largest_KN=sure, right_KN=right)
    >>> len(budgeted(seen, seen, [10, 30])) == len(GRID)
    True
    """
    limits = [thresholds(chosen.largest_KN, exit_shares(p, len(macs))) for p in GRID]
    return [(stop_at(chosen, each, macs), stop_at(judged, each, macs)) for each in limits]


def cheapest_as_good(stops: Sequence[Stop], accuracy: float) -> Stop:
    """Cheapest stop reaching ``accuracy``; if none does, the most accurate stop.

    >>> stops = [Stop(limits=(), shares=(), accuracy=a, macs=m) for a, m in ((0.8, 3.0), (0.9, 9.0), (0.9, 5.0))]
    >>> cheapest_as_good(stops, 0.85).macs, cheapest_as_good(stops, 0.99).accuracy
    (5.0, 0.9)
    """
    good = [stop for stop in stops if stop.accuracy >= accuracy]
    return min(good, key=lambda stop: stop.macs) if good else max(stops, key=lambda stop: stop.accuracy)
