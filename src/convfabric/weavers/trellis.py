"""The trellis of Convolutional Neural Fabrics (Saxena & Verbeek, NIPS 2016): every scale in every layer.

A node is fed by its own and both neighbouring scales of the layer before. Inside the first layer
each scale also feeds the next coarser one; inside the last layer responses run to where the head reads.
Where coarser scales begin later, what is left is a band along the way down.
"""

from convfabric.graph import Entry, Graph, Head, Node, Place
from convfabric.graph.laws import check
from convfabric.operators import Chain, Norm
from convfabric.weavers.builder import ACTIVATIONS, Purpose
from convfabric.weavers.trellis_edges import edges_of, stem
from convfabric.weavers.trellis_numbers import Trellis
from convfabric.weavers.trellis_wiring import between_layers, within_first_layer, within_last_layer


def weave_trellis(numbers: Trellis, purpose: Purpose | None = None, name: str = "trellis") -> Graph:
    """The trellis with these numbers.

    >>> len(weave_trellis(Trellis(layers=8, scales=6)).edges)
    122
    >>> down = weave_trellis(Trellis(layers=2, scales=3, delay=2, head="all"))
    >>> ", ".join(edge.name for edge in down.edges)
    'L0S0_L1S0, L1S0_L2S1, L2S1_L3S1, L3S1_L4S2, L4S2_L5S2'
    """
    purpose = purpose or Purpose()
    rows = range(numbers.finest, numbers.finest + numbers.scales)
    columns = {s: range(begin := numbers.delay * i, begin + numbers.layers) for i, s in enumerate(rows)}
    channels = {s: numbers.channels << (s - numbers.finest if numbers.doubling else 0) for s in rows}
    corner = rows[-1] if purpose.task == "classification" else rows[0]
    reads = tuple(Place(columns[s][-1], s) for s in (rows if numbers.head == "all" else (corner,)))
    first = () if numbers.delay else within_first_layer(rows)
    pairs = [*first, *between_layers(columns, numbers.reach, numbers.leap)]
    if numbers.head == "corner":
        pairs += within_last_layer(rows, numbers.layers - 1, corner)
    then = Chain((Norm(), ACTIVATIONS[numbers.activation]))
    grid = [Node(place=Place(x, s), channels=channels[s], then=then) for s in rows for x in columns[s]]
    width = numbers.channels if numbers.shared and numbers.doubling else 0
    how = (numbers.shared, numbers.distances, width, numbers.down)
    edges = tuple(edge for a, b in pairs for edge in edges_of(numbers.operators, a, b, *how))
    narrow = {s: max(1, round(count * numbers.inner)) for s, count in channels.items()}
    inside = {edge.target for edge in edges if edge.target.lane}
    within = [Node(place=place, channels=narrow[place.scale], then=then) for place in inside]
    graph = Graph(
        name=name,
        nodes=tuple(sorted([*grid, *within], key=lambda node: (node.place.lane > 0, node.place))),
        edges=edges,
        entry=Entry(
            place=Place(0, numbers.finest),
            operator=stem(numbers.operators, numbers.finest),
            image_channels=purpose.image_channels,
        ),
        heads=(Head(task=purpose.task, classes=purpose.classes, reads=reads),),
    )
    return check(graph, purpose.size)
