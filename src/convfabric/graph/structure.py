"""A network is a graph on a grid of layers × scales. Everything else makes, runs, weighs, cuts or shows one.

The graph is a frozen value: it holds no tensor, no cost and no colour. A sub-network is a graph of the
same type, made by :meth:`Graph.restrict` (fewer edges) or :meth:`Graph.narrow` (fewer channels).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from convfabric.errors import GraphError, NoRouteError
from convfabric.operators import Chain, Norm, Operator, Relu, check_not_torn

Task = Literal["classification", "segmentation"]
Join = Literal["sum", "concatenation"]
POINT = 16
"""The scale where maps have one pixel whatever the images' size: what is left after a global pool."""
NORM_AND_RELU = Chain((Norm(), Relu()))


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
    """A response: what arrives, joined, and what is done to it before others read it."""

    place: Place
    channels: int
    """After joining; of a concatenation the sum of those that arrive."""
    join: Join = "sum"
    """Whether what arrives is added, or its channels stand one after another in the order of the edges."""
    then: Operator = NORM_AND_RELU
    """An operator that keeps scale and channels; Identity() for a response as it was joined."""


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
    lane: int = 0
    """Tells edges apart that join the same two places."""
    shared: str = ""
    """A name for the weights, where several edges use the same ones."""

    @cached_property
    def name(self) -> str:
        """Both places."""
        return f"{self.source}_{self.target}" + (f"_{self.lane}" if self.lane else "")

    @cached_property
    def weights(self) -> str:
        """The name of the weights: the edge's own, unless they are shared."""
        return self.shared or self.name


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where images enter: an operator from the image, at scale 0, to one node."""

    place: Place
    operator: Operator
    image_channels: int


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where answers are read, and what they are. A graph with several has several exits.

    Classification averages each response over its pixels and adds one linear map per response;
    segmentation adds one 1×1 convolution per response, enlarged to the finest of them and then to the image.
    """

    task: Task
    classes: int
    reads: tuple[Place, ...]
    linear: bool = True
    """Whether there are such maps; if not, the responses' channels are the classes, and are added."""
    name: str = "head"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens at one place when a graph is run."""

    place: Place
    join: Join
    arriving: tuple[tuple[str, str, Place], ...]
    """Of each edge that ends here the name, the name of its weights, and the source."""
    exits: tuple[int, ...]
    """Positions of the heads that can answer now."""
    done: tuple[Place, ...]
    """Places whose responses nobody reads after this."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes, edges, where images enter, where heads read.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> graph = weave_trellis(Trellis(layers=2, scales=2, channels=4))
    >>> sorted(graph.edge_names)
    ['L0S0_L0S1', 'L0S0_L1S0', 'L0S0_L1S1', 'L0S1_L1S0', 'L0S1_L1S1', 'L1S0_L1S1']
    """

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    entry: Entry
    heads: tuple[Head, ...]
    """At least one, the earliest exit first; the last one gives the network's answer."""

    @property
    def head(self) -> Head:
        """The last head."""
        return self.heads[-1]

    @cached_property
    def reads(self) -> tuple[Place, ...]:
        """Every place that a head reads, each once."""
        return tuple(dict.fromkeys(place for head in self.heads for place in head.reads))

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
        """Every place after all that feed it, what an earlier exit needs first, then by distance from the images.

        GraphError if the edges run in a circle.
        """
        order: list[Place] = []
        depth = dict.fromkeys(self._node_at, 0)
        waiting = {place: len(edges) for place, edges in self._arriving.items()}
        leaving: dict[Place, list[Place]] = {}
        for edge in self.edges:
            leaving.setdefault(edge.source, []).append(edge.target)
        ready = sorted((place for place, count in waiting.items() if count == 0), reverse=True)
        while ready:
            place = ready.pop()
            order.append(place)
            for target in leaving.get(place, ()):
                depth[target] = max(depth[target], depth[place] + 1)
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
        if len(order) < len(self.nodes):
            circle = ", ".join(str(place) for place in sorted(set(waiting) - set(order)))
            raise GraphError(f"{self.name}: the edges among {circle} run in a circle.")
        return tuple(sorted(order, key=lambda place: (self._first_exit[place], depth[place], place)))

    @cached_property
    def _first_exit(self) -> Mapping[Place, int]:
        """For each place the position of the earliest head that it feeds."""
        back = {(edge.target, edge.source) for edge in self.edges}
        found = dict.fromkeys(self._node_at, len(self.heads))
        for position in reversed(range(len(self.heads))):
            found |= dict.fromkeys(_reached(set(self.heads[position].reads), back), position)
        return found

    @cached_property
    def walk(self) -> tuple[Step, ...]:
        """The places in order, each with what arrives there, who can answer, and what is read for the last time."""
        position = {place: i for i, place in enumerate(self.order)}
        ready = [max(position[place] for place in head.reads) for head in self.heads]
        last = {edge.source: position[edge.target] for place in self.order for edge in self.arriving(place)}
        for head, step in zip(self.heads, ready, strict=True):
            last |= {place: max(step, last.get(place, step)) for place in head.reads}
        return tuple(
            Step(
                place=place,
                join=self.node(place).join,
                arriving=tuple((edge.name, edge.weights, edge.source) for edge in self.arriving(place)),
                exits=tuple(exit_ for exit_, step in enumerate(ready) if step == i),
                done=tuple(source for source, step in last.items() if step == i),
            )
            for i, place in enumerate(self.order)
        )

    def restrict(self, kept: Iterable[str]) -> "Graph":
        """The graph with only the named edges, less every node, edge and head that no route then needs.

        Where an edge into a concatenation goes, its channels go, and whatever is made of them.
        Raises GraphError for a name the graph does not have, or where what is left cannot be joined;
        NoRouteError where no route is left.
        """
        kept = frozenset(kept)
        if unknown := sorted(kept - self.edge_names):
            raise GraphError(f"{self.name} has no edge {', '.join(unknown)}.")
        fewer = tuple(edge for edge in self.edges if edge.name in kept)
        return _without_dead_ends(replace(self, edges=fewer), of=len(self.edges))

    def until(self, exits: int) -> "Graph":
        """The graph with its first so many heads alone, less what only the others needed.

        Raises GraphError for none, or more than there are.
        """
        if not 1 <= exits <= len(self.heads):
            raise GraphError(f"{self.name} has {len(self.heads)} exits; {exits} were asked for.")
        return _without_dead_ends(replace(self, heads=self.heads[:exits]), of=len(self.edges))

    def narrow(self, channels: Mapping[Place, int]) -> "Graph":
        """The graph with fewer channels at the given places.

        Places tied by operators that keep channels (see :func:`tied`) must be given together; those of
        concatenations follow from what they join.
        Raises GraphError for a count that is not between 1 and the present one, or that cannot be joined.
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
        return _recounted(replace(self, nodes=tuple(nodes)), self)


def _without_dead_ends(graph: Graph, of: int) -> Graph:
    """What lies on a route from the images to a head that can still be reached; there were so many edges."""
    edges = graph.edges
    fed = _reached({graph.entry.place}, {(edge.source, edge.target) for edge in edges})
    heads = [replace(head, reads=tuple(place for place in head.reads if place in fed)) for head in graph.heads]
    heads = [head for head in heads if head.reads]
    reads = {place for head in heads for place in head.reads}
    alive = fed & _reached(reads, {(edge.target, edge.source) for edge in edges})
    if not alive:
        raise NoRouteError(
            f"{graph.name}: with {len(edges)} of {of} edges no route is left "
            f"from {graph.entry.place} to {' or '.join(map(str, graph.reads))}."
        )
    return _recounted(
        replace(
            graph,
            nodes=tuple(node for node in graph.nodes if node.place in alive),
            edges=tuple(edge for edge in edges if edge.source in alive and edge.target in alive),
            heads=tuple(heads),
        ),
        graph,
    )


def _recounted(graph: Graph, whole: Graph) -> Graph:
    """The graph with the channels that follow from others: of concatenations, and behind operators that keep them.

    Raises GraphError where those that meet are not equal, where a count that was changed is not what follows, or
    where an operator could not do with what is left of the whole graph's channels.
    """
    counts = {node.place: node.channels for node in graph.nodes}
    before = {place: whole.node(place).channels for place in counts}
    only_sums = all(node.join == "sum" for node in graph.nodes)
    if counts == before and only_sums:
        return graph
    for place in graph.order if not only_sums else ():
        kept = [counts[edge.source] for edge in graph.arriving(place) if edge.operator.keeps_channels]
        joined = graph.node(place).join == "concatenation"
        follows = sum(kept) if joined else kept[0] if kept else counts[place]
        asked = counts[place] != before[place]
        if len({*kept}) > 1 and not joined:
            raise GraphError(f"{place}: {', '.join(map(str, kept))} channels arrive, which cannot be added.")
        if asked and follows != counts[place]:
            raise GraphError(f"{place}: {counts[place]} channels asked for; {follows} follow from what arrives.")
        counts[place] = follows
    for edge in graph.edges:
        ends = [(those[edge.source], those[edge.target]) for those in (before, counts)]
        if ends[0] != ends[1] and graph.node(edge.target).join == "sum":
            try:
                check_not_torn(edge.operator, *ends)
            except ValueError as fault:
                raise GraphError(f"{edge.name}: {fault}.") from None
    for head in graph.heads:
        if not head.linear and any(counts[place] != head.classes for place in head.reads):
            raise GraphError(f"{head.name} reads its classes from {head.reads[0]}, whose channels have to stay.")
    return replace(graph, nodes=tuple(replace(node, channels=counts[node.place]) for node in graph.nodes))


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
    links = {
        (edge.source, edge.target)
        for edge in graph.edges
        if edge.operator.keeps_channels and graph.node(edge.target).join == "sum"
    }
    beside: dict[Place, list[Place]] = {node.place: [] for node in graph.nodes}
    for source, target in links:
        beside[source].append(target)
        beside[target].append(source)
    groups, seen = [], set[Place]()
    for place in sorted(beside):
        if place not in seen:
            group, fresh = {place}, [place]
            while fresh:
                new = [other for other in beside[fresh.pop()] if other not in group]
                group.update(new)
                fresh += new
            seen |= group
            groups.append(frozenset(group))
    return groups
