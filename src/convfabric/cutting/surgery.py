"""A smaller fabric with the same weights by name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convfabric.errors import GraphError
from convfabric.fabric.inherited_weights import inherited, remaining
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place, tied


def extract(fabric: Fabric, smaller: Graph, kept: Mapping[Place, Tensor] | None = None) -> Fabric:
    """A new fabric of a restricted or narrowed graph with this fabric's weights; the old one is untouched.

    ``kept`` gives, for places that were narrowed, the positions of the channels that stay, int64; by default
    the first ones (see :func:`ranked`). In evaluation mode the smaller fabric answers exactly as the whole one
    does when it runs that graph.
    Raises GraphError where the graph is not a part of the fabric's, or the positions do not fit it.
    """
    whole = fabric.graph
    if not smaller.edge_names <= whole.edge_names:
        raise GraphError(f"{smaller.name}: not a part of {whole.name}; it has edges of its own.")
    state = fabric.state_dict()
    extracted = Fabric(smaller).to(next(fabric.parameters()).device)
    taken = inherited(state, whole, smaller, remaining(whole, smaller, kept or {}))
    extracted.load_state_dict({name: tensor.clone() for name, tensor in taken.items()})
    return extracted.train(fabric.training)


def ranked(fabric: Fabric) -> Fabric:
    """A fabric with the same answers whose channels stand strongest first, so that narrowing takes the weakest.

    A channel is as strong as the norms that make it multiply it; where there is none, as the squares of its
    kernels. Places tied by identities are judged together. Channels that belong together stay in order.
    """
    for group in tied(fabric.graph):
        strengths = torch.stack([_strengths(fabric, place) for place in group]).sum(0)
        order = strengths.argsort(descending=True, stable=True)
        try:
            fabric = extract(fabric, fabric.graph, dict.fromkeys(group, order))
        except GraphError:
            continue
    return fabric


def _strengths(fabric: Fabric, place: Place) -> Tensor:
    """One number (C,) for each channel of a place."""
    channels = fabric.graph.node(place).channels
    makers: list[nn.Module] = [fabric.edges[edge.weights] for edge in fabric.graph.arriving(place)]
    makers += [fabric.entry] if place == fabric.graph.entry.place else []
    own = _scales(fabric.nodes[str(place)], channels)
    scales = [own] if own is not None else [_scales(maker, channels) for maker in makers]
    known = [scale for scale in scales if scale is not None]
    kernels = [p.detach() for maker in makers for p in maker.parameters() if p.ndim > 1 and len(p) == channels]
    found = known or [kernel.flatten(1).square().sum(1) for kernel in kernels]
    return sum(found, torch.zeros(channels, device=next(fabric.parameters()).device))


def _scales(module: nn.Module, channels: int) -> Tensor | None:
    """By how much the last norm of so many channels in a module multiplies each."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d) and part.num_features == channels]
    return norms[-1].weight.detach().abs() if norms else None
