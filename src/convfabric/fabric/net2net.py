"""Trained fabrics that grow without a change of their answers (Net2Net, Chen et al. 2016): the inverse of cutting."""

import random
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from convfabric.errors import GraphError
from convfabric.fabric.inherited_weights import Staying, slices
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.graph.growth import deeper, wider
from convfabric.operators import Chain, Channels, Operator, every


def widened(fabric: Fabric, channels: Mapping[Place, int], seed: int = 0, noise: float = 0.0) -> Fabric:
    """A new fabric with more channels at some places, which answers alike; all that are tied to them grow as well.

    New channels are copies of old ones, drawn by the seed; whoever reads a channel that has copies reads each with its
    share. ``noise``, of the spread of each weight, is added to what makes the copies, so that training can tell them
    apart; answers are no longer alike then. Raises GraphError as :func:`convfabric.graph.growth.wider` does, and
    for places whose copies an operator would mix.

    >>> from convfabric.weavers import weave
    >>> fabric, images = Fabric(weave("resnet", channels=4, blocks=(1, 1))).eval(), torch.randn(2, 3, 8, 8)
    >>> wide = widened(fabric, {Place(0, 0): 7})
    >>> wide.graph.node(Place(0, 0)).channels, bool(torch.allclose(wide(images), fabric(images), atol=1e-6))
    (7, True)
    """
    if not noise >= 0:
        raise GraphError(f"noise={noise}: a share of the spread of each weight, from 0 on.")
    graph = wider(fabric.graph, channels)
    stays = _copied(fabric.graph, graph, random.Random(seed))
    _check_copies(fabric.graph, stays)
    own, dice = fabric.state_dict(), torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for part in slices(fabric.graph, graph, stays):
        if part.name in own:
            state[part.name] = _noisy(part.grown(own[part.name]), own[part.name], noise, dice)
    grown = Fabric(graph).to(next(fabric.parameters()).device)
    grown.load_state_dict(state)
    return grown.train(fabric.training)


def _copied(graph: Graph, wide: Graph, dice: random.Random) -> Staying:
    """For each place of the wide graph the old channel that each of its channels is a copy of."""
    found: dict[Place, Channels] = {}
    for tie in graph.ties:
        drawn: dict[tuple[int, int], Channels] = {}
        for place in tie.places:
            old, new = graph.node(place).channels, wide.node(place).channels
            if graph.node(place).join != "concatenation" and (old, new) not in drawn:
                more = (dice.randrange(old) for _ in range(new - old))
                drawn[old, new] = Channels((*range(old), *more), old)
            found[place] = drawn.get((old, new), every(old))
    for place in graph.order:
        if graph.node(place).join == "concatenation":
            found[place] = _side_by_side(graph, place, found)
    return found


def _side_by_side(graph: Graph, place: Place, found: Staying) -> Channels:
    positions, start = list[int](), 0
    for edge in graph.arriving(place):
        positions += [start + position for position in found[edge.source].positions]
        start += graph.node(edge.source).channels
    return Channels(tuple(positions), start)


def _check_copies(graph: Graph, stays: Staying) -> None:
    """GraphError where an operator makes of copies something else than copies."""
    parts = [(str(node.place), node.then, node.place, node.place) for node in graph.nodes]
    parts += [(edge.name, edge.operator, edge.source, edge.target) for edge in graph.edges]
    for name, operator, source, target in parts:
        ends = stays[source], stays[target]
        if not all(one.complete for one in ends) and (operator.across_channels or _has_width(operator)):
            raise GraphError(f"{name}: {operator} would make something else of copied channels.")


def _has_width(operator: Operator) -> bool:
    return isinstance(operator, Chain) and operator.inner is not None


def _noisy(weight: Tensor, before: Tensor, noise: float, dice: torch.Generator) -> Tensor:
    """A kernel with noise on what makes the new output channels."""
    if noise and weight.ndim > 1 and len(weight) > len(before):
        new = weight[len(before) :]
        return torch.cat([weight[: len(before)], new + noise * before.std() * torch.randn(new.shape, generator=dice)])
    return weight


def deepened(fabric: Fabric, place: Place) -> Fabric:
    """A new fabric with one more 3×3 convolution and ReLU behind a place, which answers alike: it begins as identity.

    Raises GraphError for a place whose responses may be below zero, which the ReLU would cut.

    >>> from convfabric.weavers import weave
    >>> fabric, images = Fabric(weave("vgg", channels=4)).eval(), torch.randn(2, 3, 32, 32)
    >>> deep = deepened(fabric, Place(2, 2))
    >>> len(deep.graph.nodes) - len(fabric.graph.nodes), bool(torch.equal(deep(images), fabric(images)))
    (1, True)
    """
    then = fabric.graph.node(place).then
    last = then.steps[-1] if isinstance(then, Chain) else then
    if not last.rectifies:
        raise GraphError(f"{place}: its responses may be below zero, so that a ReLU behind them would change answers.")
    graph, new = deeper(fabric.graph, place)
    grown = Fabric(graph).to(next(fabric.parameters()).device)
    state = {_read_from(new, place, name, fabric.graph): tensor for name, tensor in fabric.state_dict().items()}
    channels = graph.node(new).channels
    identity = torch.zeros(channels, channels, 3, 3)
    identity[range(channels), range(channels), 1, 1] = 1
    edge = f"edges.{place}_{new}"
    grown.load_state_dict(state | {f"{edge}.weight": identity, f"{edge}.bias": torch.zeros(channels)})
    return grown.train(fabric.training)


def _read_from(new: Place, old: Place, name: str, graph: Graph) -> str:
    """The name of a weight once those that read one place read another."""
    for edge in graph.edges:
        if edge.source == old and not edge.shared and name.startswith(f"edges.{edge.name}."):
            return name.replace(edge.name, replace(edge, source=new).name)
    return name.replace(f".reads.{old}.", f".reads.{new}.")
