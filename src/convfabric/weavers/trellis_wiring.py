"""Which nodes of a trellis an edge joins: within its first layer, between neighbouring layers, within its last."""

from collections.abc import Iterator, Mapping

from convfabric.graph import Place


def within_first_layer(rows: range) -> Iterator[tuple[Place, Place]]:
    """Each scale to the next coarser one.

    >>> [f"{source} {target}" for source, target in within_first_layer(range(3))]
    ['L0S0 L0S1', 'L0S1 L0S2']
    """
    yield from ((Place(0, s - 1), Place(0, s)) for s in rows[1:])


def between_layers(columns: Mapping[int, range], reach: int = 1, leap: int = 1) -> Iterator[tuple[Place, Place]]:
    """Neighbouring scales of neighbouring columns, the same scale so many columns before, scales so many away.

    ``columns``: for each scale those in which it has a node.

    >>> [f"{source} {target}" for source, target in between_layers({0: range(2), 1: range(1, 3)})]
    ['L0S0 L1S0', 'L0S0 L1S1', 'L1S0 L2S1', 'L1S1 L2S1']
    """
    every = {Place(x, s) for s, own in columns.items() for x in own}
    for target in sorted(every):
        x, s = target.layer, target.scale
        sources = [Place(x - 1, near) for near in (s - 1, s, s + 1)] + ([Place(x - reach, s)] if reach > 1 else [])
        sources += [Place(x - 1, far) for far in (s - leap, s + leap) if leap > 1]
        yield from ((source, target) for source in sources if source in every)


def within_last_layer(rows: range, last: int, corner: int) -> Iterator[tuple[Place, Place]]:
    """To where the head reads: up to the finest scale, or down to the coarsest where there are more layers than one.

    >>> [f"{source} {target}" for source, target in within_last_layer(range(3), last=4, corner=0)]
    ['L4S1 L4S0', 'L4S2 L4S1']
    """
    if corner == rows[0]:
        yield from ((Place(last, s + 1), Place(last, s)) for s in rows[:-1])
    elif last > 0:
        yield from ((Place(last, s - 1), Place(last, s)) for s in rows[1:])
