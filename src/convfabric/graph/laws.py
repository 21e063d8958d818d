"""Laws of every graph: one row each, and all that are broken are reported at once."""

import re
from collections.abc import Callable, Iterator

from convfabric.errors import GraphError
from convfabric.graph.parts import POINT
from convfabric.graph.sizes import map_sizes
from convfabric.graph.structure import Graph
from convfabric.operators import Size

MOST = 1_000_000
"""Of channels, classes, layers and scales, so that no graph asks for more than a machine has."""
NAMES = "[A-Za-z][A-Za-z0-9_-]{0,99}"
TAKEN = frozenset(
    ("clear", "forward", "items", "keys", "modules", "pop", "train", "training", "type", "update", "values")
)
"""Names that the layers of a network would be confused with."""
Law = Callable[[Graph, Size | None], Iterator[str]]
"""Yields one short sentence for each place or edge that breaks the law, for images of a size where one is given."""


def _places_are_distinct(graph: Graph, image: Size | None) -> Iterator[str]:
    places = [node.place for node in graph.nodes]
    yield from (f"{place} stands twice" for place in sorted(set(places)) if places.count(place) > 1)


def _names_are_distinct(graph: Graph, image: Size | None) -> Iterator[str]:
    names = [edge.name for edge in graph.edges]
    yield from (f"{name} stands twice" for name in sorted(set(names)) if names.count(name) > 1)


def _places_and_names_can_be_written(graph: Graph, image: Size | None) -> Iterator[str]:
    for node in graph.nodes:
        yield from (f"{node.place} is below zero" for _ in range(min(node.place) < 0))
        yield from (f"{node.place} is beyond {MOST}" for _ in range(max(node.place) > MOST))
    for name in (*(head.name for head in graph.heads), *(edge.shared for edge in graph.edges if edge.shared)):
        if not re.fullmatch(NAMES, name) or name in TAKEN:
            yield f"{name!r} is no name: letters, digits, _ and -, a letter first, at most 100"


def _ends_exist(graph: Graph, image: Size | None) -> Iterator[str]:
    places = {node.place for node in graph.nodes}
    for edge in graph.edges:
        yield from (f"{edge.name} ends at {end}" for end in (edge.source, edge.target) if end not in places)
    yield from (f"the entry is {graph.entry.place}" for _ in range(graph.entry.place not in places))
    yield from (f"{head.name} reads {place}" for head in graph.heads for place in head.reads if place not in places)


def _counts_are_positive(graph: Graph, image: Size | None) -> Iterator[str]:
    counts = [(str(node.place), "channels", node.channels) for node in graph.nodes]
    counts += [("the image", "channels", graph.entry.image_channels)]
    counts += [(head.name, "classes", head.classes) for head in graph.heads]
    yield from (f"{name} has {count:.0e} {kind}" for name, kind, count in counts if count > MOST)
    yield from (f"{node.place} has {node.channels} channels" for node in graph.nodes if node.channels < 1)
    yield from (f"the image has {graph.entry.image_channels} channels" for _ in range(graph.entry.image_channels < 1))
    least = {head.name: 1 if head.task == "detection" else 2 for head in graph.heads}
    yield from (f"{head.name} has {head.classes} classes" for head in graph.heads if head.classes < least[head.name])
    yield from (f"{head.name} reads nothing" for head in graph.heads if not head.reads)


def _maps_that_meet_have_one_size(graph: Graph, image: Size | None) -> Iterator[str]:
    try:
        _ = None if image is None else map_sizes(graph, image)
    except GraphError as fault:
        yield str(fault).removesuffix(".")


def _layers_run_onward(graph: Graph, image: Size | None) -> Iterator[str]:
    yield from (edge.name for edge in graph.edges if edge.target.layer < edge.source.layer)


def _kept_channels_are_equal(graph: Graph, image: Size | None) -> Iterator[str]:
    ends = [(edge.name, edge.operator, graph.node(edge.source).channels, edge.target) for edge in graph.edges]
    entry = graph.entry
    for name, operator, before, place in [*ends, ("the stem", entry.operator, entry.image_channels, entry.place)]:
        target = graph.node(place)
        spread = target.join == "product" and before == 1
        if target.join != "concatenation" and operator.keeps_channels and before != target.channels and not spread:
            yield f"{name} joins {before} to {target.channels}"


def _concatenations_add_up(graph: Graph, image: Size | None) -> Iterator[str]:
    for node in graph.nodes:
        if node.join == "concatenation":
            arriving = graph.arriving(node.place)
            yield from (f"{edge.name} changes channels" for edge in arriving if not edge.operator.keeps_channels)
            yield from (f"images enter at {node.place}" for _ in range(graph.entry.place == node.place))
            total = sum(graph.node(edge.source).channels for edge in arriving)
            if total != node.channels:
                yield f"{node.place} has {node.channels} channels, {total} arrive"


def _operators_can_join_the_channels(graph: Graph, image: Size | None) -> Iterator[str]:
    entry = graph.entry
    ends = [(edge.name, edge.operator, graph.node(edge.source).channels, edge.target) for edge in graph.edges]
    for name, operator, before, target in [*ends, ("the stem", entry.operator, entry.image_channels, entry.place)]:
        node = graph.node(target)
        try:
            operator.parameters(before, before if node.join == "concatenation" else node.channels)
        except ValueError as fault:
            yield f"{name}: {fault}"


def _nodes_keep_what_they_joined(graph: Graph, image: Size | None) -> Iterator[str]:
    for node in graph.nodes:
        if node.then.stride != 1 or not node.then.keeps_channels:
            yield f"{node.place} changes size or channels"


def _products_have_a_map(graph: Graph, image: Size | None) -> Iterator[str]:
    for node in graph.nodes:
        if node.join == "product" and node.place.scale < POINT and node.place != graph.entry.place:
            arriving = graph.arriving(node.place)
            if arriving and all(edge.source.scale >= POINT for edge in arriving):
                yield f"{node.place} multiplies maps of one pixel alone"


def _heads_agree(graph: Graph, image: Size | None) -> Iterator[str]:
    names = [head.name for head in graph.heads]
    yield from (f"{name} stands twice" for name in sorted(set(names)) if names.count(name) > 1)
    if len({(head.task, head.classes) for head in graph.heads}) > 1:
        yield "they differ in task or classes"
    for head in graph.heads:
        yield from (f"{head.name}: boxes without a map" for _ in range(head.task == "detection" and not head.linear))
        odd = [place for place in head.reads if graph.node(place).channels != head.classes and not head.linear]
        yield from (f"{head.name}: {place} has {graph.node(place).channels} channels" for place in odd)


def _exits_answer_one_after_another(graph: Graph, image: Size | None) -> Iterator[str]:
    if list(_nothing_runs_in_a_circle(graph, image)):
        return
    answering = [[graph.heads[exit_].name for exit_ in step.exits] for step in graph.walk if step.exits]
    wanted = [[head.name] for head in graph.heads]
    if answering != wanted:
        yield "they could answer in the order " + ", then ".join(" and ".join(names) for names in answering)


def _shared_weights_fit_all_who_share(graph: Graph, image: Size | None) -> Iterator[str]:
    first: dict[str, tuple[object, ...]] = {}
    own = {edge.name for edge in graph.edges if not edge.shared}
    for edge in graph.edges:
        kind = edge.operator, edge.operator.weighted(*graph.ends(edge))
        if first.setdefault(edge.weights, kind) != kind or edge.shared in own:
            yield f"{edge.name} does not fit {edge.weights}"


def _nothing_runs_in_a_circle(graph: Graph, image: Size | None) -> Iterator[str]:
    try:
        _ = graph.order
    except GraphError as circle:
        yield str(circle)


def _everything_lies_on_a_route(graph: Graph, image: Size | None) -> Iterator[str]:
    if any(_nothing_runs_in_a_circle(graph, image)):
        return
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
    (f"places count from 0 to {MOST}, heads and shared weights have names", _places_and_names_can_be_written),
    ("channels and images have at least one channel, heads one read and two classes", _counts_are_positive),
    ("no edge runs to an earlier layer", _layers_run_onward),
    ("an operator that keeps channels joins equal counts", _kept_channels_are_equal),
    ("a concatenation has the channels that arrive, by operators that keep them", _concatenations_add_up),
    ("an operator can join the channels at its ends", _operators_can_join_the_channels),
    ("what a node does after joining keeps size and channels", _nodes_keep_what_they_joined),
    ("a product has a factor of more than one pixel, unless it is one", _products_have_a_map),
    ("heads differ in name, agree in task and classes, and without a map read as many channels", _heads_agree),
    ("edges that share weights are alike", _shared_weights_fit_all_who_share),
    ("edges run in no circle", _nothing_runs_in_a_circle),
    ("heads stand in the order in which they can answer, no two at once", _exits_answer_one_after_another),
    ("every node lies on a route from the images to the head", _everything_lies_on_a_route),
    ("maps that meet have one size, and operators can read them", _maps_that_meet_have_one_size),
)
"""The first four make the others askable, and all others the last: where one breaks, those behind are not asked."""


def broken_laws(graph: Graph, image: Size | None = None) -> list[str]:
    """One line for each broken law, with what breaks it; sizes are looked at for images of a height and width.

    >>> from convfabric.weavers import weave
    >>> broken_laws(weave("unet"), (32, 32))
    []
    """
    said: list[str] = []
    for position, (sentence, law) in enumerate(LAWS):
        if said and position in (4, len(LAWS) - 1):
            break
        if breaches := list(law(graph, image)):
            said.append(f"{sentence}: {'; '.join(breaches)}")
    return said


def check(graph: Graph, image: Size | None = None) -> Graph:
    """The graph itself, or GraphError with every law it breaks, sizes included for images of a height and width.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> check(weave_trellis(Trellis(layers=2, scales=2, channels=4))).name
    'trellis'
    """
    if said := broken_laws(graph, image):
        raise GraphError(f"{graph.name} breaks {len(said)} of {len(LAWS)} laws.\n" + "\n".join(said))
    return graph
