"""The trellis of Convolutional Neural Fabrics (Saxena & Verbeek, NIPS 2016): every scale in every layer.

A node is fed by its own and both neighbouring scales of the layer before. Inside the first layer
each scale also feeds the next coarser one; inside the last layer responses run to where the head reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import Entry, Graph, Head, Node, Place
from convfabric.graph.laws import check
from convfabric.operators import Chain, Norm
from convfabric.weavers.builder import ACTIVATIONS, Activation, Purpose
from convfabric.weavers.trellis_edges import Kind, edges_of, stem


@dataclass(frozen=True, kw_only=True)
class Trellis:
    """The numbers of a trellis."""

    layers: int = 8
    """Columns of nodes, the first included."""
    scales: int = 6
    """Rows of nodes."""
    channels: int = 64
    """Of each node at the finest scale."""
    doubling: bool = False
    """Whether each coarser scale has twice the channels; else all have the same."""
    finest: int = 0
    """Scale where the first row stands; images reach it by strided convolutions."""
    operators: Kind = "plain"
    """plain: the paper's 3×3 convolutions. banded: the same between neighbouring channels only, the paper's
    sparse fabric. block: same scale identity + two 3×3, down 3×3 stride 2, up 1×1 and nearest. residual: the same
    function, but identity and branch are edges of their own and the branch has a node inside, so that each can be
    cut alone and the inside narrowed."""
    inner: float = 1.0
    """Channels inside a residual branch, as a multiple of the node's."""
    head: Literal["corner", "all"] = "corner"
    """corner: the paper's, at the coarsest scale (classification) or the finest (segmentation).
    all: every scale of the last layer, which then needs no edges of its own."""
    reach: int = 1
    """Above 1, each node also reads its own scale so many layers before."""
    activation: Activation = "relu"
    """Activation of each node, after its norm. leaky: a tenth of what is below zero is kept. prelu: each channel
    learns how much of it; slower under ONNX Runtime."""
    shared: bool = False
    """Whether the edges of a layer that move alike share their weights, which then see every scale."""

    def __post_init__(self) -> None:
        for name, least in (
            ("layers", 1),
            ("scales", 1),
            ("channels", 1),
            ("finest", 0),
            ("reach", 1),
            ("inner", 0.01),
        ):
            if getattr(self, name) < least:
                raise SettingError(f"{name}={getattr(self, name)}: a trellis has at least {least}.")
        if self.shared and self.operators == "residual":
            raise SettingError("shared=true, operators=residual: branches have nodes of their own; share block's.")
        if self.shared and self.doubling:
            raise SettingError("shared=true, doubling=true: weights are shared among scales of equal channels.")


def weave_trellis(numbers: Trellis, purpose: Purpose | None = None, name: str = "trellis") -> Graph:
    """The trellis with these numbers.

    >>> len(weave_trellis(Trellis(layers=8, scales=6)).edges)
    122
    """
    purpose = purpose or Purpose()
    rows, last = range(numbers.finest, numbers.finest + numbers.scales), numbers.layers - 1
    channels = {s: numbers.channels << (s - numbers.finest if numbers.doubling else 0) for s in rows}
    corner = rows[-1] if purpose.task == "classification" else rows[0]
    reads = tuple(Place(last, s) for s in (rows if numbers.head == "all" else (corner,)))
    last_column = () if numbers.head == "all" else _last_layer(rows, last, corner)
    pairs = (*_first_layer(rows), *_between_layers(rows, numbers), *last_column)
    then = Chain((Norm(), ACTIVATIONS[numbers.activation]))
    grid = [Node(place=Place(x, s), channels=channels[s], then=then) for x in range(numbers.layers) for s in rows]
    edges = tuple(edge for a, b in pairs for edge in edges_of(numbers.operators, a, b, numbers.shared))
    inside = {edge.target for edge in edges if edge.target.lane}
    narrow = {place: max(1, round(channels[place.scale] * numbers.inner)) for place in inside}
    within = [Node(place=place, channels=width, then=then) for place, width in narrow.items()]
    graph = Graph(
        name=name,
        nodes=(*grid, *sorted(within, key=lambda node: node.place)),
        edges=edges,
        entry=Entry(
            place=Place(0, numbers.finest),
            operator=stem(numbers.operators, numbers.finest),
            image_channels=purpose.image_channels,
        ),
        heads=(Head(task=purpose.task, classes=purpose.classes, reads=reads),),
    )
    return check(graph, purpose.size)


def _first_layer(rows: range) -> Iterator[tuple[Place, Place]]:
    yield from ((Place(0, s - 1), Place(0, s)) for s in rows[1:])


def _between_layers(rows: range, numbers: Trellis) -> Iterator[tuple[Place, Place]]:
    for layer in range(1, numbers.layers):
        for s in rows:
            yield from ((Place(layer - 1, near), Place(layer, s)) for near in (s - 1, s, s + 1) if near in rows)
            if 1 < numbers.reach <= layer:
                yield Place(layer - numbers.reach, s), Place(layer, s)


def _last_layer(rows: range, last: int, corner: int) -> Iterator[tuple[Place, Place]]:
    if corner == rows[0]:
        yield from ((Place(last, s + 1), Place(last, s)) for s in rows[:-1])
    elif last > 0:
        yield from ((Place(last, s - 1), Place(last, s)) for s in rows[1:])
