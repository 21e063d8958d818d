"""Operators on the edges of a trellis, by its kind: one scale down, along, or up."""

from collections.abc import Iterator
from typing import Literal

from convfabric.graph import Edge, Place
from convfabric.operators import (
    BandedConv,
    ByParts,
    Chain,
    Conv,
    Identity,
    Nearest,
    Operator,
    Pool,
    UpConv,
    mapped,
    pointwise,
    pointwise_up,
    residual,
    strided_stem,
)

Kind = Literal["plain", "banded", "block", "shortcut", "residual"]
Down = Literal["strided", "pooled"]


def stem(kind: Kind, finest: int) -> Operator:
    """From the images to the first row.

    >>> stem("plain", 0).stride, stem("plain", 2).stride
    (1, 4)
    """
    return strided_stem(finest) if kind in ("block", "shortcut", "residual") or finest else Conv()


def edges_of(
    kind: Kind,
    source: Place,
    target: Place,
    shared: bool,
    distances: tuple[int, ...] = (),
    width: int = 0,
    down: Down = "strided",
) -> Iterator[Edge]:
    """The edges between two nodes: one; along a scale a shortcut and one more, or two with a node inside.

    With a width, channels are read by parts of so many at the finest scale, so that all scales can share weights.

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
    operator = _operator(kind, step, distances, down) if abs(step) <= 1 else _leap(kind, step, distances, down)
    if width:
        wide = width << max(0, -step)
        operator = mapped(operator, lambda one: one if one.keeps_channels else ByParts(each=one, width=wide))
    way = f"{'up' if step < 0 else 'down'}{abs(step) if abs(step) > 1 else ''}" if step else "same"
    yield Edge(source=source, target=target, operator=operator, shared=f"layer{target.layer}_{way}_{far}" * shared)


def _operator(kind: Kind, step: int, distances: tuple[int, ...], down: Down = "strided") -> Operator:
    if step == 1 and down == "pooled":
        return Chain((_operator(kind, 0, distances) if kind == "plain" else Conv(bias=False), Pool()))
    if kind == "plain":
        return UpConv() if step < 0 else Conv(stride=1 + step)
    if kind == "banded":
        return BandedConv(scales=(-1, 0, 1)[step + 1], distances=distances)
    return (pointwise_up(), residual(), Conv(stride=2, bias=False))[step + 1]


def _leap(kind: Kind, step: int, distances: tuple[int, ...], down: Down) -> Operator:
    """Over more scales than one: means first, then as to the next; or kernels at the coarse scale, then repeated."""
    if step > 0:
        side = 2 ** (step - 1)
        return Chain((Pool(kind="average", kernel=side, stride=side), _operator(kind, 1, distances, down)))
    kernels = pointwise() if kind not in ("plain", "banded") else _operator(kind, 0, distances)
    return Chain((kernels, Nearest(doublings=-step)))
