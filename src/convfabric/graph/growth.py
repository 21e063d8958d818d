"""Graphs that grow: more channels, one layer more. Whoever has weights for the old one finds theirs by name."""

from collections.abc import Mapping
from dataclasses import replace

from convfabric.errors import GraphError
from convfabric.graph.parts import Edge, Node, Place
from convfabric.graph.structure import Graph, recounted
from convfabric.operators import Conv, Relu


def wider(graph: Graph, channels: Mapping[Place, int]) -> Graph:
    """The graph with more channels at the given places, and at all that are tied to them.

    Raises GraphError for fewer channels than there are, for places whose channels are the image's, classes or groups,
    and where an operator could not do with the others.

    >>> from convfabric.weavers import weave
    >>> graph = weave("resnet", channels=4, blocks=(1,))
    >>> sorted({node.channels for node in wider(graph, {Place(0, 0): 6}).nodes})
    [6]
    """
    counts = {node.place: node.channels for node in graph.nodes}
    for place, count in channels.items():
        tie = next(tie for tie in graph.ties if graph.node(place).place in tie.places)
        if count < graph.node(place).channels:
            raise GraphError(f"{place}: {count} channels asked for; it has {graph.node(place).channels} already.")
        others = {graph.node(other).channels for other in tie.places}
        if tie.fixed or others != {tie.units}:
            raise GraphError(f"{place}: its channels are the image's, classes, or belong together in groups.")
        if odd := [other for other in tie.places if channels.get(other, count) != count]:
            raise GraphError(f"{place} and {odd[0]} are tied: {count} and {channels[odd[0]]} channels asked for.")
        counts |= dict.fromkeys(tie.places, count)
    return recounted(graph, graph, counts)


def deeper(graph: Graph, place: Place) -> tuple[Graph, Place]:
    """The graph with one more 3×3 convolution and a ReLU behind a place, which all that read it read instead.

    It stands beside the place, on a lane of its own.

    >>> from convfabric.weavers import weave
    >>> graph, new = deeper(weave("vgg", channels=4), Place(1, 1))
    >>> str(new), [edge.name for edge in graph.edges if edge.source == new]
    ('L1S1B1', ['L1S1B1_L2S2'])
    """
    lanes = [node.place.lane for node in graph.nodes if node.place[:2] == place[:2]]
    after = place._replace(lane=max(lanes) + 1)
    grown = replace(
        graph,
        nodes=(*graph.nodes, Node(place=after, channels=graph.node(place).channels, then=Relu())),
        edges=(
            *(replace(edge, source=after) if edge.source == place else edge for edge in graph.edges),
            Edge(source=place, target=after, operator=Conv()),
        ),
        heads=tuple(
            replace(head, reads=tuple(after if read == place else read for read in head.reads)) for head in graph.heads
        ),
    )
    return grown, after
