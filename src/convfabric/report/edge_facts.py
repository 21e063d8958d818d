"""What each edge of a fabric is, in a line: its operator, channels, map, costs and worth."""

from collections.abc import Mapping

from convfabric.graph import Edge, Graph
from convfabric.graph.costs import edge_costs
from convfabric.graph.sizes import map_sizes
from convfabric.latency.asked import key_of
from convfabric.operators import Size, Work


def edge_facts(whole: Graph, kept: Graph, worth: Mapping[str, float], image: Size) -> Mapping[str, str]:
    """For each edge of the whole graph one line; costs and channels of those that stay are the kept graph's.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny", operators="plain", size=(8, 8))
    >>> edge_facts(graph, graph, {}, (8, 8))["L0S0_L1S0"]
    'L0S0 → L1S0: Conv 12→12 8×8→8×8, 0.0829 M MACs'
    """
    graphs = {edge.name: graph for graph in (whole, kept) for edge in graph.edges}
    return {
        edge.name: _fact(edge, graphs[edge.name], edge.name in kept.edge_names, worth, image) for edge in whole.edges
    }


def _fact(edge: Edge, graph: Graph, stays: bool, worth: Mapping[str, float], image: Size) -> str:
    sizes = map_sizes(graph, image)
    work = Work(edge.operator, *graph.ends(edge), sizes[edge.source], sizes[edge.target])
    said = f"{edge.source} → {edge.target}: {key_of(work).replace('() ', ' ')}"
    said += f", {edge_costs(graph, edge, image).macs / 1e6:.3g} M MACs"
    said += f", worth {worth[edge.name]:.3g}" if edge.name in worth else ""
    return said if stays else f"{said}; cut"
