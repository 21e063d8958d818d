"""Channels that are zero whatever the image, taken out: the same answers from a narrower network."""

import torch
from torch import Tensor, nn

from convfabric.cutting.surgery import extract
from convfabric.errors import GraphError
from convfabric.fabric.module import Fabric
from convfabric.graph import NORM_AND_RELU, Place, tied


def without_dead_channels(fabric: Fabric) -> Fabric:
    """The fabric less the channels whose norm multiplies by zero and adds nothing above it; itself if there are none.

    A node keeps one channel at least, and nodes whose channels others share keep all.
    """
    narrower = fabric
    for place, alive in _alive(fabric).items():
        try:
            graph = narrower.graph.narrow({place: len(alive)})
            narrower = extract(narrower, graph, {place: alive})
        except GraphError:
            continue
    return narrower


def _alive(fabric: Fabric) -> dict[Place, Tensor]:
    """Positions of the channels that can differ from zero, of places where some cannot."""
    graph, found = fabric.graph, dict[Place, Tensor]()
    bound = {place for group in tied(graph) if len(group) > 1 for place in group}
    for node in graph.nodes:
        if node.then != NORM_AND_RELU or node.join != "sum" or node.place in bound:
            continue
        norm = fabric.nodes[str(node.place)].get_submodule("steps.0")
        assert isinstance(norm, nn.BatchNorm2d)
        alive = ((norm.weight != 0) | (norm.bias > 0)).nonzero().flatten()
        if len(alive) < node.channels:
            found[node.place] = alive if len(alive) else torch.zeros(1, dtype=torch.int64)
    return found
