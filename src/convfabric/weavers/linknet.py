"""LinkNet (Chaurasia & Culurciello 2017): a ResNet-18 down, narrow blocks up, added to what came down."""

from dataclasses import dataclass

from convfabric.errors import SettingError
from convfabric.graph import Graph, Place
from convfabric.operators import Chain, Conv, Identity, Operator, Pool, Relu, UpConv, Width, normed, pointwise
from convfabric.weavers.builder import PLAIN, Draft, Purpose
from convfabric.weavers.resnet import Resnet, stages


@dataclass(frozen=True, kw_only=True)
class Linknet:
    """The numbers of a LinkNet."""

    channels: int = 64
    """Of the first stage; each of the others doubles them."""
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each stage."""

    def __post_init__(self) -> None:
        if self.channels < 4 or not self.blocks or min(self.blocks) < 1:
            raise SettingError(f"{self}: at least 4 channels, and 1 block a stage.")


def weave_linknet(numbers: Linknet, purpose: Purpose, name: str = "linknet") -> Graph:
    """The LinkNet with these numbers. Classification reads the coarsest stage.

    >>> graph = weave_linknet(Linknet(), Purpose(task="segmentation", classes=11))
    >>> graph.head.reads[0].scale, sum(edge.source.scale > edge.target.scale for edge in graph.edges)
    (0, 5)
    """
    draft = Draft(name, purpose)
    first = draft.enter(Place(0, 1), Conv(kernel=7, stride=2, bias=False), numbers.channels)
    pooled = draft.put(Place(1, 2), numbers.channels, (first, Pool(kernel=3)), then=PLAIN)
    came_down = stages(draft, Resnet(blocks=numbers.blocks, channels=numbers.channels), pooled, Relu())
    place = came_down[-1]
    if purpose.task == "classification":
        draft.answer(place)
        return draft.finished()
    for skipped in reversed([pooled, *came_down[:-1]]):
        here = Place(place.layer + 1, skipped.scale)
        decoder = _decoder(UpConv() if skipped.scale < place.scale else Conv())
        raised = draft.put(Place(here.layer, here.scale, 1), draft.channels(skipped), (place, decoder))
        place = draft.put(here, draft.channels(skipped), (raised, Identity()), (skipped, Identity()), then=Relu())
    half = max(1, numbers.channels // 2)
    place = draft.put(Place(place.layer + 1, 1), half, (place, UpConv()))
    place = draft.put(Place(place.layer + 1, 1), half, (place, Conv()))
    place = draft.put(Place(place.layer + 1, 0), purpose.classes, (place, UpConv(kernel=2)), then=PLAIN)
    draft.answer(place, linear=False)
    return draft.finished()


def _decoder(middle: Operator) -> Chain:
    """1×1 to a quarter of the channels, 3×3 at the size of what came down there, 1×1 to its channels."""
    steps = (*normed(pointwise(bias=True)), *normed(middle), pointwise(bias=True))
    return Chain(steps, inner=Width(of="in", over=4))
