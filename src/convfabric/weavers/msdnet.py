"""MSDNet (Huang et al. 2018): dense connections at several scales, and a classifier at the end of each block.

Lane 0 of a place holds all channels so far, lane 1 what a layer makes from its own scale, lane 2 from the finer
one, lane 3 what a transition lets pass. The convolutions of a classifier stand below the coarsest scale.
"""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import Graph, Place
from convfabric.operators import Chain, Conv, Operator, Pool, Width, normed, pointwise
from convfabric.weavers.builder import PLAIN, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class Msdnet:
    """The numbers of an MSDNet."""

    exits: int = 5
    """Classifiers, each after a block of layers."""
    base: int = 4
    """Layers of the first block."""
    step: int = 2
    """Layers of each further block."""
    grows: bool = False
    """Whether the i-th further block has i · ``step`` + 1 layers instead."""
    channels: int = 16
    """Before the first layer, at the finest scale."""
    growth: int = 6
    """New channels of each layer at the finest scale."""
    factors: tuple[int, ...] = (1, 2, 4)
    """Of growth and channels at each scale, and the most that a bottleneck widens."""
    reduction: float = 0.5
    """Share of the channels that is left where the finest scale is given up."""
    stem: Literal["small", "large"] = "small"
    """small: 3×3. large: 7×7 stride 2 and a 3×3 max pool stride 2."""
    hidden: int = 128
    """Channels of the classifiers' convolutions; 0 for as many as they read."""

    def __post_init__(self) -> None:
        if not self.factors or min(self.exits, self.base, self.step, self.channels, self.growth, *self.factors) < 1:
            raise SettingError(f"{self}: every number but hidden is at least 1.")
        if any(self.growth * factor % 2 for factor in self.factors[1:]) or not 0 < self.reduction <= 1:
            raise SettingError(f"growth={self.growth}, reduction={self.reduction}: even, and above 0 up to 1.")

    @property
    def blocks(self) -> list[int]:
        """Layers of each block."""
        return [self.base, *(self.step * (i if self.grows else 1) + self.grows for i in range(1, self.exits))]


def weave_msdnet(numbers: Msdnet, purpose: Purpose, name: str = "msdnet") -> Graph:
    """The MSDNet with these numbers: fine scales are given up evenly over the layers.

    >>> [head.name for head in weave_msdnet(Msdnet(exits=2), Purpose()).heads]
    ['exit1', 'exit2']
    """
    draft = Draft(name, purpose)
    held = _first_layer(draft, numbers)
    ends = [sum(numbers.blocks[: i + 1]) for i in range(numbers.exits)]
    every = -(-ends[-1] // len(numbers.factors))
    for layer in range(1, ends[-1] + 1):
        fewer = layer > 1 and (layer - 1) % every == 0
        new = {s: _grown(draft, numbers, held, s, layer) for s in held if s >= min(held) + fewer}
        held = {s: _passed(draft, numbers, place) if fewer else place for s, place in new.items()}
        if layer in ends:
            _exit(draft, numbers, held[max(held)], ends.index(layer) + 1)
    return draft.finished(dead_ends=True)


def _first_layer(draft: Draft, numbers: Msdnet) -> dict[int, Place]:
    """The places of layer 0, by scale."""
    if numbers.stem == "small":
        place = draft.enter(Place(0, 0), Conv(bias=False), numbers.channels * numbers.factors[0])
    else:
        first = draft.enter(Place(0, 1), Conv(kernel=7, stride=2, bias=False), numbers.channels * numbers.factors[0])
        place = draft.put(Place(0, 2), draft.channels(first), (first, Pool(kernel=3)), then=PLAIN)
    held = {place.scale: place}
    for factor in numbers.factors[1:]:
        width, down = numbers.channels * factor, Conv(stride=2, bias=False)
        place = draft.put(Place(0, place.scale + 1), width, (place, down))
        held[place.scale] = place
    return held


def _grown(draft: Draft, numbers: Msdnet, held: dict[int, Place], scale: int, layer: int) -> Place:
    """The channels so far at a scale, and the new ones of a layer."""
    factor, finer = _factors(numbers), held.get(scale - 1)
    width = numbers.growth * factor[scale] // (1 if finer is None else 2)
    own = draft.put(Place(layer, scale, 1), width, (held[scale], _bottleneck(factor[scale])))
    if finer is None:
        return draft.concat(Place(layer, scale), held[scale], own)
    down = draft.put(Place(layer, scale, 2), width, (finer, _bottleneck(factor[scale - 1], stride=2)))
    return draft.concat(Place(layer, scale), held[scale], down, own)


def _factors(numbers: Msdnet) -> dict[int, int]:
    """Factor of growth at each scale."""
    return dict(enumerate(numbers.factors, 0 if numbers.stem == "small" else 2))


def _bottleneck(widening: int, stride: int = 1) -> Operator:
    """1×1 to at most some times the new channels, norm, ReLU, 3×3."""
    steps = (*normed(pointwise()), Conv(stride=stride, bias=False))
    return Chain(steps, inner=Width(times=widening, at_most_in=True))


def _passed(draft: Draft, numbers: Msdnet, place: Place) -> Place:
    factor = _factors(numbers)[place.scale]
    width = int(draft.channels(place) // factor * numbers.reduction) * factor
    return draft.put(Place(place.layer, place.scale, 3), width, (place, pointwise()))


def _exit(draft: Draft, numbers: Msdnet, place: Place, number: int) -> None:
    for _ in range(2):
        width = numbers.hidden or draft.channels(place)
        place = draft.put(Place(place.layer, place.scale + 1), width, (place, Conv(stride=2, bias=False)))
    draft.answer(place, name=f"exit{number}")
