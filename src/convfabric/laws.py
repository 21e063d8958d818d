"""What every fabric graph obeys: one row per law, and all broken laws are reported at once."""

from collections.abc import Callable, Iterator

from convfabric.errors import GraphError
from convfabric.graph import Graph

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
    yield from (f"the head reads {place}" for place in graph.head.reads if place not in places)


def _counts_are_positive(graph: Graph) -> Iterator[str]:
    yield from (f"{node.place} has {node.channels} channels" for node in graph.nodes if node.channels < 1)
    yield from (f"the image has {graph.entry.image_channels} channels" for _ in range(graph.entry.image_channels < 1))
    yield from (f"the head has {graph.head.classes} classes" for _ in range(graph.head.classes < 2))
    yield from ("the head reads nothing" for _ in range(not graph.head.reads))


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
        before, after = graph.node(edge.source).channels, graph.node(edge.target).channels
        if edge.operator.keeps_channels and before != after:
            yield f"{edge.name} joins {before} to {after}"


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
    ("a pair of places is joined by one edge", _names_are_distinct),
    ("edges, entry and head name nodes that exist", _ends_exist),
    ("channels and images have at least one channel, heads one read and two classes", _counts_are_positive),
    ("an operator moves as many scales as its edge spans", _operators_move_the_right_scales),
    ("no edge runs to an earlier layer", _layers_run_onward),
    ("an operator that keeps channels joins equal counts", _kept_channels_are_equal),
    ("edges run in no circle", _nothing_runs_in_a_circle),
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
