"""What a graph costs, by arithmetic: operators know their price, this room adds up."""

from collections.abc import Mapping
from dataclasses import dataclass

from convfabric.graph import Edge, Graph, Place
from convfabric.operators import Norm, Operator, Size, area, halved

FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one graph, or one part of it, costs for one image of a stated size."""

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


def size_at(scale: int, image: Size) -> Size:
    """Height and width of a map at a scale: ⌈side / 2^scale⌉.

    >>> size_at(2, (180, 241))
    (45, 61)
    """
    for _ in range(scale):
        image = halved(image)
    return image


def _operator_costs(operator: Operator, channels: tuple[int, int], sizes: tuple[Size, Size]) -> Costs:
    return Costs(
        parameters=operator.parameters(*channels),
        macs=operator.macs(*channels, *sizes),
        activation_bytes=FLOAT_BYTES * operator.values(*channels, *sizes),
    )


def edge_costs(graph: Graph, edge: Edge, image: Size) -> Costs:
    """What one edge costs for one image of a height and width in pixels."""
    channels = graph.node(edge.source).channels, graph.node(edge.target).channels
    return _operator_costs(
        edge.operator, channels, (size_at(edge.source.scale, image), size_at(edge.target.scale, image))
    )


def node_costs(graph: Graph, place: Place, image: Size) -> Costs:
    """What joining, normalising and activating at one place costs for one image."""
    channels, size = graph.node(place).channels, size_at(place.scale, image)
    return _operator_costs(Norm(), (channels, channels), (size, size))


def entry_costs(graph: Graph, image: Size) -> Costs:
    """What the stem costs for one image."""
    entry = graph.entry
    channels = entry.image_channels, graph.node(entry.place).channels
    return _operator_costs(entry.operator, channels, (image, size_at(entry.place.scale, image)))


def read_costs(graph: Graph, place: Place, image: Size) -> Costs:
    """What the head spends on one of its reads: a linear map, once (classification) or for each pixel."""
    classes, channels = graph.head.classes, graph.node(place).channels
    pixels = 1 if graph.head.task == "classification" else area(size_at(place.scale, image))
    return Costs(
        parameters=classes * channels,
        macs=classes * channels * pixels,
        activation_bytes=FLOAT_BYTES * classes * pixels,
    )


def costs(graph: Graph, image: Size) -> Costs:
    """What the whole graph costs for one image of a height and width in pixels.

    >>> from convfabric.weavers import weave
    >>> costs(weave("paper-mnist-dense"), (32, 32)).parameters
    4512650
    """
    total = entry_costs(graph, image) + Costs(parameters=graph.head.classes, macs=0, activation_bytes=0)
    for edge in graph.edges:
        total += edge_costs(graph, edge, image)
    for node in graph.nodes:
        total += node_costs(graph, node.place, image)
    for place in graph.head.reads:
        total += read_costs(graph, place, image)
    return total


def peak_bytes(graph: Graph, image: Size) -> int:
    """Bytes of parameters and of the float32 responses that are alive at once when one image is run.

    A response is freed after its last reader; while a node is made, its sum and one edge's result are alive.
    """
    bytes_at: Mapping[Place, int] = {
        node.place: FLOAT_BYTES * node.channels * area(size_at(node.place.scale, image)) for node in graph.nodes
    }
    alive, peak = 0, 0
    for step in graph.walk:
        edges = graph.arriving(step.place)
        widest = max((edge_costs(graph, edge, image).activation_bytes for edge in edges), default=0)
        peak = max(peak, alive + bytes_at[step.place] + widest)
        alive += bytes_at[step.place] - sum(bytes_at[done] for done in step.done)
    return peak + FLOAT_BYTES * costs(graph, image).parameters
