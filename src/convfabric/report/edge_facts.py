"""What each edge of a fabric is, in a line: its operator, channels, map, costs and worth."""

from collections.abc import Mapping

from convfabric.graph import Edge, Graph
from convfabric.graph.costs import edge_costs
from convfabric.graph.sizes import map_sizes
from convfabric.latency.asked import key_of
from convfabric.operators import Size, Work


def edge_facts(
    whole: Graph, kept: Graph, worth: Mapping[str, float], edge_ms: Mapping[str, float], image: Size
) -> Mapping[str, str]:
    """For each edge of the whole graph one line; costs and channels of those that stay are the kept graph's.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny", operators="plain", size=(8, 8))
    >>> edge_facts(graph, graph, {}, {"L0S0_L1S0": 0.0042}, (8, 8))["L0S0_L1S0"]
    'L0S0 → L1S0: Conv 12→12 8×8→8×8, 0.0829 M MACs, 0.0042 ms at least'
    """
    graphs = {edge.name: graph for graph in (whole, kept) for edge in graph.edges}

    def fact(edge: Edge) -> str:
        said = _costs_of(edge, graphs[edge.name], image)
        said += f", {edge_ms[edge.name]:.3g} ms at least" if edge.name in edge_ms else ""
        said += f", worth {worth[edge.name]:.3g}" if edge.name in worth else ""
        return said if edge.name in kept.edge_names else f"{said}; cut"

    return {edge.name: fact(edge) for edge in whole.edges}


def _costs_of(edge: Edge, graph: Graph, image: Size) -> str:
    sizes = map_sizes(graph, image)
    work = Work(edge.operator, *graph.ends(edge), sizes[edge.source], sizes[edge.target])
    said = f"{edge.source} → {edge.target}: {key_of(work).replace('() ', ' ')}"
    return f"{said}, {edge_costs(graph, edge, image).macs / 1e6:.3g} M MACs"
