"""A smaller fabric with the same weights by name."""

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from convfabric.errors import GraphError
from convfabric.fabric.inherited_weights import Slice, Weights, inherited, slices, staying
from convfabric.fabric.module import Fabric, unweighted
from convfabric.graph import Graph, Place, Tie
from convfabric.operators import Channels, Composite, Operator, every


def extract(fabric: Fabric, smaller: Graph, kept: Mapping[Place, Tensor] | None = None) -> Fabric:
    """A new fabric of a restricted or narrowed graph with this fabric's weights; the old one is untouched.

    ``kept`` gives, for places that were narrowed, the positions of the channels that stay, int64; by default
    the first ones (see :func:`ranked`). In evaluation mode the smaller fabric answers exactly as the whole one
    does when it runs that graph.
    Raises GraphError where the graph is not a part of the fabric's, or the positions do not fit it.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny")).eval()
    >>> part = fabric.graph.restrict(fabric.graph.edge_names - {"L0S0_L0S1"})
    >>> images = torch.rand(1, 3, 32, 32)
    >>> torch.equal(extract(fabric, part)(images), fabric(images, part))
    True
    """
    taken = inherited(fabric.state_dict(), _slices(fabric.graph, smaller, kept or {}))
    like = next(fabric.parameters())
    extracted = unweighted(smaller).fabric
    made = next(extracted.parameters())
    if (made.device, made.dtype) != (like.device, like.dtype):
        extracted = extracted.to(like.device, like.dtype)
    _fill(extracted, taken)
    return extracted.train(fabric.training)


def _slices(whole: Graph, smaller: Graph, kept: Mapping[Place, Tensor]) -> tuple[Slice, ...]:
    """What a part reads of each weight; raises GraphError where the positions do not fit it."""
    counts = {node.place: node.channels for node in whole.nodes}
    positions = {place: Channels(tuple(rows.tolist()), counts.get(place, 0)) for place, rows in kept.items()}
    return tuple(slices(whole, smaller, staying(whole, smaller, positions)))


def _fill(fabric: Fabric, weights: Weights) -> None:
    """As load_state_dict, which looks through all names for every module, and takes as long as making them all.

    Raises GraphError where names or shapes are others: copying alone would broadcast.
    """
    own = fabric.state_dict(keep_vars=True)
    shapes = [{name: weight.shape for name, weight in known.items()} for known in (own, weights)]
    if odd := sorted(name for name in own | weights if shapes[0].get(name) != shapes[1].get(name)):
        raise GraphError(f"{fabric.graph.name}: {odd[0]} and {len(odd) - 1} others do not fit the weights given.")
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(weight)


def ranked(fabric: Fabric, worth: Mapping[Place, Tensor] | None = None) -> Fabric:
    """A fabric with the same answers whose channels stand strongest first, so that narrowing takes the weakest.

    ``worth`` says for each place how strong its channels are, (C,). By default one is as strong as the norms that make
    it multiply it, or where there is none the squares of its kernels, times the length of the kernels and maps that
    read it. Places whose channels are cut together are judged together, groups as a whole. Channels that belong
    together, and classes, stay in order; those of a concatenation follow what is joined.

    >>> from convfabric.weavers import weave
    >>> fabric, images = Fabric(weave("fabric-tiny")).eval(), torch.rand(1, 3, 32, 32)
    >>> bool(torch.allclose(ranked(fabric)(images), fabric(images), atol=1e-4))
    True
    """
    graph, orders = fabric.graph, []
    for tie in graph.ties:
        joined = any(graph.node(place).join == "concatenation" for place in tie.places)
        if not (tie.fixed or joined) and tie.units > 1:
            order = strengths(fabric, tie, worth).argsort(descending=True, stable=True)
            unit = {place: graph.node(place).channels // tie.units for place in tie.places}
            orders.append({place: _expanded(order, count) for place, count in unit.items()})
    try:
        return extract(fabric, graph, dict(ChainMap(*orders)))
    except GraphError:  # some cannot be put in order: then those that can
        possible: dict[Place, Tensor] = {}
        for kept in orders:
            with suppress(GraphError):
                _slices(graph, graph, possible | kept)
                possible |= kept
        return extract(fabric, graph, possible)


def strengths(fabric: Fabric, tie: Tie, worth: Mapping[Place, Tensor] | None = None) -> Tensor:
    """How strong each unit of places is whose channels are cut together, float (units,), as :func:`ranked` has it.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("vgg"))
    >>> strengths(fabric, fabric.graph.ties[0]).shape == (fabric.graph.ties[0].units,)
    True
    """
    places = sorted(tie.places)
    alone = [worth[place] if worth else _made_by(fabric, place) * _read_by(fabric, place) for place in places]
    return sum((strength.view(tie.units, -1).sum(1) for strength in alone), torch.zeros(()))


def _expanded(order: Tensor, unit: int) -> Tensor:
    """Positions of channels, from those of units of so many neighbours; int64."""
    return (order[:, None] * unit + torch.arange(unit, device=order.device)).flatten()


def _made_by(fabric: Fabric, place: Place) -> Tensor:
    """How strongly each channel of a place (C,) is made."""
    channels = fabric.graph.node(place).channels
    makers: list[nn.Module] = [fabric.edges[edge.weights] for edge in fabric.graph.arriving(place)]
    makers += [fabric.entry] if place == fabric.graph.entry.place else []
    own = _scales(fabric.nodes[str(place)], channels)
    scales = [own] if own is not None else [_scales(maker, channels) for maker in makers]
    known = [scale for scale in scales if scale is not None]
    kernels = [p.detach() for maker in makers for p in maker.parameters() if p.ndim > 1 and len(p) == channels]
    found = known or [kernel.flatten(1).square().sum(1) for kernel in kernels]
    return sum(found, torch.zeros(channels, device=next(fabric.parameters()).device))


def _read_by(fabric: Fabric, place: Place) -> Tensor:
    """The length of the kernels and maps that read each channel of a place (C,); ones where none does."""
    graph = fabric.graph
    squares = [
        square
        for edge in graph.edges
        if edge.source == place
        for square in _squares(edge.operator, fabric.edges[edge.weights], *map(every, graph.ends(edge)))
    ]
    maps = [
        fabric.heads.get_parameter(f"{head.name}.reads.{place}.weight").detach()
        for head in graph.heads
        if head.linear and place in head.reads
    ]
    squares += [weight.square().sum(0) for weight in maps]
    unread = torch.ones(graph.node(place).channels, device=next(fabric.parameters()).device)
    return torch.stack(squares).sum(0).sqrt() if squares else unread


def _squares(operator: Operator, layer: nn.Module, before: Channels, after: Channels) -> Iterator[Tensor]:
    """For each channel that an operator reads the sum of the squares of a kernel that reads it, (C,)."""
    if isinstance(operator, Composite):
        layers: Iterable[nn.Module] = getattr(layer, operator.field)
        for part, inner, ends in zip(operator.inside, layers, operator.staying(before, after), strict=True):
            if ends[0] is before:
                yield from _squares(part, inner, before, ends[1])
        return
    for name, axes in operator.axes.items():
        if "in" in axes:
            weight: Tensor = layer.get_parameter(name).detach()
            yield weight.movedim(axes.index("in"), 0).flatten(1).square().sum(1)


def _scales(module: nn.Module, channels: int) -> Tensor | None:
    """By how much the last norm of so many channels in a module multiplies each."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d) and part.num_features == channels]
    return norms[-1].weight.detach().abs() if norms else None
