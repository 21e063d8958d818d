"""A network is a graph on a grid of layers × scales. Everything else makes, runs, weighs, cuts or shows one.

The graph is a frozen value: it holds no tensor, no cost and no colour. A sub-network is a graph of the
same type, made by :meth:`Graph.restrict` (fewer edges) or :meth:`Graph.narrow` (fewer channels).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from convfabric.errors import GraphError, NoRouteError
from convfabric.operators import Operator

Task = Literal["classification", "segmentation"]


@dataclass(frozen=True, order=True)
class Place:
    """Where a node stands. Scale s has ⌈N / 2^s⌉ pixels on a side; layer 0 is nearest the images.

    >>> str(Place(3, 1)), str(Place(3, 1, lane=2))
    ('L3S1', 'L3S1B2')
    """

    layer: int
    scale: int
    lane: int = 0
    """Tells responses apart where one place holds several."""

    def __str__(self) -> str:
        return f"L{self.layer}S{self.scale}" + (f"B{self.lane}" if self.lane else "")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A response: the sum of what arrives, then batch normalisation, then ReLU."""

    place: Place
    channels: int


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One operator from a source node to a target node.

    >>> from convfabric.operators import Conv
    >>> Edge(source=Place(3, 1), target=Place(4, 2), operator=Conv(stride=2)).name
    'L3S1_L4S2'
    """

    source: Place
    target: Place
    operator: Operator

    @cached_property
    def name(self) -> str:
        """Both places; also the name of the edge's weights."""
        return f"{self.source}_{self.target}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where images enter: an operator from the image, at scale 0, to one node."""

    place: Place
    operator: Operator
    image_channels: int


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where answers are read, and what they are.

    Classification averages each response over its pixels and adds one linear map per response;
    segmentation adds one 1×1 convolution per response, enlarged to the finest of them and then to the image.
    """

    task: Task
    classes: int
    reads: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens at one place when a graph is run."""

    place: Place
    arriving: tuple[tuple[str, Place], ...]
    """Name and source of each edge that ends here."""
    done: tuple[Place, ...]
    """Places whose responses nobody reads after this."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes, edges, where images enter, where the head reads.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> graph = weave_trellis(Trellis(layers=2, scales=2, channels=4))
    >>> sorted(graph.edge_names)
    ['L0S0_L0S1', 'L0S0_L1S0', 'L0S0_L1S1', 'L0S1_L1S0', 'L0S1_L1S1', 'L1S0_L1S1']
    """

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    entry: Entry
    head: Head

    @cached_property
    def _node_at(self) -> Mapping[Place, Node]:
        return {node.place: node for node in self.nodes}

    @cached_property
    def _arriving(self) -> Mapping[Place, tuple[Edge, ...]]:
        arriving: dict[Place, list[Edge]] = {node.place: [] for node in self.nodes}
        for edge in self.edges:
            arriving[edge.target].append(edge)
        return {place: tuple(edges) for place, edges in arriving.items()}

    @cached_property
    def edge_names(self) -> frozenset[str]:
        """The names of all edges."""
        return frozenset(edge.name for edge in self.edges)

    def node(self, place: Place) -> Node:
        """The node at a place; GraphError where there is none."""
        if place not in self._node_at:
            raise GraphError(f"{self.name} has no node {place}.")
        return self._node_at[place]

    def arriving(self, place: Place) -> tuple[Edge, ...]:
        """The edges that end at a place."""
        return self._arriving[place]

    @cached_property
    def order(self) -> tuple[Place, ...]:
        """Every place after all that feed it; GraphError if the edges run in a circle."""
        order: list[Place] = []
        waiting = {place: len(edges) for place, edges in self._arriving.items()}
        leaving: dict[Place, list[Place]] = {}
        for edge in self.edges:
            leaving.setdefault(edge.source, []).append(edge.target)
        ready = sorted((place for place, count in waiting.items() if count == 0), reverse=True)
        while ready:
            place = ready.pop()
            order.append(place)
            for target in leaving.get(place, ()):
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
        if len(order) < len(self.nodes):
            circle = ", ".join(str(place) for place in sorted(set(waiting) - set(order)))
            raise GraphError(f"{self.name}: the edges among {circle} run in a circle.")
        return tuple(order)

    @cached_property
    def walk(self) -> tuple["Step", ...]:
        """The places in order, each with what arrives there and what is read there for the last time."""
        last = {edge.source: place for place in self.order for edge in self.arriving(place)}
        return tuple(
            Step(
                place=place,
                arriving=tuple((edge.name, edge.source) for edge in self.arriving(place)),
                done=tuple(
                    source for source, reader in last.items() if reader == place and source not in self.head.reads
                ),
            )
            for place in self.order
        )

    def restrict(self, kept: Iterable[str]) -> "Graph":
        """The graph with only the named edges, less every node and edge that no route then needs.

        Raises GraphError for a name the graph does not have, NoRouteError where no route is left.
        """
        kept = frozenset(kept)
        if unknown := sorted(kept - self.edge_names):
            raise GraphError(f"{self.name} has no edge {', '.join(unknown)}.")
        edges = [edge for edge in self.edges if edge.name in kept]
        alive = _reached({self.entry.place}, {(edge.source, edge.target) for edge in edges})
        reads = tuple(place for place in self.head.reads if place in alive)
        alive &= _reached(set(reads), {(edge.target, edge.source) for edge in edges})
        if not alive:
            raise NoRouteError(
                f"{self.name}: with {len(edges)} of {len(self.edges)} edges no route is left "
                f"from {self.entry.place} to {' or '.join(map(str, self.head.reads))}."
            )
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.place in alive),
            edges=tuple(edge for edge in edges if edge.source in alive and edge.target in alive),
            head=replace(self.head, reads=reads),
        )

    def narrow(self, channels: Mapping[Place, int]) -> "Graph":
        """The graph with fewer channels at the given places.

        Places tied by operators that keep channels (see :func:`tied`) must be given together.
        Raises GraphError for a count that is not between 1 and the present one.
        """
        for place, count in channels.items():
            if not 1 <= count <= self.node(place).channels:
                raise GraphError(
                    f"{place}: {count} channels asked for; it has {self.node(place).channels} and keeps at least 1."
                )
        for group in tied(self):
            counts = {place: channels.get(place, self.node(place).channels) for place in group}
            if len(set(counts.values())) > 1:
                said = ", ".join(f"{place} {count}" for place, count in sorted(counts.items()))
                raise GraphError(f"places tied by identities need equal channels; asked for {said}.")
        nodes = (replace(node, channels=channels.get(node.place, node.channels)) for node in self.nodes)
        return replace(self, nodes=tuple(nodes))


def _reached(starts: set[Place], links: set[tuple[Place, Place]]) -> set[Place]:
    """Everything that can be reached from the starts along the links, the starts included."""
    onward: dict[Place, list[Place]] = {}
    for source, target in links:
        onward.setdefault(source, []).append(target)
    reached, fresh = set(starts), list(starts)
    while fresh:
        for target in onward.get(fresh.pop(), ()):
            if target not in reached:
                reached.add(target)
                fresh.append(target)
    return reached


def tied(graph: Graph) -> list[frozenset[Place]]:
    """Groups of places whose channels are the same ones, because operators that keep channels join them.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> graph = weave_trellis(Trellis(layers=3, scales=1, channels=4, operators="block"))
    >>> [sorted(map(str, group)) for group in tied(graph)]
    [['L0S0', 'L1S0', 'L2S0']]
    """
    links = {(edge.source, edge.target) for edge in graph.edges if edge.operator.keeps_channels}
    links |= {(target, source) for source, target in links}
    groups = {frozenset(_reached({node.place}, links)) for node in graph.nodes}
    return sorted(groups, key=lambda group: min(group))
