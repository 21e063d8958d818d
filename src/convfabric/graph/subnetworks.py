"""Random sub-networks of a graph, over the whole range of what they cost: fewer edges, fewer channels."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from convfabric.errors import GraphError, NoRouteError
from convfabric.graph.costs import edge_costs
from convfabric.graph.paths import cheapest_route
from convfabric.graph.structure import Edge, Graph, Place, tied
from convfabric.operators import Identity, Size

BLOCK = 8
"""Channels that vector units handle at once: widths are multiples of it where they can be."""
STEPS = 4
MOST_DROPPED = 0.8


@dataclass(frozen=True)
class Widths:
    """Places whose channels are the same ones, and the counts that they can be narrowed to, least first."""

    places: frozenset[Place]
    counts: tuple[int, ...]


def ladder(channels: int, narrowest: float) -> tuple[int, ...]:
    """Counts between a share of some channels and all of them, least first, in at most four even steps.

    >>> ladder(64, 0.25), ladder(24, 0.5), ladder(6, 0.5), ladder(64, 1.0)
    ((16, 32, 48, 64), (16, 24), (3, 4, 5, 6), (64,))
    """
    block = BLOCK if channels >= 2 * BLOCK else 1
    least = max(1, channels * narrowest)
    wanted = (least + (channels - least) * step / (STEPS - 1) for step in range(STEPS))
    return tuple(sorted({min(channels, max(block, round(count / block) * block)) for count in wanted} | {channels}))


def widths(graph: Graph, narrowest: float) -> tuple[Widths, ...]:
    """Every group of places that can be narrowed by itself, with its counts.

    >>> from convfabric.weavers import weave
    >>> [len(group.places) for group in widths(weave("resnet-20"), 0.5)]
    [4, 3, 3]
    """
    found = []
    for group in tied(graph) if narrowest < 1 else ():
        counts = ladder(graph.node(min(group)).channels, narrowest)
        try:
            graph.narrow(dict.fromkeys(group, counts[0]))
        except GraphError:
            continue
        if len(counts) > 1:
            found.append(Widths(group, counts))
    return tuple(found)


def narrowed(graph: Graph, counts: dict[Place, int]) -> Graph:
    """The graph narrowed at those of the places that it has."""
    here = {node.place for node in graph.nodes}
    return graph.narrow({place: count for place, count in counts.items() if place in here})


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
    """Names of edges that stay or go together, see :func:`units`; those of identities are not among them."""
    smallest: Graph
    """The cheapest route by MACs, with the fewest channels."""

    @classmethod
    def of(cls, graph: Graph, narrowest: float, image: Size) -> "Sampler":
        """The sampler of a graph, for images of a height and width."""
        groups = widths(graph, narrowest)
        least = narrowed(graph, {place: group.counts[0] for group in groups for place in group.places})

        def macs(edge: Edge) -> float:
            return edge_costs(least, edge, image).macs

        costly = tuple(
            unit for unit in units(graph) if not any(free(edge) for edge in graph.edges if edge.name in unit)
        )
        return cls(graph, groups, costly, cheapest_route(least, macs))

    def draw(self, dice: random.Random) -> Graph:
        """A sub-network: units go with one probability, widths are near one level, both drawn first.

        Identities, which cost nothing, go only with what they lead to.
        """
        dropped, level = dice.uniform(0, MOST_DROPPED), dice.random()
        while True:
            gone = {name for unit in self.units if dice.random() < dropped for name in sorted(unit)}
            try:
                return narrowed(self.graph.restrict(self.graph.edge_names - gone), self._counts(dice, level))
            except (NoRouteError, GraphError):
                dropped *= 0.9

    def part(self, kept: Iterable[str], positions: Sequence[int]) -> Graph:
        """The sub-network with some edges, each group of widths at one of its counts; GraphError for no network."""
        wanted = zip(self.widths, positions, strict=True)
        counts = {place: group.counts[position] for group, position in wanted for place in group.places}
        return narrowed(self.graph.restrict(kept), counts)

    def _counts(self, dice: random.Random, level: float) -> dict[Place, int]:
        counts: dict[Place, int] = {}
        for group in self.widths:
            near = min(1.0, max(0.0, dice.gauss(level, 0.25)))
            count = group.counts[round(near * (len(group.counts) - 1))]
            counts |= dict.fromkeys(group.places, count)
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
    for node in graph.nodes:
        arriving = graph.arriving(node.place)
        leaving = [edge for edge in graph.edges if edge.source == node.place]
        if len(arriving) == len(leaving) == 1 and node.place != graph.entry.place and node.place not in graph.reads:
            together = unit[arriving[0].name] | unit[leaving[0].name]
            unit |= dict.fromkeys(together, together)
    return tuple(dict.fromkeys(frozenset(together) for together in unit.values()))


def free(edge: Edge) -> bool:
    """Whether an edge takes no multiply-accumulates and has no weights."""
    return isinstance(edge.operator, Identity)
