"""LeNet-5 (LeCun et al. 1998): pools that are trained, a layer that reads by a table, scaled hyperbolic tangents."""

from dataclasses import dataclass

from convfabric.errors import GraphError
from convfabric.graph import Graph, Place
from convfabric.operators import Chain, Conv, Operator, Pool, Scale, TabledConv, Tanh, Times
from convfabric.weavers.builder import Draft, Purpose

THREES = tuple(tuple(sorted((i + k) % 6 for k in range(3))) for i in range(6))
FOURS = tuple(tuple(sorted((i + k) % 6 for k in range(4))) for i in range(6))
APART = ((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5))
TABLE = (*THREES, *FOURS, *APART, tuple(range(6)))
"""The maps of the first pool that each map of the third layer reads (table I of the paper)."""
SQUASH = Chain((Times(factor=2 / 3), Tanh(), Times(factor=1.7159)))
UNPADDED = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Lenet:
    """The numbers of a LeNet-5."""

    hidden: int = 84
    """Channels of the last layer before the classes."""
    table: bool = True
    """Whether the third layer reads by the published table; else all maps."""


def weave_lenet(numbers: Lenet, purpose: Purpose, name: str = "lenet") -> Graph:
    """The LeNet-5 with these numbers; for images of 32×32 its fifth layer has one pixel. Classes are a linear map.

    Raises GraphError for segmentation: without padding, no pixel of its maps lies where one of the image does.

    >>> from convfabric.graph.costs import costs
    >>> graph = weave_lenet(Lenet(), Purpose(image_channels=1))
    >>> costs(graph, (32, 32)).parameters  # 156 + 12 + 1,516 + 32 + 48,120 + 10,164 + 850
    60850
    """
    if purpose.task == "segmentation":
        raise GraphError(f"{name}: its kernels have no padding, so it tells classes of images alone.")
    draft, pool = Draft(name, purpose), Chain((Pool(kind="average", padding=UNPADDED), Scale(bias=True)))
    third: Operator = TabledConv(table=TABLE, kernel=5, padding=UNPADDED)
    third = third if numbers.table else Conv(kernel=5, padding=UNPADDED)
    place = draft.enter(Place(0, 0), Conv(kernel=5, padding=UNPADDED), 6, then=SQUASH)
    layers: tuple[tuple[Operator, int, int], ...] = (
        (pool, 1, 6),
        (third, 1, len(TABLE)),
        (pool, 2, len(TABLE)),
        (Conv(kernel=5, padding=UNPADDED), 2, 120),
        (Conv(kernel=1), 2, numbers.hidden),
    )
    for operator, scale, channels in layers:
        place = draft.put(Place(place.layer + 1, scale), channels, (place, operator), then=SQUASH)
    draft.answer(place)
    return draft.finished()
