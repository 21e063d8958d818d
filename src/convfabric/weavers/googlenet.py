"""GoogLeNet (Szegedy et al. 2015): nine inception modules, each 1×1, 3×3, 5×5 and a pool side by side.

In a module lanes 1 and 2 of its first layer are the 1×1 before the 3×3 and the 5×5; lanes 1 to 4 of the
second are the four results, lane 0 holds them all.
"""

from dataclasses import dataclass

from convfabric.errors import SettingError
from convfabric.graph import POINT, Graph, Place
from convfabric.operators import AdaptivePool, Chain, Conv, Dropout, FullyConnected, Pool, Relu
from convfabric.weavers.builder import PLAIN, Draft, Purpose

MODULES = (
    (3, (64, 96, 128, 16, 32, 32)),
    (3, (128, 128, 192, 32, 96, 64)),
    (4, (192, 96, 208, 16, 48, 64)),
    (4, (160, 112, 224, 24, 64, 64)),
    (4, (128, 128, 256, 24, 64, 64)),
    (4, (112, 144, 288, 32, 64, 64)),
    (4, (256, 160, 320, 32, 128, 128)),
    (5, (256, 160, 320, 32, 128, 128)),
    (5, (384, 192, 384, 48, 128, 128)),
)
"""Scale, and channels: 1×1; before the 3×3, 3×3; before the 5×5, 5×5; behind the pool."""
AUXILIARY = (2, 5)
"""Modules behind which an early exit may stand."""


@dataclass(frozen=True, kw_only=True)
class Googlenet:
    """The numbers of a GoogLeNet."""

    over: int = 1
    """Divisor of every number of channels."""
    exits: bool = False
    """Whether two further heads read modules 4a and 4d; each is one linear map from the mean."""
    auxiliary: bool = False
    """Whether they are as published: means of 4×4 parts, a 1×1, a hidden layer, dropout of 0.7; see ``early``."""

    def __post_init__(self) -> None:
        if not 1 <= self.over <= 16:
            raise SettingError(f"over={self.over}: the narrowest layer has 16 channels, so 1 to 16.")
        if self.auxiliary and not self.exits:
            raise SettingError("auxiliary=true, exits=false: these are the exits' layers; give exits=true.")


def weave_googlenet(numbers: Googlenet, purpose: Purpose, name: str = "googlenet") -> Graph:
    """The GoogLeNet with these numbers.

    >>> graph = weave_googlenet(Googlenet(exits=True), Purpose(size=(224, 224), classes=1000))
    >>> sum(node.join == "concatenation" for node in graph.nodes), len(graph.heads)
    (9, 3)
    """
    draft = Draft(name, purpose)
    first, second = 64 // numbers.over, 192 // numbers.over
    place = draft.enter(Place(0, 1), Conv(kernel=7, stride=2), first)
    place = draft.put(Place(1, 2), first, (place, Chain((Pool(kernel=3), Conv(kernel=1)))))
    place = draft.put(Place(2, 2), second, (place, Conv()))
    for number, (scale, channels) in enumerate(MODULES):
        if place.scale < scale:
            pooled = Place(place.layer + 1, scale)
            place = draft.put(pooled, draft.channels(place), (place, Pool(kernel=3)), then=PLAIN)
        place = _inception(draft, place, [max(1, count // numbers.over) for count in channels])
        if numbers.exits and number in AUXILIARY:
            read = _auxiliary(draft, place, numbers.over) if numbers.auxiliary else place
            draft.answer(read, name=f"exit{AUXILIARY.index(number) + 1}")
    draft.answer(place)
    return draft.finished()


def _auxiliary(draft: Draft, source: Place, over: int) -> Place:
    """What an early exit of the published network reads."""
    pooled = Place(source.layer + 1, source.scale + 2)
    parts = draft.put(pooled, 128 // over, (source, Chain((AdaptivePool(size=(4, 4)), Conv(kernel=1)))))
    hidden = Place(source.layer + 2, POINT)
    thinned = Chain((Relu(), Dropout(p=0.7)))
    return draft.put(hidden, 1024 // over, (parts, FullyConnected(size=(4, 4))), then=thinned)


def _inception(draft: Draft, source: Place, channels: list[int]) -> Place:
    alone, before_3, wide_3, before_5, wide_5, behind_pool = channels
    at, scale = source.layer + 1, source.scale
    reduced_3 = draft.put(Place(at, scale, 1), before_3, (source, Conv(kernel=1)))
    reduced_5 = draft.put(Place(at, scale, 2), before_5, (source, Conv(kernel=1)))
    pooled = Chain((Pool(kernel=3, stride=1), Conv(kernel=1)))
    branches = (
        draft.put(Place(at + 1, scale, 1), alone, (source, Conv(kernel=1))),
        draft.put(Place(at + 1, scale, 2), wide_3, (reduced_3, Conv())),
        draft.put(Place(at + 1, scale, 3), wide_5, (reduced_5, Conv(kernel=5))),
        draft.put(Place(at + 1, scale, 4), behind_pool, (source, pooled)),
    )
    return draft.concat(Place(at + 1, scale), *branches)
