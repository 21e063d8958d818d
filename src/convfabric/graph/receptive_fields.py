"""What a response sees of the image, by arithmetic."""

import math
from dataclasses import dataclass

from convfabric.graph.structure import POINT, Graph, Place
from convfabric.operators import Halo


@dataclass(frozen=True, kw_only=True)
class Field:
    """The part of the image that one pixel of a response depends on, in pixels of the image.

    The pixel in row i and column j is centred on the image's pixel (i · stride, j · stride).
    """

    above: float
    below: float
    left: float
    right: float
    stride: int
    """Pixels of the image between neighbouring pixels of the response."""

    @property
    def height(self) -> float:
        """Rows; infinite behind a global pool."""
        return self.above + 1 + self.below

    @property
    def width(self) -> float:
        """Columns; infinite behind a global pool."""
        return self.left + 1 + self.right


def receptive_fields(graph: Graph) -> dict[Place, Field]:
    """The receptive field of every node: the widest over all routes that lead to it.

    It is exact where no route goes to a finer scale; where one does, some pixels may see less than the others.

    >>> from convfabric.weavers import weave
    >>> vgg = weave("vgg-16")
    >>> field = receptive_fields(vgg)[next(node.place for node in vgg.nodes if node.place.scale == 4)]
    >>> field.height, field.stride
    (132.0, 16)
    """
    halos: dict[Place, Halo] = {}
    for place in graph.order:
        arriving = [
            _grown(halos[edge.source], edge.operator.halo, min(edge.source.scale, place.scale))
            for edge in graph.arriving(place)
        ]
        if place == graph.entry.place:
            arriving.append(graph.entry.operator.halo)
        above, below, left, right = (max(halo[side] for halo in arriving) for side in range(4))
        halos[place] = above, below, left, right
    return {place: _field(halo, place) for place, halo in halos.items()}


def _grown(halo: Halo, by: Halo, scale: int) -> Halo:
    """A halo in pixels of the image, wider by one that is counted in pixels of a scale."""
    above, below, left, right = (a + b * 2.0**scale for a, b in zip(halo, by, strict=True))
    return above, below, left, right


def _field(halo: Halo, place: Place) -> Field:
    above, below, left, right = (math.inf,) * 4 if place.scale >= POINT else halo
    return Field(above=above, below=below, left=left, right=right, stride=2**place.scale)
