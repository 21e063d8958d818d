"""Height and width of every map of a graph, from what its operators say."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from convfabric.errors import GraphError
from convfabric.graph.parts import POINT, Place
from convfabric.graph.structure import Graph
from convfabric.operators import Operator, Size, halved


def map_sizes(graph: Graph, image: Size) -> Mapping[Place, Size]:
    """The size of the map at each place, for images of a height and width in pixels.

    What doubles a map is cropped to the first map at its scale where that is a row or a column less, so that the way
    up meets the way down. Sides may be symbolic, as under torch.export; of plain numbers answers are remembered.
    Raises GraphError where maps of different sizes meet, or an operator cannot read a map.

    >>> from convfabric.weavers import weave
    >>> sizes = map_sizes(weave("fabric-tiny", size=(9, 8)), (9, 8))
    >>> sizes[Place(0, 0)], sizes[Place(0, 1)], sizes[Place(1, 2)]
    ((9, 8), (5, 4), (3, 2))
    """
    if not type(image[0]) is type(image[1]) is int:
        return _map_sizes(graph, image, lambda operator, size, fitting: operator.size_after(size, fitting))
    if image not in graph.known_sizes:
        graph.known_sizes[image] = _map_sizes(graph, image, _size_after)
    return graph.known_sizes[image]


def _map_sizes(graph: Graph, image: Size, size_after: Callable[[Operator, Size, Size], Size]) -> Mapping[Place, Size]:
    sizes: dict[Place, Size] = {}
    first: dict[int, Size] = {0: image}
    for place in graph.order:
        fitting = _at_scale(first, place.scale)
        reading = [(edge.name, edge.operator, sizes[edge.source]) for edge in graph.arriving(place)]
        reading += [("the stem", graph.entry.operator, image)] if place == graph.entry.place else []
        arriving, name = [], ""
        try:
            for name, operator, size in reading:
                arriving.append((name, size_after(operator, size, fitting)))
        except ValueError as fault:
            raise GraphError(f"while sizing {name}: {fault}.") from None
        # Nothing arrives only where a graph that is being weighed has lost edges: then its scale says the size.
        sizes[place] = _agreed(graph, place, arriving) if arriving else fitting
        first.setdefault(place.scale, sizes[place])
    return sizes


def _at_scale(first: Mapping[int, Size], scale: int) -> Size:
    """The size of the first map at a scale; where there was none, half of the next finer one, rounded up."""
    if scale >= POINT:
        return 1, 1
    size = first[0]
    for finer in range(scale):
        size = first.get(finer + 1) or halved(size)
    return size


@lru_cache(maxsize=1 << 16)
def _size_after(operator: Operator, size: Size, fitting: Size) -> Size:
    return operator.size_after(size, fitting)


def _agreed(graph: Graph, place: Place, arriving: Iterable[tuple[str, Size]]) -> Size:
    """The one size of all that arrives; in a product maps of one pixel beside others have theirs."""
    (name, size), *others = arriving
    multiplies = graph.node(place).join == "product"
    for other, found in others:
        if multiplies and size == (1, 1):
            name, size = other, found
        if found != size and not (multiplies and found == (1, 1)):
            raise GraphError(
                f"{place}: {name} makes a map of {size[0]}×{size[1]}, {other} one of {found[0]}×{found[1]}."
            )
    return size
