"""SegNet and DeconvNet (Badrinarayanan et al. 2015, Noh et al. 2015): a VGG, and its mirror image up again.

The published networks put a pooled value back to where it came from. An edge reads one response, so
here it goes to a fixed place of its cell, as in the authors' code of Convolutional Neural Fabrics.
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
    up: Literal["unpooled", "nearest", "bilinear", "transposed"] = "unpooled"
    """unpooled: each value to the top left of its cell. transposed: learned, as in DeconvNet."""

    def __post_init__(self) -> None:
        if self.depth not in STAGES:
            raise SettingError(f"depth={self.depth}: a VGG has {', '.join(map(str, STAGES))} layers.")


def weave_segnet(numbers: Segnet, purpose: Purpose, name: str = "segnet") -> Graph:
    """The SegNet with these numbers; as many convolutions up as down.

    >>> graph = weave_segnet(Segnet(channels=4), Purpose(task="segmentation"))
    >>> sum(edge.source.scale > edge.target.scale for edge in graph.edges)
    5
    """
    draft = Draft(name, purpose)
    convolved = encoder(draft, numbers.depth, numbers.channels, NORM_AND_RELU)
    deepest = convolved[-1]
    below = Place(deepest.layer + 1, deepest.scale + 1)
    place = draft.put(below, draft.channels(deepest), (deepest, Pool()), then=PLAIN)
    for scale in reversed(range(len(convolved))):
        count = STAGES[numbers.depth][scale]
        for i in range(count):
            last = i == count - 1
            width = numbers.channels << min(max(0, scale - 1) if last else scale, 3)
            step = _up(numbers.up) if i == 0 else Conv(bias=False)
            place = draft.put(Place(place.layer + 1, scale), width, (place, step))
    draft.answer(place)
    return draft.finished()


def _up(kind: str) -> Operator:
    if kind == "transposed":
        return UpConv(bias=False)
    raised = {"unpooled": ZeroInsertion(), "nearest": Nearest(), "bilinear": Bilinear()}[kind]
    return Chain((raised, Conv(bias=False)))
