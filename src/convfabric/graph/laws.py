"""What every fabric graph obeys: one row per law, and all broken laws are reported at once."""

from collections.abc import Callable, Iterator

from convfabric.errors import GraphError
from convfabric.graph.structure import Graph

Law = Callable[[Graph], Iterator[str]]
"""Yields one short sentence for each place or edge that breaks the law."""


def _places_are_distinct(graph: Graph) -> Iterator[str]:
    places = [node.place for node in graph.nodes]
    yield from (f"{place} stands twice" for place in sorted(set(places)) if places.count(place) > 1)


def _names_are_distinct(graph: Graph) -> Iterator[str]:
    names = [edge.name for edge in graph.edges]
    yield from (f"{name} stands twice" for name in sorted(set(names)) if names.count(name) > 1)


def _ends_exist(graph: Graph) -> Iterator[str]:
    places = {node.place for node in graph.nodes}
    for edge in graph.edges:
        yield from (f"{edge.name} ends at {end}" for end in (edge.source, edge.target) if end not in places)
    yield from (f"the entry is {graph.entry.place}" for _ in range(graph.entry.place not in places))
    yield from (f"{head.name} reads {place}" for head in graph.heads for place in head.reads if place not in places)


def _counts_are_positive(graph: Graph) -> Iterator[str]:
    yield from (f"{node.place} has {node.channels} channels" for node in graph.nodes if node.channels < 1)
    yield from (f"the image has {graph.entry.image_channels} channels" for _ in range(graph.entry.image_channels < 1))
    yield from (f"{head.name} has {head.classes} classes" for head in graph.heads if head.classes < 2)
    yield from (f"{head.name} reads nothing" for head in graph.heads if not head.reads)


def _operators_move_the_right_scales(graph: Graph) -> Iterator[str]:
    for edge in graph.edges:
        apart = edge.target.scale - edge.source.scale
        if edge.operator.step != apart:
            yield f"{edge.name} spans {apart:+d} scales, its operator moves {edge.operator.step:+d}"
    if graph.entry.operator.step != graph.entry.place.scale:
        yield f"images enter at {graph.entry.place}, the stem moves {graph.entry.operator.step:+d}"


def _layers_run_onward(graph: Graph) -> Iterator[str]:
    yield from (edge.name for edge in graph.edges if edge.target.layer < edge.source.layer)


def _kept_channels_are_equal(graph: Graph) -> Iterator[str]:
    for edge in graph.edges:
        before, target = graph.node(edge.source).channels, graph.node(edge.target)
        if target.join == "sum" and edge.operator.keeps_channels and before != target.channels:
            yield f"{edge.name} joins {before} to {target.channels}"


def _concatenations_add_up(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.join == "concatenation":
            arriving = graph.arriving(node.place)
            yield from (f"{edge.name} changes channels" for edge in arriving if not edge.operator.keeps_channels)
            yield from (f"images enter at {node.place}" for _ in range(graph.entry.place == node.place))
            total = sum(graph.node(edge.source).channels for edge in arriving)
            if total != node.channels:
                yield f"{node.place} has {node.channels} channels, {total} arrive"


def _operators_can_join_the_channels(graph: Graph) -> Iterator[str]:
    entry = graph.entry
    ends = [(edge.name, edge.operator, graph.node(edge.source).channels, edge.target) for edge in graph.edges]
    for name, operator, before, target in [*ends, ("the stem", entry.operator, entry.image_channels, entry.place)]:
        node = graph.node(target)
        try:
            operator.parameters(before, before if node.join == "concatenation" else node.channels)
        except ValueError as fault:
            yield f"{name}: {fault}"


def _nodes_keep_what_they_joined(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.then.step or not node.then.keeps_channels:
            yield f"{node.place} changes scale or channels"


def _heads_agree(graph: Graph) -> Iterator[str]:
    names = [head.name for head in graph.heads]
    yield from (f"{name} stands twice" for name in sorted(set(names)) if names.count(name) > 1)
    if len({(head.task, head.classes) for head in graph.heads}) > 1:
        yield "they differ in task or classes"
    for head in graph.heads:
        odd = [place for place in head.reads if graph.node(place).channels != head.classes and not head.linear]
        yield from (f"{head.name}: {place} has {graph.node(place).channels} channels" for place in odd)


def _exits_answer_one_after_another(graph: Graph) -> Iterator[str]:
    if list(_nothing_runs_in_a_circle(graph)):
        return
    answering = [[graph.heads[exit_].name for exit_ in step.exits] for step in graph.walk if step.exits]
    wanted = [[head.name] for head in graph.heads]
    if answering != wanted:
        yield "they could answer in the order " + ", then ".join(" and ".join(names) for names in answering)


def _shared_weights_fit_all_who_share(graph: Graph) -> Iterator[str]:
    first: dict[str, tuple[object, ...]] = {}
    own = {edge.name for edge in graph.edges if not edge.shared}
    for edge in graph.edges:
        kind = (edge.operator, graph.node(edge.source).channels, graph.node(edge.target).channels)
        if first.setdefault(edge.weights, kind) != kind or edge.shared in own:
            yield f"{edge.name} does not fit {edge.weights}"


def _nothing_runs_in_a_circle(graph: Graph) -> Iterator[str]:
    try:
        _ = graph.order
    except GraphError as circle:
        yield str(circle)


def _everything_lies_on_a_route(graph: Graph) -> Iterator[str]:
    try:
        alive = {node.place for node in graph.restrict(graph.edge_names).nodes}
    except GraphError as no_route:
        yield str(no_route)
    else:
        yield from (str(node.place) for node in graph.nodes if node.place not in alive)


LAWS: tuple[tuple[str, Law], ...] = (
    ("a place holds one node", _places_are_distinct),
    ("an edge is one of a kind: two between the same places differ in lane", _names_are_distinct),
    ("edges, entry and heads name nodes that exist", _ends_exist),
    ("channels and images have at least one channel, heads one read and two classes", _counts_are_positive),
    ("an operator moves as many scales as its edge spans", _operators_move_the_right_scales),
    ("no edge runs to an earlier layer", _layers_run_onward),
    ("an operator that keeps channels joins equal counts", _kept_channels_are_equal),
    ("a concatenation has the channels that arrive, by operators that keep them", _concatenations_add_up),
    ("an operator can join the channels at its ends", _operators_can_join_the_channels),
    ("what a node does after joining keeps scale and channels", _nodes_keep_what_they_joined),
    ("heads differ in name, agree in task and classes, and without a map read as many channels", _heads_agree),
    ("edges that share weights are alike", _shared_weights_fit_all_who_share),
    ("edges run in no circle", _nothing_runs_in_a_circle),
    ("heads stand in the order in which they can answer, no two at once", _exits_answer_one_after_another),
    ("every node lies on a route from the images to the head", _everything_lies_on_a_route),
)
"""The first three make the others askable; where one of them breaks, only those three are reported."""


def broken_laws(graph: Graph) -> list[str]:
    """One line for each broken law, with what breaks it."""
    said: list[str] = []
    for position, (sentence, law) in enumerate(LAWS):
        if position == 3 and said:
            break
        if breaches := list(law(graph)):
            said.append(f"{sentence}: {'; '.join(breaches)}")
    return said


def check(graph: Graph) -> Graph:
    """The graph itself, or GraphError with every law it breaks.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> check(weave_trellis(Trellis(layers=2, scales=2, channels=4))).name
    'trellis'
    """
    if said := broken_laws(graph):
        raise GraphError(f"{graph.name} breaks {len(said)} of {len(LAWS)} laws.\n" + "\n".join(said))
    return graph
