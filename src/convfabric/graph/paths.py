"""Questions about paths from the images to the head."""

from collections.abc import Callable

from convfabric.errors import GraphError
from convfabric.graph.parts import POINT, Edge, Place
from convfabric.graph.structure import Graph


def count_routes(graph: Graph) -> int:
    """How many chains of single edges lead from the images to the head: the architectures without branches.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> count_routes(weave_trellis(Trellis(layers=2, scales=2, channels=4)))
    4
    """
    ways: dict[Place, int] = {}
    for place in graph.order:
        ways[place] = sum(ways[edge.source] for edge in _leading_on(graph, place))
        ways[place] += place == graph.entry.place
    return sum(ways[place] for place in graph.head.reads)


def cheapest_route(
    graph: Graph, edge_cost: Callable[[Edge], float], end_cost: Callable[[Place], float] = lambda place: 0.0
) -> Graph:
    """The route of least total cost, as a restricted graph; ties go to the edge that stands first.

    ``end_cost``: what reading the place costs where a route ends.

    The graph itself where that route cannot stand alone, as behind a concatenation that is normalised as a whole.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> graph = weave_trellis(Trellis(layers=3, scales=2, channels=4))
    >>> sorted(edge.name for edge in cheapest_route(graph, lambda edge: 1.0).edges)
    ['L0S0_L1S0', 'L1S0_L2S1']
    """
    try:
        return cheapest_routes(graph, edge_cost, 1, end_cost)[0]
    except GraphError:
        return graph


def cheapest_routes(
    graph: Graph,
    edge_cost: Callable[[Edge], float],
    count: int,
    end_cost: Callable[[Place], float] = lambda place: 0.0,
) -> list[Graph]:
    """The routes of least total cost, the cheapest first, as restricted graphs; fewer where there are fewer.

    A route may end at any exit; the others are not in its graph.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> graph = weave_trellis(Trellis(layers=2, scales=2, channels=4))
    >>> [len(route.edges) for route in cheapest_routes(graph, lambda edge: 1.0, 9)]
    [1, 2, 2, 3]
    """
    best: dict[Place, list[tuple[float, frozenset[str]]]] = {}
    for place in graph.order:
        arrivals = [
            (before + edge_cost(edge), names | {edge.name})
            for edge in _leading_on(graph, place)
            for before, names in best[edge.source]
        ]
        start = [(0.0, frozenset[str]())] if place == graph.entry.place else []
        best[place] = sorted([*start, *arrivals], key=lambda route: route[0])[:count]
    every = ((cost + end_cost(place), names) for place in graph.reads for cost, names in best[place])
    ends = sorted(every, key=lambda route: route[0])
    return [graph.restrict(names) for _, names in ends[:count]]


def _leading_on(graph: Graph, place: Place) -> list[Edge]:
    """The edges into a place that may stand there alone: not those that only multiply a map by single pixels."""
    multiplies = graph.node(place).join == "product" and place.scale < POINT
    return [edge for edge in graph.arriving(place) if not (multiplies and edge.source.scale >= POINT)]
