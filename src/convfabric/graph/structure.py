"""A network is a graph on a grid of layers × scales. Everything else makes, runs, weighs, cuts or shows one.

The graph is a frozen value: it holds no tensor, no cost and no colour. A sub-network is a graph of the
same type, made by :meth:`Graph.restrict` (fewer edges) or :meth:`Graph.narrow` (fewer channels).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from convfabric.errors import GraphError, NoRouteError
from convfabric.graph.links import reached
from convfabric.graph.parts import POINT, Edge, Entry, Head, Node, Place, Step, Tie
from convfabric.graph.ties import ends, ties
from convfabric.operators import Operator, Size, halved

P = ParamSpec("P")
T = TypeVar("T")


def remembered(question: "Callable[Concatenate[Graph, P], T]") -> "Callable[Concatenate[Graph, P], T]":
    """A question about a graph whose answers are kept with the graph, by its other arguments, which are hashable.

    >>> from convfabric.weavers import weave
    >>> edges, graph = remembered(lambda graph: [len(graph.edges)]), weave("resnet-20")
    >>> edges(graph), edges(graph) is edges(graph)
    ([18], True)
    """

    @wraps(question)
    def asked(graph: "Graph", *others: P.args, **named: P.kwargs) -> T:
        key = (question, others, *sorted(named.items()))
        if key not in graph.memory:
            graph.memory[key] = question(graph, *others, **named)
        found: T = graph.memory[key]
        return found

    return asked  # type: ignore[return-value]


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
    memory: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Answers that follow from the graph alone, see :func:`remembered`."""

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the fields, not what follows from them."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.init} | {"memory": {}}

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.nodes, self.edges, self.entry, self.heads))

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
    def known_sizes(self) -> dict[Size, Mapping[Place, Size]]:
        """For sizes of images those of all maps, as far as they were asked for."""
        return {}

    @cached_property
    def free_edges(self) -> frozenset[str]:
        """The names of edges that take no multiply-accumulates, no weights and no time."""
        return frozenset(edge.name for edge in self.edges if edge.operator.free)

    @cached_property
    def ties(self) -> tuple[Tie, ...]:
        """Every place with those whose channels are cut together with its own, the group of the first place first.

        What ties are operators that keep channels or go by groups, and weights that several edges share.
        """
        return tuple(ties(self._node_at, self.edges, self.entry, self.heads))

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

    def ends(self, edge: Edge) -> tuple[int, int]:
        """The channels that an edge reads and writes, see :func:`convfabric.graph.ties.ends`."""
        return ends(edge, self._node_at)

    def writes_own(self, edge: Edge) -> bool:
        """Whether an edge writes as many channels as its target has, and not a part of them or a factor."""
        target = self._node_at[edge.target]
        return target.join == "sum" or (target.join == "product" and self.ends(edge)[1] == target.channels)

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
        ready = [place for place, count in waiting.items() if count == 0]
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
        if len(self.heads) == 1:
            return dict.fromkeys(self._node_at, 0)
        back = {(edge.target, edge.source) for edge in self.edges}
        found = dict.fromkeys(self._node_at, len(self.heads))
        for position in reversed(range(len(self.heads))):
            found |= dict.fromkeys(reached(set(self.heads[position].reads), back), position)
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
        return _alive(self, kept, self.heads)

    def among(self, kept: Iterable[str]) -> "Graph":
        """The graph with the named edges alone, all nodes staying, as large as is known: to be weighed, not run."""
        kept = frozenset(kept)
        fewer = replace(self, edges=tuple(edge for edge in self.edges if edge.name in kept))
        fewer.__dict__["order"], fewer.__dict__["known_sizes"] = self.order, dict(self.known_sizes)
        return fewer

    def until(self, exits: int) -> "Graph":
        """The graph with its first so many heads alone, less what only the others needed.

        Raises GraphError for none, or more than there are.
        """
        if not 1 <= exits <= len(self.heads):
            raise GraphError(f"{self.name} has {len(self.heads)} exits; {exits} were asked for.")
        return _alive(self, self.edge_names, self.heads[:exits])

    def narrow(self, channels: Mapping[Place, int], *, together: bool = False) -> "Graph":
        """The graph with fewer channels at the given places; ``together``: known to be given with all they are tied to.

        Places tied to one another (see :attr:`ties`) must be given together; those of concatenations follow from
        what they join. Of operators in groups whole groups go.
        Raises GraphError for a count that is not between 1 and the present one, or that cannot be joined.
        """
        for place, count in channels.items():
            if not 1 <= count <= self.node(place).channels:
                raise GraphError(
                    f"{place}: {count} channels asked for; it has {self.node(place).channels} and keeps at least 1."
                )
        for tie in () if together else self.ties:
            counts = {place: channels.get(place, self.node(place).channels) for place in tie.places}
            shares = {count / self.node(place).channels for place, count in counts.items()}
            if len(shares) > 1:
                said = ", ".join(f"{place} {count}" for place, count in sorted(counts.items()))
                raise GraphError(f"places tied by identities need equal channels; asked for {said}.")
        counts = {place: channels.get(place, node.channels) for place, node in self._node_at.items()}
        narrower = recounted(self, self, counts)
        # What follows from places, edges and kinds of operators, whatever the channels.
        narrower.__dict__["known_sizes"] = self.known_sizes
        narrower.__dict__.update({"order": self.order} if "order" in self.__dict__ else {})
        return narrower


def _alive(graph: Graph, kept: frozenset[str], heads: tuple[Head, ...]) -> Graph:
    """The part that lies on a route along kept edges from the images to one of some heads that can still be reached."""
    fed = {graph.entry.place}
    for place in graph.order:
        if any(edge.source in fed and edge.name in kept for edge in graph.arriving(place)):
            fed.add(place)
    read = [replace(head, reads=tuple(place for place in head.reads if place in fed)) for head in heads]
    alive = {place for head in read for place in head.reads}
    if not alive:
        raise NoRouteError(
            f"{graph.name}: with {len(kept)} of {len(graph.edges)} edges no route is left "
            f"from {graph.entry.place} to {' or '.join(map(str, graph.reads))}."
        )
    for place in reversed(graph.order):
        if place in alive:
            alive |= {edge.source for edge in graph.arriving(place) if edge.source in fed and edge.name in kept}
    part = replace(
        graph,
        nodes=tuple(node for node in graph.nodes if node.place in alive),
        edges=tuple(e for e in graph.edges if e.source in alive and e.target in alive and e.name in kept),
        heads=tuple(head for head in read if head.reads),
    )
    part = recounted(part, graph, {node.place: node.channels for node in part.nodes})
    part.__dict__["known_sizes"] = _sizes_left(graph, alive)
    return part


def _sizes_left(graph: Graph, alive: set[Place]) -> dict[Size, Mapping[Place, Size]]:
    """The sizes that places keep whatever else goes: where every map is the image, halved as often as its scale says.

    Elsewhere what doubles a map may find another one to fit, and what is left of a product may be smaller.
    """
    left: dict[Size, Mapping[Place, Size]] = {}
    for image, sizes in graph.known_sizes.items() if all(node.join != "product" for node in graph.nodes) else ():
        at = [image]
        for _ in range(max(place.scale for place in sizes if place.scale < POINT)):
            at.append(halved(at[-1]))
        if all(size == ((1, 1) if place.scale >= POINT else at[place.scale]) for place, size in sizes.items()):
            left[image] = {place: sizes[place] for place in alive}
    return left


def recounted(graph: Graph, whole: Graph, counts: dict[Place, int]) -> Graph:
    """The graph with so many channels; those of concatenations, and what follows from them, are counted anew.

    Raises GraphError where those that meet are not equal, where a count that was changed is not what follows, or
    where an operator could not do with what is left of the whole graph's channels.
    """
    joins = {node.join for node in graph.nodes}
    if "product" in joins:
        _check_products(graph)
    before = {place: whole.node(place).channels for place in counts}
    if counts == before and "concatenation" not in joins:
        return graph
    for place in graph.order if "concatenation" in joins else ():
        counts[place] = _following(graph, place, counts, before)
    graph = replace(
        graph,
        nodes=tuple([_node_narrowed(node, counts[node.place]) for node in graph.nodes]),
        edges=tuple([_edge_narrowed(edge, whole, before, counts) for edge in graph.edges]),
        entry=replace(graph.entry, operator=_entry_narrowed(graph.entry, before, counts)),
    )
    for head in graph.heads:
        if not head.linear and any(counts[place] != head.classes for place in head.reads):
            raise GraphError(f"{head.name} reads its classes from {head.reads[0]}, whose channels have to stay.")
    return _sharing_checked(graph)


Counts = Mapping[Place, int]


def _following(graph: Graph, place: Place, counts: Counts, before: Counts) -> int:
    """The channels of a place that follow from what arrives there."""
    node = graph.node(place)
    arriving = [edge for edge in graph.arriving(place) if edge.operator.keeps_channels]
    joined = node.join == "concatenation"
    kept = [counts[edge.source] for edge in arriving if joined or before[edge.source] == before[place]]
    follows = sum(kept) if joined else kept[0] if kept else counts[place]
    if len({*kept}) > 1 and not joined:
        raise GraphError(f"{place}: {', '.join(map(str, kept))} channels arrive, which cannot be added.")
    if counts[place] != before[place] and follows != counts[place]:
        raise GraphError(f"{place}: {counts[place]} channels asked for; {follows} follow from what arrives.")
    return follows


@lru_cache(maxsize=1 << 16)
def _node_narrowed(node: Node, after: int) -> Node:
    if node.channels == after:
        return node
    try:
        return replace(node, channels=after, then=_fewer(node.then, (node.channels,) * 2, (after, after)))
    except ValueError as fault:
        raise GraphError(f"{node.place}: {fault}.") from None


@lru_cache(maxsize=1 << 16)
def _fewer(operator: Operator, whole: tuple[int, int], smaller: tuple[int, int]) -> Operator:
    return operator.narrowed(whole, smaller)


def _edge_narrowed(edge: Edge, whole: Graph, before: Counts, after: Counts) -> Edge:
    written = edge.target if whole.writes_own(edge) else edge.source
    ends = before[edge.source], before[written]
    fewer = after[edge.source], after[written]
    if ends == fewer:
        return edge
    try:
        operator = _fewer(edge.operator, ends, fewer)
    except ValueError as fault:
        raise GraphError(f"{edge.name}: {fault}.") from None
    return edge if operator is edge.operator or operator == edge.operator else replace(edge, operator=operator)


def _entry_narrowed(entry: Entry, before: Counts, after: Counts) -> Operator:
    if before[entry.place] == after[entry.place]:
        return entry.operator
    if entry.passes_images:
        raise GraphError(f"{entry.place} holds the image's {entry.image_channels} channels, which have to stay.")
    try:
        return entry.operator.narrowed(
            (entry.image_channels, before[entry.place]), (entry.image_channels, after[entry.place])
        )
    except ValueError as fault:
        raise GraphError(f"the stem: {fault}.") from None


def _check_products(graph: Graph) -> None:
    """GraphError where of a product only maps of one pixel are left, which would be taken for the whole map."""
    for node in graph.nodes:
        if node.join == "product" and node.place.scale < POINT and node.place != graph.entry.place:
            arriving = graph.arriving(node.place)
            if arriving and all(edge.source.scale >= POINT for edge in arriving):
                raise GraphError(f"{node.place}: only maps of one pixel are left of its product.")


def _sharing_checked(graph: Graph) -> Graph:
    """The graph; GraphError where edges that share weights are no longer alike."""
    first: dict[str, tuple[Edge, object]] = {}
    for edge in graph.edges if any(edge.shared for edge in graph.edges) else ():
        kind = edge.operator, edge.operator.weighted(*graph.ends(edge))
        other, known = first.setdefault(edge.weights, (edge, kind))
        if known != kind:
            raise GraphError(f"{edge.name} shares the weights of {other.name}, whose channels are others.")
    return graph
