"""Shortcuts as part of the convolutions beside them: an identity is a kernel that is 1 in its middle and else 0.

So a sum of both is one convolution, which a norm behind it goes into as well (RepVGG, Ding et al. 2021, section 3.3).
"""

from collections.abc import Iterator
from dataclasses import replace

from convfabric.graph import Edge, Graph
from convfabric.operators import Conv, Identity, sides


def taken_over(graph: Graph) -> Iterator[tuple[Edge, Edge]]:
    """Identities, each with the convolution beside it that can take it over, as it joins the same two places.

    >>> from convfabric.weavers import weave
    >>> graph = weave("trellis", layers=2, scales=1, channels=4, operators="shortcut")
    >>> [(identity.name, beside.name) for identity, beside in taken_over(graph)]
    [('L0S0_L1S0', 'L0S0_L1S0_1')]
    """
    for node in graph.nodes:
        arriving = graph.arriving(node.place) if node.join == "sum" else ()
        convolutions = {edge.source: edge for edge in reversed(arriving) if _holds_identity(edge)}
        identities = [edge for edge in arriving if isinstance(edge.operator, Identity)]
        yield from ((edge, convolutions[edge.source]) for edge in identities if edge.source in convolutions)


def _holds_identity(edge: Edge) -> bool:
    """Whether the kernel of an edge has a middle, and reads there what it writes."""
    one = edge.operator
    if not isinstance(one, Conv) or edge.shared or (one.stride, one.groups, one.padding) != (1, 1, None):
        return False
    return all(side % 2 for side in sides(one.kernel))


def without_shortcuts(graph: Graph) -> Graph:
    """The graph less the identities that convolutions beside them can take over."""
    gone = {identity.name for identity, _ in taken_over(graph)}
    return replace(graph, edges=tuple(edge for edge in graph.edges if edge.name not in gone)) if gone else graph
