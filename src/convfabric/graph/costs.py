"""What a graph costs, by arithmetic: operators know their price, this room adds up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from convfabric.graph.structure import Edge, Graph, Head, Place
from convfabric.operators import Size, Work, area, halved, primitives

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


def _costs_of(work: Work) -> Costs:
    return Costs(
        parameters=work.operator.parameters(work.channels_in, work.channels_out),
        macs=work.operator.macs(*work[1:]),
        activation_bytes=FLOAT_BYTES * work.operator.values(*work[1:]),
    )


def edge_work(graph: Graph, edge: Edge, image: Size) -> Work:
    """An edge at work on one image of a height and width in pixels."""
    before, node = graph.node(edge.source).channels, graph.node(edge.target)
    after = before if node.join == "concatenation" else node.channels
    return Work(edge.operator, before, after, size_at(edge.source.scale, image), size_at(edge.target.scale, image))


def node_work(graph: Graph, place: Place, image: Size) -> Work:
    """What a node does after joining, at work on one image."""
    node, size = graph.node(place), size_at(place.scale, image)
    return Work(node.then, node.channels, node.channels, size, size)


def entry_work(graph: Graph, image: Size) -> Work:
    """The stem at work on one image."""
    entry = graph.entry
    channels = graph.node(entry.place).channels
    return Work(entry.operator, entry.image_channels, channels, image, size_at(entry.place.scale, image))


def edge_costs(graph: Graph, edge: Edge, image: Size) -> Costs:
    """What one edge costs for one image of a height and width in pixels; shared weights are counted at each."""
    return _costs_of(edge_work(graph, edge, image))


def node_costs(graph: Graph, place: Place, image: Size) -> Costs:
    """What joining, normalising and activating at one place costs for one image."""
    return _costs_of(node_work(graph, place, image)) + replace(FREE, activation_bytes=_copied(graph, place, image))


def _copied(graph: Graph, place: Place, image: Size) -> int:
    """Bytes of a concatenation, which is written anew where more than one response arrives."""
    node = graph.node(place)
    copies = node.join == "concatenation" and len(graph.arriving(place)) > 1
    return FLOAT_BYTES * node.channels * area(size_at(place.scale, image)) * copies


def entry_costs(graph: Graph, image: Size) -> Costs:
    """What the stem costs for one image."""
    return _costs_of(entry_work(graph, image))


def head_costs(graph: Graph, head: Head, image: Size) -> Costs:
    """What a head spends on its reads: a linear map each, once (classification) or for each pixel, and a bias."""
    total = replace(FREE, parameters=head.classes * head.linear)
    for place in head.reads:
        channels = graph.node(place).channels * head.linear
        pixels = 1 if head.task == "classification" else area(size_at(place.scale, image))
        total += Costs(
            parameters=head.classes * channels,
            macs=head.classes * channels * pixels,
            activation_bytes=FLOAT_BYTES * head.classes * pixels * head.linear,
        )
    return total


def costs(graph: Graph, image: Size) -> Costs:
    """What the whole graph costs for one image of a height and width in pixels, every exit answering.

    >>> from convfabric.weavers import weave
    >>> costs(weave("paper-mnist-dense"), (32, 32)).parameters
    4512650
    """
    total, known = entry_costs(graph, image), set[str]()
    for edge in graph.edges:
        alone = edge_costs(graph, edge, image)
        total += replace(alone, parameters=0) if edge.weights in known else alone
        known.add(edge.weights)
    for node in graph.nodes:
        total += node_costs(graph, node.place, image)
    for head in graph.heads:
        total += head_costs(graph, head, image)
    return total


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
