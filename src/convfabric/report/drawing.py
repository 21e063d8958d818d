"""A graph drawn on its grid, as SVG: layers from left to right, the finest scale on top.

Responses that stand at one place are drawn in the order in which they feed one another, or one below another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from convfabric.graph import POINT, Edge, Graph, Node, Place

MARGIN, ROOM, STACK = 56, 62, 27
RADIUS = 11
WIDEST, NARROWEST = 96, 32
WIDTH = 1040
DARK, PALE, LIVE, DEAD, JOINED = "#1b4965", "#d7dee4", "#5fa8d3", "#eef2f5", "#e09f3e"
THINNEST, THICKEST = 1.5, 8.0
Spots = Mapping[Place, tuple[float, float]]


@dataclass(frozen=True)
class _Layout:
    """Where everything stands, in pixels."""

    spots: Spots
    rows: Mapping[int, float]
    """The height of each scale."""
    step: float
    """Between columns."""
    width: float
    height: float


def draw(
    whole: Graph,
    kept: Graph | None = None,
    worth: Mapping[str, float] | None = None,
    facts: Mapping[str, str] | None = None,
) -> str:
    """The whole graph, the edges of ``kept`` dark and as wide as their worth, all others pale.

    Concatenations are orange. Numbers are channels. With ``facts``, a line for each edge, edges can be touched, and
    reached by the tabulator key.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny", size=(8, 8))
    >>> draw(graph).count("<path") == len(graph.edges)
    True
    """
    kept = kept or whole
    layout = _laid_out(whole)
    alive = {node.place: node for node in kept.nodes}
    widths = _widths(kept, worth or {})
    cut = [edge for edge in whole.edges if edge.name not in kept.edge_names]
    reads = {place for head in kept.heads for place in head.reads}
    shapes = [
        *(_row(scale, y, layout.width) for scale, y in layout.rows.items()),
        *(_edge(edge, layout, PALE, 1.0) for edge in cut),
        *(_edge(edge, layout, DARK, widths[edge.name]) for edge in kept.edges),
        *(_touched(edge, layout, facts[edge.name]) for edge in whole.edges if facts and edge.name in facts),
        *(_node(layout.spots[node.place], alive.get(node.place, node), node.place in alive) for node in whole.nodes),
        _entry(layout.spots[whole.entry.place]),
        *(_read(layout.spots[place], head.name, place in reads) for head in whole.heads for place in head.reads),
    ]
    title = f"{whole.name}: {len(kept.edges)} of {len(whole.edges)} edges kept"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" '
        f'width="{layout.width:.0f}" role="img" font-family="sans-serif" font-size="11">'
        f"<title>{escape(title)}</title>" + "".join(shapes) + "</svg>"
    )


def _laid_out(graph: Graph) -> _Layout:
    """Columns for the layers and for what feeds what within one; rows for the scales and for what stands beside."""
    within = _ranks_within(graph)
    keys = sorted({(place.layer, rank) for place, rank in within.items()})
    column = {key: i for i, key in enumerate(keys)}
    cells: dict[tuple[int, int], list[Place]] = {}
    for place in sorted(within):
        cells.setdefault((place.scale, column[place.layer, within[place]]), []).append(place)
    scales = sorted({node.place.scale for node in graph.nodes})
    rows, y = {}, float(MARGIN)
    for scale in scales:
        most = max(len(places) for (at, _), places in cells.items() if at == scale)
        rows[scale] = y + STACK * (most - 1) / 2
        y += ROOM + STACK * (most - 1)
    step = min(WIDEST, max(NARROWEST, (WIDTH - 2 * MARGIN) / max(1, len(keys))))
    spots = {
        place: (MARGIN + step * (at + 0.5), rows[scale] + STACK * (i - (len(places) - 1) / 2))
        for (scale, at), places in cells.items()
        for i, place in enumerate(places)
    }
    return _Layout(spots=spots, rows=rows, step=step, width=2 * MARGIN + step * len(keys), height=y + MARGIN - ROOM)


def _ranks_within(graph: Graph) -> dict[Place, int]:
    """For each place how many others of the same layer and scale lead to it, one after another."""
    ranks: dict[Place, int] = {}
    for place in graph.order:
        alike = [e.source for e in graph.arriving(place) if (e.source.layer, e.source.scale) == place_of(place)]
        ranks[place] = max((ranks[source] + 1 for source in alike), default=0)
    return ranks


def place_of(place: Place) -> tuple[int, int]:
    """Layer and scale, whatever the lane.

    >>> place_of(Place(1, 2, 3))
    (1, 2)
    """
    return place.layer, place.scale


def _widths(kept: Graph, worth: Mapping[str, float]) -> dict[str, float]:
    """Widths by the rank of the worths, which span many powers of ten."""
    names = sorted((edge.name for edge in kept.edges), key=lambda name: worth.get(name, 0.0))
    if not worth:
        return dict.fromkeys(names, 2.0)
    step = (THICKEST - THINNEST) / max(1, len(names) - 1)
    return {name: THINNEST + step * rank for rank, name in enumerate(names)}


def _line(edge: Edge, layout: _Layout) -> str:
    (x, y), (u, v) = layout.spots[edge.source], layout.spots[edge.target]
    side = -26 if x == u else 0
    bow = -18 * (edge.lane % 2) - (20 if y == v and u - x > 1.5 * layout.step else 0)
    return f"M{x:.0f} {y:.0f} Q{(x + u) / 2 + side:.0f} {(y + v) / 2 + 2 * bow:.0f} {u:.0f} {v:.0f}"


def _touched(edge: Edge, layout: _Layout, fact: str) -> str:
    """A wide edge that is not seen, and says what the edge is."""
    said = escape(fact)
    return (
        f'<path class="hit" tabindex="0" role="img" aria-label="{said}" d="{_line(edge, layout)}" fill="none" '
        f'stroke="transparent" stroke-width="12"><title>{said}</title></path>'
    )


def _edge(edge: Edge, layout: _Layout, colour: str, width: float) -> str:
    return (
        f'<path data-edge="{edge.name}" d="{_line(edge, layout)}" fill="none" stroke="{colour}" '
        f'stroke-width="{width:.1f}" stroke-linecap="round" opacity="0.85"><title>{edge.name}</title></path>'
    )


def _node(spot: tuple[float, float], node: Node, alive: bool) -> str:
    x, y = spot
    fill = (LIVE if node.join == "sum" else JOINED) if alive else DEAD
    return (
        f'<circle data-place="{node.place}" cx="{x:.0f}" cy="{y:.0f}" r="{RADIUS}" fill="{fill}" '
        f'stroke="{DARK if alive else PALE}">'
        f"<title>{node.place}</title></circle>"
        f'<text x="{x:.0f}" y="{y + 3.5:.0f}" text-anchor="middle" font-size="{11 if node.channels < 1000 else 8}" '
        f'fill="{"#fff" if alive else "#a9b4bd"}">{node.channels}</text>'
    )


def _row(scale: int, y: float, width: float) -> str:
    said = "1 pixel" if scale >= POINT else f"1/{2**scale}" if scale else "full size"
    return (
        f'<line x1="{MARGIN}" x2="{width - MARGIN:.0f}" y1="{y:.0f}" y2="{y:.0f}" stroke="#f3f6f8"/>'
        f'<text x="4" y="{y + 4:.0f}" font-size="9" fill="#8a97a1">{said}</text>'
    )


def _entry(spot: tuple[float, float]) -> str:
    x, y = spot
    return f'<text x="{x:.0f}" y="{y - RADIUS - 7:.0f}" text-anchor="middle" fill="{DARK}">images ↓</text>'


def _read(spot: tuple[float, float], name: str, alive: bool) -> str:
    x, y = spot
    colour = DARK if alive else PALE
    return f'<text x="{x:.0f}" y="{y + RADIUS + 13:.0f}" text-anchor="middle" fill="{colour}">↓ {escape(name)}</text>'
