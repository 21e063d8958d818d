"""A trained classifier as a network for segmentation (Long et al. 2015): what it says of a map, said of every pixel."""

from collections.abc import Mapping
from dataclasses import replace

from convfabric.errors import GraphError
from convfabric.fabric.module import Fabric
from convfabric.graph import POINT, Graph, Place
from convfabric.operators import Composite, Conv, FullyConnected, Operator


def fully_convolutional(fabric: Fabric) -> Fabric:
    """A new fabric with the same weights that answers for every pixel, in classes of the classifier.

    Fully connected layers become convolutions as large as the map they read, padded so that maps keep their size; the
    classifier becomes a 1×1 convolution, whose scores are enlarged linearly to the image. Where the kernel lies on the
    whole map that it was trained on, scores are the classifier's. Raises GraphError for a network with several exits,
    and for one that draws a map together otherwise, such as by its mean, before its last layers.

    >>> from convfabric.weavers import weave
    >>> classifier = Fabric(weave("vgg", channels=2, top="full", hidden=4)).eval()
    >>> import torch
    >>> fully_convolutional(classifier)(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 10, 64, 96])
    """
    graph = fabric.graph
    if len(graph.heads) > 1 or graph.head.task != "classification":
        raise GraphError(f"{graph.name}: a classifier with one exit can be made fully convolutional.")
    places = _spread(graph)
    spread = replace(
        graph,
        nodes=tuple(replace(node, place=places[node.place]) for node in graph.nodes),
        edges=tuple(
            replace(e, source=places[e.source], target=places[e.target], operator=_over_pixels(e.operator, e.name))
            for e in graph.edges
        ),
        heads=(replace(graph.head, task="segmentation", reads=tuple(places[place] for place in graph.head.reads)),),
    )
    found = Fabric(spread).to(next(fabric.parameters()).device)
    found.load_state_dict({_renamed(name, graph, places): tensor for name, tensor in fabric.state_dict().items()})
    return found.train(fabric.training)


def _spread(graph: Graph) -> Mapping[Place, Place]:
    """Where each place stands once maps of one pixel have as many as those they are made from."""
    places: dict[Place, Place] = {}
    taken = {node.place for node in graph.nodes}
    for place in graph.order:
        if place.scale < POINT:
            places[place] = place
            continue
        scale = max(places[edge.source].scale + _scales(edge.operator) for edge in graph.arriving(place))
        found = place._replace(scale=scale)
        while found in taken:
            found = found._replace(lane=found.lane + 1)
        taken.add(found)
        places[place] = found
    return places


def _scales(operator: Operator) -> int:
    """Scales that an operator moves before it reads a map as a whole."""
    if isinstance(operator, Composite):
        return sum(_scales(part) for part in operator.inside)
    return 0 if isinstance(operator, FullyConnected) else operator.scales_moved


def _over_pixels(operator: Operator, name: str) -> Operator:
    if isinstance(operator, FullyConnected):
        return Conv(kernel=operator.size, bias=operator.bias)
    if isinstance(operator, Composite):
        return operator.rebuilt([_over_pixels(part, name) for part in operator.inside])
    if operator.scales_moved >= POINT:
        raise GraphError(f"{name}: {operator} draws a map together, which leaves nothing to say of its pixels.")
    return operator


def _renamed(name: str, graph: Graph, places: Mapping[Place, Place]) -> str:
    """The name of a weight where places stand elsewhere."""
    for edge in graph.edges:
        if not edge.shared and name.startswith(f"edges.{edge.name}."):
            moved = replace(edge, source=places[edge.source], target=places[edge.target])
            return name.replace(edge.name, moved.name, 1)
    for old, new in places.items():
        if name.startswith(f"nodes.{old}.") or f".reads.{old}." in name:
            return name.replace(str(old), str(new), 1)
    return name
