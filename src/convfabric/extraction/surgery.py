"""Weights that follow the graph: a smaller fabric with the same weights by name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from convfabric.errors import GraphError
from convfabric.fabric import Fabric
from convfabric.graph import Graph, Place, tied
from convfabric.operators import Chain, Norm, Operator, Sum

Weights = dict[str, Tensor]


def extract(fabric: Fabric, smaller: Graph, kept: Mapping[Place, Tensor] | None = None) -> Fabric:
    """A new fabric of a restricted or narrowed graph with this fabric's weights; the old one is untouched.

    ``kept`` gives, for places that were narrowed, the positions of the channels that stay, int64 and
    in order; by default those of the largest norm scale. In evaluation mode a restricted graph answers
    exactly as the whole fabric does when it runs that graph.
    Raises GraphError where the graph is not a part of the fabric's, or the positions do not fit it.
    """
    if not (smaller.edge_names <= fabric.graph.edge_names):
        raise GraphError(f"{smaller.name}: not a part of {fabric.graph.name}; it has edges of its own.")
    rows = _rows(fabric, smaller, kept or {})
    state = fabric.state_dict()
    entry = smaller.entry
    images = torch.arange(entry.image_channels)
    taken = _under(state, "entry", entry.operator, images, rows[entry.place])
    for edge in smaller.edges:
        taken |= _under(state, f"edges.{edge.name}", edge.operator, rows[edge.source], rows[edge.target])
    for node in smaller.nodes:
        taken |= _under(state, f"nodes.{node.place}", Norm(), rows[node.place], rows[node.place])
    for place in smaller.head.reads:
        taken[f"head.reads.{place}.weight"] = state[f"head.reads.{place}.weight"][:, rows[place]]
    taken["head.bias"] = state["head.bias"]
    extracted = Fabric(smaller).to(state["head.bias"].device)
    extracted.load_state_dict(taken)
    return extracted.train(fabric.training)


def _rows(fabric: Fabric, smaller: Graph, kept: Mapping[Place, Tensor]) -> dict[Place, Tensor]:
    """The positions of the channels that stay, for each place."""
    rows = {}
    for node in smaller.nodes:
        channels = fabric.graph.node(node.place).channels
        chosen = kept.get(node.place, largest_scales(fabric, node.place, node.channels))
        if len(chosen) != node.channels or (len(chosen) and int(chosen.max()) >= channels):
            raise GraphError(f"{node.place}: {len(chosen)} positions given for {node.channels} of {channels} channels.")
        rows[node.place] = chosen
    return rows


def largest_scales(fabric: Fabric, place: Place, count: int) -> Tensor:
    """Positions, int64 and in order, of the channels whose norm scale is largest in size.

    Places tied by identities are judged together, so that all of them keep the same channels.
    """
    group = next(group for group in tied(fabric.graph) if place in group)
    scales = [fabric.nodes[str(other)].get_parameter("weight").detach().abs() for other in sorted(group)]
    return torch.stack(scales).sum(0).topk(count).indices.sort().values


def _under(state: Mapping[str, Tensor], name: str, operator: Operator, before: Tensor, after: Tensor) -> Weights:
    """The weights of one operator under a name, with the given input and output channels."""
    if isinstance(operator, Chain):
        return _chain(state, name, operator, before, after)
    if isinstance(operator, Sum):
        parts = (_under(state, f"{name}.branches.{i}", b, before, after) for i, b in enumerate(operator.branches))
        return {key: value for part in parts for key, value in part.items()}
    taken = {}
    for key in [key for key in state if key.startswith(f"{name}.")]:
        value = state[key]
        value = value[after] if value.ndim > 0 else value
        taken[key] = value[:, before] if value.ndim > 1 else value
    return taken


def _chain(state: Mapping[str, Tensor], name: str, chain: Chain, before: Tensor, after: Tensor) -> Weights:
    taken: Weights = {}
    for i, part in enumerate(chain.steps):
        following = before if part.keeps_channels else after
        taken |= _under(state, f"{name}.steps.{i}", part, before, following)
        before = following
    return taken
