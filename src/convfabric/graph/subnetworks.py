"""Random sub-networks of a graph, over the whole range of what they cost: fewer edges, fewer channels."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from math import lcm
from statistics import fmean

from convfabric.errors import GraphError
from convfabric.graph.costs import edge_costs, head_costs
from convfabric.graph.parts import Edge, Place, Tie
from convfabric.graph.paths import cheapest_route
from convfabric.graph.structure import Graph
from convfabric.operators import Size

BLOCK = 8
"""Channels that vector units handle at once: widths are multiples of it, or of half, where four steps are left."""
STEPS = 4
MOST_DROPPED = 0.8
MOST_PARTS = 64
MOST_DRAWS = 100


@dataclass(frozen=True)
class Widths:
    """Places whose channels are cut together, and the counts that they can be narrowed to, least first."""

    places: frozenset[Place]
    counts: tuple[int, ...]
    """Of the first place in their order."""
    times: tuple[tuple[Place, Fraction], ...] = ()
    """Of places that have more or fewer channels than the first, how many for each of its."""

    def at(self, position: int) -> dict[Place, int]:
        """The channels of each place at one of the counts."""
        return self._levels[position]

    @cached_property
    def _levels(self) -> list[dict[Place, int]]:
        times = dict(self.times)
        return [{place: int(count * times.get(place, 1)) for place in self.places} for count in self.counts]


def ladder(channels: int, narrowest: float, unit: int = 1) -> tuple[int, ...]:
    """Counts between a share of some channels and all of them, least first, in at most four even steps.

    ``unit``: so many are cut together. With steps of 8 of 16 channels a network could only be cut in halves.

    >>> ladder(64, 0.25), ladder(24, 0.5), ladder(6, 0.5), ladder(64, 1.0), ladder(96, 0.25, unit=24)
    ((16, 32, 48, 64), (12, 16, 20, 24), (3, 4, 5, 6), (64,), (24, 48, 72, 96))
    """
    blocks = lcm(unit, BLOCK), lcm(unit, BLOCK // 2)
    block = next((block for block in blocks if channels >= STEPS * block), unit)
    least = max(1, channels * narrowest)
    wanted = (least + (channels - least) * step / (STEPS - 1) for step in range(STEPS))
    return tuple(sorted({min(channels, max(block, round(count / block) * block)) for count in wanted} | {channels}))


def widths(graph: Graph, narrowest: float) -> tuple[Widths, ...]:
    """Every group of places that can be narrowed by itself, with its counts.

    >>> from convfabric.weavers import weave
    >>> [len(group.places) for group in widths(weave("resnet-20"), 0.5)]
    [4, 3, 3]
    """
    return tuple(found for tie in graph.ties if narrowest < 1 and (found := _widths(graph, tie, narrowest)))


def _widths(graph: Graph, tie: Tie, narrowest: float) -> Widths | None:
    """The counts of one group of places; None where it has only one, or cannot be narrowed by itself."""
    channels = {place: graph.node(place).channels for place in tie.places}
    of_first = channels[min(tie.places)]
    times = tuple((place, Fraction(own, of_first)) for place, own in sorted(channels.items()) if own != of_first)
    found = Widths(tie.places, ladder(of_first, narrowest, of_first // tie.units), times)
    if tie.units == 1 or len(found.counts) == 1:
        return None
    try:
        graph.narrow(found.at(0))
    except GraphError:
        return None
    return found


def narrowed(graph: Graph, counts: dict[Place, int]) -> Graph:
    """The graph narrowed at those of the places that it has, which are given with all that they are tied to.

    >>> from convfabric.weavers import weave
    >>> narrowed(weave("vgg"), {Place(0, 0): 8, Place(99, 0): 4}).node(Place(0, 0)).channels
    8
    """
    here = {node.place for node in graph.nodes}
    return graph.narrow({place: count for place, count in counts.items() if place in here}, together=True)


@dataclass(frozen=True)
class Sampler:
    """Draws sub-networks of one graph.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny")
    >>> sampler = Sampler.of(graph, 0.5, (32, 32))
    >>> drawn = [sampler.draw(random.Random(seed)) for seed in range(3)]
    >>> all(smaller.edge_names <= graph.edge_names for smaller in drawn), len(set(drawn))
    (True, 3)
    """

    graph: Graph
    widths: tuple[Widths, ...]
    units: tuple[frozenset[str], ...]
    """Names of edges that stay or go together, see :func:`units`; none with an identity into a concatenation."""
    smallest: Graph
    """The cheapest route by MACs, with the fewest channels."""
    parts: dict[frozenset[str], Graph] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Sub-networks with all channels, by the names of the edges that were asked for lately."""

    @classmethod
    def of(cls, graph: Graph, narrowest: float, image: Size) -> "Sampler":
        """The sampler of a graph, for images of a height and width."""
        groups = widths(graph, narrowest)
        least = narrowed(graph, {place: count for group in groups for place, count in group.at(0).items()})

        def macs(edge: Edge) -> float:
            return edge_costs(least, edge, image).macs

        def macs_of_reading(place: Place) -> float:
            reading = (replace(head, reads=(place,)) for head in least.heads if place in head.reads)
            return sum(head_costs(least, head, image).macs for head in reading)

        free = graph.free_edges
        joined = {edge.name for edge in graph.edges if graph.node(edge.target).join != "concatenation"}
        costly = tuple(unit for unit in units(graph) if unit - free and unit & free <= joined)
        return cls(graph, groups, costly, cheapest_route(least, macs, macs_of_reading))

    def draw(self, dice: random.Random) -> Graph:
        """A sub-network: units go with one probability, widths are near one level, both drawn first.

        Identities, which cost nothing, go only with what they lead to. Where nothing drawn can be joined it is the
        smallest.
        """
        dropped, level = dice.uniform(0, MOST_DROPPED), dice.random()
        for _ in range(MOST_DRAWS):
            gone = {name for unit in self.units if dice.random() < dropped for name in sorted(unit)}
            try:
                return narrowed(self.graph.restrict(self.graph.edge_names - gone), self._counts(dice, level))
            except GraphError:
                dropped *= 0.9
        return self.smallest

    def part(self, kept: Iterable[str], positions: Sequence[int]) -> Graph:
        """The sub-network with some edges, each group of widths at one of its counts; GraphError for no network."""
        kept = frozenset(kept)
        if kept not in self.parts:
            if len(self.parts) == MOST_PARTS:
                self.parts.clear()
            self.parts[kept] = self.graph.restrict(kept)
        return narrowed(self.parts[kept], self._at(positions))

    def weighed(self, kept: Iterable[str], positions: Sequence[int]) -> Graph:
        """The whole graph at such widths with those edges alone, to see what they take: see :meth:`Graph.among`."""
        return self.graph.among(kept).narrow(self._at(positions), together=True)

    def _at(self, positions: Sequence[int]) -> dict[Place, int]:
        wanted = zip(self.widths, positions, strict=True)
        return {place: count for group, at in wanted for place, count in group.at(at).items()}

    def _counts(self, dice: random.Random, level: float) -> dict[Place, int]:
        counts: dict[Place, int] = {}
        for group in self.widths:
            near = min(1.0, max(0.0, dice.gauss(level, 0.25)))
            counts |= group.at(round(near * (len(group.counts) - 1)))
        return counts

    def mean_share(self, measure: Callable[[Graph], float], draws: int = 50) -> float:
        """The mean of a measure over sub-networks that are drawn, as a share of the whole's."""
        dice = random.Random(0)
        return fmean(measure(self.draw(dice)) for _ in range(draws)) / measure(self.graph)


def units(graph: Graph) -> tuple[frozenset[str], ...]:
    """Names of edges, together those that are of no use alone: they meet at a node where nothing else ends or begins.

    >>> from convfabric.weavers import weave
    >>> sorted(len(unit) for unit in units(weave("fabric-tiny", operators="residual", layers=2, scales=1)))
    [1, 2]
    """
    unit = {edge.name: {edge.name} for edge in graph.edges}
    leaving_from: dict[Place, list[Edge]] = {}
    for edge in graph.edges:
        leaving_from.setdefault(edge.source, []).append(edge)
    for node in graph.nodes:
        arriving, leaving = graph.arriving(node.place), leaving_from.get(node.place, [])
        if len(arriving) == len(leaving) == 1 and node.place != graph.entry.place and node.place not in graph.reads:
            together = unit[arriving[0].name] | unit[leaving[0].name]
            unit |= dict.fromkeys(together, together)
    return tuple(dict.fromkeys(frozenset(together) for together in unit.values()))
