"""Places whose channels are cut together, and in which units."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import gcd

from convfabric.graph.links import grouped
from convfabric.graph.parts import Edge, Entry, Head, Node, Place, Tie
from convfabric.operators import Operator


def ends(edge: Edge, nodes: Mapping[Place, Node]) -> tuple[int, int]:
    """The channels that an edge reads and writes.

    Into a concatenation, and as a factor of one channel beside others, it writes those it reads.
    """
    before, target = nodes[edge.source].channels, nodes[edge.target]
    spread = target.join == "product" and before == 1 and edge.operator.keeps_channels
    return before, before if target.join == "concatenation" or spread else target.channels


def ties(nodes: Mapping[Place, Node], edges: Sequence[Edge], entry: Entry, heads: Sequence[Head]) -> Iterator[Tie]:
    """Groups of places tied by operators that keep channels or go by groups, and by weights that edges share.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> graph = weave_trellis(Trellis(layers=3, scales=1, channels=4, operators="block"))
    >>> [sorted(map(str, tie.places)) for tie in graph.ties]
    [['L0S0', 'L1S0', 'L2S0']]
    """
    units = {place: [node.channels, *_units(node.then, node.channels, node.channels)] for place, node in nodes.items()}
    for edge in edges:
        before, after = _units(edge.operator, *ends(edge, nodes))
        units[edge.source].append(before)
        units[edge.target] += [after] if _writes_all(edge, nodes) else []
    units[entry.place].append(_units(entry.operator, entry.image_channels, nodes[entry.place].channels)[1])
    fixed = {place for head in heads if not head.linear for place in head.reads}
    fixed |= {entry.place} if entry.passes_images else set()
    for places in grouped(_links(nodes, edges)):
        stays = bool(places & fixed)
        count = 1 if stays else gcd(*(count for place in places for count in units[place]))
        yield Tie(places=places, units=count, fixed=stays)


def _writes_all(edge: Edge, nodes: Mapping[Place, Node]) -> bool:
    return ends(edge, nodes)[1] == nodes[edge.target].channels


@lru_cache(maxsize=1 << 16)
def _units(operator: Operator, channels_in: int, channels_out: int) -> tuple[int, int]:
    """Of how many units the channels at the two ends of an operator are made."""
    units = operator.granularity(channels_in, channels_out)
    return channels_in // units[0], channels_out // units[1]


def _links(nodes: Mapping[Place, Node], edges: Sequence[Edge]) -> dict[Place, list[Place]]:
    """For each place those whose channels go with its own."""
    links: dict[Place, list[Place]] = {place: [] for place in nodes}
    sharing: dict[tuple[str, int], Place] = {}

    def join(one: Place, other: Place) -> None:
        links[one].append(other)
        links[other].append(one)

    for edge in edges:
        joined = nodes[edge.target].join == "concatenation"
        if edge.operator.ties and not joined and _writes_all(edge, nodes):
            join(edge.source, edge.target)
        if edge.shared:
            for i, place in enumerate((edge.source,) if joined else (edge.source, edge.target)):
                join(sharing.setdefault((edge.shared, i), place), place)
    return links
