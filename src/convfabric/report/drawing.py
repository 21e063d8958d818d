"""A graph drawn on its grid, as SVG: layers from left to right, the finest scale on top."""

from collections.abc import Mapping
from html import escape

from convfabric.graph import Edge, Graph, Place

STEP_X, STEP_Y, MARGIN = 96, 72, 48
RADIUS = 11
DARK, PALE, LIVE, DEAD = "#1b4965", "#d7dee4", "#5fa8d3", "#eef2f5"
THINNEST, THICKEST = 1.5, 8.0


def draw(whole: Graph, kept: Graph | None = None, worth: Mapping[str, float] | None = None) -> str:
    """The whole graph, the edges of ``kept`` dark and as wide as their worth, all others pale.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny", size=(8, 8))
    >>> draw(graph).count("<path") == len(graph.edges)
    True
    """
    kept = kept or whole
    scales = sorted({node.place.scale for node in whole.nodes})
    layers = max(node.place.layer for node in whole.nodes) + 1
    alive = {node.place for node in kept.nodes}
    width, height = 2 * MARGIN + STEP_X * layers, 2 * MARGIN + STEP_Y * (len(scales) - 1)
    widths = _widths(kept, worth or {})
    cut = [edge for edge in whole.edges if edge.name not in kept.edge_names]
    shapes = [
        *(_edge(edge, scales[0], PALE, 1.0) for edge in cut),
        *(_edge(edge, scales[0], DARK, widths[edge.name]) for edge in kept.edges),
        *(_node(node.place, scales[0], node.channels, node.place in alive) for node in whole.nodes),
        _entry(whole.entry.place, scales[0]),
        *(_read(place, scales[0], place in kept.head.reads) for place in whole.head.reads),
    ]
    title = f"{whole.name}: {len(kept.edges)} of {len(whole.edges)} edges kept"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="sans-serif" font-size="11"><title>{escape(title)}</title>' + "".join(shapes) + "</svg>"
    )


def _spot(place: Place, finest: int) -> tuple[int, int]:
    return MARGIN + STEP_X // 2 + STEP_X * place.layer, MARGIN + STEP_Y * (place.scale - finest)


def _widths(kept: Graph, worth: Mapping[str, float]) -> dict[str, float]:
    """Widths by the rank of the worths, which span many powers of ten."""
    names = sorted((edge.name for edge in kept.edges), key=lambda name: worth.get(name, 0.0))
    if not worth:
        return dict.fromkeys(names, 2.0)
    step = (THICKEST - THINNEST) / max(1, len(names) - 1)
    return {name: THINNEST + step * rank for rank, name in enumerate(names)}


def _edge(edge: Edge, finest: int, colour: str, width: float) -> str:
    (x, y), (u, v) = _spot(edge.source, finest), _spot(edge.target, finest)
    bend = STEP_X // 4 if edge.source.layer == edge.target.layer else 0
    line = f"M{x} {y} Q{(x + u) / 2 - bend:.0f} {(y + v) / 2:.0f} {u} {v}"
    return (
        f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="{width:.1f}" stroke-linecap="round" '
        f'opacity="0.85"><title>{edge.name}</title></path>'
    )


def _node(place: Place, finest: int, channels: int, alive: bool) -> str:
    x, y = _spot(place, finest)
    return (
        f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="{LIVE if alive else DEAD}" stroke="{DARK if alive else PALE}"/>'
        f'<text x="{x}" y="{y + 4}" text-anchor="middle" fill="{"#fff" if alive else "#a9b4bd"}">{channels}</text>'
    )


def _entry(place: Place, finest: int) -> str:
    x, y = _spot(place, finest)
    return f'<text x="{x - RADIUS - 6}" y="{y + 4}" text-anchor="end" fill="{DARK}">images →</text>'


def _read(place: Place, finest: int, alive: bool) -> str:
    x, y = _spot(place, finest)
    return f'<text x="{x + RADIUS + 6}" y="{y + 4}" fill="{DARK if alive else PALE}">→ head</text>'
