"""DenseNet (Huang et al. 2017): every layer reads the responses of all before it, side by side.

Each layer's new channels are a node of their own, in lane 1; lane 0 holds all channels so far.
"""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import NORM_AND_RELU, Graph, Place
from convfabric.operators import Chain, Conv, Norm, Pool, Relu, dense_block_layer, pointwise
from convfabric.weavers.builder import PLAIN, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class Densenet:
    """The numbers of a DenseNet-BC."""

    blocks: tuple[int, ...] = (16, 16, 16)
    """Layers of each dense block; between blocks the size halves."""
    growth: int = 12
    """New channels of each layer."""
    compression: float = 0.5
    """Share of the channels that a transition lets pass."""
    stem: Literal["small", "large"] = "small"
    """small: 3×3. large: 7×7 stride 2 and a 3×3 max pool stride 2. Both make twice the growth's channels."""

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1 or self.growth < 1 or not 0 < self.compression <= 1:
            raise SettingError(f"{self}: blocks and growth are at least 1, compression is above 0 and at most 1.")


def weave_densenet(numbers: Densenet, purpose: Purpose, name: str = "densenet") -> Graph:
    """The DenseNet with these numbers.

    >>> len(weave_densenet(Densenet(blocks=(2, 2)), Purpose()).nodes)
    10
    """
    draft = Draft(name, purpose)
    width = 2 * numbers.growth
    if numbers.stem == "small":
        place = draft.enter(Place(0, 0), Conv(bias=False), width, then=PLAIN)
    else:
        first = draft.enter(Place(0, 1), Conv(kernel=7, stride=2, bias=False), width)
        place = draft.put(Place(1, 2), width, (first, Pool(kernel=3)), then=PLAIN)
    for block, layers in enumerate(numbers.blocks):
        if block:
            passed = int(draft.channels(place) * numbers.compression)
            halve = Chain((Norm(), Relu(), pointwise(), Pool(kind="average")))
            place = draft.put(Place(place.layer + 1, place.scale + 1), passed, (place, halve), then=PLAIN)
        for i in range(layers):
            at = place.layer + 1
            new = draft.put(Place(at, place.scale, 1), numbers.growth, (place, dense_block_layer()), then=PLAIN)
            last = block == len(numbers.blocks) - 1 and i == layers - 1
            place = draft.concat(Place(at, place.scale), place, new, then=NORM_AND_RELU if last else PLAIN)
    draft.answer(place)
    return draft.finished()
