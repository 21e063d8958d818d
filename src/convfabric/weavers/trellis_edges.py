"""Operators on the edges of a trellis, by its kind: one scale down, along, or up."""

from collections.abc import Iterator
from typing import Literal

from convfabric.graph import Edge, Place
from convfabric.operators import (
    BandedConv,
    Conv,
    Identity,
    Operator,
    UpConv,
    pointwise_up,
    residual,
    strided_stem,
)

Kind = Literal["plain", "banded", "block", "shortcut", "residual"]


def stem(kind: Kind, finest: int) -> Operator:
    """From the images to the first row.

    >>> stem("plain", 0).stride, stem("plain", 2).stride
    (1, 4)
    """
    return strided_stem(finest) if kind in ("block", "shortcut", "residual") or finest else Conv()


def edges_of(kind: Kind, source: Place, target: Place, shared: bool, distances: tuple[int, ...] = ()) -> Iterator[Edge]:
    """The edges between two nodes: one; along a scale a shortcut and one more, or two with a node inside.

    >>> [edge.name for edge in edges_of("shortcut", Place(0, 0), Place(1, 0), shared=False)]
    ['L0S0_L1S0', 'L0S0_L1S0_1']
    >>> [edge.name for edge in edges_of("residual", Place(0, 0), Place(1, 0), shared=False)]
    ['L0S0_L1S0', 'L0S0_L1S0B1', 'L1S0B1_L1S0']
    """
    far, step = target.layer - source.layer, target.scale - source.scale
    if kind == "residual" and step == 0:
        inside = Place(target.layer, target.scale, lane=far)
        yield Edge(source=source, target=target, operator=Identity())
        yield Edge(source=source, target=inside, operator=Conv(bias=False))
        yield Edge(source=inside, target=target, operator=Conv(bias=False))
        return
    if kind == "shortcut" and step == 0:
        yield Edge(source=source, target=target, operator=Identity())
        yield Edge(source=source, target=target, operator=Conv(bias=False), lane=1)
        return
    name = f"layer{target.layer}_{('up', 'same', 'down')[step + 1]}_{far}" if shared else ""
    yield Edge(source=source, target=target, operator=_operator(kind, step, distances), shared=name)


def _operator(kind: Kind, step: int, distances: tuple[int, ...]) -> Operator:
    if kind == "plain":
        return UpConv() if step < 0 else Conv(stride=1 + step)
    if kind == "banded":
        return BandedConv(scales=(-1, 0, 1)[step + 1], distances=distances)
    return (pointwise_up(), residual(), Conv(stride=2, bias=False))[step + 1]
