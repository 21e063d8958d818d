"""Receptive fields of responses, by arithmetic."""

import math
from dataclasses import dataclass

from convfabric.graph.parts import Place
from convfabric.graph.structure import Graph
from convfabric.operators import WHOLE_MAP, Halo, Operator


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
    strides: dict[Place, float] = {}
    for place in graph.order:
        before = [(edge.operator, halos[edge.source], strides[edge.source]) for edge in graph.arriving(place)]
        if place == graph.entry.place:
            before.append((graph.entry.operator, (0.0, 0.0, 0.0, 0.0), 1.0))
        grown = [_grown(halo, operator, stride) for operator, halo, stride in before]
        above, below, left, right = (max(halo[side] for halo in grown) for side in range(4))
        halos[place] = above, below, left, right
        strides[place] = min(stride * operator.stride for operator, _, stride in before)
    return {place: _field(halos[place], strides[place]) for place in halos}


def _grown(halo: Halo, operator: Operator, stride: float) -> Halo:
    """A halo in pixels of the image, wider by an operator's, which is counted on the finer of its two maps."""
    unit = min(stride, stride * operator.stride)
    above, below, left, right = (a + (b * unit if b else 0.0) for a, b in zip(halo, operator.halo, strict=True))
    return above, below, left, right


def _field(halo: Halo, stride: float) -> Field:
    if math.isinf(stride):
        return Field(above=math.inf, below=math.inf, left=math.inf, right=math.inf, stride=2**WHOLE_MAP)
    above, below, left, right = halo
    return Field(above=above, below=below, left=left, right=right, stride=round(stride))
