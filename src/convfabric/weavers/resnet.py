"""Residual networks (He et al. 2015, 2016; ResNeXt, Xie et al. 2017): shortcuts beside blocks, each its own edge.

So a block can be cut like any edge, and what remains is the shortcut.
"""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import NORM_AND_RELU, Graph, Node, Place
from convfabric.operators import (
    Chain,
    Conv,
    Identity,
    Operator,
    Pool,
    Relu,
    basic_block,
    bottleneck,
    inverted_residual,
    preactivated_block,
    projection,
)
from convfabric.weavers.builder import PLAIN, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class Resnet:
    """The numbers of a residual network."""

    blocks: tuple[int, ...] = (3, 3, 3)
    """Of each stage; each stage but the first starts at half the size."""
    channels: int = 16
    """Of the first stage's blocks, inside for bottlenecks; each further stage doubles them."""
    block: Literal["basic", "preactivated", "bottleneck", "bottleneck 2015", "inverted"] = "basic"
    """basic: two 3×3. preactivated: the same, norm and ReLU first. bottleneck: 1×1, 3×3, 1×1, the stride in the
    3×3; of 2015 in the first 1×1. inverted: 1×1 to six times as many, depthwise, 1×1."""
    groups: int = 1
    """Of the 3×3 in bottlenecks (ResNeXt)."""
    stem: Literal["small", "large"] = "small"
    """small: 3×3. large: 7×7 stride 2 and a 3×3 max pool stride 2, for large images."""

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1:
            raise SettingError(f"blocks={self.blocks}: each stage has at least one block.")


def weave_resnet(numbers: Resnet, purpose: Purpose, name: str = "resnet") -> Graph:
    """The residual network with these numbers.

    >>> graph = weave_resnet(Resnet(blocks=(3, 3, 3)), Purpose())
    >>> len(graph.nodes), len(graph.edges)
    (10, 18)
    """
    draft = Draft(name, purpose)
    raw = numbers.block in ("preactivated", "inverted")
    then: Operator = PLAIN if raw else Relu()
    place = _stem(draft, numbers, PLAIN if numbers.block == "preactivated" else NORM_AND_RELU)
    place = stages(draft, numbers, place, then)[-1]
    if raw:
        node: Node = draft.nodes[-1]
        draft.nodes[-1] = Node(place=node.place, channels=node.channels, then=NORM_AND_RELU)
    draft.answer(place)
    return draft.finished()


def stages(draft: Draft, numbers: Resnet, place: Place, then: Operator) -> list[Place]:
    """The blocks of a residual network in a draft; the place of the last one of each stage.

    >>> draft = Draft("one", Purpose())
    >>> start = draft.enter(Place(0, 0), Conv(), 4)
    >>> [str(place) for place in stages(draft, Resnet(blocks=(1, 2), channels=4), start, Relu())]
    ['L1S0', 'L3S1']
    """
    start, last = place.scale, []
    for stage, count in enumerate(numbers.blocks):
        channels = (numbers.channels << stage) * (4 if numbers.block.startswith("bottleneck") else 1)
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            before = draft.channels(place)
            shortcut = Identity() if before == channels and stride == 1 else projection(stride)
            arriving = (place, shortcut), (place, _block(numbers, stride))
            place = draft.put(Place(place.layer + 1, start + stage), channels, *arriving, then=then)
        last.append(place)
    return last


def _stem(draft: Draft, numbers: Resnet, then: Operator) -> Place:
    if numbers.stem == "small":
        return draft.enter(Place(0, 0), Conv(bias=False), numbers.channels, then=then)
    place = draft.enter(Place(0, 1), Conv(kernel=7, stride=2, bias=False), numbers.channels)
    return draft.put(Place(1, 2), numbers.channels, (place, Pool(kernel=3)), then=PLAIN)


def _block(numbers: Resnet, stride: int) -> Chain:
    if numbers.block == "basic":
        return basic_block(stride)
    if numbers.block == "preactivated":
        return preactivated_block(stride)
    if numbers.block == "inverted":
        return inverted_residual(stride)
    return bottleneck(stride, groups=numbers.groups, stride_first=numbers.block == "bottleneck 2015")
