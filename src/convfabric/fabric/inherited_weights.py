"""Weights that follow a graph: from the weights of a fabric, those of a part of it, by name and by channel.

What is taken are views and slices that gradients run through.
"""

from collections.abc import Mapping
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from convfabric.errors import GraphError
from convfabric.graph import Graph, Place
from convfabric.operators import Chain, Concat, Depthwise, Operator, Sum, belong_together

Weights = dict[str, Tensor]


class Rows(NamedTuple):
    """Channels that stay: their positions, int64, and of how many."""

    positions: Tensor
    of: int
    leading: bool
    """Whether they are the first ones, in order."""

    @property
    def complete(self) -> bool:
        """Whether all of them stay where they are."""
        return self.leading and len(self.positions) == self.of


def rows_at(positions: Tensor, of: int) -> Rows:
    """The channels at some positions."""
    return Rows(positions, of, torch.equal(positions, torch.arange(len(positions))))


def first(count: int, of: int) -> Rows:
    """The first channels of so many."""
    return Rows(torch.arange(count), of, True)


def every(count: int) -> Rows:
    """All of so many channels."""
    return first(count, count)


def remaining(whole: Graph, smaller: Graph, chosen: Mapping[Place, Tensor]) -> dict[Place, Rows]:
    """For each place of a smaller graph the channels that stay.

    Those of concatenations, and behind operators that keep channels, follow from what is joined; of other
    places they are the first ones, unless ``chosen`` gives their positions.
    Raises GraphError where positions do not fit the two graphs.
    """
    rows: dict[Place, Rows] = {}
    if odd := sorted(place for place in chosen if place not in smaller.order):
        raise GraphError(f"{odd[0]}: positions given for a place that {smaller.name} does not have.")
    for place in smaller.order:
        arriving = [edge for edge in smaller.arriving(place) if edge.operator.keeps_channels]
        count, of = smaller.node(place).channels, whole.node(place).channels
        if count > of:
            raise GraphError(f"{place}: {count} channels wanted, there are {of}.")
        if smaller.node(place).join == "concatenation":
            starts = _starts(whole, place)
            taken = [starts[edge.name] + rows[edge.source].positions for edge in arriving]
            rows[place] = rows_at(torch.cat(taken), of)
        elif arriving and place not in chosen:
            rows[place] = rows[arriving[0].source]
        else:
            rows[place] = rows_at(chosen[place], of) if place in chosen else first(count, of)
        if rows[place].leading and len(rows[place].positions) == count:
            continue
        positions = rows[place].positions
        within = len(set(positions.tolist())) == count and int(positions.min()) >= 0 and int(positions.max()) < of
        if len(positions) != count or not within:
            raise GraphError(f"{place}: {len(positions)} positions given for {count} of {of} channels.")
    return rows


def _starts(graph: Graph, place: Place) -> dict[str, int]:
    """Where in a concatenation the channels of each edge begin."""
    starts, upto = {}, 0
    for edge in graph.arriving(place):
        starts[edge.name] = upto
        upto += graph.node(edge.source).channels
    return starts


def inherited(weights: Mapping[str, Tensor], whole: Graph, smaller: Graph, rows: Mapping[Place, Rows]) -> Weights:
    """The weights and statistics of a smaller graph, from those of the whole one's fabric.

    Raises GraphError where an operator whose channels belong together would lose a part of them.
    """
    entry, parts = smaller.entry, _by_part(weights)

    def followed(name: str, operator: Operator, before: Rows, after: Rows) -> Weights:
        return _followed(parts.get(name, {}), name, operator, before, after)

    taken = followed("entry", entry.operator, every(entry.image_channels), rows[entry.place])
    for edge in {edge.weights: edge for edge in smaller.edges}.values():
        before = rows[edge.source]
        after = before if smaller.node(edge.target).join == "concatenation" else rows[edge.target]
        taken |= followed(f"edges.{edge.weights}", edge.operator, before, after)
    for node in smaller.nodes:
        taken |= followed(f"nodes.{node.place}", node.then, rows[node.place], rows[node.place])
    for head in smaller.heads:
        name = f"heads.{head.name}"
        taken |= {f"{name}.bias": weights[f"{name}.bias"]} if head.linear else {}
        for place in head.reads if head.linear else ():
            taken[f"{name}.reads.{place}.weight"] = _cut(weights[f"{name}.reads.{place}.weight"], None, rows[place])
    return taken


def _by_part(weights: Mapping[str, Tensor]) -> dict[str, Weights]:
    """The weights by what they are of: the entry, an edge, a node or a head."""
    parts: dict[str, Weights] = {}
    for name, value in weights.items():
        kind, _, rest = name.partition(".")
        part = kind if kind == "entry" else f"{kind}.{rest.partition('.')[0]}"
        parts.setdefault(part, {})[name] = value
    return parts


def _followed(weights: Mapping[str, Tensor], name: str, operator: Operator, before: Rows, after: Rows) -> Weights:
    """The weights of one operator under a name, with the given input and output channels."""
    if before.complete and after.complete:
        return {key: value for key, value in weights.items() if key.startswith(f"{name}.")}
    try:
        inside = _inside(operator, before, after)
    except ValueError as fault:
        raise GraphError(f"{name}: {fault}.") from None
    if inside is not None:
        parts = (_followed(weights, f"{name}.{under}", *part) for under, part in inside.items())
        return {key: value for part in parts for key, value in part.items()}
    own = {key: value for key, value in weights.items() if key.startswith(f"{name}.")}
    reads = None if isinstance(operator, Depthwise) else before
    return {key: _cut(value, after, reads if value.ndim > 3 else None) for key, value in own.items()}


def _cut(value: Tensor, after: Rows | None, before: Rows | None) -> Tensor:
    """A tensor with fewer output channels (first dimension) and input channels (second one); a view where it can be."""
    if after is not None and not after.complete and value.ndim > 0:
        value = value[: len(after.positions)] if after.leading else value[after.positions.to(value.device)]
    if before is None or before.complete:
        return value
    return value[:, : len(before.positions)] if before.leading else value[:, before.positions.to(value.device)]


Inside = dict[str, tuple[Operator, Rows, Rows]]


@singledispatch
def _inside(operator: Operator, before: Rows, after: Rows) -> Inside | None:
    """The operators inside one, by the name of their module, with the channels that stay; None for a primitive."""
    if belong_together(operator):
        raise ValueError(f"channels of {operator} belong together and cannot be taken out alone")
    return None


@_inside.register
def _(operator: Chain, before: Rows, after: Rows) -> Inside:
    whole = operator.parts(before.of, after.of)
    smaller = operator.parts(len(before.positions), len(after.positions))
    changing = [i for i, part in enumerate(operator.steps) if not part.keeps_channels]
    inside: Inside = {}
    for i, (part, less) in enumerate(zip(whole, smaller, strict=True)):
        following = before
        if i in changing:
            last = i == changing[-1] or operator.inner is None
            following = after if last else first(less.channels_out, part.channels_out)
        inside[f"steps.{i}"] = (part.operator, before, following)
        before = following
    return inside


@_inside.register
def _(operator: Sum, before: Rows, after: Rows) -> Inside:
    return {f"branches.{i}": (branch, before, after) for i, branch in enumerate(operator.branches)}


@_inside.register
def _(operator: Concat, before: Rows, after: Rows) -> Inside:
    inside: Inside = {}
    start = 0
    smaller = operator.parts(len(before.positions), len(after.positions))
    for i, (part, less) in enumerate(zip(operator.parts(before.of, after.of), smaller, strict=True)):
        own = after.positions[(after.positions >= start) & (after.positions < start + part.channels_out)] - start
        if len(own) != less.channels_out:
            raise ValueError(f"branch {i} makes {less.channels_out} channels, {len(own)} of its own would stay")
        inside[f"branches.{i}"] = (part.operator, before, rows_at(own, part.channels_out))
        start += part.channels_out
    return inside
