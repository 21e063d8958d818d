"""Channels that are zero whatever the image, taken out: the same answers from a narrower network."""

import torch
from torch import Tensor

from convfabric.cutting.surgery import extract
from convfabric.errors import GraphError
from convfabric.fabric.module import Fabric
from convfabric.graph import Place
from convfabric.operators import Chain


def without_dead_channels(fabric: Fabric) -> Fabric:
    """The fabric less the channels whose norm multiplies by zero and adds nothing above it; itself if there are none.

    A node keeps one channel at least; nodes whose channels others share, or are counted behind them, keep all.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny"))
    >>> without_dead_channels(fabric) is fabric
    True
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
    alone = {place for tie in graph.ties if len(tie.places) == 1 and tie.units > 1 for place in tie.places}
    counted = {edge.source for edge in graph.edges if edge.operator.across_channels}
    for node in graph.nodes:
        steps = node.then.steps if isinstance(node.then, Chain) else (node.then,)
        silent = len(steps) > 1 and steps[0].normalises and steps[1].rectifies
        silent = silent and all(step.keeps_zero and not step.across_channels for step in steps[2:])
        if not silent or node.join != "sum" or node.place not in alone - counted:
            continue
        factor, constant = steps[0].affine(fabric.nodes[str(node.place)].get_submodule("steps.0").state_dict())
        alive = ((factor != 0) | (constant > 0)).nonzero().flatten()
        if len(alive) < node.channels:
            found[node.place] = alive if len(alive) else torch.zeros(1, dtype=torch.int64)
    return found
