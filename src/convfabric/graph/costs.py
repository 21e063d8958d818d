"""Costs of a graph, by arithmetic: operators know their price, this room adds up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from convfabric.graph.parts import Edge, Head, Node, Place
from convfabric.graph.sizes import map_sizes
from convfabric.graph.structure import Graph, remembered
from convfabric.operators import Operator, Size, Work, area, primitives

FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of one graph, or one part of it, for one image of a stated size."""

    parameters: int
    """Trained values."""
    macs: int
    """Multiply-accumulates per image."""
    activation_bytes: int
    """Bytes of every float32 response written for one image, those inside composite operators included."""

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(
            parameters=self.parameters + other.parameters,
            macs=self.macs + other.macs,
            activation_bytes=self.activation_bytes + other.activation_bytes,
        )


FREE = Costs(parameters=0, macs=0, activation_bytes=0)


@lru_cache(maxsize=1 << 16)
def _costs_of(operator: Operator, channels_in: int, channels_out: int, before: Size, after: Size) -> Costs:
    return Costs(
        parameters=operator.parameters(channels_in, channels_out),
        macs=operator.macs(channels_in, channels_out, before, after),
        activation_bytes=FLOAT_BYTES * operator.values(channels_in, channels_out, before, after),
    )


def edge_work(graph: Graph, edge: Edge, image: Size) -> Work:
    """An edge at work on one image of a height and width in pixels.

    >>> from convfabric.weavers import weave
    >>> graph = weave("resnet-20")
    >>> edge_work(graph, graph.edges[1], (32, 32))[1:]
    (16, 16, (32, 32), (32, 32))
    """
    sizes = map_sizes(graph, image)
    return Work(edge.operator, *graph.ends(edge), sizes[edge.source], sizes[edge.target])


def node_work(graph: Graph, place: Place, image: Size) -> Work:
    """A node's own operator, after joining, at work on one image.

    >>> from convfabric.weavers import weave
    >>> node_work(weave("resnet-20"), Place(0, 0), (32, 32))[1:]
    (16, 16, (32, 32), (32, 32))
    """
    node, size = graph.node(place), map_sizes(graph, image)[place]
    return Work(node.then, node.channels, node.channels, size, size)


def entry_work(graph: Graph, image: Size) -> Work:
    """The stem at work on one image.

    >>> from convfabric.weavers import weave
    >>> entry_work(weave("resnet-20"), (32, 32))[1:]
    (3, 16, (32, 32), (32, 32))
    """
    entry = graph.entry
    channels = graph.node(entry.place).channels
    return Work(entry.operator, entry.image_channels, channels, image, map_sizes(graph, image)[entry.place])


def edge_costs(graph: Graph, edge: Edge, image: Size) -> Costs:
    """Costs of one edge for one image of a height and width in pixels; shared weights are counted at each.

    >>> from convfabric.weavers import weave
    >>> graph = weave("resnet-20")
    >>> edge_costs(graph, graph.edges[1], (32, 32)).macs
    4718592
    """
    return _costs_of(*edge_work(graph, edge, image))


def node_costs(graph: Graph, place: Place, image: Size) -> Costs:
    """Costs of joining, normalising and activating at one place for one image.

    >>> from convfabric.weavers import weave
    >>> node_costs(weave("resnet-20"), Place(0, 0), (32, 32)).parameters
    32
    """
    return _alone(graph, graph.node(place), map_sizes(graph, image)[place])


def _alone(graph: Graph, node: Node, size: Size) -> Costs:
    """Costs of one node; a concatenation is written anew where more than one response arrives."""
    own = _costs_of(node.then, node.channels, node.channels, size, size)
    if node.join != "concatenation" or len(graph.arriving(node.place)) < 2:
        return own
    return own + replace(FREE, activation_bytes=FLOAT_BYTES * node.channels * area(size))


def entry_costs(graph: Graph, image: Size) -> Costs:
    """Costs of the stem for one image.

    >>> from convfabric.weavers import weave
    >>> entry_costs(weave("resnet-20"), (32, 32)).parameters
    432
    """
    return _costs_of(*entry_work(graph, image))


def head_costs(graph: Graph, head: Head, image: Size) -> Costs:
    """Costs of a head: a linear map for each read, once (classification) or for each pixel, and a bias.

    >>> from convfabric.weavers import weave
    >>> graph = weave("resnet-20")
    >>> head_costs(graph, graph.head, (32, 32)).parameters
    650
    """
    total = replace(FREE, parameters=head.values * head.linear)
    for place in head.reads:
        channels = graph.node(place).channels * head.linear
        pixels = 1 if head.task == "classification" else area(map_sizes(graph, image)[place])
        total += Costs(
            parameters=head.values * channels,
            macs=head.values * channels * pixels,
            activation_bytes=FLOAT_BYTES * head.values * pixels * head.linear,
        )
    return total


@remembered
def costs(graph: Graph, image: Size) -> Costs:
    """Costs of the whole graph for one image of a height and width in pixels, every exit answering.

    >>> from convfabric.weavers import weave
    >>> costs(weave("paper-mnist-dense"), (32, 32)).parameters
    4512650
    """
    sizes, sharing = map_sizes(graph, image), set[str]()
    alone = [entry_costs(graph, image), *(_alone(graph, node, sizes[node.place]) for node in graph.nodes)]
    alone += [head_costs(graph, head, image) for head in graph.heads]
    for edge in graph.edges:
        found = _costs_of(edge.operator, *graph.ends(edge), sizes[edge.source], sizes[edge.target])
        alone.append(replace(found, parameters=0) if edge.shared in sharing else found)
        sharing |= {edge.shared} if edge.shared else set()
    return Costs(
        parameters=sum([part.parameters for part in alone]),
        macs=sum([part.macs for part in alone]),
        activation_bytes=sum([part.activation_bytes for part in alone]),
    )


def works(graph: Graph, image: Size) -> Iterator[tuple[Place, Work]]:
    """Every primitive operator at work on one image, and the place it works for; heads are left out.

    >>> from convfabric.weavers import weave
    >>> sum(work.operator.macs(*work[1:]) for _, work in works(weave("paper-mnist-dense"), (32, 32)))
    553955328
    """
    for place in graph.order:
        arriving = [edge_work(graph, edge, image) for edge in graph.arriving(place)]
        stem = [entry_work(graph, image)] if place == graph.entry.place else []
        for work in (*stem, *arriving, node_work(graph, place, image)):
            yield from ((place, part) for part in primitives(work))


@remembered
def peak_bytes(graph: Graph, image: Size) -> int:
    """Bytes of parameters and of the float32 responses that are alive at once when one image is run.

    A response is freed after its last reader; while a node is made, its sum and one edge's result are alive.

    >>> from convfabric.weavers import weave
    >>> peak_bytes(weave("resnet-20"), (32, 32))
    1483112
    """
    bytes_at: Mapping[Place, int] = {
        node.place: FLOAT_BYTES * node.channels * area(map_sizes(graph, image)[node.place]) for node in graph.nodes
    }
    alive, peak = 0, 0
    for step in graph.walk:
        edges = graph.arriving(step.place)
        widest = max((edge_costs(graph, edge, image).activation_bytes for edge in edges), default=0)
        peak = max(peak, alive + bytes_at[step.place] + widest)
        alive += bytes_at[step.place] - sum(bytes_at[done] for done in step.done)
    return peak + FLOAT_BYTES * costs(graph, image).parameters
