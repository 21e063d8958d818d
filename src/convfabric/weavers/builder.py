"""The purpose of a network, and a graph being drawn up: the two things that every weaver uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from convfabric.errors import GraphError, SettingError
from convfabric.graph import NORM_AND_RELU, Edge, Entry, Graph, Head, Join, Node, Place, Task
from convfabric.graph.laws import check
from convfabric.operators import Identity, LeakyRelu, Nearest, Operator, PRelu, Relu, Size, Switches
from convfabric.operators.field_kinds import misfits

PLAIN = Identity()
"""Operator of a node that does nothing after joining."""
Activation = Literal["relu", "leaky", "prelu"]
ACTIVATIONS: Mapping[Activation, Operator] = MappingProxyType({"relu": Relu(), "leaky": LeakyRelu(), "prelu": PRelu()})
"""Activations behind norms that a network lets one choose."""
Arrival = tuple[Place, Operator]
"""Where a response comes from, and what is done to it on the way."""


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """Inputs and outputs of a network."""

    task: Task = "classification"
    classes: int = 10
    image_channels: int = 3
    size: Size = (32, 32)
    """Height and width of the images in pixels; most networks run at others as well."""

    def __post_init__(self) -> None:
        if wrong := list(misfits(self)):
            raise SettingError(f"{'; '.join(wrong)}.")
        least = 1 if self.task == "detection" else 2
        if self.classes < least or self.image_channels < 1 or len(self.size) != 2 or min(self.size) < 1:
            asked = f"{self.classes} classes, {self.image_channels} image channels and size={self.size}"
            raise SettingError(
                f"{asked}: at least {least} classes, 1 image channel and a size of 1×1 pixels are needed."
            )


@dataclass
class Draft:
    """A graph being drawn up, node by node; :meth:`finished` gives the frozen one."""

    name: str
    purpose: Purpose
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    entry: Entry | None = None

    def enter(self, place: Place, operator: Operator, channels: int, then: Operator = NORM_AND_RELU) -> Place:
        """The node where images enter."""
        self.entry = Entry(place=place, operator=operator, image_channels=self.purpose.image_channels)
        self.nodes.append(Node(place=place, channels=channels, then=then))
        return place

    def put(
        self, place: Place, channels: int, *arriving: Arrival, then: Operator = NORM_AND_RELU, join: Join = "sum"
    ) -> Place:
        """A node and what arrives there; arrivals from the same place are told apart by their lanes."""
        self.nodes.append(Node(place=place, channels=channels, then=then, join=join))
        for i, (source, operator) in enumerate(arriving):
            lane = sum(other == source for other, _ in arriving[:i])
            self.edges.append(Edge(source=source, target=place, operator=operator, lane=lane))
        return place

    def concat(self, place: Place, *sources: Place, then: Operator = PLAIN) -> Place:
        """A node where responses stand one after another; it has the channels of all of them."""
        channels = sum(self.channels(source) for source in sources)
        return self.put(place, channels, *((source, PLAIN) for source in sources), then=then, join="concatenation")

    def unpool(self, place: Place, coarse: Place, finer: Place) -> Place:
        """A node with the values of a coarse map where the 2×2 max pool of a finer map found its own, and zeros."""
        raised, switches = (coarse, Nearest()), (finer, Switches())
        return self.put(place, self.channels(coarse), raised, switches, then=PLAIN, join="product")

    def channels(self, place: Place) -> int:
        """Channels of a node that was put there."""
        found = [node.channels for node in self.nodes if node.place == place]
        if not found:
            raise GraphError(f"{self.name} has no node {place} yet.")
        return found[0]

    def answer(self, *reads: Place, linear: bool = True, name: str = "head") -> None:
        """A head that reads these places."""
        task, classes = self.purpose.task, self.purpose.classes
        self.heads.append(Head(task=task, classes=classes, reads=reads, linear=linear, name=name))

    def finished(self, dead_ends: bool = False) -> Graph:
        """The graph, checked against every law; where there may be dead ends, without them."""
        if self.entry is None or not self.heads:
            raise GraphError(f"{self.name}: {'nothing answers' if self.entry else 'images enter nowhere'}.")
        nodes, edges, heads = tuple(self.nodes), tuple(self.edges), tuple(self.heads)
        graph = Graph(name=self.name, nodes=nodes, edges=edges, entry=self.entry, heads=heads)
        return check(graph.restrict(graph.edge_names) if dead_ends else graph, self.purpose.size)
