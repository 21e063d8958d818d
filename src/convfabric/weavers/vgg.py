"""VGG (Simonyan & Zisserman 2015): 3×3 convolutions; half the size, double the width."""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import NORM_AND_RELU, POINT, Graph, Place
from convfabric.operators import Chain, Conv, FullyConnected, GlobalPool, Operator, Pool, Relu, halved
from convfabric.weavers.builder import Draft, Purpose

STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions at each scale, by the number of layers with weights."""


@dataclass(frozen=True, kw_only=True)
class Vgg:
    """The numbers of a VGG."""

    depth: int = 11
    """11, 13, 16 or 19 layers with weights."""
    channels: int = 64
    """Of the first stage; each of the next three doubles them."""
    norm: bool = True
    """Whether each convolution is normalised; the published networks were not."""
    top: Literal["full", "global max", "linear"] = "linear"
    """full: two hidden layers over the whole last map, the published one. global max: the same over the largest
    value of each channel (Ioannou et al. 2016). linear: one map from the mean."""
    hidden: int = 4096
    """Channels of the two hidden layers."""

    def __post_init__(self) -> None:
        if self.depth not in STAGES:
            raise SettingError(f"depth={self.depth}: a VGG has {', '.join(map(str, STAGES))} layers.")


def weave_vgg(numbers: Vgg, purpose: Purpose, name: str = "vgg") -> Graph:
    """The VGG with these numbers. Segmentation reads the last map, whatever the top.

    >>> len(weave_vgg(Vgg(depth=16, top="full"), Purpose(size=(224, 224))).nodes)
    15
    """
    draft = Draft(name, purpose)
    then: Operator = NORM_AND_RELU if numbers.norm else Relu()
    place = encoder(draft, numbers.depth, numbers.channels, then)[-1]
    if numbers.top != "linear" and purpose.task == "classification":
        place = _hidden(draft, numbers, purpose, place, then)
    draft.answer(place)
    return draft.finished()


def encoder(draft: Draft, depth: int, channels: int, then: Operator) -> list[Place]:
    """The convolutions of a VGG in a draft; the place of the last one at each scale.

    >>> draft = Draft("one", Purpose())
    >>> [str(place) for place in encoder(draft, 11, 4, Relu())]
    ['L0S0', 'L1S1', 'L3S2', 'L5S3', 'L7S4']
    """
    last: list[Place] = []
    for scale, count in enumerate(STAGES[depth]):
        width = channels << min(scale, 3)
        for i in range(count):
            if not draft.nodes:
                place = draft.enter(Place(0, 0), Conv(), width, then=then)
                continue
            step = Chain((Pool(), Conv())) if i == 0 else Conv()
            place = draft.put(Place(place.layer + 1, scale), width, (place, step), then=then)
        last.append(place)
    return last


def _hidden(draft: Draft, numbers: Vgg, purpose: Purpose, last: Place, then: Operator) -> Place:
    """The two hidden layers, over one pixel."""
    size = purpose.size
    for _ in range(last.scale + 1):
        size = halved(size)
    if numbers.top == "full":
        first = Chain((Pool(), FullyConnected(size=size)))
    else:
        first = Chain((GlobalPool(kind="max"), Conv(kernel=1)))
    place = draft.put(Place(last.layer + 1, POINT), numbers.hidden, (last, first), then=then)
    return draft.put(Place(last.layer + 2, POINT), numbers.hidden, (place, Conv(kernel=1)), then=then)
