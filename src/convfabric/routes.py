"""Questions about paths from the images to the head."""

from collections.abc import Callable

from convfabric.graph import Edge, Graph, Place


def count_routes(graph: Graph) -> int:
    """How many chains of single edges lead from the images to the head: the architectures without branches.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> count_routes(weave_trellis(Trellis(layers=2, scales=2, channels=4)))
    4
    """
    ways: dict[Place, int] = {}
    for place in graph.order:
        ways[place] = sum(ways[edge.source] for edge in graph.arriving(place))
        ways[place] += place == graph.entry.place
    return sum(ways[place] for place in graph.head.reads)


def cheapest_route(
    graph: Graph,
    edge_cost: Callable[[Edge], float],
    node_cost: Callable[[Place], float] = lambda place: 0.0,
) -> Graph:
    """The route of least total cost, as a restricted graph; ties go to the edge that stands first.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> graph = weave_trellis(Trellis(layers=3, scales=2, channels=4))
    >>> sorted(edge.name for edge in cheapest_route(graph, lambda edge: 1.0).edges)
    ['L0S0_L1S0', 'L1S0_L2S1']
    """
    best: dict[Place, tuple[float, frozenset[str]]] = {}
    for place in graph.order:
        arrivals = [
            (best[edge.source][0] + edge_cost(edge), best[edge.source][1] | {edge.name})
            for edge in graph.arriving(place)
        ]
        if place == graph.entry.place:
            arrivals.append((0.0, frozenset()))
        total, names = min(arrivals, key=lambda arrival: arrival[0])
        best[place] = (total + node_cost(place), names)
    _, names = min((best[place] for place in graph.head.reads), key=lambda arrival: arrival[0])
    return graph.restrict(names)
