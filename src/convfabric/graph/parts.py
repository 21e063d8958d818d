"""The parts of a graph: places, nodes, edges, where images enter, heads; and what follows for running and cutting."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from convfabric.operators import WHOLE_MAP, Chain, Norm, Operator, Relu

Task = Literal["classification", "segmentation", "detection"]
Join = Literal["sum", "concatenation", "product"]
SHAPES = 6
"""Boxes of different shapes that detection looks for at every pixel, see :func:`convfabric.boxes.anchors.anchors`."""
POINT = WHOLE_MAP
"""The scale of maps that have one pixel whatever the images' size: what is left after a global pool."""
NORM_AND_RELU = Chain((Norm(), Relu()))


class Place(NamedTuple):
    """Where a node is drawn: layer 0 is nearest the images, each further scale where maps are about half as large.

    Sizes are what operators say, see :func:`convfabric.graph.sizes.map_sizes`.

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
    """Whether what arrives is added, stands one after another in the order of the edges, or is multiplied.

    In a product maps of one pixel, or of one channel, count for every pixel, or channel."""
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

    @property
    def passes_images(self) -> bool:
        """Whether the node's channels are the image's, which can neither go nor change places."""
        return self.operator.keeps_channels


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where answers are read, and what they are. A graph with several has several exits.

    Classification averages each response over its pixels and adds one linear map per response;
    segmentation adds one 1×1 convolution per response, enlarged to the finest of them and then to the image;
    detection has one 1×1 convolution per response, and its answers stand one after another.
    """

    task: Task
    classes: int
    reads: tuple[Place, ...]
    linear: bool = True
    """Whether there are such maps; if not, the responses' channels are the classes, and are added."""
    name: str = "head"

    @property
    def values(self) -> int:
        """Channels of its maps: the classes; of detection, for each shape the classes, none of them, and four sides.

        >>> Head(task="detection", classes=3, reads=(Place(1, 0),)).values
        48
        """
        return SHAPES * (self.classes + 5) if self.task == "detection" else self.classes


@dataclass(frozen=True, kw_only=True)
class Step:
    """One place in the order in which a graph is run."""

    place: Place
    join: Join
    arriving: tuple[tuple[str, str, Place], ...]
    """Of each edge that ends here the name, the name of its weights, and the source."""
    exits: tuple[int, ...]
    """Positions of the heads that can answer now."""
    done: tuple[Place, ...]
    """Places whose responses nobody reads after this."""


@dataclass(frozen=True, kw_only=True)
class Tie:
    """Places whose channels are cut together, unit by unit."""

    places: frozenset[Place]
    units: int
    """How many units the channels of each place are made of: as many as channels, unless operators go by groups."""
    fixed: bool
    """Whether all channels have to stay in their order: they are the image's, or classes that a head reads."""
