"""SegNet and DeconvNet (Badrinarayanan et al. 2015, Noh et al. 2015): a VGG, and its mirror image up again.

Published numbers: ``depth=16`` for SegNet; ``depth=16, hidden=4096`` for DeconvNet, whose two hidden layers are padded
here, so that images of any size can be read.
"""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import NORM_AND_RELU, Graph, Place
from convfabric.operators import Bilinear, Chain, Conv, Nearest, Operator, Pool, UpConv, ZeroInsertion
from convfabric.weavers.builder import PLAIN, Draft, Purpose
from convfabric.weavers.vgg import STAGES, encoder


@dataclass(frozen=True, kw_only=True)
class Segnet:
    """The numbers of a SegNet."""

    depth: int = 16
    """Layers of the VGG that is mirrored: 11, 13, 16 or 19."""
    channels: int = 64
    """Of the finest scale."""
    up: Literal["indices", "unpooled", "nearest", "bilinear", "transposed"] = "indices"
    """indices: each value back to where the pool on the way down found its own, as published. unpooled: to the top
    left of its cell. transposed: learned."""
    hidden: int = 0
    """Channels of two layers at the coarsest scale, as DeconvNet has them; 0: none, as in SegNet."""

    def __post_init__(self) -> None:
        if self.depth not in STAGES:
            raise SettingError(f"depth={self.depth}: a VGG has {', '.join(map(str, STAGES))} layers.")
        if self.hidden < 0:
            raise SettingError(f"hidden={self.hidden}: give 0 or more channels.")


def weave_segnet(numbers: Segnet, purpose: Purpose, name: str = "segnet") -> Graph:
    """The SegNet with these numbers; as many convolutions up as down.

    >>> graph = weave_segnet(Segnet(channels=4), Purpose(task="segmentation"))
    >>> sum(edge.source.scale > edge.target.scale for edge in graph.edges)
    5
    """
    draft = Draft(name, purpose)
    convolved = encoder(draft, numbers.depth, numbers.channels, NORM_AND_RELU)
    place = _coarsest(draft, convolved[-1], numbers.hidden)
    for scale in reversed(range(len(convolved))):
        count = STAGES[numbers.depth][scale]
        place, step = _raised(draft, numbers.up, place, convolved[scale])
        for i in range(count):
            last = i == count - 1
            here, width = Place(place.layer + 1, scale), numbers.channels << min(max(0, scale - last), 3)
            if last and scale == 0 and not numbers.hidden:
                place = draft.put(here, purpose.classes, (place, step), then=PLAIN)
            else:
                place = draft.put(here, width, (place, step))
            step = Conv()
    draft.answer(place, linear=numbers.hidden > 0)
    return draft.finished()


def _coarsest(draft: Draft, deepest: Place, hidden: int) -> Place:
    """The last map of the VGG pooled once more, and after the hidden layers, if there are any."""
    channels, at, scale = draft.channels(deepest), deepest.layer + 1, deepest.scale + 1
    place = draft.put(Place(at, scale), channels, (deepest, Pool()), then=PLAIN)
    if hidden:
        place = draft.put(Place(at + 1, scale), hidden, (place, Conv(kernel=7)))
        place = draft.put(Place(at + 2, scale), hidden, (place, Conv(kernel=1)))
        place = draft.put(Place(at + 3, scale), channels, (place, Conv(kernel=7)))
    return place


def _raised(draft: Draft, kind: str, coarse: Place, finer: Place) -> tuple[Place, Operator]:
    """A place to go on from, and the operator to do so by: to the scale of a finer map, and a convolution there."""
    if kind == "indices":
        return draft.unpool(Place(coarse.layer + 1, finer.scale, 1), coarse, finer), Conv()
    if kind == "transposed":
        return coarse, UpConv()
    raised = {"unpooled": ZeroInsertion(), "nearest": Nearest(), "bilinear": Bilinear()}[kind]
    return coarse, Chain((raised, Conv()))
