"""Weights that follow a graph: from the weights of a fabric, those of a part of it, by name and by channel.

What is taken are views and slices that gradients run through.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from convfabric.errors import GraphError
from convfabric.graph import Graph, Place
from convfabric.operators import Channels, Composite, Operator, every, first

Weights = dict[str, Tensor]
Staying = Mapping[Place, Channels]
"""For each place of a smaller graph the channels that stay."""


@dataclass(frozen=True)
class Slice:
    """A part of one weight: channels along some of its dimensions."""

    name: str
    taken: tuple[tuple[int, Channels], ...]
    """Dimensions, and the positions that stay; of the others everything does."""
    summed: tuple[int, ...] = ()
    """Those of the dimensions that run over input channels."""

    def of(self, weight: Tensor) -> Tensor:
        """The part of a weight; a view where leading channels stay."""
        for axis, channels in self.taken:
            if channels.leading:
                weight = weight.narrow(axis, 0, len(channels.positions))
            else:
                weight = weight.index_select(axis, torch.tensor(channels.positions, device=weight.device))
        return weight

    def grown(self, weight: Tensor) -> Tensor:
        """The weight where positions stand several times: each input channel counts by its share of its copies.

        >>> Slice("a", ((1, Channels((0, 1, 1), 2)),), summed=(1,)).grown(torch.tensor([[4.0, 6.0]]))
        tensor([[4., 3., 3.]])
        """
        weight = self.of(weight)
        for axis, channels in self.taken if weight.is_floating_point() else ():
            if axis in self.summed:
                copies = torch.bincount(torch.tensor(channels.positions))[list(channels.positions)]
                weight = weight / copies.to(weight).view([-1 if i == axis else 1 for i in range(weight.ndim)])
        return weight


def inherited(weights: Mapping[str, Tensor], slices: tuple[Slice, ...]) -> Weights:
    """The weights and statistics that slices name, from those of the whole; what the whole lacks is left out.

    >>> inherited({"a": torch.arange(4)}, (Slice("a", ((0, Channels((3, 1), 4)),)),))
    {'a': tensor([3, 1])}
    """
    return {one.name: one.of(weights[one.name]) for one in slices if one.name in weights}


@lru_cache(maxsize=256)
def leading_slices(whole: Graph, smaller: Graph) -> tuple[Slice, ...]:
    """The slices of a smaller graph that keeps the first channels wherever it is narrower.

    >>> from convfabric.weavers import weave
    >>> graph = weave("resnet", channels=4, blocks=(1,))
    >>> leading_slices(graph, graph.narrow({node.place: 2 for node in graph.nodes}))[0].name
    'entry.weight'
    """
    return tuple(slices(whole, smaller, staying(whole, smaller, {})))


def staying(whole: Graph, smaller: Graph, chosen: Staying) -> Staying:
    """For each place of a smaller graph the channels that stay.

    Those of concatenations, and behind operators that keep channels, follow from what is joined; of other
    places they are the first ones, unless ``chosen`` gives them.
    Raises GraphError where the smaller graph is no part of the whole, or what is chosen does not fit the two.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny")
    >>> staying(graph, graph.narrow({Place(1, 0, lane=1): 3}), {})[Place(1, 0, lane=1)].positions
    (0, 1, 2)
    """
    check_is_part(whole, smaller)
    found: dict[Place, Channels] = {}
    if odd := sorted(place for place in chosen if place not in set(smaller.order)):
        raise GraphError(f"{odd[0]}: positions given for a place that {smaller.name} does not have.")
    fixed = {place for tie in whole.ties if tie.fixed for place in tie.places}
    for place in smaller.order:
        count, of = smaller.node(place).channels, whole.node(place).channels
        if count > of:
            raise GraphError(f"{place}: {count} channels wanted, there are {of}.")
        found[place] = _following(whole, smaller, place, found) or chosen.get(place) or first(count, of)
        positions = found[place].positions
        within = len(set(positions)) == count and min(positions) >= 0 and max(positions) < of
        if len(positions) != count or not within:
            raise GraphError(f"{place}: {len(positions)} positions given for {count} of {of} channels.")
        if place in fixed and not found[place].complete:
            raise GraphError(f"{place}: its channels are the image's or classes, which have to stay in their order.")
        if place in chosen and chosen[place] != found[place]:
            raise GraphError(f"{place}: other positions given than follow from what arrives.")
    return found


def _following(whole: Graph, smaller: Graph, place: Place, found: Staying) -> Channels | None:
    """The channels that follow from what arrives at a place; None where nothing does."""
    arriving = [edge for edge in smaller.arriving(place) if edge.operator.keeps_channels]
    if smaller.node(place).join == "concatenation":
        starts = _starts(whole, place)
        taken = (starts[edge.name] + position for edge in arriving for position in found[edge.source].positions)
        return Channels(tuple(taken), whole.node(place).channels)
    same = [edge for edge in arriving if whole.node(edge.source).channels == whole.node(place).channels]
    return found[same[0].source] if same else None


def _starts(graph: Graph, place: Place) -> dict[str, int]:
    """Where in a concatenation the channels of each edge begin."""
    starts, upto = {}, 0
    for edge in graph.arriving(place):
        starts[edge.name] = upto
        upto += graph.node(edge.source).channels
    return starts


def slices(whole: Graph, smaller: Graph, stays: Staying) -> Iterator[Slice]:
    """The part of each weight and statistic of the whole graph's fabric that a smaller one takes.

    Operators are those of the whole; of groups, whole ones are taken. Raises GraphError where an operator whose
    channels belong together would lose some of them.
    """
    entry = smaller.entry
    yield from _taken("entry", whole.entry.operator, every(entry.image_channels), stays[entry.place])
    operators = {edge.name: edge.operator for edge in whole.edges}
    for edge in {edge.weights: edge for edge in smaller.edges}.values():
        before = stays[edge.source]
        after = stays[edge.target] if whole.writes_own(edge) else before
        yield from _taken(f"edges.{edge.weights}", operators[edge.name], before, after)
    for node in smaller.nodes:
        then = whole.node(node.place).then
        yield from _taken(f"nodes.{node.place}", then, stays[node.place], stays[node.place])
    for head in smaller.heads:
        if head.linear:
            yield Slice(f"heads.{head.name}.bias", ())
            for place in head.reads:
                yield Slice(f"heads.{head.name}.reads.{place}.weight", _cut(1, stays[place]), summed=(1,))


def check_is_part(whole: Graph, smaller: Graph) -> None:
    """Raises GraphError where a graph has edges or operators that are not a whole graph's, narrowed or not.

    >>> from convfabric.weavers import weave
    >>> check_is_part(weave("resnet"), weave("resnet"))
    """
    if not smaller.edge_names <= whole.edge_names or smaller.entry.place != whole.entry.place:
        raise GraphError(f"{smaller.name}: not a part of {whole.name}; it has edges of its own.")
    edges = {edge.name: edge for edge in whole.edges}
    for edge in smaller.edges:
        joins = {graph.node(edge.target).join for graph in (whole, smaller)}
        ends = [graph.ends(edge) for graph in (whole, smaller)]
        operator = edges[edge.name].operator
        if len(joins) > 1 or not (operator == edge.operator or _as_narrowed(operator, ends, edge.operator)):
            raise GraphError(f"{smaller.name}: not a part of {whole.name}, whose {edge.name} is another operator.")


def _as_narrowed(operator: Operator, ends: list[tuple[int, int]], found: Operator) -> bool:
    try:
        return operator.narrowed(ends[0], ends[1]) == found
    except ValueError:
        return False


def _taken(name: str, operator: Operator, before: Channels, after: Channels) -> Iterator[Slice]:
    """The part of the weights of one operator, under a name, for the channels that stay at its ends."""
    try:
        yield from list(_slices(name, operator, before, after))
    except ValueError as fault:
        raise GraphError(f"{name}: {fault}.") from None


def _slices(name: str, operator: Operator, before: Channels, after: Channels) -> Iterator[Slice]:
    if isinstance(operator, Composite):
        for i, (part, ends) in enumerate(zip(operator.inside, operator.staying(before, after), strict=True)):
            yield from _slices(f"{name}.{operator.field}.{i}", part, *ends)
        return
    _check_units(operator, before, after)
    for weight, axes in operator.axes.items():
        cut = [_cut(i, {"out": after, "in": before}[axis]) for i, axis in enumerate(axes) if axis in ("out", "in")]
        summed = tuple(i for i, axis in enumerate(axes) if axis == "in")
        yield Slice(f"{name}.{weight}", tuple(one for taken in cut for one in taken), summed)


def _check_units(operator: Operator, before: Channels, after: Channels) -> None:
    """ValueError where channels that belong together are torn, or units that are tied do not go together."""
    if before.complete and after.complete:
        return
    units = operator.granularity(before.of, after.of)
    if units == (1, 1) and not operator.ties:
        return
    kept = [ends.units(unit) for ends, unit in zip((before, after), units, strict=True)]
    if operator.ties and kept[0] != kept[1]:
        raise ValueError(f"of {operator} other channels would stay before than after")


def _cut(axis: int, channels: Channels) -> tuple[tuple[int, Channels], ...]:
    return () if channels.complete else ((axis, channels),)
