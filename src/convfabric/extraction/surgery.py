"""A smaller fabric with the same weights by name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convfabric.errors import GraphError
from convfabric.fabric import Fabric
from convfabric.graph import Graph, Place, tied
from convfabric.inheritance import inherited, remaining


def extract(fabric: Fabric, smaller: Graph, kept: Mapping[Place, Tensor] | None = None) -> Fabric:
    """A new fabric of a restricted or narrowed graph with this fabric's weights; the old one is untouched.

    ``kept`` gives, for places that were narrowed, the positions of the channels that stay, int64 and
    in order; by default the strongest (see :func:`strongest`). In evaluation mode a restricted graph
    answers exactly as the whole fabric does when it runs that graph.
    Raises GraphError where the graph is not a part of the fabric's, or the positions do not fit it.
    """
    whole = fabric.graph
    if not smaller.edge_names <= whole.edge_names:
        raise GraphError(f"{smaller.name}: not a part of {whole.name}; it has edges of its own.")
    chosen = _narrowed(fabric, smaller) | dict(kept or {})
    state = fabric.state_dict()
    extracted = Fabric(smaller).to(next(fabric.parameters()).device)
    taken = inherited(state, whole, smaller, remaining(whole, smaller, chosen))
    extracted.load_state_dict({name: tensor.clone() for name, tensor in taken.items()})
    return extracted.train(fabric.training)


def _narrowed(fabric: Fabric, smaller: Graph) -> dict[Place, Tensor]:
    """The positions that stay, for each place whose channels were narrowed and do not follow from others."""
    joined = {node.place for node in smaller.nodes if node.join == "concatenation"}
    follows = {place for group in tied(fabric.graph) if group & joined for place in group}
    return {
        node.place: strongest(fabric, node.place, node.channels)
        for node in smaller.nodes
        if node.channels < fabric.graph.node(node.place).channels and node.place not in follows
    }


def strongest(fabric: Fabric, place: Place, count: int) -> Tensor:
    """Positions, int64 and in order, of the channels whose norm scale is largest in size.

    Where a node has no norm, of those made by kernels with the largest sum of squares. Places tied by
    identities are judged together, so that all of them keep the same channels.
    """
    group = next(group for group in tied(fabric.graph) if place in group)
    return torch.stack([_strengths(fabric, other) for other in sorted(group)]).sum(0).topk(count).indices.sort().values


def _strengths(fabric: Fabric, place: Place) -> Tensor:
    """One number (C,) for each channel of a place."""
    channels = fabric.graph.node(place).channels
    norms = [part for part in fabric.nodes[str(place)].modules() if isinstance(part, nn.BatchNorm2d)]
    if norms:
        return norms[0].weight.detach().abs()
    makers = [fabric.edges[edge.weights] for edge in fabric.graph.arriving(place)]
    makers += [fabric.entry] if place == fabric.graph.entry.place else []
    kernels = [p.detach() for maker in makers for p in maker.parameters() if p.ndim > 1 and len(p) == channels]
    return sum((kernel.flatten(1).square().sum(1) for kernel in kernels), torch.zeros(channels))
