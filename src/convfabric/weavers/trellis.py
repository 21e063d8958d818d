"""The trellis of Convolutional Neural Fabrics (Saxena & Verbeek, NIPS 2016): every scale in every layer.

A node is fed by its own and both neighbouring scales of the layer before. Inside the first layer
each scale also feeds the next coarser one; inside the last layer responses run to where the head reads.
Where coarser scales begin later, what is left is a band along the way down.
"""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import Entry, Graph, Head, Node, Place
from convfabric.graph.laws import check
from convfabric.operators import Chain, Norm
from convfabric.weavers.builder import ACTIVATIONS, Activation, Purpose
from convfabric.weavers.trellis_edges import Kind, edges_of, stem
from convfabric.weavers.trellis_wiring import between_layers, within_first_layer, within_last_layer


@dataclass(frozen=True, kw_only=True)
class Trellis:
    """The numbers of a trellis."""

    layers: int = 8
    """Columns of nodes that each scale has, the first included."""
    scales: int = 6
    """Rows of nodes."""
    channels: int = 64
    """Of each node at the finest scale."""
    doubling: bool = False
    """Whether each coarser scale has twice the channels; else all have the same."""
    delay: int = 0
    """Columns by which each scale begins, and ends, behind the finer one. 0: all scales stand in all columns, the
    paper's trellis; as many as layers: one scale behind the other, a way down; in between a band of the trellis."""
    finest: int = 0
    """Scale where the first row stands; images reach it by strided convolutions."""
    operators: Kind = "plain"
    """plain: the paper's 3×3 convolutions. banded: the same between neighbouring channels only, the paper's
    sparse fabric. block: same scale identity + two 3×3, down 3×3 stride 2, up 1×1 and nearest. residual: the same
    function, but identity and branch are edges of their own and the branch has a node inside, so that each can be
    cut alone and the inside narrowed. shortcut: the branch is one 3×3."""
    inner: float = 1.0
    """Channels inside a residual branch, as a multiple of the node's."""
    head: Literal["corner", "all"] = "corner"
    """corner: the paper's, at the coarsest scale (classification) or the finest (segmentation).
    all: every scale of the last layer, which then needs no edges of its own."""
    reach: int = 1
    """Above 1, each node also reads its own scale so many layers before."""
    leap: int = 1
    """Above 1, each node also reads the scales so many away, of the layer before."""
    distances: tuple[int, ...] = ()
    """Of banded operators: how far away further channels are that each reads, where both ends have as many."""
    activation: Activation = "relu"
    """Activation of each node, after its norm. leaky: a tenth of what is below zero is kept. prelu: each channel
    learns how much of it; slower under ONNX Runtime."""
    shared: bool = False
    """Whether the edges of a layer that move alike share their weights, which then see every scale. Where channels
    double, kernels read them by parts, as many as the finest scale has."""

    def __post_init__(self) -> None:
        for name in ("layers", "scales", "channels", "finest", "reach", "leap", "inner"):
            least = {"finest": 0, "inner": 0.01}.get(name, 1)
            if getattr(self, name) < least:
                raise SettingError(f"{name}={getattr(self, name)}: a trellis has at least {least}.")
        late = self.delay and not (0 < self.delay <= self.layers and self.head == "all")
        whole = self.shared and self.doubling and self.operators == "block"
        branches, banded = self.operators in ("residual", "shortcut"), self.operators == "banded"
        far = self.leap > 1 and self.doubling and banded
        for wrong, names, why in (
            (self.distances and not banded, "distances operators", "others read every channel"),
            (late, "delay layers head", "a delay is at most the layers, and every scale is read then, head=all"),
            (self.shared and branches, "shared operators", "branches are edges of their own; share block's"),
            (whole, "shared doubling operators", "where channels double, plain and banded edges can share"),
            (far, "leap doubling operators", "a band joins equal channels, or one and its double"),
        ):
            if wrong:
                said = ", ".join(f"{name}={getattr(self, name)}".replace("True", "true") for name in names.split())
                raise SettingError(f"{said}: {why}.")


def weave_trellis(numbers: Trellis, purpose: Purpose | None = None, name: str = "trellis") -> Graph:
    """The trellis with these numbers.

    >>> len(weave_trellis(Trellis(layers=8, scales=6)).edges)
    122
    >>> down = weave_trellis(Trellis(layers=2, scales=3, delay=2, head="all"))
    >>> ", ".join(edge.name for edge in down.edges)
    'L0S0_L1S0, L1S0_L2S1, L2S1_L3S1, L3S1_L4S2, L4S2_L5S2'
    """
    purpose = purpose or Purpose()
    rows = range(numbers.finest, numbers.finest + numbers.scales)
    columns = {s: range(begin := numbers.delay * i, begin + numbers.layers) for i, s in enumerate(rows)}
    channels = {s: numbers.channels << (s - numbers.finest if numbers.doubling else 0) for s in rows}
    corner = rows[-1] if purpose.task == "classification" else rows[0]
    reads = tuple(Place(columns[s][-1], s) for s in (rows if numbers.head == "all" else (corner,)))
    pairs = list(between_layers(columns, numbers.reach, numbers.leap))
    if not numbers.delay:
        pairs = [*within_first_layer(rows), *pairs]
    if numbers.head == "corner":
        pairs += within_last_layer(rows, numbers.layers - 1, corner)
    then = Chain((Norm(), ACTIVATIONS[numbers.activation]))
    places = sorted(Place(x, s) for s in rows for x in columns[s])
    grid = [Node(place=place, channels=channels[place.scale], then=then) for place in places]
    width = numbers.channels if numbers.shared and numbers.doubling else 0
    edges = tuple(
        edge for a, b in pairs for edge in edges_of(numbers.operators, a, b, numbers.shared, numbers.distances, width)
    )
    inside = {edge.target for edge in edges if edge.target.lane}
    narrow = {place: max(1, round(channels[place.scale] * numbers.inner)) for place in inside}
    within = [Node(place=place, channels=width, then=then) for place, width in narrow.items()]
    entered = stem(numbers.operators, numbers.finest)
    graph = Graph(
        name=name,
        nodes=(*grid, *sorted(within, key=lambda node: node.place)),
        edges=edges,
        entry=Entry(place=Place(0, numbers.finest), operator=entered, image_channels=purpose.image_channels),
        heads=(Head(task=purpose.task, classes=purpose.classes, reads=reads),),
    )
    return check(graph, purpose.size)
