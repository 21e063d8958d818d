"""How many layers stand one after another."""

from convfabric.graph.costs import edge_work, entry_work, node_work
from convfabric.graph.parts import Place
from convfabric.graph.structure import Graph
from convfabric.operators import Chain, Composite, Size, Work


def depth(graph: Graph, image: Size) -> int:
    """Layers that multiply by weights on the longest chain from the images to an answer, the classifier included.

    >>> from convfabric.weavers import weave
    >>> depth(weave("resnet-20"), (32, 32)), depth(weave("vgg-16"), (224, 224))
    (20, 16)
    """
    deep: dict[Place, int] = {}
    for place in graph.order:
        before = [deep[edge.source] + _layers(edge_work(graph, edge, image)) for edge in graph.arriving(place)]
        if place == graph.entry.place:
            before.append(_layers(entry_work(graph, image)))
        deep[place] = max(before) + _layers(node_work(graph, place, image))
    return max(deep[place] + head.linear for head in graph.heads for place in head.reads)


def _layers(work: Work) -> int:
    """The same of an operator: one after another they are added, of those side by side the longest counts."""
    if not isinstance(work.operator, Composite):
        return int(work.operator.macs(*work[1:]) > 0)
    parts = work.operator.parts(work.channels_in, work.channels_out)
    sizes = work.operator.sizes(work.size_in, work.size_out)
    inside = [_layers(Work(*part, *around)) for part, around in zip(parts, sizes, strict=True)]
    return sum(inside) if isinstance(work.operator, Chain) else max(inside)
