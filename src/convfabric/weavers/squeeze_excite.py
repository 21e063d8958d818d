"""ResNet with squeeze and excitation (Hu et al. 2018): each block's channels are multiplied by what all pixels say.

In a layer lane 1 is the block's result, lane 2 the same multiplied; at one pixel lane 1 is the squeezed response,
lane 2 the factors.
"""

from dataclasses import dataclass

from convfabric.errors import SettingError
from convfabric.graph import POINT, Graph, Place
from convfabric.operators import Chain, Conv, GlobalPool, Identity, Relu, Sigmoid, basic_block, projection
from convfabric.weavers.builder import PLAIN, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class SqueezeExcite:
    """The numbers of an SE-ResNet."""

    blocks: tuple[int, ...] = (3, 3, 3)
    """Of each stage; each stage but the first starts at half the size."""
    channels: int = 16
    """Of the first stage; each of the others doubles them."""
    reduction: int = 4
    """Divisor of the channels where they are squeezed."""

    def __post_init__(self) -> None:
        if not self.blocks or min(*self.blocks, self.channels, self.reduction) < 1:
            raise SettingError(f"{self}: every number is at least 1.")


def weave_squeeze_excite(numbers: SqueezeExcite, purpose: Purpose, name: str = "se-resnet") -> Graph:
    """The SE-ResNet with these numbers.

    >>> graph = weave_squeeze_excite(SqueezeExcite(blocks=(1,)), Purpose())
    >>> [node.join for node in graph.nodes if node.join == "product"], len(graph.edges)
    (['product'], 7)
    """
    draft = Draft(name, purpose)
    place = draft.enter(Place(0, 0), Conv(bias=False), numbers.channels)
    for stage, count in enumerate(numbers.blocks):
        for i in range(count):
            place = _block(draft, numbers, place, numbers.channels << stage, 2 if stage and i == 0 else 1)
    draft.answer(place)
    return draft.finished()


def _block(draft: Draft, numbers: SqueezeExcite, before: Place, channels: int, stride: int) -> Place:
    here = Place(before.layer + 1, before.scale + stride - 1)
    result = draft.put(Place(here.layer, here.scale, 1), channels, (before, basic_block(stride)), then=PLAIN)
    squeeze, narrow = Chain((GlobalPool(), Conv(kernel=1))), max(1, channels // numbers.reduction)
    squeezed = draft.put(Place(here.layer, POINT, 1), narrow, (result, squeeze), then=Relu())
    factors = draft.put(Place(here.layer, POINT, 2), channels, (squeezed, Conv(kernel=1)), then=Sigmoid())
    arriving = (result, Identity()), (factors, Identity())
    excited = draft.put(Place(here.layer, here.scale, 2), channels, *arriving, then=PLAIN, join="product")
    shortcut = Identity() if stride == 1 and draft.channels(before) == channels else projection(stride)
    return draft.put(here, channels, (before, shortcut), (excited, Identity()), then=Relu())
