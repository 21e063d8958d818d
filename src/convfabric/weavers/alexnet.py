"""AlexNet (Krizhevsky et al. 2012): large kernels first, filter groups, overlapping pools, two hidden layers."""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import POINT, Graph, Place
from convfabric.operators import Chain, Conv, Dropout, FullyConnected, LocalResponseNorm, Operator, Pool, Relu, Size
from convfabric.weavers.builder import Draft, Purpose

UNPADDED = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Alexnet:
    """The numbers of an AlexNet."""

    channels: int = 96
    """Of the first layer, a multiple of 6; the others have 8/3, 4, 4 and 8/3 times as many."""
    groups: int = 2
    """Filter groups of the second, fourth and fifth layer; 2 as published."""
    hidden: int = 4096
    """Channels of each of the two hidden layers; 0 leaves them out, and classes are read from the mean of each map."""
    stem: Literal["large", "small"] = "small"
    """large: 11×11 kernels, stride 4, the published one, for photographs. small: 5×5, stride 1, for small images."""
    pools: Literal["published", "padded"] = "padded"
    """published: no padding, maps of 55, 27, 13 and 6 pixels for images of 224. padded: each pool halves its map."""
    response_norm: bool = True
    """Whether local response normalisation follows the first two layers."""

    def __post_init__(self) -> None:
        if self.channels < 6 or self.channels % 6 or self.groups < 1 or self.hidden < 0:
            said = f"channels={self.channels}, groups={self.groups}, hidden={self.hidden}"
            raise SettingError(f"{said}: channels are a multiple of 6, groups at least 1, hidden at least 0.")


def weave_alexnet(numbers: Alexnet, purpose: Purpose, name: str = "alexnet") -> Graph:
    """The AlexNet with these numbers. Segmentation reads the last map before the hidden layers.

    >>> from convfabric.graph.costs import costs
    >>> published = Alexnet(stem="large", pools="published")
    >>> graph = weave_alexnet(published, Purpose(size=(224, 224), classes=1000))
    >>> costs(graph, (224, 224)).parameters
    60965224
    """
    draft, large, groups = Draft(name, purpose), numbers.stem == "large", numbers.groups
    unpadded = UNPADDED if numbers.pools == "published" else None
    first = Conv(kernel=11, stride=4, padding=(2, 2, 2, 2) if unpadded else None) if large else Conv(kernel=5)
    pool = Pool(kernel=3, padding=unpadded)
    normed: Operator = Chain((Relu(), LocalResponseNorm())) if numbers.response_norm else Relu()
    scale, wide, wider = 2 * large, numbers.channels * 8 // 3, numbers.channels * 4
    place = draft.enter(Place(0, scale), first, numbers.channels, then=normed)
    layers: tuple[tuple[Operator, int, Operator], ...] = (
        (Chain((pool, Conv(kernel=5, groups=groups))), wide, normed),
        (Chain((pool, Conv())), wider, Relu()),
        (Conv(groups=groups), wider, Relu()),
        (Conv(groups=groups), wide, Relu()),
    )
    for operator, channels, then in layers:
        scale += operator.scales_moved
        place = draft.put(Place(place.layer + 1, scale), channels, (place, operator), then=then)
    if numbers.hidden and purpose.task == "classification":
        hidden = Chain((Relu(), Dropout()))
        size = _size_of_last(first, pool, purpose.size)
        top = Chain((pool, FullyConnected(size=size)))
        place = draft.put(Place(place.layer + 1, POINT), numbers.hidden, (place, top), then=hidden)
        place = draft.put(Place(place.layer + 1, POINT), numbers.hidden, (place, Conv(kernel=1)), then=hidden)
    draft.answer(place)
    return draft.finished()


def _size_of_last(first: Operator, pool: Operator, image: Size) -> Size:
    """Of the map that the first hidden layer reads; SettingError for images that are too small."""
    try:
        size = first.size_after(image)
        for _ in range(3):
            size = pool.size_after(size)
    except ValueError as fault:
        raise SettingError(
            f"images of {image[0]}×{image[1]} are too small for this AlexNet ({fault}); stem=small, pools=padded are "
            "for small ones."
        ) from None
    return size
